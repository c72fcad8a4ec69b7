"""Simulation of serving: every request's times, for loads and percentiles of any kind.

`simulate` runs replicas that prefill and decode, `simulate_disaggregated` a pool for
each, `simulate_routes` pools of several kinds. The rules of a replica are those of
`model_ops.serving.scheduler`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache, reduce
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from model_ops.serving.engine import Engine
from model_ops.serving.lengths import Floats
from model_ops.serving.scheduler import run
from model_ops.serving.scheduler_state import Rules, rules_of, unserved
from model_ops.serving.trace import Counters, Tokens, Trace
from model_ops.units import RequestsPerSecond, Seconds

Indices = npt.NDArray[np.intp]


class Router(StrEnum):
    """How requests find their replica."""

    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    LEAST_LOADED = "least_loaded"
    """To the one with the fewest requests, running and waiting; the first of equals."""


def arrivals(
    rng: np.random.Generator,
    count: int,
    rate: RequestsPerSecond,
    variation: float = 1.0,
) -> Floats:
    """Return ascending arrival times whose gaps are independent and gamma-distributed.

    Parameters
    ----------
    variation
        Standard deviation of the gaps over their mean: 1 is a Poisson process, 0 has
        even gaps, more comes in bursts.
    """
    if variation == 0.0:
        return np.arange(1, count + 1) / rate
    shape = variation**-2
    return np.cumsum(rng.gamma(shape, 1.0 / (rate * shape), count))


def simulate(  # noqa: PLR0913 - the load, the replicas, and how they are simulated
    engine: Engine,
    arrivals: npt.ArrayLike,
    inputs: npt.ArrayLike,
    outputs: npt.ArrayLike,
    *,
    reused: npt.ArrayLike = 0,
    replicas: int = 1,
    router: Router | str = Router.LEAST_LOADED,
    users: int = 0,
    seed: int = 0,
    fast: bool | None = None,
) -> Trace:
    """Return what happens to requests that replicas of an engine serve.

    Parameters
    ----------
    engine
        Of each replica; its fields are numbers.
    arrivals
        Seconds from any origin, in any order; shaped [request] or one number. Without
        effect where there are `users`.
    inputs, outputs
        Tokens of prompts and answers, at least one each; shaped [request].
    reused
        Prompt tokens found in the prefix cache, fewer than the prompt; they need no
        compute, but their place in the cache as all others. Shaped [request].
    replicas, router
        How many share the requests, and how.
    users
        Of a closed loop, none in an open one: each begins at time zero and sends its
        next request when its last one has finished, always to the same replica. They
        take the requests in order.
    seed
        Of the random router.
    fast
        Whether to run compiled, which needs numba; where None, if it is installed. The
        results are the same.

    Raises
    ------
    ValueError
        If a length, a limit or a count is below one, or no router has the name.
    ImportError
        If `fast` is asked for without numba.
    """
    load = _Load.of(arrivals, inputs, outputs, reused)
    rules = rules_of(engine)
    fits = load.prompt + load.output - 1 <= rules.cache_tokens
    pool = _Pool(rules, replicas, Router(router), users, seed, _is_fast(fast))
    served = pool.serve(load.later(rules.delay), fits)
    return Trace(
        arrival=served.entered - rules.delay,
        scheduled=served.scheduled,
        first_token=served.first_token,
        finish=served.finish,
        prompt=load.prompt,
        output=load.output,
        counters=served.counters,
    )


def simulate_disaggregated(  # noqa: PLR0913 - as `simulate`, with two pools
    prefill_engine: Engine,
    decode_engine: Engine,
    arrivals: npt.ArrayLike,
    inputs: npt.ArrayLike,
    outputs: npt.ArrayLike,
    *,
    reused: npt.ArrayLike = 0,
    prefill_replicas: int = 1,
    decode_replicas: int = 1,
    transfer_per_token: Seconds = 0.0,
    transfer_latency: Seconds = 0.0,
    router: Router | str = Router.LEAST_LOADED,
    seed: int = 0,
    fast: bool | None = None,
) -> Trace:
    """Return what happens to requests that one pool prefills and another one decodes.

    The first token comes from the prefill pool, all others from the decode pool, which
    a request may enter when its KV cache has been transferred. A prefill replica frees
    the cache at the first token. Parameters not named here are those of `simulate`.

    Parameters
    ----------
    prefill_engine, decode_engine
        Of the replicas of each pool; the former's `request_overhead` counts.
    transfer_per_token, transfer_latency
        Seconds that a request's cache travels: per prompt token, and once.

    Raises
    ------
    ValueError
        As `simulate` does.
    """
    return simulate_routes(
        [(prefill_engine, prefill_replicas)],
        [(decode_engine, decode_replicas)],
        arrivals,
        inputs,
        outputs,
        routes=np.zeros((1, 2), dtype=np.intp),
        reused=reused,
        transfer_per_token=[[transfer_per_token]],
        transfer_latency=[[transfer_latency]],
        router=router,
        seed=seed,
        fast=fast,
    )


def simulate_routes(  # noqa: PLR0913 - as `simulate`, with pools of several kinds
    prefill: Sequence[tuple[Engine, int]],
    decode: Sequence[tuple[Engine, int]],
    arrivals: npt.ArrayLike,
    inputs: npt.ArrayLike,
    outputs: npt.ArrayLike,
    *,
    routes: Indices,
    reused: npt.ArrayLike = 0,
    transfer_per_token: npt.ArrayLike,
    transfer_latency: npt.ArrayLike,
    router: Router | str = Router.LEAST_LOADED,
    seed: int = 0,
    fast: bool | None = None,
) -> Trace:
    """Return what happens to requests whose way through several pools is known.

    As `simulate_disaggregated`, which has one pool of either kind.

    Parameters
    ----------
    prefill, decode
        Engine and replicas of each pool.
    routes
        Index of the pool that reads, and of the one that answers; shaped [request, 2],
        or [1, 2] for all requests.
    transfer_per_token, transfer_latency
        Seconds from each prefill pool to each decode pool; shaped [prefill, decode].
    """
    load = _Load.of(arrivals, inputs, outputs, reused)
    reads, answers = np.broadcast_to(routes, (load.arrival.size, 2)).T
    shared = (Router(router), 0, seed, _is_fast(fast))
    first = [_Pool(rules_of(e), replicas, *shared) for e, replicas in prefill]
    further = [
        _Pool(rules_of(e, cache_arrives=True), replicas, *shared)
        for e, replicas in decode
    ]
    read_room, answer_room, delay = (
        np.array([getattr(pool.rules, name) for pool in pools])[to]
        for pools, to, name in (
            (first, reads, "cache_tokens"),
            (further, answers, "cache_tokens"),
            (first, reads, "delay"),
        )
    )
    fits = (load.prompt <= read_room) & (
        (load.output == 1) | (load.prompt + load.output - 1 <= answer_room)
    )
    one_token = replace(load.later(delay), output=np.ones_like(load.output))
    read = _served_by(first, one_token, fits, reads)
    per_token, latency = np.asarray(transfer_per_token), np.asarray(transfer_latency)
    travel = latency[reads, answers] + per_token[reads, answers] * load.prompt
    # The decode pool reads the first token too; what it computes anew it computes all.
    moved = _Load(
        read.finish + travel, load.prompt + 1, load.output - 1, load.reused * 0
    )
    rest = _served_by(further, moved, fits & (load.output > 1), answers)
    return Trace(
        arrival=load.arrival,
        scheduled=read.scheduled,
        first_token=read.first_token,
        finish=np.where(load.output > 1, rest.finish, read.finish),
        prompt=load.prompt,
        output=load.output,
        counters=_together(read.counters, rest.counters),
    )


@dataclass(frozen=True)
class _Load:
    """Requests as they are given; shaped [request]."""

    arrival: Floats
    prompt: Tokens
    output: Tokens
    reused: Tokens

    @classmethod
    def of(cls, arrivals: npt.ArrayLike, *tokens: npt.ArrayLike) -> Self:
        arrival, *counts = np.atleast_1d(*np.broadcast_arrays(arrivals, *tokens))
        prompt, output, reused = (np.array(count, dtype=np.int64) for count in counts)
        if prompt.size == 0 or min(prompt.min(), output.min()) < 1:
            raise ValueError("a request has at least one prompt and one output token")
        if (reused < 0).any() or (reused >= prompt).any():
            raise ValueError("reused tokens are from 0 to less than the prompt's")
        if not np.isfinite(arrival).all():
            raise ValueError("an arrival time is not finite")
        return cls(arrival.astype(np.float64), prompt, output, reused)

    def later(self, delay: Seconds | Floats) -> "_Load":
        """Return the requests with later arrivals."""
        return replace(self, arrival=self.arrival + delay)


@dataclass(frozen=True)
class _Served:
    """A pool's times, shaped [request], not a number where it was not asked."""

    entered: Floats
    scheduled: Floats
    first_token: Floats
    finish: Floats
    counters: Counters


