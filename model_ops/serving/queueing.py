"""Latencies of a replica under random arrivals: means and percentiles, in closed form.

The steps of an engine under continuous batching are of two kinds, with prompts and
without (`step_mix`); how many requests decode follows from them, and they from it
(`batch_distribution`); the time to first token is a queue for full steps
(`prompt_queue`), the time per token a walk over the steps (`token_times`). Everything
is an array over engines and rates.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np

from model_ops.opcost import Number
from model_ops.serving.batch_distribution import RUNGS, Flags, Ladder
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import Floats
from model_ops.serving.prompt_queue import FirstToken, first_token
from model_ops.serving.saturation import saturation
from model_ops.serving.server import RARE_PREEMPTION, Server, column
from model_ops.serving.step_mix import StepMix, step_mix
from model_ops.serving.token_times import GammaMixture, end_to_end, token_times
from model_ops.units import RequestsPerSecond

Metric = Literal["ttft", "tpot", "e2e"]
Statistic = Literal["mean", "p50", "p90", "p95", "p99"]

LEVELS: dict[Statistic, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

NEAR_SATURATION = 0.9
"""Share of the saturation rate above which waits for a slot explode."""

_PEAK = 3.0
_PROMPTS_DOMINATE = 0.3
_SHORT_ANSWER = 64.0
_COLLIDING = 0.3
_HEAVY_TAIL = 1.2


@dataclass(frozen=True)
class Figures:
    """A latency's mean and percentiles in seconds, shaped as options and rates."""

    mean: Floats
    p50: Floats
    p90: Floats
    p95: Floats
    p99: Floats


@dataclass(frozen=True)
class Latencies:
    """What requests and their replica see; arrays over options and rates.

    Parameters
    ----------
    ttft, tpot, e2e
        Time to first token, per output token after it, and to the last one; infinite
        where the queue is not stable.
    batch_mean, batch_deviation
        Decoding requests.
    utilisation
        The rate over the saturation rate.
    slot_wait_probability
        Share of the requests that find no free slot.
    stable
        Whether the queue does not grow without end.
    weak
        Where the formulas are known to be off, by reason; see `weaknesses`.
    """

    ttft: Figures
    tpot: Figures
    e2e: Figures
    batch_mean: Floats
    batch_deviation: Floats
    utilisation: Floats
    slot_wait_probability: Floats
    stable: Flags
    weak: dict[str, Flags]


class RequestLaws(ABC):
    """The laws of the latencies of requests, and the figures that follow from them."""

    @property
    @abstractmethod
    def answering(self) -> Server:
        """The engines that decode."""

    @property
    @abstractmethod
    def ttft(self) -> FirstToken:
        """The time to first token."""

    @property
    @abstractmethod
    def per_step(self) -> GammaMixture:
        """The mean step that a request sees while it decodes."""

    @property
    @abstractmethod
    def stable(self) -> Flags:
        """Whether no queue grows without end."""

    @cached_property
    def e2e(self) -> GammaMixture:
        """The time from arrival to the last token."""
        return end_to_end(self.answering, self.ttft, self.per_step)

    def figure(self, metric: Metric, statistic: Statistic) -> Floats:
        """Return one figure, shaped [..., 1]; infinite where the queue is unstable."""
        law = self._law(metric)
        mean = statistic == "mean"
        value = law.mean if mean else law.quantile(LEVELS[statistic])
        if metric == "tpot":
            value = value / self.answering.tokens_per_step
        return np.where(self.stable, value, np.inf)

    def excess(self, metric: Metric, statistic: Statistic, limit: Floats) -> Floats:
        """Return a number above 0 where a figure exceeds its limit, shaped [..., 1].

        The log of mean over limit, or of the share of requests above the limit over
        that allowed: it needs no quantile.
        """
        law = self._law(metric)
        if metric == "tpot":
            limit = limit * self.answering.tokens_per_step
        if statistic == "mean":
            over = np.log(np.maximum(law.mean, 1e-300) / limit)
        else:
            above = np.maximum(law.survival(limit), 1e-12)
            over = np.log(above) - np.log1p(-LEVELS[statistic])
        return np.where(self.stable, over, np.inf)

    def _law(self, metric: Metric) -> FirstToken | GammaMixture:
        if metric == "ttft":
            return self.ttft
        return self.per_step if metric == "tpot" else self.e2e

    def summary(self, metric: Metric) -> Figures:
        """Return all figures of a metric, without the last axis."""
        levels = {name: self.figure(metric, name)[..., 0] for name in LEVELS}
        return Figures(mean=self.figure(metric, "mean")[..., 0], **levels)


