"""The demand is met even when the worst hosts fail."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from ortools.sat.python import cp_model

from problems.plan import Mode
from solver.scaling import Scaled
from solver.variables import Variables

_MOST = 64
"""Worths of a host that are tried for a class: the more, the nearer to the optimum."""

_SHARES = 10**9
"""Parts that a class's demand is divided into for the cover."""


class _Standing(NamedTuple):
    """A candidate's index, its NPUs of a host, and the NPUs that fail with them."""

    number: int
    slot: int
    together: int

    @classmethod
    def of(cls, variables: Variables, number: int) -> Self:
        """Return how a candidate stands on its offer's hosts."""
        instance = variables.instance
        candidate = instance.candidates[number]
        offer = instance.offers[candidate.offer]
        slot = min(candidate.slot, offer.host_npus)
        return cls(number, slot, instance.domain_npus(offer))

    def counted(self, scaled: Scaled, worth: int) -> int:
        """Return what a replica covers where a host is worth no more than this."""
        share = worth * self.slot // self.together
        return min(scaled.capacity[self.number], share)


def redundancy(model: cp_model.CpModel, variables: Variables) -> None:
    """For each class, ``sum_i min(c_i, v s_i / h) r_i >= demand + k v`` for some v.

    With every host worth at most v, however full of replicas, the loss of k of them is
    k v at most; h are the NPUs that fail together, s_i the slot, at most one host. By
    duality of the fractional knapsack the best v, one of the worths ``c_i h / s_i`` of
    a host full of one candidate, gives exactly the worst loss.

    Whichever v holds, ``sum_i max_v (min(c_i, v s_i / h) / (demand + k v)) r_i >= 1``,
    a cover without which the linear relaxation would know nothing of failures.

    Where a class may have a pair, this holds with the replicas of each of its pools:
    the pair is worth what is left of the worse one.
    """
    instance = variables.instance
    if not instance.redundancy.domains:
        return
    for traffic in range(len(instance.demand)):
        _one_pair(model, variables, traffic)
        modes = {c.mode for c in instance.candidates if c.traffic == traffic}
        for mode in sorted(modes - {"aggregated"}) or ["aggregated"]:
            _side(model, variables, traffic, mode)


def _one_pair(model: cp_model.CpModel, variables: Variables, traffic: int) -> None:
    """Let a class have one pair at most: the worse pool is then the same of all."""
    instance, used = variables.instance, {}
    for i, candidate in enumerate(instance.candidates):
        if candidate.traffic == traffic and candidate.mode != "aggregated":
            number = candidate.pairing
            if number not in used:
                used[number] = model.new_bool_var(f"used_{number}")
            most = max(variables.most(i), candidate.least)
            model.add(variables.replicas[i] <= most * used[number])
    if used:
        model.add(sum(used.values()) <= 1).with_name(f"one_pair_{traffic}")


def _side(
    model: cp_model.CpModel, variables: Variables, traffic: int, mode: Mode
) -> None:
    """Hold what is left of replicas that read and answer, and of pools of a mode."""
    instance, scaled = variables.instance, variables.scaled
    lost, wanted = instance.redundancy.domains, scaled.demand[traffic]
    of = f"{traffic}_{mode}"
    mine = [
        _Standing.of(variables, i)
        for i, candidate in enumerate(instance.candidates)
        if candidate.traffic == traffic and candidate.mode in ("aggregated", mode)
    ]
    worths = _some({-(-scaled.capacity[m.number] * m.together // m.slot) for m in mine})
    chosen = []
    for worth in worths:
        holds = model.new_bool_var(f"worth_{of}_{worth}")
        left = sum(
            m.counted(scaled, worth) * variables.replicas[m.number] for m in mine
        )
        model.add(left >= wanted + lost * worth).with_name(
            f"left_{of}_{worth}"
        ).only_enforce_if(holds)
        chosen.append(holds)
    model.add(sum(chosen) >= 1).with_name(f"survives_{of}")
    cover = sum(
        max(
            -(-_SHARES * m.counted(scaled, worth) // (wanted + lost * worth))
            for worth in worths
        )
        * variables.replicas[m.number]
        for m in mine
    )
    model.add(cover >= _SHARES).with_name(f"cover_{of}")


def _some(worths: set[int]) -> Sequence[int]:
    """Return at most so many of the worths, evenly spread, the ends among them."""
    rising = sorted(worths)
    if len(rising) <= _MOST:
        return rising
    step = (len(rising) - 1) / (_MOST - 1)
    return sorted({rising[round(n * step)] for n in range(_MOST)})