@dataclass(frozen=True)
class _Pool:
    """Replicas of one engine that share requests."""

    rules: Rules
    replicas: int
    router: Router
    users: int
    seed: int
    fast: bool

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.users < 0:
            raise ValueError("a pool has at least one replica, and no negative users")

    def serve(self, load: _Load, asked: npt.NDArray[np.bool_]) -> _Served:
        """Serve the requests that it is asked for, from their arrival at it on."""
        times = np.full((4, load.arrival.size), np.nan)
        states = []
        # Replicas start at time zero, and clocks are finest there.
        start = 0.0 if self.users else load.arrival[asked].min(initial=np.inf)
        lanes = self._lanes(load.arrival, np.flatnonzero(asked))
        for i, lane in enumerate(lanes):
            requests = unserved(
                load.arrival[lane] - start,
                load.prompt[lane],
                load.output[lane],
                load.reused[lane],
            )
            users = self.users // len(lanes) + (i < self.users % len(lanes))
            if users:
                requests.entered[:users] = self.rules.delay
                requests.entered[users:] = np.inf
            sharing = self.replicas if self._shares_a_queue else 1
            states.append(run(self.rules, requests, sharing, users, fast=self.fast))
            times[:, lane] = np.array(requests[:4]) + start
        entered, scheduled, first_token, finish = times
        counters = _counters(states, entered, finish)
        return _Served(entered, scheduled, first_token, finish, counters)

    @property
    def _shares_a_queue(self) -> bool:
        """Whether the replicas must be simulated together."""
        return self.router is Router.LEAST_LOADED and not self.users

    def _lanes(self, entered: Floats, asked: Indices) -> list[Indices]:
        """Split requests, in order of entry, over what is simulated by itself."""
        if self.users:
            count = min(self.users, self.replicas)
            return [asked[lane::count] for lane in range(count)]
        asked = asked[np.argsort(entered[asked], kind="stable")]
        if self._shares_a_queue:
            return [asked]
        if self.router is Router.ROUND_ROBIN:
            return [asked[lane :: self.replicas] for lane in range(self.replicas)]
        drawn = np.random.default_rng(self.seed).integers(
            self.replicas, size=asked.size
        )
        return [asked[drawn == lane] for lane in range(self.replicas)]


