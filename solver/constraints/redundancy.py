"""The demand is met even when the worst hosts fail."""

from collections.abc import Sequence

from ortools.sat.python import cp_model

from solver.variables import Variables

_MOST = 64
"""Worths of a host that are tried for a class: the more, the nearer to the optimum."""


def redundancy(model: cp_model.CpModel, variables: Variables) -> None:
    """For each class, ``sum_i min(c_i, v s_i / h) r_i >= demand + k v`` for some v.

    With every host worth at most v, however full of replicas, the loss of k of them is
    k v at most; h are the NPUs that fail together, s_i the slot, at most one host. By
    duality of the fractional knapsack the best v, one of the worths ``c_i h / s_i`` of
    a host full of one candidate, gives exactly the worst loss.
    """
    instance, scaled = variables.instance, variables.scaled
    lost = instance.redundancy.domains
    if not lost:
        return
    sizes = [instance.domain_npus(offer) for offer in instance.offers]
    for traffic, wanted in enumerate(scaled.demand):
        mine = [
            (i, min(c.slot, instance.offers[c.offer].host_npus), sizes[c.offer])
            for i, c in enumerate(instance.candidates)
            if c.traffic == traffic and c.mode == "aggregated"
        ]
        worths = {-(-scaled.capacity[i] * size // slot) for i, slot, size in mine}
        chosen = []
        for worth in _some(sorted(worths)):
            holds = model.new_bool_var(f"worth_{traffic}_{worth}")
            left = sum(
                min(scaled.capacity[i], worth * slot // size) * variables.replicas[i]
                for i, slot, size in mine
            )
            model.add(left >= wanted + lost * worth).with_name(
                f"left_{traffic}_{worth}"
            ).only_enforce_if(holds)
            chosen.append(holds)
        model.add(sum(chosen) >= 1).with_name(f"survives_{traffic}")


def _some(worths: Sequence[int]) -> Sequence[int]:
    """Return at most so many of the worths, evenly spread, the ends among them."""
    if len(worths) <= _MOST:
        return worths
    step = (len(worths) - 1) / (_MOST - 1)
    return sorted({worths[round(n * step)] for n in range(_MOST)})
