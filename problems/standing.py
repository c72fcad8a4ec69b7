"""How the plan of one problem stands under another: at its prices, by its rules."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from problems.offers import Offer, offers
from problems.plan import Plan, PlannedDeployment
from problems.problem import SizingProblem
from problems.serve import capacity, covered, pair_rate, rate_of_users
from problems.stated import bought
from problems.stations import PairStation, QueueStation, Station
from problems.traffic import TrafficClass
from problems.verify import violations
from problems.violation import Violation

_MOST_LOAD = 0.99
"""Share of the saturation up to which users who wait are dealt out."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What becomes of a plan.

    Parameters
    ----------
    plan
        With the other problem's prices, each replica at its share of the load there;
        None if it cannot be had.
    broken
        What it breaks there.
    """

    plan: Plan | None
    broken: tuple[Violation, ...]


def standing(plan: Plan, before: SizingProblem, after: SizingProblem) -> Standing:
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
    loaded = tuple(
        row
        for was, now in zip(before.traffic, after.traffic, strict=True)
        for row in _loaded(moved, now, _loads(plan, was, now.demand(after.headroom)))
    )
    moved = moved.model_copy(update={"deployments": loaded})
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


def _loads(plan: Plan, was: TrafficClass, demand: float) -> list[float]:
    """Return each deployment's replica's part of a demand; at last a pair's."""
    pair, share = plan.pair(was.name), demand / covered(plan, was)
    rows = plan.aggregated(was.name)
    each = [capacity(plan, row, was) for row in rows]
    if pair is not None:
        each.append(pair_rate(pair))
    return [share * most for most in each]


def _loaded(
    plan: Plan, now: TrafficClass, loads: Sequence[float]
) -> Iterator[PlannedDeployment]:
    """Yield a class's deployments with the rates and batches that loads make."""
    pair = plan.pair(now.name)
    for row, load in zip(plan.aggregated(now.name), loads, strict=False):
        station, rate = Station.of(plan, row, now), load
        if now.is_closed:
            rate = rate_of_users(station, load, _MOST_LOAD * station.saturation)
        yield _at(row, rate, station, rate)
    if pair is not None:
        whole = PairStation.of(plan, pair, now)
        for row in pair:
            yield _at(row, loads[-1] / row.replicas, whole, loads[-1])


def _at(
    row: PlannedDeployment, rate: float, station: QueueStation, whole: float
) -> PlannedDeployment:
    stable = bool(np.all(station.laws(whole).stable))
    batch = station.mean_batch(whole) if stable else row.mean_batch
    kept = 0.0 if row.mode == "prefill" else batch
    return row.model_copy(update={"rate": rate, "mean_batch": kept})
