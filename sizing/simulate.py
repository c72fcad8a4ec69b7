"""Simulation of a plan: what requests see, over runs, and which targets hold."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_ops.serving.confidence import Interval, Progress, Verdict
from model_ops.serving.simulation import Router
from model_ops.serving.trace import Trace
from model_ops.units import Seconds
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.traffic import Goodput, LatencyTarget, TrafficClass
from sizing.simulated_serving import served_by
from sizing.simulated_traffic import Place, places_of, sent, settled

MOST_DOUBLINGS = 3
"""How often the runs are doubled while a target is undecided."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a plan is simulated.

    Parameters
    ----------
    router
        How requests find their queue; None: as each class states.
    requests, runs
        Requests of a class in each run, and runs at first; they are doubled, up to
        `MOST_DOUBLINGS` times, while a target is undecided.
    seed
        Of all that is random.
    time_limit
        No run begins when they are over, but the first.
    """

    router: Router | None = None
    requests: int = 60_000
    runs: int = 5
    seed: int = 0
    time_limit: Seconds = 300.0


@dataclass(frozen=True, slots=True)
class Judged:
    """A target and what runs say of it.

    Parameters
    ----------
    target
        A bound on a statistic, or a share of requests within limits.
    simulated
        The statistic in seconds, or the share.
    attained
        Share of the requests that keep the limit, or all of them.
    verdict
        On which side of the bound the 95 % interval lies.
    """

    target: LatencyTarget | Goodput
    simulated: Interval
    attained: Interval
    verdict: Verdict

    @property
    def metric(self) -> str:
        """The latency meant; of a goodput, all of a request's time."""
        return (
            str(self.target.metric) if isinstance(self.target, LatencyTarget) else "e2e"
        )

    @property
    def label(self) -> str:
        """The target's name in reports."""
        if isinstance(self.target, LatencyTarget):
            return self.target.label
        return f"goodput {100 * self.target.share:.4g}%"


@dataclass(frozen=True, slots=True)
class Measured:
    """What requests have seen: intervals by name, ``ttft_p99``, and their targets."""

    figures: Mapping[str, Interval]
    targets: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class SimulatedDeployment:
    """A deployment's requests, and its replicas.

    Parameters
    ----------
    place
        What was simulated.
    measured
        What its requests have seen.
    running, cache_used
        Requests that a queue runs on average, and the share of its cache in use.
    preempted, rejected
        Per request: how often one lost its cache, and the share that no cache holds.
    """

    place: Place
    measured: Measured
    running: Interval
    cache_used: Interval
    preempted: Interval
    rejected: Interval


@dataclass(frozen=True, slots=True)
class SimulatedClass:
    """A class's requests wherever they were served, and each of its deployments."""

    traffic: TrafficClass
    measured: Measured
    deployments: tuple[SimulatedDeployment, ...]


@dataclass(frozen=True, slots=True)
class Simulation:
    """A simulated plan.

    Parameters
    ----------
    problem, plan, settings
        What was simulated, and how.
    classes
        What came of it.
    runs, seconds
        How many runs there were, and the wall time of all.
    """

    problem: SizingProblem
    plan: Plan
    settings: Settings
    classes: tuple[SimulatedClass, ...]
    runs: int
    seconds: Seconds

    @property
    def deployments(self) -> tuple[SimulatedDeployment, ...]:
        """Those of all classes."""
        return tuple(d for found in self.classes for d in found.deployments)

    def sharing(self, deployment: SimulatedDeployment) -> list[Place]:
        """Return a deployment's place, and at last those that share its replicas."""
        own = deployment.place
        pair = own.served.pair
        others = [
            each.place
            for each in self.deployments
            if pair is not None and each.place.served.pair == pair
        ]
        return [own, *(place for place in others if place is not own)]

    @property
    def failed(self) -> tuple[SimulatedDeployment, ...]:
        """Deployments that surely miss a target."""
        return tuple(d for d in self.deployments if Verdict.FAIL in _verdicts([d]))

    @property
    def verdict(self) -> Verdict:
        """On all targets together; pass where there are none."""
        said = _verdicts(self.deployments)
        for verdict in (Verdict.FAIL, Verdict.UNDECIDED):
            if verdict in said:
                return verdict
        return Verdict.PASS


