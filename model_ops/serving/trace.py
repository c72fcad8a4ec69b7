"""What a simulation returns: the times of every request, and what replicas counted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from model_ops.serving.lengths import Floats
from model_ops.units import RequestsPerSecond, Seconds

Tokens = npt.NDArray[np.int64]

_SHAPED = ("arrival", "scheduled", "first_token", "finish", "prompt", "output")
"""Fields of a trace that are shaped [request]."""

FIGURES = ("ttft", "tpot", "e2e")
"""What is measured of a request."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and percentiles of one figure over requests; not a number of none."""

    mean: Seconds
    p50: Seconds
    p90: Seconds
    p95: Seconds
    p99: Seconds

    @classmethod
    def of(cls, values: Floats) -> Self:
        """Return the statistics of measured values."""
        if values.size == 0:
            return cls(*[float("nan")] * len(fields(cls)))
        found = np.percentile(values, [50, 90, 95, 99])
        return cls(float(values.mean()), *map(float, found))


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of the requests that were served."""

    ttft: Statistics
    tpot: Statistics
    e2e: Statistics

    def flat(self) -> dict[str, Seconds]:
        """Return all of them by name, ``ttft_p99`` for instance."""
        return {
            f"{figure}_{name}": seconds
            for figure, statistics in asdict(self).items()
            for name, seconds in statistics.items()
        }


@dataclass(frozen=True, slots=True)
class Counters:
    """What replicas count, summed over them.

    Parameters
    ----------
    steps, mixed_steps
        Steps in all, and those that carried prompt tokens.
    preemptions
        Requests that lost their cache and were computed anew.
    running, cached_tokens
        Requests that hold cache, and tokens in it: averages over time, from the first
        arrival to the last finish.
    peak_cached_tokens
        Most tokens in the cache of one replica.
    """

    steps: int
    mixed_steps: int
    preemptions: int
    running: float
    cached_tokens: float
    peak_cached_tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened to each request, in the order in which they were given.

    Parameters
    ----------
    arrival, scheduled, first_token, finish
        Seconds; not a number for requests that were rejected. Shaped [request].
    prompt, output
        Tokens; same shape.
    counters
        Of the replicas.
    """

    arrival: Floats
    scheduled: Floats
    first_token: Floats
    finish: Floats
    prompt: Tokens
    output: Tokens
    counters: Counters

    def some(self, which: npt.ArrayLike) -> Self:
        """Return some requests, by flag or index; the counters are those of all."""
        chosen = np.asarray(which)
        return replace(self, **{name: getattr(self, name)[chosen] for name in _SHAPED})

    @classmethod
    def joined(cls, traces: Sequence[Self]) -> Self:
        """Return the requests of several traces; the counters are of the first."""
        shaped: dict[str, Any] = {
            name: np.concatenate([getattr(trace, name) for trace in traces])
            for name in _SHAPED
        }
        return replace(traces[0], **shaped)

    @property
    def rejected(self) -> int:
        """Requests that the cache of an empty replica cannot hold."""
        return int(np.isnan(self.finish).sum())

    @property
    def rate(self) -> RequestsPerSecond:
        """Requests served per second, from the first arrival to the last finish."""
        served = self.finish.size - self.rejected
        span = np.nanmax(self.finish) - np.nanmin(self.arrival)
        return float(served / span)

    @property
    def ttft(self) -> Floats:
        """Seconds from arrival to the first token."""
        return self.first_token - self.arrival

    @property
    def tpot(self) -> Floats:
        """Mean seconds per further token; not a number where there is none."""
        further = np.where(self.output > 1, self.output - 1.0, np.nan)
        return (self.finish - self.first_token) / further

    @property
    def e2e(self) -> Floats:
        """Seconds from arrival to the last token."""
        return self.finish - self.arrival

    def summary(self, warm_up: float = 0.1) -> Summary:
        """Return the statistics without the first share `warm_up` of the arrivals."""
        late = self._after(warm_up)
        figures = (getattr(self, figure)[late] for figure in FIGURES)
        return Summary(*(Statistics.of(x[~np.isnan(x)]) for x in figures))

    def attainment(self, targets: Mapping[str, Seconds], warm_up: float = 0.1) -> float:
        """Return the share of requests that meet every target.

        Parameters
        ----------
        targets
            Most seconds by figure: ``{"ttft": 1.0, "tpot": 0.05}``.
        warm_up
            Share of the arrivals that do not count.

        Raises
        ------
        KeyError
            If there is no such figure.
        """
        late = self._after(warm_up)
        met = ~np.isnan(self.finish)
        for figure, most in targets.items():
            if figure not in FIGURES:
                raise KeyError(f"no figure {figure!r}; known: {', '.join(FIGURES)}")
            # A request without a second token misses no TPOT.
            met &= ~(getattr(self, figure) > most)
        return float(met[late].mean())

    def _after(self, warm_up: float) -> npt.NDArray[np.intp]:
        """Return the requests that arrive after the warm-up."""
        order = np.argsort(self.arrival, kind="stable")
        return order[int(order.size * warm_up) :]
