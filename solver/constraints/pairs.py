"""Prefill replicas and decode replicas take what their pair carries."""

from ortools.sat.python import cp_model

from problems.plan import Mode
from solver.variables import Variables

_POOLS: tuple[Mode, ...] = ("prefill", "decode")


def pairs(model: cp_model.CpModel, variables: Variables) -> None:
    """Hold the balance of the pools, and one deployment for each.

    For each pairing and each of its pools ``sum_i capacity_i * replicas_i >= carried``;
    per class one deployment reads and one answers, as a plan has them.
    """
    instance, scaled = variables.instance, variables.scaled
    replicas, candidates = variables.replicas, instance.candidates
    for number in range(len(instance.pairings)):
        own = [i for i, c in enumerate(candidates) if c.pairing == number]
        for mode in _POOLS:
            pool = [i for i in own if candidates[i].mode == mode]
            taken = sum(scaled.capacity[i] * replicas[i] for i in pool)
            model.add(taken >= variables.carried[number]).with_name(f"{mode}_{number}")
    for traffic in {pairing.traffic for pairing in instance.pairings}:
        for mode in _POOLS:
            _one_of(model, variables, traffic, mode)


def _one_of(
    model: cp_model.CpModel, variables: Variables, traffic: int, mode: Mode
) -> None:
    """Let one candidate at most be counted of those that read, or that answer."""
    chosen = []
    for i, candidate in enumerate(variables.instance.candidates):
        if (candidate.traffic, candidate.mode) == (traffic, mode):
            one = model.new_bool_var(f"{mode}_{traffic}_{i}")
            most = max(variables.scaled.most[i], candidate.least)
            model.add(variables.replicas[i] <= most * one).with_name(f"chosen_{i}")
            chosen.append(one)
    model.add(sum(chosen) <= 1).with_name(f"one_{mode}_{traffic}")
