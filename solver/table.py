"""Deployments of one class and precision, and the rates at which they meet targets.

A `Table` holds the engine of every [NPU, split] that the model fits on, at each setting
of the scheduler: figures at tabulated loads, and highest rates within targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from model_ops.dtypes import Precision
from model_ops.opcost import Number
from model_ops.platform.npu import Npu
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.highest_rate import Loaded, Target, excess, highest_rate
from model_ops.serving.queueing import Laws, Metric, Statistic
from problems.plan import Mode
from problems.stations import gap_variation
from problems.traffic import LatencyTarget, TrafficClass
from solver.known_rates import KnownRates
from solver.settings import Setting

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MOST_LOAD = 0.97
"""Share of the saturation rate that a plan may use: beyond it queues hardly settle."""

MOST_LOAD_OF_USERS = 0.99
"""The same in a closed loop, where the queue is never longer than its users."""

LOADS: Floats = np.concatenate(
    [
        np.geomspace(0.002, 0.04, 6)[:-1],
        np.linspace(0.04, MOST_LOAD, 24),
        [MOST_LOAD_OF_USERS],
    ]
)
"""Shares of the saturation rate at which latencies are tabulated."""

FOREVER = Target("e2e", "mean", 1e12)
"""A limit that only a queue without end exceeds."""

_BLOCK = 64
"""Options per array: small enough for the arrays to stay in the processor's cache."""


