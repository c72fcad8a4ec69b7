"""Planned deployments as queues: their engines, and how requests reach them.

Replicas that read and answer are a `Station`; routes through a disaggregated pair are
each a `PairStation` (`problems.pair_stations`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from model_ops.dtypes import Precision
from model_ops.opcost import Number
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.deployed import curve_of, engine_of
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.pools import first_token_only
from model_ops.serving.queueing import (
    Latencies,
    Laws,
    RequestLaws,
    latencies,
    split_variation,
)
from model_ops.serving.saturation import saturation_rate
from model_ops.serving.step import Replica
from model_ops.serving.step_curve import StepCurve
from model_ops.units import RequestsPerSecond
from problems import catalogue
from problems.accuracy import assumed_npu
from problems.optimisations import Optimisations
from problems.plan import Plan, PlannedDeployment
from problems.traffic import LatencyTarget, TrafficClass


@dataclass(frozen=True)
class _Built:
    """What fixes the step times of a replica."""

    model: str
    framework: str
    confidence: float | None
    optimisations: Optimisations
    npu: str
    split: Parallelism
    precision: str

    @classmethod
    def of(cls, plan: Plan, deployment: PlannedDeployment) -> "_Built":
        return cls(
            plan.model_of(deployment),
            plan.framework,
            plan.confidence,
            plan.optimisations,
            deployment.npu,
            deployment.parallelism,
            deployment.precision,
        )

    @property
    def replica(self) -> Replica:
        arch = catalogue.load_model(self.model)
        precision = Precision.of(self.precision)
        return Replica(
            arch=arch,
            parallelism=self.split,
            precision=precision,
            supply=Supply.of(assumed_npu(self.npu, self.confidence, self.framework)),
            **self.optimisations.features(arch, precision),
        )


@lru_cache(maxsize=512)
def step_times(built: _Built, chunk_tokens: int, beams: int) -> StepCurve:
    """Return the step times of a replica, kept: a plan is read many times over."""
    return curve_of(built.replica, chunk_tokens, beams)


def replica_of(plan: Plan, deployment: PlannedDeployment) -> Replica:
    """Return the replica that a planned deployment describes."""
    return _Built.of(plan, deployment).replica


def profile_of(deployment: PlannedDeployment, traffic: TrafficClass) -> Profile:
    """Return the requests as a deployment's replicas see them."""
    reads = deployment.mode == "prefill"
    return first_token_only(traffic.profile) if reads else traffic.profile


def planned_engine(
    plan: Plan, deployment: PlannedDeployment, traffic: TrafficClass
) -> Engine:
    """Return the engine of each data-parallel group of a planned deployment."""
    built, chunk = _Built.of(plan, deployment), deployment.chunk_tokens
    return engine_of(
        built.replica,
        profile_of(deployment, traffic),
        chunk_tokens=chunk,
        max_sequences=deployment.batch,
        beams=traffic.beams,
        curve=step_times(built, chunk, traffic.beams),
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


class QueueStation(ABC):
    """Where requests of a class queue, and what they then see."""

    traffic: TrafficClass

    @abstractmethod
    def laws(self, rate: RequestsPerSecond) -> RequestLaws:
        """Return the laws of the latencies at a rate of each replica."""

    @abstractmethod
    def latencies(self, rate: RequestsPerSecond) -> Latencies:
        """Return the latencies at a rate of each replica."""

    @property
    @abstractmethod
    def places(self) -> float:
        """Requests that a part of a replica may run at once."""

    @property
    @abstractmethod
    def saturation(self) -> RequestsPerSecond:
        """The rate of a replica at which its queue grows without end."""

    @property
    @abstractmethod
    def cache_tokens(self) -> float:
        """Tokens that a part's caches hold."""

    @property
    @abstractmethod
    def tokens_per_step(self) -> float:
        """Tokens that a decoding request gains per step."""

    @abstractmethod
    def mean_batch(self, rate: RequestsPerSecond) -> float:
        """Return the requests of a replica that decode at a rate."""

    def excess(self, target: LatencyTarget, rate: RequestsPerSecond) -> float:
        """Return a number above 0 where a target does not hold at a rate."""
        limit = np.array([[target.at_most]])
        found = self.laws(rate).excess(target.metric, target.statistic, limit)
        return float(np.ravel(found)[0])

    def in_flight(self, rate: RequestsPerSecond) -> float:
        """Return the requests in a replica at a rate, by Little's law."""
        return rate * float(np.ravel(self.laws(rate).figure("e2e", "mean"))[0])


@dataclass(frozen=True)
class Station(QueueStation):
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

    @property
    def places(self) -> float:
        """Requests that a group may run at once."""
        return float(self.engine.max_sequences)

    @property
    def cache_tokens(self) -> float:
        """Tokens that a group's cache holds."""
        return float(self.engine.cache_tokens)

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a decoding request gains per step."""
        return float(self.engine.tokens_per_step)

    @property
    def saturation(self) -> RequestsPerSecond:
        """The rate of a replica at which its queue grows without end."""
        each = float(saturation_rate(self.engine, self.traffic.profile))
        return each * self.groups

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

    def mean_batch(self, rate: RequestsPerSecond) -> float:
        """Return the requests of a replica that decode at a rate."""
        return float(np.ravel(self.laws(rate).mix.batch.mean)[0]) * self.groups
