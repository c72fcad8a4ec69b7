"""Prefill replicas and decode replicas take what their pair carries."""

from ortools.sat.python import cp_model

from problems.plan import Mode
from solver.variables import Variables

_POOLS: tuple[Mode, ...] = ("prefill", "decode")


def pairs(model: cp_model.CpModel, variables: Variables) -> None:
    """``sum_i capacity_i * replicas_i >= carried`` for each pool of each pairing.

    A pool may mix deployments, and a class may have several pairs: what a candidate
    takes hangs on its pairing's terms alone.
    """
    instance, scaled = variables.instance, variables.scaled
    replicas, candidates = variables.replicas, instance.candidates
    for number in range(len(instance.pairings)):
        own = [i for i, c in enumerate(candidates) if c.pairing == number]
        for mode in _POOLS:
            pool = [i for i in own if candidates[i].mode == mode]
            taken = sum(scaled.capacity[i] * replicas[i] for i in pool)
            model.add(taken >= variables.carried[number]).with_name(f"{mode}_{number}")