def _served_by(
    pools: Sequence[_Pool], load: _Load, asked: npt.NDArray[np.bool_], to: Indices
) -> _Served:
    """Return what becomes of requests, each in the pool that it goes to."""
    each = [pool.serve(load, asked & (to == n)) for n, pool in enumerate(pools)]
    names = ("entered", "scheduled", "first_token", "finish")
    return _Served(
        **{n: np.choose(to, [getattr(served, n) for served in each]) for n in names},
        counters=reduce(_together, [served.counters for served in each]),
    )


def _counters(states: list[Any], entered: Floats, finish: Floats) -> Counters:
    """Return what replicas have counted, from the first entry to the last finish."""
    if np.isnan(finish).all():
        return Counters(0, 0, 0, 0.0, 0.0, 0)
    all_states = np.concatenate(states)
    span = float(np.nanmax(finish) - np.nanmin(entered))
    return Counters(
        steps=int(all_states["steps"].sum()),
        mixed_steps=int(all_states["mixed_steps"].sum()),
        preemptions=int(all_states["preemptions"].sum()),
        running=float(all_states["running_seconds"].sum() / span),
        cached_tokens=float(all_states["cached_seconds"].sum() / span),
        peak_cached_tokens=int(all_states["peak_cached"].max()),
    )


def _together(some: Counters, others: Counters) -> Counters:
    """Return the counters of two pools."""
    sums = {
        field.name: getattr(some, field.name) + getattr(others, field.name)
        for field in fields(Counters)
    }
    peak = max(some.peak_cached_tokens, others.peak_cached_tokens)
    return Counters(**{**sums, "peak_cached_tokens": peak})


def _is_fast(fast: bool | None) -> bool:
    """Return whether to run compiled, which is the default where numba is installed."""
    return _numba_installed() if fast is None else fast


@cache
def _numba_installed() -> bool:
    return find_spec("numba") is not None
