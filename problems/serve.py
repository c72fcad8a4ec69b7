"""What planned deployments do at their share of the demand.

The verifier and the reports read plans through this file and `problems.stations`; the
solver's tables are never asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model_ops.estimate import Estimate, Load, LoadMode
from model_ops.serving.queueing import (
    Latencies,
)
from model_ops.serving.steady_state import batch_cap
from problems.pair_stations import PairStation
from problems.plan import Plan, PlannedDeployment, PlannedPair, Route
from problems.problem import SizingProblem
from problems.stations import QueueStation, Station, replica_of
from problems.traffic import TrafficClass

_HALVINGS = 50
"""Of the rate at which so many requests are in flight: to rounding."""


def capacity(plan: Plan, deployment: PlannedDeployment, traffic: TrafficClass) -> float:
    """Return what one replica covers of the class's demand when it takes all it can.

    Requests per second where the class states a rate, requests in flight where it
    states a concurrency.
    """
    if not traffic.is_closed:
        return deployment.rate
    return Station.of(plan, deployment, traffic).in_flight(deployment.rate)


def covered(plan: Plan, traffic: TrafficClass) -> float:
    """Return what all of a class's deployments cover of its demand; see `capacity`."""
    return sum(pair.rate for pair in plan.pairs(traffic.name)) + sum(
        deployment.replicas * capacity(plan, deployment, traffic)
        for deployment in plan.aggregated(traffic.name)
    )


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment at its share of the demand.

    Parameters
    ----------
    deployment
        The replicas; of a route through a disaggregated pair those that read.
    load
        What one of them gets, or all of a route.
    estimate
        What it then does, in the mean.
    latencies
        The same with percentiles.
    utilisation
        The load as a share of what it could take.
    decode
        The replicas that answer, of a route.
    pair
        What the route is part of.
    """

    deployment: PlannedDeployment
    load: Load
    estimate: Estimate
    latencies: Latencies
    utilisation: float
    decode: PlannedDeployment | None = None
    pair: PlannedPair | None = None

    def station(self, plan: Plan, traffic: TrafficClass) -> Station | PairStation:
        """Return the queue that the deployment makes."""
        if self.decode is None or self.pair is None:
            return Station.of(plan, self.deployment, traffic)
        route = (self.deployment, self.decode)
        return PairStation.of(plan, self.pair, route, traffic)

    @property
    def rows(self) -> tuple[PlannedDeployment, ...]:
        """The deployment, or both of a route."""
        return (self.deployment, *([] if self.decode is None else [self.decode]))

    @property
    def text(self) -> str:
        """How many replicas of what."""
        return " with ".join(
            f"{d.replicas:,} x {d.npu} {d.parallelism.text}"
            + ("" if d.mode == "aggregated" else f" {d.mode}")
            for d in self.rows
        )

    @property
    def stations(self) -> int:
        """Such queues behind one router: the replicas, or one route."""
        return self.deployment.replicas if self.decode is None else 1


def served(problem: SizingProblem, plan: Plan, traffic: TrafficClass) -> list[Served]:
    """Return each of a class's deployments, and routes, at its share of the demand.

    The router splits the demand in proportion to capacity.
    """
    deployments = plan.aggregated(traffic.name)
    each = [capacity(plan, deployment, traffic) for deployment in deployments]
    load = traffic.demand(headroom=0.0) / covered(plan, traffic)
    found = [
        _served(plan, deployment, traffic, load * most, most)
        for deployment, most in zip(deployments, each, strict=True)
    ]
    found += [
        _served_on_route(plan, pair, route, traffic, load)
        for pair in plan.pairs(traffic.name)
        for route in pair.routes
    ]
    return found


def queues(plan: Plan, traffic: TrafficClass) -> Iterator[tuple[QueueStation, float]]:
    """Yield each queue of a class, and its rate at its share of the demand.

    The same shares as `served`, without what the requests then see.
    """
    load = traffic.demand(headroom=0.0) / covered(plan, traffic)
    for deployment in plan.aggregated(traffic.name):
        station = Station.of(plan, deployment, traffic)
        share = load * capacity(plan, deployment, traffic)
        if traffic.is_closed:
            share = rate_of_users(station, share, deployment.rate)
        yield station, share
    for pair in plan.pairs(traffic.name):
        for route in pair.routes:
            share = load * pair.rate * pair.share(*route)
            yield PairStation.of(plan, pair, route, traffic), share


def _served_on_route(
    plan: Plan,
    pair: PlannedPair,
    route: Route,
    traffic: TrafficClass,
    utilisation: float,
) -> Served:
    station = PairStation.of(plan, pair, route, traffic)
    rate = utilisation * pair.rate * pair.share(*route)
    figures, (prefill, decode) = station.latencies(rate), route
    replica, batch = replica_of(plan, decode), station.mean_batch(rate)
    result = Estimate(
        shape=traffic.shape,
        ttft=float(figures.ttft.mean),
        tpot=float(figures.tpot.mean),
        rate=rate,
        batch=batch,
        memory=replica.footprint(
            traffic.shape, batch_cap(batch, decode.dp), decode.chunk_tokens
        ),
        room=replica.room,
    )
    load = Load(traffic.shape, LoadMode.OPEN_LOOP, rate=rate)
    return Served(prefill, load, result, figures, utilisation, decode, pair)


def _served(
    plan: Plan,
    deployment: PlannedDeployment,
    traffic: TrafficClass,
    share: float,
    most: float,
) -> Served:
    station = Station.of(plan, deployment, traffic)
    rate = share
    if traffic.is_closed:
        rate = rate_of_users(station, share, deployment.rate)
    figures = station.latencies(rate)
    replica = replica_of(plan, deployment)
    batch = float(figures.batch_mean) * deployment.dp
    memory = replica.footprint(
        traffic.shape,
        batch_cap(batch, deployment.dp),
        deployment.chunk_tokens,
        share if traffic.is_closed else np.inf,
    )
    result = Estimate(
        shape=traffic.shape,
        ttft=float(figures.ttft.mean),
        tpot=float(figures.tpot.mean),
        rate=rate,
        batch=batch,
        memory=memory,
        room=replica.room,
    )
    load = Load(
        traffic.shape,
        LoadMode.CLOSED_LOOP if traffic.is_closed else LoadMode.OPEN_LOOP,
        concurrency=share if traffic.is_closed else np.inf,
        rate=rate,
        chunk_tokens=deployment.chunk_tokens,
    )
    return Served(deployment, load, result, figures, share / most)


def rate_of_users(station: Station, users: float, most: float) -> float:
    """Return the rate at which so many requests are in flight."""
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if station.in_flight(middle) < users else (low, middle)
        )
    return high
