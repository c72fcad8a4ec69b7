"""Replicas that only read, or only answer: one pool of a disaggregated pair.

What either pool takes does not hang on the other, given `Terms` that both keep to: how
long a cache may travel, and how much of an E2E target the first token may take.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from model_ops.opcost import Number
from model_ops.platform.supply import Supply
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.highest_rate import Deviation, Loaded, Target
from model_ops.serving.pools import AnswerLaws, DecodeLaws, first_token_only
from model_ops.serving.transfer import slowest_link
from model_ops.units import BytesPerSecond, Seconds
from problems.plan import Mode
from problems.traffic import LatencyTarget, TrafficClass
from solver.known_rates import KnownRates
from solver.table import Floats, Indices, Table

_OVER = 50.0
"""Excess of a rate beyond what the links take."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What both pools of a pair keep to, so that each is chosen by itself.

    Parameters
    ----------
    per_token, latency
        Seconds that a cache travels: per prompt token, and once; at most.
    load
        Share of the time in which the links carry caches, at most.
    first
        Mean seconds of the time to first token, where E2E has a target; it deviates
        by half as much, at most.
    """

    per_token: Seconds
    latency: Seconds
    load: float
    first: Seconds | None = None

    @property
    def deviation(self) -> Seconds:
        """Standard deviation of the time to first token, at most."""
        return (self.first or 0.0) / 2.0


FREE = Terms(per_token=0.0, latency=0.0, load=1.0)
"""Caches that arrive at once."""


def evenly(traffic: TrafficClass) -> TrafficClass:
    """Return a class as decode replicas see it: the first pool hides its bursts."""
    return traffic.model_copy(update={"burstiness": 1.0})


@dataclass(frozen=True, kw_only=True)
class PoolTable(Table):
    """The deployments of one pool.

    Parameters
    ----------
    terms
        What the pool keeps to.
    ceiling
        Requests per second of a group that its links take; shaped [option].
    """

    terms: Terms = FREE
    ceiling: Number = math.inf

    def under(self, terms: Terms, ceiling: Number) -> Self:
        """Return the table under other terms; nothing known of it is kept."""
        return replace(
            self, terms=terms, ceiling=ceiling, known=KnownRates(), _figures={}
        )

    @cached_property
    def npus_per_group(self) -> Floats:
        """NPUs of a data-parallel group; shaped [option]."""
        npus = np.array([int(split.npus) for split in self.splits])
        return np.asarray(npus[self.split_of] / self.groups)

    @cached_property
    def most(self) -> Floats:
        """Requests per second of a group at any setting, at most; shaped [option]."""
        each = [self.saturation_at(n) for n in range(len(self.settings))]
        return np.asarray(self.most_load * np.max(each, axis=0))

    def highest_rate(
        self,
        targets: Sequence[LatencyTarget],
        which: Indices,
        pool: Number = 1,
        setting: Indices | int = 0,
    ) -> Floats:
        """Return the highest rate of a group within the targets and the links."""
        found = super().highest_rate(targets, which, pool, setting)
        most = np.broadcast_to(self.ceiling, self.options)[which]
        return np.asarray(np.minimum(found, most))

    def excess(
        self,
        targets: Sequence[LatencyTarget],
        which: Indices,
        rates: Floats,
        pool: Number = 1,
        setting: Indices | int = 0,
    ) -> Floats:
        """Return numbers above 0 where a target is missed, or the links are full."""
        most = np.broadcast_to(self.ceiling, self.options)[which][:, None]
        found = super().excess(targets, which, rates, pool, setting)
        return np.where(rates > most, _OVER, found)


@dataclass(frozen=True, kw_only=True)
class PrefillTable(PoolTable):
    """Replicas whose requests end with the first token."""

    @property
    def mode(self) -> Mode:
        """Whether the replicas read and answer, only read, or only answer."""
        return "prefill"

    @cached_property
    def profile(self) -> Profile:
        """The requests, as the replicas see them."""
        return first_token_only(self.traffic.profile)

    def limits(self, targets: Sequence[LatencyTarget]) -> list[Target]:
        """Return what a rate must keep: targets of TTFT, and what E2E leaves it."""
        own = super().limits([t for t in targets if t.metric == "ttft"])
        if self.terms.first is None:
            return own
        mean = Target("ttft", "mean", self.terms.first)
        return [*own, mean, Deviation("ttft", "mean", self.terms.deviation)]


@dataclass(frozen=True, kw_only=True)
class DecodeTable(PoolTable):
    """Replicas that answer prompts which others have read."""

    @property
    def mode(self) -> Mode:
        """Whether the replicas read and answer, only read, or only answer."""
        return "decode"

    def laws_of(self, engine: Engine, profile: Profile) -> Loaded:
        """Return what becomes of requests in engines, but for the rate."""
        terms = self.terms
        decode = DecodeLaws.of(
            engine, profile, 1.0, per_token=terms.per_token, latency=terms.latency
        )
        return AnswerLaws(decode, terms.first or 0.0, terms.deviation)

    def limits(self, targets: Sequence[LatencyTarget]) -> list[Target]:
        """Return what a rate must keep: targets of TPOT and E2E."""
        return super().limits([t for t in targets if t.metric != "ttft"])


@dataclass(frozen=True)
class Pools:
    """Both pools of a class and precision, and what travels between them.

    Parameters
    ----------
    traffic
        The class.
    prefill, decode
        Their deployments.
    sent
        Bytes of cache per prompt token on the fullest NPU of a decode group; shaped
        [decode option].
    """

    traffic: TrafficClass
    prefill: PrefillTable
    decode: DecodeTable
    sent: Floats

    def pool(self, mode: Mode) -> PoolTable:
        """Return the deployments of a pool."""
        return self.prefill if mode == "prefill" else self.decode

    def links(
        self, bandwidth: BytesPerSecond | None
    ) -> list[tuple[BytesPerSecond, Seconds]]:
        """Return bandwidth and latency of each NPU's links, see `slowest_link`."""
        return [slowest_link(Supply.of(npu), bandwidth) for npu in self.prefill.npus]
