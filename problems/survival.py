"""What of a class's capacity is left when the worst hosts fail.

Nobody knows where the replicas of a host end up beside each other, so the worst is
taken: each host that fails is full of the replicas that cover most per NPU. A replica
that fills several hosts is lost with any of them. What is left of a disaggregated pair
is what is left of the pool that lost more: failures in the other one change nothing.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, product
from typing import NamedTuple, Self

from problems.fleet import Racks, Redundancy
from problems.offers import Offer
from problems.pair_stations import PairStation
from problems.plan import Plan, PlannedDeployment, PlannedPair, Route
from problems.problem import SizingProblem
from problems.serve import capacity, rate_of_users
from problems.stations import QueueStation, Station
from problems.traffic import TrafficClass
from problems.violation import ROUNDING, Violation


def domain_hosts(redundancy: Redundancy, racks: Racks | None, offer: Offer) -> int:
    """Return the hosts of an offer that fail together: one, or those of a rack."""
    if not redundancy.racks or racks is None:
        return 1
    return max(1, racks.holds(offer.node_power) // offer.nodes_per_host)


def left_of(
    problem: SizingProblem, plan: Plan, traffic: TrafficClass, offers: dict[str, Offer]
) -> float:
    """Return what a plan covers of a class at least when hosts have failed.

    Parameters
    ----------
    problem
        How many hosts may fail.
    offers
        By their keys.
    """
    both, *sides = (
        [Standing.of(plan, row, traffic, offers[row.offer]) for row in rows]
        for rows in _sides(plan, traffic)
    )
    return min(
        left_standing(problem, [*both, *chain.from_iterable(worse)])
        for worse in product(*zip(sides[::2], sides[1::2], strict=True))
    )


def survivors(
    problem: SizingProblem, plan: Plan, traffic: TrafficClass, offers: dict[str, Offer]
) -> Iterator[tuple[QueueStation, float]]:
    """Yield queues of replicas that are left alone, and their rate when hosts failed.

    The load of those that failed is dealt out in proportion to what replicas take;
    headroom is not counted. Of a pair both pools get what the worse one does.
    """
    left = left_of(problem, plan, traffic, offers)
    share = traffic.demand(headroom=0.0) / left if left > 0 else math.inf
    for row in plan.aggregated(traffic.name):
        station = Station.of(plan, alone(row), traffic)
        load = share * capacity(plan, row, traffic)
        if traffic.is_closed and math.isfinite(load):
            load = rate_of_users(station, load, row.rate)
        yield station, load
    for pair in plan.pairs(traffic.name):
        for route in pair.routes:
            few = alone_pair(route)
            yield PairStation.full(plan, few, few.routes[0], traffic), share * few.rate


def alone(row: PlannedDeployment) -> PlannedDeployment:
    """Return one replica of a row."""
    return row.model_copy(update={"replicas": 1, "npus": row.npus_per_replica})


def alone_pair(route: Route) -> PlannedPair:
    """Return the pair of one replica at each end of a route."""
    prefill, decode = (alone(row) for row in route)
    return PlannedPair((prefill,), (decode,))


def _sides(
    plan: Plan, traffic: TrafficClass
) -> Iterator[tuple[PlannedDeployment, ...]]:
    """Yield the rows that read and answer, then each pair's pools."""
    yield plan.aggregated(traffic.name)
    for pair in plan.pairs(traffic.name):
        yield from (pair.prefill, pair.decode)


class Standing(NamedTuple):
    """Replicas on an offer: NPUs of one, how many, and what one covers."""

    offer: Offer
    npus: int
    replicas: int
    covers: float

    @classmethod
    def of(
        cls, plan: Plan, row: PlannedDeployment, traffic: TrafficClass, offer: Offer
    ) -> Self:
        """Return how a planned deployment stands."""
        each = capacity(plan, row, traffic) if row.mode == "aggregated" else row.rate
        return cls(offer, row.npus_per_replica, row.replicas, each)


def left_standing(problem: SizingProblem, rows: Iterable[Standing]) -> float:
    """Return what replicas cover at least when hosts have failed."""
    lost, left = float(problem.redundancy.domains), 0.0
    worth = []
    for row in rows:
        npus = min(row.offer.slot(row.npus), row.offer.host_npus)
        together = domain_hosts(problem.redundancy, problem.limits.racks, row.offer)
        share = npus / (row.offer.host_npus * together)
        worth.append((row.covers / share, share * row.replicas))
        left += row.covers * row.replicas
    for covered_per_domain, domains in sorted(worth, reverse=True):
        taken = min(lost, domains)
        left -= taken * covered_per_domain
        lost -= taken
    return left


def survival_violations(
    problem: SizingProblem, plan: Plan, traffic: TrafficClass, offers: dict[str, Offer]
) -> Iterator[Violation]:
    """Yield what is wrong with a class's plan when hosts fail, if they may."""
    if not problem.redundancy.domains:
        return
    if any(row.offer not in offers for row in plan.of_class(traffic.name)):
        return
    yield from too_little(problem, traffic, left_of(problem, plan, traffic, offers))


def too_little(
    problem: SizingProblem, traffic: TrafficClass, left: float
) -> Iterator[Violation]:
    """Yield that what is left of a class's capacity is less than its demand."""
    wanted = traffic.demand(problem.headroom)
    if left < wanted * (1 - ROUNDING):
        left = left if left > wanted * ROUNDING else 0.0
        said = f"{problem.redundancy.text} lost leave {left:.6g} of {wanted:.6g}"
        yield Violation(f"{traffic.name} redundancy", said)
