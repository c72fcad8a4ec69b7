"""Fewer candidates before the proof: those that no cheapest plan can use.

With rho_t the least cost per capacity of class t, any plan costs at least
``sum_t demand_t * rho_t``, and a plan that uses candidate i at least

    ``c_i + max(0, demand - capacity_i) * rho + (the other classes' bound)``.

A pool of a pair has the other pool's least cost besides, for all that it covers.
A candidate whose bound exceeds the cost of a known plan is in no cheaper one.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from problems.plan import Mode
from solver.counted import Counted
from solver.instance import Instance
from solver.scaling import LARGEST_LOSS

_SLACK = 1e-9


def pruned(instance: Instance) -> Instance:
    """Return the instance without the candidates that no optimal plan can use.

    Limits forbid plans, so the known plan is counted only if it keeps them; the
    bound needs no limits to hold.
    """
    known = instance.known if instance.limited else known_cost(instance)
    if math.isinf(known):
        return instance
    classes = range(len(instance.demand))
    per_capacity = [least_per_capacity(instance, traffic) for traffic in classes]
    bound = [w * r for w, r in zip(instance.demand, per_capacity, strict=True)]
    partners = _partners(instance)
    kept = []
    for candidate in instance.candidates:
        partner = partners.get((candidate.pairing, candidate.mode))
        number = candidate.traffic
        least = _least_with(instance, candidate, per_capacity[number], partner)
        others = sum(bound) - bound[number]
        if least + others <= known * (1 + _SLACK):
            kept.append(candidate)
    return _without_unused(replace(instance, candidates=tuple(whole_pairs(kept))))


def _least_with(
    instance: Instance, candidate: Counted, usual: float, partner: float | None
) -> float:
    """Return what a class costs at least if a candidate is used.

    Parameters
    ----------
    usual
        The least per capacity of whatever serves the class.
    partner
        The least of the candidate's other pool, where it is a pool of a pair.
    """
    wanted, number = instance.demand[candidate.traffic], candidate.least
    paid, covered = number * _cost(instance, candidate), number * candidate.capacity
    used = min(covered, wanted)
    rest = (wanted - used) * usual if used < wanted else 0.0
    return paid + used * (0.0 if partner is None else min(partner, usual)) + rest


def known_plan(instance: Instance) -> tuple[int, ...]:
    """Return replica counts that cover every class, each in one way alone."""
    counts = [0] * len(instance.candidates)
    for traffic in range(len(instance.demand)):
        for used in min(_ways(instance, traffic), key=lambda way: way[0])[1]:
            counts[used] = _replicas(instance, instance.candidates[used])
    return tuple(counts)


def known_cost(instance: Instance) -> float:
    """Return the cost of each class in its cheapest way alone; infinite without any."""
    return sum(
        min((cost for cost, _ in _ways(instance, traffic)), default=math.inf)
        for traffic in range(len(instance.demand))
    )


def lower_bound(instance: Instance) -> float:
    """Return what no plan can undercut: each class at its least cost per capacity."""
    return sum(
        w * least_per_capacity(instance, t) for t, w in enumerate(instance.demand)
    )


def least_per_capacity(instance: Instance, traffic: int) -> float:
    """Return the least cost per capacity of a class, its hosts full."""
    least = _least(instance)
    own = [
        p for p, pairing in enumerate(instance.pairings) if pairing.traffic == traffic
    ]
    pairs = [
        least.get((p, "prefill"), math.inf) + least.get((p, "decode"), math.inf)
        for p in own
    ]
    return min([*pairs, _least_alone(instance, traffic)])


def _least_alone(instance: Instance, traffic: int) -> float:
    """Return the same of replicas that read and answer; infinite without any."""
    return min(
        (
            _cost(instance, c) / c.capacity
            for c in instance.candidates
            if c.traffic == traffic and c.mode == "aggregated"
        ),
        default=math.inf,
    )


Pool = tuple[int, Mode]
"""A pairing's index, and which of its pools."""


def _least(instance: Instance) -> dict[Pool, float]:
    """Return the least cost per capacity of each pool of each pairing."""
    least: dict[Pool, float] = {}
    for c in instance.candidates:
        if c.mode != "aggregated":
            each = _cost(instance, c) / c.capacity
            pool = (c.pairing, c.mode)
            least[pool] = min(each, least.get(pool, math.inf))
    return least


def _partners(instance: Instance) -> dict[Pool, float]:
    """Return what a request's other pool costs at least, for each pool."""
    least, other = _least(instance), _OTHER
    return {(p, other[mode]): cost for (p, mode), cost in least.items()}


_OTHER: dict[Mode, Mode] = {"prefill": "decode", "decode": "prefill"}


def _ways(instance: Instance, traffic: int) -> list[tuple[float, tuple[int, ...]]]:
    """Return what it costs to cover a class with one deployment, or one pair.

    With the candidates' indices; of those of a pairing the cheapest pair.
    """
    pools: dict[Pool, list[tuple[float, int]]] = {}
    for i, c in enumerate(instance.candidates):
        if c.traffic == traffic:
            pools.setdefault((c.pairing, c.mode), []).append((_alone(instance, c), i))
    alone = pools.pop((-1, "aggregated"), [])
    ways: list[tuple[float, tuple[int, ...]]] = [(cost, (i,)) for cost, i in alone]
    for p in {p for p, _ in pools}:
        both = [min(pools.get((p, mode), [(math.inf, -1)])) for mode in _OTHER]
        used = tuple(i for _, i in both)
        if -1 not in used:
            ways.append((sum(cost for cost, _ in both), used))
    return ways


def whole_pairs(candidates: Sequence[Counted]) -> list[Counted]:
    """Return the candidates whose pairing still has the other pool."""
    pools = {(c.pairing, c.mode) for c in candidates}
    return [
        c
        for c in candidates
        if c.mode == "aggregated" or (c.pairing, _OTHER[c.mode]) in pools
    ]


def _cost(instance: Instance, candidate: Counted) -> float:
    """Return what one replica costs at the least: its NPUs in full hosts."""
    return candidate.npus * instance.unit_cost(instance.offers[candidate.offer])


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


def _without_unused(instance: Instance) -> Instance:
    """Return the instance with the offers and pairings alone that candidates name."""
    offers = sorted({candidate.offer for candidate in instance.candidates})
    pairings = sorted({candidate.pairing for candidate in instance.candidates} - {-1})
    offer = {old: new for new, old in enumerate(offers)}
    pairing = {-1: -1} | {old: new for new, old in enumerate(pairings)}
    return replace(
        instance,
        offers=tuple(instance.offers[old] for old in offers),
        pairings=tuple(instance.pairings[old] for old in pairings),
        candidates=tuple(
            replace(c, offer=offer[c.offer], pairing=pairing[c.pairing])
            for c in instance.candidates
        ),
    )