@dataclass(frozen=True)
class Table:
    """The deployments of a class and precision; at the default setting if none is said.

    Parameters
    ----------
    traffic, precision, settings
        The class, the formats, and the settings to try, the default one first.
    npus, splits
        What is combined.
    npu_of, split_of
        Of each option; shaped [option].
    admitted
        Whether an option may stand on an offer; shaped [offer, option].
    engines
        One data-parallel group of each option at the default setting; shaped [option].
    cache_tokens
        What its cache holds at each setting; shaped [setting, option].
    """

    traffic: TrafficClass
    precision: Precision
    settings: tuple[Setting, ...]
    npus: tuple[Npu, ...]
    splits: tuple[Parallelism, ...]
    npu_of: Indices
    split_of: Indices
    admitted: Flags
    engines: Engine
    cache_tokens: Floats
    _figures: dict[tuple[Metric, Statistic, int], Floats] = field(default_factory=dict)
    _saturations: dict[int, Floats] = field(default_factory=dict)
    known: KnownRates = field(default_factory=KnownRates)

    @property
    def mode(self) -> Mode:
        """Whether the replicas read and answer, only read, or only answer."""
        return "aggregated"

    @property
    def options(self) -> int:
        """Deployments of the table."""
        return len(self.npu_of)

    @property
    def profile(self) -> Profile:
        """The requests, as the replicas see them."""
        return self.traffic.profile

    def variation(self, which: Indices, pool: Number) -> Number:
        """Return the squared variation of the gaps before groups in a pool; [asked]."""
        return gap_variation(self.traffic, pool, self.groups[which])

    def laws_of(self, engine: Engine, profile: Profile) -> Loaded:
        """Return what becomes of requests in engines, but for the rate."""
        return Laws.of(engine, profile, 1.0)

    def limits(self, targets: Sequence[LatencyTarget]) -> list[Target]:
        """Return what a rate must keep; without targets no queue may be endless."""
        stated = [Target(t.metric, t.statistic, t.at_most) for t in targets]
        return stated or [FOREVER]

    def npu(self, option: int) -> Npu:
        """Return an option's NPU."""
        return self.npus[int(self.npu_of[option])]

    def split(self, option: int) -> Parallelism:
        """Return how an option's replicas are split."""
        return self.splits[int(self.split_of[option])]

    @cached_property
    def groups(self) -> Floats:
        """Data-parallel groups of each option's replica; shaped [option]."""
        return np.array([self.splits[s].dp for s in self.split_of], dtype=float)

    @property
    def saturation(self) -> Floats:
        """Requests per second that a group can finish at most; shaped [option]."""
        return self.saturation_at(0)

    def saturation_at(self, setting: int) -> Floats:
        """Return the same for another setting than the default."""
        if setting not in self._saturations:
            engines = self.engines_at(np.arange(self.options), setting)
            found = self.laws_of(engines, self.profile).most[..., 0]
            self._saturations[setting] = found
        return self._saturations[setting]

    @cached_property
    def fits(self) -> Flags:
        """Whether the cache holds a long request; shaped [setting, option]."""
        return self.cache_tokens > self.profile.longest

    @property
    def most_load(self) -> float:
        """Share of the saturation rate that a plan may use."""
        return MOST_LOAD_OF_USERS if self.traffic.is_closed else MOST_LOAD

    @property
    def rates(self) -> Floats:
        """Rates of a group at which figures are tabulated; shaped [option, load]."""
        return self.saturation[:, None] * LOADS

    def figure(self, metric: Metric, statistic: Statistic, setting: int = 0) -> Floats:
        """Return a latency of one replica alone, in seconds; shaped [option, load].

        Infinite where the queue grows without end.
        """
        key = (metric, statistic, setting)
        if key not in self._figures:
            blocks = [
                self._laws(np.arange(start, end), setting).figure(metric, statistic)
                for start in range(0, self.options, _BLOCK)
                if (end := min(start + _BLOCK, self.options))
            ]
            self._figures[key] = np.concatenate(blocks)[..., 0]
        return self._figures[key]

    def _laws(self, some: Indices, setting: int) -> Laws:
        """Return the laws of some options at all loads."""
        variation = np.asarray(self.variation(some, 1))
        return Laws.of(
            self.engines_at(some, setting).rows(slice(None)),
            self.profile,
            self.saturation_at(setting)[some, None] * LOADS,
            variation[:, None],
        )

    def tabulated_rate(
        self, targets: Sequence[LatencyTarget], setting: int = 0
    ) -> Floats:
        """Return about the highest rate of a group within the targets, [option].

        Between two tabulated loads the log of each latency is taken as linear; it
        bends upwards, so that the crossing is rather early than late.
        """
        saturation = self.saturation_at(setting)
        rates = saturation[:, None] * LOADS
        worst = np.full(rates.shape, -np.inf)
        for target in targets:
            seconds = self.figure(target.metric, target.statistic, setting)
            worst = np.maximum(worst, np.log(seconds / target.at_most))
        if not targets:
            stable = np.isfinite(self.figure("ttft", "mean", setting))
            worst = np.where(stable, worst, np.inf)
        found = np.minimum(_first_crossing(worst, rates), self.most_load * saturation)
        return np.where(self.fits[setting], found, 0.0)

    def engines_at(self, which: Indices, setting: Indices | int = 0) -> Engine:
        """Return the engines of options at settings; shaped [asked]."""
        if np.ndim(setting) == 0 and setting == 0:
            return self.engines.some(which)
        batches = np.array([each.batch for each in self.settings], dtype=float)
        chunks = np.array([each.chunk_tokens for each in self.settings], dtype=float)
        usual, everyone = self.engines.some(which), np.ones(len(which))
        return replace(
            usual,
            chunk_tokens=usual.chunk_tokens * (chunks[setting] / chunks[0]),
            max_sequences=batches[setting] * everyone,
            cache_tokens=self.cache_tokens[setting, which],
        )

    def highest_rate(
        self,
        targets: Sequence[LatencyTarget],
        which: Indices,
        pool: Number = 1,
        setting: Indices | int = 0,
    ) -> Floats:
        """Return the highest rate of a group within the targets, exactly.

        Parameters
        ----------
        targets
            Of the class; without any, a queue without end is all that is forbidden.
        which, setting
            Options asked for, and their settings; shaped [asked].
        pool
            Replicas behind one router; a number, or shaped [asked].

        Returns
        -------
        Floats
            Requests per second, at most a share of saturation; shaped [asked].
        """
        return highest_rate(
            self.engines_at(which, setting),
            self.profile,
            self.limits(targets),
            replicas=1.0 / self.variation(which, pool),
            most_load=self.most_load,
            laws_of=self.laws_of,
        )

    def excess(
        self,
        targets: Sequence[LatencyTarget],
        which: Indices,
        rates: Floats,
        pool: Number = 1,
        setting: Indices | int = 0,
    ) -> Floats:
        """Return numbers above 0 where a target is missed at rates of a group.

        See `highest_rate`; the rates, and what is returned, are shaped [asked, rate].
        """
        return excess(
            self.engines_at(which, setting),
            self.profile,
            self.limits(targets),
            rates,
            replicas=1.0 / self.variation(which, pool),
            laws_of=self.laws_of,
        )

    def laws_at(self, which: Indices, rate: Floats, setting: Indices | int = 0) -> Laws:
        """Return the laws of one replica alone at a rate of a group; [asked]."""
        return Laws.of(
            self.engines_at(which, setting),
            self.profile,
            rate,
            self.variation(which, 1),
        )


def _first_crossing(excess: Floats, rates: Floats) -> Floats:
    """Return the rate at which `excess` first rises above 0; shaped [option]."""
    over = excess > 0
    first = np.where(over.any(axis=1), over.argmax(axis=1), excess.shape[1])
    at = np.clip(first, 1, excess.shape[1] - 1)
    row = np.arange(len(rates))
    low, high = excess[row, at - 1], excess[row, at]
    with np.errstate(invalid="ignore"):
        share = np.where(np.isfinite(high), -low / (high - low), 0.0)
    share = np.where(np.isfinite(low), np.clip(share, 0.0, 1.0), 0.0)
    between = rates[row, at - 1] + share * (rates[row, at] - rates[row, at - 1])
    rate = np.where(first == excess.shape[1], rates[:, -1], between)
    return np.where(first == 0, 0.0, rate)
