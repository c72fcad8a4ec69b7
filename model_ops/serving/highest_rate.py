"""The highest rate at which latency targets hold, for many engines at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model_ops.opcost import Number
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import Floats
from model_ops.serving.queueing import Laws, Metric, RequestLaws, Statistic
from model_ops.serving.step_curve import StepCurve
from model_ops.units import Seconds

_FIRST = np.array([0.0005, 0.03, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92, 1.0])
"""Shares of the saturation rate that are tried first."""

_ROUNDS = 3
_ASIDE = np.array([-0.06, 0.06])
_THIRDS = np.array([1.0, 2.0]) / 3.0
_BLOCK = 128
_POINTS = 512
"""Options, and points of options and rates, per array: they stay in the cache."""

_FAR = 50.0


@dataclass(frozen=True)
class Target:
    """A limit that a statistic of a latency must not exceed.

    Parameters
    ----------
    metric
        Time to first token, per output token, or end to end.
    statistic
        Its mean or a percentile.
    limit
        Seconds; a number, or an array over options.
    """

    metric: Metric
    statistic: Statistic
    limit: Seconds | Number

    def excess(self, laws: RequestLaws) -> Floats:
        """Return a number above 0 where laws exceed the limit, shaped [..., 1]."""
        return laws.excess(self.metric, self.statistic, np.asarray(self.limit))


class Deviation(Target):
    """A limit on the standard deviation of the time to first token."""

    def excess(self, laws: RequestLaws) -> Floats:
        """Return a number above 0 where laws exceed the limit, shaped [..., 1]."""
        over = np.log(np.maximum(laws.ttft.variance, 1e-300) / self.limit**2)
        return np.where(laws.stable, over, np.inf)


class Loaded(Protocol):
    """Engines under requests of given lengths, at any rate."""

    @property
    def most(self) -> Floats:
        """The saturation rate, shaped [..., 1]."""

    def at(self, rate: Floats, arrival_variation: Floats) -> RequestLaws:
        """Return the laws at rates of so varied gaps; all shaped [..., 1]."""


LawsOf = Callable[[Engine, Profile], Loaded]
"""What becomes of requests of given lengths in engines: the laws, but for the rate."""


def _reading_and_answering(engine: Engine, profile: Profile) -> Loaded:
    return Laws.of(engine, profile, 1.0)


def highest_rate(
    engine: Engine,
    profile: Profile,
    targets: Sequence[Target],
    *,
    replicas: Number = 1,
    most_load: float = 1.0,
    laws_of: LawsOf = _reading_and_answering,
) -> Floats:
    """Return the highest rate per replica at which all targets hold.

    It is the first crossing from below: rates that hold beyond one that does not are
    not looked for. Points at the thirds of the bracket, and beside its secant, narrow
    it to a median 0.01 %, at most 0.5 % of the rate; its lower end is returned, where
    all hold.

    Parameters
    ----------
    engine
        Numbers, or arrays over options.
    profile
        The lengths of the requests.
    targets
        The limits; without any, the saturation rate is returned.
    replicas
        Replicas behind a router that takes turns or prefers the least loaded: each
        then sees more even arrivals; a number, or an array over options.
    most_load
        Share of the saturation rate that is returned at most.
    laws_of
        What the engines do; by default they read prompts and answer.

    Returns
    -------
    Floats
        Requests per second, shaped as the options; 0 where a target is missed even by
        a request alone.
    """
    options = _Options.of(engine, profile, targets, replicas, laws_of)
    found = np.empty(options.count)
    for start in range(0, options.count, _BLOCK):
        asked = _Asked.of(options, slice(start, start + _BLOCK))
        share = _crossing(asked.excess, len(asked.most))
        found[start : start + _BLOCK] = np.minimum(share, most_load)[:, 0]
        found[start : start + _BLOCK] *= asked.most[:, 0]
    return found.reshape(options.shape)


def excess(
    engine: Engine,
    profile: Profile,
    targets: Sequence[Target],
    rates: Floats,
    *,
    replicas: Number = 1,
    laws_of: LawsOf = _reading_and_answering,
) -> Floats:
    """Return numbers above 0 where a target is missed at rates.

    Parameters
    ----------
    engine, profile, targets, replicas, laws_of
        As for `highest_rate`.
    rates
        Requests per second of each option; shaped [option, rate], as what is returned.
    """
    options = _Options.of(engine, profile, targets, replicas, laws_of)
    found = np.empty(rates.shape)
    block = max(_BLOCK, _POINTS // rates.shape[-1])
    for start in range(0, options.count, block):
        at = slice(start, start + block)
        asked = _Asked.of(options, at)
        found[at] = asked.excess(rates[at] / asked.most)
    return found


@dataclass(frozen=True)
class _Options:
    """Engines, limits and variations along one axis."""

    engine: Engine
    profile: Profile
    targets: tuple[Target, ...]
    variation: Floats
    shape: tuple[int, ...]
    laws_of: LawsOf

    @property
    def count(self) -> int:
        return int(np.prod(self.shape))

    @classmethod
    def of(
        cls,
        engine: Engine,
        profile: Profile,
        targets: Sequence[Target],
        replicas: Number,
        laws_of: LawsOf,
    ) -> "_Options":
        curve = engine.curve
        values = [engine.chunk_tokens, engine.max_sequences, engine.cache_tokens]
        values += [engine.request_overhead, engine.tokens_per_step, engine.groups]
        values += [curve.per_cached, curve.per_pair, replicas]
        values += [target.limit for target in targets]
        tables = curve.base.shape[:-1]
        shape = np.broadcast_shapes(tables, *(np.shape(value) for value in values))

        def flat(value: Number) -> Floats:
            return np.broadcast_to(np.asarray(value, dtype=float), shape).reshape(-1)

        def rows(table: Floats) -> Floats:
            nodes = table.shape[-1]
            return np.broadcast_to(table, (*shape, nodes)).reshape(-1, nodes)

        spread = StepCurve(
            rows(curve.base),
            rows(curve.decoding),
            flat(curve.per_cached),
            flat(curve.per_pair),
        )
        return cls(
            engine=Engine(
                spread,
                chunk_tokens=flat(engine.chunk_tokens),
                max_sequences=flat(engine.max_sequences),
                cache_tokens=flat(engine.cache_tokens),
                request_overhead=flat(engine.request_overhead),
                tokens_per_step=flat(engine.tokens_per_step),
                groups=flat(engine.groups),
            ),
            profile=profile,
            targets=tuple(replace(one, limit=flat(one.limit)) for one in targets),
            variation=1.0 / flat(replicas),
            shape=shape,
            laws_of=laws_of,
        )


@dataclass(frozen=True)
class _Asked:
    """The laws of a block of options, and what they must keep; shaped [option, 1]."""

    laws: Loaded
    most: Floats
    variation: Floats
    targets: tuple[Target, ...]

    @classmethod
    def of(cls, options: _Options, at: slice) -> "_Asked":
        laws = options.laws_of(options.engine.rows(at), options.profile)
        return cls(
            laws=laws,
            most=laws.most[..., 0],
            variation=options.variation[at, None],
            targets=tuple(
                replace(one, limit=np.asarray(one.limit)[at, None, None])
                for one in options.targets
            ),
        )

    def excess(self, shares: Floats) -> Floats:
        """Return how far the worst target is missed at shares of the saturation."""
        rate = (shares * self.most)[..., None]
        even = np.broadcast_to(self.variation[..., None], rate.shape)
        laws = self.laws.at(rate, even)
        worst = np.full(shares.shape, -_FAR)
        for target in self.targets:
            worst = np.maximum(worst, target.excess(laws)[..., 0])
        return worst


Excess = Callable[[Floats], Floats]
"""Above 0 where a target is missed, at shares of the saturation [option, share]."""


def _crossing(excess: Excess, options: int) -> Floats:
    """Return the largest share below the first excess above 0, shaped [option, 1]."""
    zero = np.zeros((options, 1))
    shares = np.broadcast_to(_FIRST, (options, len(_FIRST)))
    nothing, lowest = zero, zero - _FAR
    low, at_low, high, at_high = _bracket(excess, shares, (nothing, lowest), None)
    for _ in range(_ROUNDS):
        secant = -at_low / np.maximum(at_high - at_low, 1e-12)
        beside = np.clip(secant + _ASIDE, 0.02, 0.98)
        thirds = np.broadcast_to(_THIRDS, beside.shape)
        places = np.sort(np.concatenate([beside, thirds], axis=1), axis=1)
        shares = low + places * (high - low)
        ends = (low, at_low), (high, at_high)
        low, at_low, high, at_high = _bracket(excess, shares, *ends)
    return np.where(low < _FIRST[0], 0.0, low)


def _bracket(
    excess: Excess,
    shares: Floats,
    below: tuple[Floats, Floats],
    above: tuple[Floats, Floats] | None,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the neighbours of the first crossing, and the excess at each."""
    found = np.clip(excess(shares), -_FAR, _FAR)
    if above is None:
        above = shares[:, -1:], found[:, -1:]
    shares = np.concatenate([below[0], shares, above[0]], axis=1)
    found = np.concatenate([below[1], found, above[1]], axis=1)
    over = found[:, 1:] > 0.0
    first = np.where(over.any(axis=1), over.argmax(axis=1), over.shape[1] - 1)[:, None]

    def pick(values: Floats, index: npt.NDArray[np.intp]) -> Floats:
        return np.take_along_axis(values, index, axis=1)

    low, high = (pick(shares, first + side) for side in (0, 1))
    at_low, at_high = (pick(found, first + side) for side in (0, 1))
    return low, at_low, high, at_high