def simulated(
    problem: SizingProblem,
    plan: Plan,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Simulation:
    """Return what requests see of a plan at the problem's traffic.

    Parameters
    ----------
    problem
        Its traffic and targets; open classes come at the rate of their peak.
    plan
        The deployments.
    progress
        Told after each run how many are done, and of how many.
    """
    settings, begun = settings or Settings(), time.perf_counter()
    classes = [places_of(problem, plan, t, settings.requests) for t in problem.traffic]
    runs: list[list[_Run]] = []
    wanted = settings.runs
    for doubling in range(MOST_DOUBLINGS + 1):
        while len(runs) < wanted:
            if runs and time.perf_counter() - begun > settings.time_limit:
                break
            runs.append(_run(classes, settings, seed=len(runs)))
            if progress:
                progress(len(runs), wanted)
        found = tuple(
            _class(places, [run[number] for run in runs])
            for number, places in enumerate(classes)
        )
        seconds = time.perf_counter() - begun
        result = Simulation(problem, plan, settings, found, len(runs), seconds)
        undecided = Verdict.UNDECIDED in _verdicts(result.deployments)
        if not undecided or len(runs) < wanted or doubling == MOST_DOUBLINGS:
            break
        wanted *= 2
    return result


def keeps_targets(places: Sequence[Place], settings: Settings, share: float) -> bool:
    """Return whether the first place keeps its targets in one run at a share of loads.

    Parameters
    ----------
    places
        One, and those that share its replicas.
    """
    lighter = [replace(place, load=place.load * share) for place in places]
    (run,) = _run([lighter], settings, seed=0)
    judged = _measured(lighter[0].traffic, [run.each[0].figures]).targets
    return all(
        j.simulated.mean >= j.target.share
        if isinstance(j.target, Goodput)
        else j.simulated.mean <= j.target.at_most
        for j in judged
    )


# One run


@dataclass(frozen=True, slots=True)
class _Part:
    """Figures of a deployment in one run, and of its replicas."""

    figures: Mapping[str, float]
    replicas: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Run:
    """Figures of a class in one run, and of each deployment."""

    figures: Mapping[str, float]
    each: tuple[_Part, ...]


def _run(
    classes: Sequence[Sequence[Place]], settings: Settings, seed: int
) -> list[_Run]:
    return [
        _class_run(places, settings, np.random.default_rng([settings.seed, seed, i]))
        for i, places in enumerate(classes)
    ]


def _class_run(
    places: Sequence[Place], settings: Settings, rng: np.random.Generator
) -> _Run:
    traffic = places[0].traffic
    router = settings.router or Router(traffic.router)
    traces = served_by(places, sent(places, settings.requests, rng), router, rng)
    counted, parts = [], []
    for place, (own, whole) in zip(places, traces, strict=True):
        counted.append(settled(place, own))
        parts.append(_Part(_figures(traffic, counted[-1]), _replicas(place, whole)))
    return _Run(_figures(traffic, Trace.joined(counted)), tuple(parts))


def _targets(traffic: TrafficClass) -> tuple[LatencyTarget | Goodput, ...]:
    return (*traffic.targets, *([traffic.goodput] if traffic.goodput else []))


def _figures(traffic: TrafficClass, trace: Trace) -> dict[str, float]:
    """Return the statistics of one run, and how many requests keep each target."""
    attained = {
        f"attained_{i}": trace.attainment(_limits(target), warm_up=0.0)
        for i, target in enumerate(_targets(traffic))
    }
    return trace.summary(warm_up=0.0).flat() | attained


def _limits(target: LatencyTarget | Goodput) -> Mapping[str, Seconds]:
    if isinstance(target, Goodput):
        return {str(metric): most for metric, most in target.limits.items()}
    return {target.metric: target.at_most}


def _replicas(place: Place, trace: Trace) -> dict[str, float]:
    counters, requests = trace.counters, trace.arrival.size
    kept = place.station.cache_tokens * place.queues
    return {
        "running": counters.running / place.queues,
        "cache_used": counters.cached_tokens / kept,
        "preempted": counters.preemptions / requests,
        "rejected": trace.rejected / requests,
    }


# All runs


def _class(places: Sequence[Place], runs: Sequence[_Run]) -> SimulatedClass:
    traffic = places[0].traffic
    deployments = tuple(
        SimulatedDeployment(
            place=place,
            measured=_measured(traffic, [run.each[i].figures for run in runs]),
            **_intervals([run.each[i].replicas for run in runs]),
        )
        for i, place in enumerate(places)
    )
    measured = _measured(traffic, [run.figures for run in runs])
    return SimulatedClass(traffic, measured, deployments)


def _measured(traffic: TrafficClass, runs: Sequence[Mapping[str, float]]) -> Measured:
    found = _intervals(runs)
    judged = []
    for i, target in enumerate(_targets(traffic)):
        attained = found.pop(f"attained_{i}")
        if isinstance(target, Goodput):
            missed = Interval(-attained.mean, attained.half_width)
            verdict = missed.verdict(-target.share)
            judged.append(Judged(target, attained, attained, verdict))
        else:
            seconds = found[f"{target.metric}_{target.statistic}"]
            verdict = seconds.verdict(target.at_most)
            judged.append(Judged(target, seconds, attained, verdict))
    return Measured(found, tuple(judged))


def _intervals(runs: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    return {
        name: Interval.of(np.array([figures[name] for figures in runs]))
        for name in runs[0]
    }


def _verdicts(deployments: Sequence[SimulatedDeployment]) -> set[Verdict]:
    return {judged.verdict for d in deployments for judged in d.measured.targets}