@dataclass(frozen=True)
class Laws(RequestLaws):
    """The laws of the latencies of engines at rates, worked out as they are asked for.

    Parameters
    ----------
    server, ladder
        The engines under a load, and their costs at rising batch sizes.
    rate
        Requests per second, shaped [..., 1].
    arrival_variation
        Squared coefficient of variation of the gaps between arrivals.
    """

    server: Server
    ladder: Ladder
    rate: Floats
    arrival_variation: Floats

    @classmethod
    def of(
        cls,
        engine: Engine,
        profile: Profile,
        rate: Number,
        arrival_variation: Number = 1.0,
        rungs: int = RUNGS,
    ) -> Self:
        """Return the laws of engines that broadcast against the rates."""
        server = Server.of(engine, profile)
        rates, variation = np.broadcast_arrays(column(rate), column(arrival_variation))
        return cls(server, Ladder.of(server, rungs), rates, variation)

    def at(self, rate: Floats, arrival_variation: Floats) -> Self:
        """Return the laws at other rates and variations, shaped [..., 1]."""
        return replace(self, rate=rate, arrival_variation=arrival_variation)

    @property
    def most(self) -> Floats:
        """The saturation rate, shaped [..., 1]."""
        return saturation(self.server, self.ladder)

    @property
    def answering(self) -> Server:
        """The engines that decode."""
        return self.server

    @cached_property
    def mix(self) -> StepMix:
        """The steps, and the batch."""
        return step_mix(self.server, self.ladder, self.rate, self.arrival_variation)

    @cached_property
    def ttft(self) -> FirstToken:
        """The time to first token."""
        return first_token(self.server, self.mix, self.rate, self.arrival_variation)

    @cached_property
    def per_step(self) -> GammaMixture:
        """The mean step that a request sees while it decodes."""
        return token_times(self.server, self.mix, self.rate, self.arrival_variation)

    @property
    def stable(self) -> Flags:
        """Whether a request fits, and requests outrun neither slots nor steps."""
        read = self.ttft.load < 1.0
        joined = self.rate * self.mix.extra < 1.0
        return np.asarray(self.mix.batch.stable & read & joined & self.server.fits)


def latencies(
    engine: Engine,
    profile: Profile,
    rate: RequestsPerSecond | Number,
    *,
    arrival_variation: Number = 1.0,
) -> Latencies:
    """Return the latencies of replicas at rates.

    Against simulation over twelve regimes, median errors are 1 % for means and 3 % for
    99th percentiles up to half of saturation, 3 and 6 % up to 0.8 of it; the table is
    that of ``tests/benchmarks/queueing.py``.

    Parameters
    ----------
    engine
        Numbers, or arrays over options.
    profile
        The lengths of the requests.
    rate
        Requests per second of one replica; broadcasts against the options.
    arrival_variation
        Squared coefficient of variation of the gaps between arrivals: 1 for a Poisson
        process; see `split_variation` for one replica of many.

    Returns
    -------
    Latencies
        Shaped as options and rates together.
    """
    laws = Laws.of(engine, profile, rate, arrival_variation)
    batch = laws.mix.batch
    utilisation = laws.rate / saturation(laws.server, laws.ladder)
    return Latencies(
        ttft=laws.summary("ttft"),
        tpot=laws.summary("tpot"),
        e2e=laws.summary("e2e"),
        batch_mean=batch.mean[..., 0],
        batch_deviation=np.sqrt(batch.variance)[..., 0],
        utilisation=utilisation[..., 0],
        slot_wait_probability=np.minimum(batch.blocked, 1.0)[..., 0],
        stable=laws.stable[..., 0],
        weak=weaknesses(laws, utilisation),
    )


def weaknesses(laws: Laws, utilisation: Floats) -> dict[str, Flags]:
    """Return where the formulas are known to be off, by reason.

    - ``near_saturation``: a small error of the rate is a large one of the wait.
    - ``near_preemption``: the cache may run full; recomputing is not modelled.
    - ``prompts_dominate``: prompts take most of the steps of short answers, so that the
      time per token depends on which prompts come just behind.
    - ``groups_collide``: prompts of several data-parallel groups share most steps, and
      the longest counts.
    - ``heavy_tail``: the longest prompts decide the tail of the time to first token.
    """
    server, batch, mix = laws.server, laws.mix.batch, laws.mix
    crowd = batch.mean + _PEAK * np.sqrt(batch.variance)
    cache_bound = server.slot_cap() < server.max_sequences
    answer = server.steps * mix.plain
    first, second = server.load.moments[1:3]
    variation = np.sqrt(max(second / first**2 - 1.0, 0.0))
    short = server.load.more_tokens < _SHORT_ANSWER
    flags = {
        "near_saturation": utilisation > NEAR_SATURATION,
        "near_preemption": cache_bound & (crowd > server.slot_cap(RARE_PREEMPTION)),
        "prompts_dominate": short & (mix.extra > _PROMPTS_DOMINATE * answer),
        "groups_collide": (server.groups > 1.0) & (mix.mixed_steps > _COLLIDING),
        "heavy_tail": (variation > _HEAVY_TAIL) & (mix.chunks > 1.0) & (answer > 0.0),
    }
    shape = np.broadcast_shapes(*(flag.shape for flag in flags.values()))
    return {
        reason: np.broadcast_to(flag, shape)[..., 0] for reason, flag in flags.items()
    }


def split_variation(
    replicas: Number, *, random: bool = False, variation: Number = 1.0
) -> Number:
    """Return the squared variation of the gaps at one of several replicas.

    Taking turns keeps every R-th arrival: the sum of R gaps varies 1/R as much. Random
    choice thins the process, which leads to Poisson. A router to the least loaded
    counts requests and not their tokens, but evens out the batches: taken as taking
    turns, by simulation (6 regimes, 4 and 16 replicas, up to 0.85 of saturation)
    percentiles of TTFT and TPOT are at most 7 % too low, mean TTFT at most 16 %, and
    the highest rate within p99 targets is too low by a fifth to a third.

    Parameters
    ----------
    replicas
        Replicas behind one router; data-parallel groups count as so many.
    random
        Whether the router chooses at random.
    variation
        Squared coefficient of variation of the gaps before the router.
    """
    if random:
        return 1.0 + (variation - 1.0) / replicas
    return variation / replicas
