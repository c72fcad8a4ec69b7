"""Fewer candidates before the proof: those that no cheapest plan can use.

With rho_t the least cost per capacity of class t, any plan costs at least
``sum_t demand_t * rho_t``, and a plan that uses candidate i at least

    ``c_i + max(0, demand - capacity_i) * rho + (the other classes' bound)``.

A candidate whose bound exceeds the cost of a known plan is in no cheaper one.
"""

import math
from dataclasses import replace

from solver.counted import Counted
from solver.instance import Instance
from solver.scaling import LARGEST_LOSS

_SLACK = 1e-9


def pruned(instance: Instance) -> Instance:
    """Return the instance without the candidates that no optimal plan can use.

    Limits forbid plans, so the known plan is counted only if it keeps them; the
    bound needs no limits to hold.
    """
    classes = range(len(instance.demand))
    if instance.limited or {c.traffic for c in instance.candidates} != set(classes):
        return instance
    per_capacity = [_least(instance, traffic) for traffic in classes]
    bound = [w * r for w, r in zip(instance.demand, per_capacity, strict=True)]
    known = sum(
        min(_alone(instance, c) for c in instance.candidates if c.traffic == traffic)
        for traffic in classes
    )
    kept = []
    for candidate in instance.candidates:
        wanted = instance.demand[candidate.traffic]
        covered = candidate.least * candidate.capacity
        rest = max(0.0, wanted - covered) * per_capacity[candidate.traffic]
        others = sum(bound) - bound[candidate.traffic]
        least = candidate.least * _cost(instance, candidate) + rest + others
        if least <= known * (1 + _SLACK):
            kept.append(candidate)
    return _without_unused_offers(replace(instance, candidates=tuple(kept)))


def known_plan(instance: Instance) -> tuple[int, ...]:
    """Return replica counts that cover every class, each with one candidate."""
    counts = [0] * len(instance.candidates)
    for traffic in range(len(instance.demand)):
        mine = [i for i, c in enumerate(instance.candidates) if c.traffic == traffic]
        best = min(mine, key=lambda i: _alone(instance, instance.candidates[i]))
        counts[best] = _replicas(instance, instance.candidates[best])
    return tuple(counts)


def lower_bound(instance: Instance) -> float:
    """Return what no plan can undercut: each class at its least cost per capacity."""
    return sum(w * _least(instance, t) for t, w in enumerate(instance.demand))


def _cost(instance: Instance, candidate: Counted) -> float:
    """Return what one replica costs at the least: its NPUs in full hosts."""
    return candidate.npus * instance.unit_cost(instance.offers[candidate.offer])


def _least(instance: Instance, traffic: int) -> float:
    return min(
        _cost(instance, c) / c.capacity
        for c in instance.candidates
        if c.traffic == traffic
    )


def _alone(instance: Instance, candidate: Counted) -> float:
    """Return the cost of covering the class with this candidate only."""
    offer = instance.offers[candidate.offer]
    replicas = _replicas(instance, candidate)
    hosts = offer.hosts_for({candidate.slot: replicas})
    return offer.billed_npus(hosts, replicas * candidate.npus) * instance.unit_cost(
        offer
    )


def _replicas(instance: Instance, candidate: Counted) -> int:
    # In integers a replica covers less by the loss of scaling: one more may be due.
    covered = candidate.capacity * (1 - LARGEST_LOSS)
    needed = math.ceil(instance.demand[candidate.traffic] / covered)
    return max(needed, candidate.least)


def _without_unused_offers(instance: Instance) -> Instance:
    used = sorted({candidate.offer for candidate in instance.candidates})
    number = {old: new for new, old in enumerate(used)}
    return replace(
        instance,
        offers=tuple(instance.offers[old] for old in used),
        candidates=tuple(
            replace(candidate, offer=number[candidate.offer])
            for candidate in instance.candidates
        ),
    )
