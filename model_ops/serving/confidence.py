"""How sure a simulated figure is: repeated runs, intervals, and a verdict on limits.

The mean of a statistic over independent runs has the interval of Student's t
distribution (A. Law, Simulation Modeling and Analysis, 5th ed., section 9.4.1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import Floats
from model_ops.serving.simulation import Router, arrivals, simulate
from model_ops.serving.trace import Trace
from model_ops.units import RequestsPerSecond, Seconds

_T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""97.5 % quantiles of Student's t by degrees of freedom, from one on."""

Progress = Callable[[int, int], None]
"""Told how many runs are done, and of how many."""


class Verdict(StrEnum):
    """What runs say of limits."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


class Simulation(Protocol):
    """One run of so many requests."""

    def __call__(self, seed: int, requests: int) -> Trace:
        """Return the trace of a run; equal seeds give equal traces."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over runs and half the width of its 95 % interval."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Floats) -> "Interval":
        """Return the interval of one value per run; endless for a single run."""
        mean = float(values.mean())
        if values.size < 2:
            return cls(mean, float("inf"))
        t = _T_975[min(values.size - 1, len(_T_975)) - 1]
        return cls(mean, float(t * values.std(ddof=1) / np.sqrt(values.size)))

    def verdict(self, most: float) -> Verdict:
        """Return on which side of a limit the interval lies."""
        if self.mean + self.half_width <= most:
            return Verdict.PASS
        if self.mean - self.half_width > most:
            return Verdict.FAIL
        return Verdict.UNDECIDED


@dataclass(frozen=True, slots=True)
class Confidence:
    """Statistics over runs.

    Parameters
    ----------
    intervals
        By name of the statistic, such as ``ttft_p99``.
    verdict
        On all limits together: fail where one is exceeded for sure, pass where all are
        kept for sure.
    runs
        How many it took.
    rejected
        Requests over all runs that no replica can hold; they count in no statistic.
    """

    intervals: Mapping[str, Interval]
    verdict: Verdict
    runs: int
    rejected: int


def open_loop(
    engine: Engine,
    profile: Profile,
    rate: RequestsPerSecond,
    *,
    variation: float = 1.0,
    replicas: int = 1,
    router: Router | str = Router.LEAST_LOADED,
) -> Simulation:
    """Return the simulation of requests that come at a rate; see `simulate`."""

    def one(seed: int, requests: int) -> Trace:
        rng = np.random.default_rng(seed)
        prompt = profile.prompt.sample(rng, requests)
        return simulate(
            engine,
            arrivals(rng, requests, rate, variation),
            prompt,
            profile.output.sample(rng, requests),
            reused=np.minimum(np.rint(profile.cached_share * prompt), prompt - 1),
            replicas=replicas,
            router=router,
            seed=seed,
        )

    return one


def confidence(
    simulation: Simulation,
    limits: Mapping[str, Seconds],
    *,
    runs: int = 5,
    most_runs: int = 40,
    requests: int = 60_000,
    progress: Progress | None = None,
) -> Confidence:
    """Repeat a simulation, and twice as often while the limits remain undecided.

    Parameters
    ----------
    limits
        Most seconds by name of the statistic: ``{"ttft_p99": 2.0}``; may be empty.
    runs, most_runs
        How many there are at first, and at most. They have the seeds 0, 1, 2, ...
    requests
        Of each run.

    Raises
    ------
    KeyError
        If a limit is on a statistic that a summary does not have.
    ValueError
        If there is no run.
    """
    if runs < 1:
        raise ValueError("confidence takes at least one run")
    found: list[dict[str, Seconds]] = []
    rejected = 0
    while True:
        for seed in range(len(found), runs):
            trace = simulation(seed, requests)
            found.append(trace.summary().flat())
            rejected += trace.rejected
            if progress:
                progress(len(found), runs)
        intervals = {
            name: Interval.of(np.array([figures[name] for figures in found]))
            for name in found[0]
        }
        verdict = _together(
            [intervals[name].verdict(most) for name, most in limits.items()]
        )
        if verdict is not Verdict.UNDECIDED or runs >= most_runs:
            return Confidence(intervals, verdict, runs, rejected)
        runs = min(2 * runs, most_runs)


def _together(verdicts: list[Verdict]) -> Verdict:
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.PASS
