"""A planned deployment in the model's terms: its engine, and what it does under load.

The verifier and the reports read plans through this file alone; the solver's
tables are never asked.
"""

from dataclasses import dataclass

import numpy as np

from model_ops.dtypes import Precision
from model_ops.estimate import Estimate, Load, LoadMode
from model_ops.opcost import Number
from model_ops.platform.supply import Supply
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Engine
from model_ops.serving.queueing import Latencies, Laws, latencies, split_variation
from model_ops.serving.steady_state import batch_cap
from model_ops.serving.step import Replica
from model_ops.units import RequestsPerSecond
from problems import catalogue
from problems.plan import Plan, PlannedDeployment
from problems.problem import SizingProblem
from problems.traffic import LatencyTarget, TrafficClass

_HALVINGS = 50
"""Of the rate at which so many requests are in flight: to rounding."""


def replica_of(plan: Plan, deployment: PlannedDeployment) -> Replica:
    """Return the replica that a planned deployment describes."""
    arch, precision = (
        catalogue.load_model(plan.model),
        Precision.of(deployment.precision),
    )
    return Replica(
        arch=arch,
        parallelism=deployment.parallelism,
        precision=precision,
        supply=Supply.of(catalogue.load_npu(deployment.npu)),
        **plan.optimisations.features(arch, precision),
    )


def planned_engine(
    plan: Plan, deployment: PlannedDeployment, traffic: TrafficClass
) -> Engine:
    """Return the engine of each data-parallel group of a planned deployment."""
    return engine_of(
        replica_of(plan, deployment),
        traffic.profile,
        chunk_tokens=deployment.chunk_tokens,
        max_sequences=deployment.batch,
        beams=traffic.beams,
    )


def gap_variation(traffic: TrafficClass, replicas: Number, groups: Number) -> Number:
    """Return the squared variation of the gaps between a group's requests.

    See `split_variation`. Users of a closed loop ask again where one of them was
    answered, however many replicas there are: nothing makes their requests even; nor
    does a router that chooses at random, which soon undoes what was even before it.
    """
    if traffic.is_closed:
        return np.ones(np.broadcast_shapes(np.shape(replicas), np.shape(groups)))
    variation = traffic.arrival_variation
    if traffic.router == "random":
        variation = max(variation, 1.0)
        return split_variation(replicas * groups, random=True, variation=variation)
    return split_variation(replicas * groups, variation=variation)


@dataclass(frozen=True)
class Station:
    """A planned deployment as a queue: one of its groups, and how requests reach it.

    Parameters
    ----------
    engine, traffic
        One data-parallel group, and the requests.
    groups
        Data-parallel groups of a replica.
    variation
        Squared variation of the gaps between a group's requests.
    """

    engine: Engine
    traffic: TrafficClass
    groups: int
    variation: float

    @classmethod
    def of(
        cls, plan: Plan, deployment: PlannedDeployment, traffic: TrafficClass
    ) -> "Station":
        """Return the queue that a deployment's replicas make."""
        engine = planned_engine(plan, deployment, traffic)
        variation = gap_variation(traffic, deployment.replicas, deployment.dp)
        return cls(engine, traffic, deployment.dp, float(variation))

    def laws(self, rate: RequestsPerSecond) -> Laws:
        """Return the laws of the latencies at a rate of each replica."""
        profile, each = self.traffic.profile, rate / self.groups
        return Laws.of(self.engine, profile, each, self.variation)

    def latencies(self, rate: RequestsPerSecond) -> Latencies:
        """Return the latencies at a rate of each replica."""
        return latencies(
            self.engine,
            self.traffic.profile,
            rate / self.groups,
            arrival_variation=self.variation,
        )

    def excess(self, target: LatencyTarget, rate: RequestsPerSecond) -> float:
        """Return a number above 0 where a target does not hold at a rate."""
        limit = np.array([[target.at_most]])
        found = self.laws(rate).excess(target.metric, target.statistic, limit)
        return float(np.ravel(found)[0])

    def mean_batch(self, rate: RequestsPerSecond) -> float:
        """Return the requests of a replica that decode at a rate."""
        return float(np.ravel(self.laws(rate).mix.batch.mean)[0]) * self.groups

    def in_flight(self, rate: RequestsPerSecond) -> float:
        """Return the requests in a replica at a rate, by Little's law."""
        return rate * float(np.ravel(self.laws(rate).figure("e2e", "mean"))[0])


def capacity(plan: Plan, deployment: PlannedDeployment, traffic: TrafficClass) -> float:
    """Return what one replica covers of the class's demand when it takes all it can.

    Requests per second where the class states a rate, requests in flight where it
    states a concurrency.
    """
    if not traffic.is_closed:
        return deployment.rate
    return Station.of(plan, deployment, traffic).in_flight(deployment.rate)


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment at its share of the demand.

    Parameters
    ----------
    deployment
        The replicas.
    load
        What one of them gets.
    estimate
        What it then does, in the mean.
    latencies
        The same with percentiles.
    utilisation
        The load as a share of what it could take.
    """

    deployment: PlannedDeployment
    load: Load
    estimate: Estimate
    latencies: Latencies
    utilisation: float


def served(problem: SizingProblem, plan: Plan, traffic: TrafficClass) -> list[Served]:
    """Return each of a class's deployments at its share of the demand.

    The router splits the demand in proportion to capacity.
    """
    deployments = plan.of_class(traffic.name)
    each = [capacity(plan, deployment, traffic) for deployment in deployments]
    total = sum(d.replicas * c for d, c in zip(deployments, each, strict=True))
    demand = traffic.demand(headroom=0.0)
    return [
        _served(plan, deployment, traffic, demand * most / total, most)
        for deployment, most in zip(deployments, each, strict=True)
    ]


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
        rate = _rate_of_users(station, share, deployment.rate)
    figures = station.latencies(rate)
    replica = replica_of(plan, deployment)
    batch = float(figures.batch_mean) * deployment.dp
    memory = replica.footprint(
        traffic.shape, batch_cap(batch, deployment.dp), deployment.chunk_tokens
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


def _rate_of_users(station: Station, users: float, most: float) -> float:
    """Return the rate at which so many requests are in flight."""
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if station.in_flight(middle) < users else (low, middle)
        )
    return high
