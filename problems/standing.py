"""How the plan of one problem stands under another: at its prices, by its rules."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from problems.offers import Offer, offers
from problems.pair_stations import PairStation
from problems.plan import Bought, Plan, PlannedDeployment
from problems.problem import SizingProblem
from problems.serve import capacity, covered, rate_of_users
from problems.stated import bought
from problems.stations import QueueStation, Station
from problems.survival import left_of
from problems.traffic import TrafficClass
from problems.verify import violations
from problems.violation import Violation

PlanT = TypeVar("PlanT", bound=Bought)

_MOST_LOAD = 0.99
"""Share of the saturation up to which users who wait are dealt out."""


@dataclass(frozen=True, slots=True)
class Standing(Generic[PlanT]):
    """What becomes of a plan.

    Parameters
    ----------
    plan
        With the other problem's prices, each replica at its share of the load there;
        None if it cannot be had.
    broken
        What it breaks there.
    """

    plan: PlanT | None
    broken: tuple[Violation, ...]


def standing(plan: Plan, before: SizingProblem, after: SizingProblem) -> Standing[Plan]:
    """Return how a plan of `before` stands under `after`.

    Nothing of it moves but what it costs and what it does: the router deals the load
    out in the same proportions.
    """
    available = offers(after)
    rows, stands, missing = [], {}, []
    for deployment in plan.deployments:
        offer = _offer(deployment, available)
        if offer is None:
            missing.append(Violation("hardware", _missing(deployment, available)))
        else:
            stands[offer.key] = offer
            rows.append(deployment.model_copy(update={"offer": offer.key}))
    if missing:
        return Standing(None, tuple(dict.fromkeys(missing)))
    moved = bought(after, rows, stands)
    loaded: list[PlannedDeployment] = []
    for was, now in zip(before.traffic, after.traffic, strict=True):
        share = _share(after, moved, (was, now), stands)
        safe = after.redundancy.domains > 0
        loaded += _loaded(plan, moved, (was, now), share, safe=safe)
    moved = moved.model_copy(update={"deployments": tuple(loaded)})
    return Standing(moved, tuple(violations(after, moved)))


def _offer(deployment: PlannedDeployment, available: Sequence[Offer]) -> Offer | None:
    """Return the offer of a deployment, or the cheapest on which it may stand now."""
    fitting = [
        offer
        for offer in available
        if offer.npu.name == deployment.npu and offer.admits(deployment.parallelism)
    ]
    own = (offer for offer in fitting if offer.key == deployment.offer)
    return next(own, fitting[0] if fitting else None)


def _missing(deployment: PlannedDeployment, available: Sequence[Offer]) -> str:
    if all(offer.npu.name != deployment.npu for offer in available):
        return f"{deployment.npu} is not allowed, or has no price"
    return f"no price of {deployment.npu} admits {deployment.parallelism.text}"


def _share(
    after: SizingProblem,
    moved: Plan,
    classes: tuple[TrafficClass, TrafficClass],
    offers: dict[str, Offer],
) -> float:
    """Return what replicas must take of what they took at most, where they must.

    That is where the hosts that may fail have failed.
    """
    was, now = classes
    left = covered(moved, was)
    if after.redundancy.domains:
        left = left_of(after, moved, was, offers) or left
    return now.demand(after.headroom) / left


def _loaded(
    plan: Plan,
    moved: Plan,
    classes: tuple[TrafficClass, TrafficClass],
    share: float,
    *,
    safe: bool,
) -> Iterator[PlannedDeployment]:
    """Yield a class's deployments with the rates and batches that a share makes.

    Each replica's part of the load is what it was in the plan before.

    Parameters
    ----------
    share
        Of what replicas took at most.
    safe
        Whether hosts may fail: the slower pool of a pair may then be the other one.
    """
    was, now = classes
    for before, row in zip(
        plan.aggregated(was.name), moved.aggregated(now.name), strict=True
    ):
        load = share * capacity(plan, before, was)
        station, rate = Station.of(moved, row, now), load
        if now.is_closed:
            rate = rate_of_users(station, load, _MOST_LOAD * station.saturation)
        yield _at(row, rate, station, rate)
    for pair in moved.pairs(now.name):
        whole = share * pair.rate
        for row in pair.rows:
            route = (row, pair.decode[0])
            if row.mode == "decode":
                route = (pair.prefill[0], row)
            way = PairStation.of(moved, pair, route, now)
            own = share * (row.rate if safe else pair.load(row))
            yield _at(row, own, way, whole * pair.share(*route))


def _at(
    row: PlannedDeployment, rate: float, station: QueueStation, whole: float
) -> PlannedDeployment:
    stable = bool(np.all(station.laws(whole).stable))
    batch = station.mean_batch(whole) if stable else row.mean_batch
    kept = 0.0 if row.mode == "prefill" else batch
    return row.model_copy(update={"rate": rate, "mean_batch": kept})
