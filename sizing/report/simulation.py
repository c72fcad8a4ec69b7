"""A simulation as text and JSON: what requests saw, beside what was predicted."""

import math
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from model_ops.serving.confidence import Interval, Verdict
from model_ops.units import SECOND
from problems.pair_stations import PairStation
from problems.plan import PlannedDeployment
from problems.serve import Served
from problems.stations import Station
from problems.traffic import LatencyTarget, Metric, Statistic
from sizing.check import MOST_ROUNDS, Checked, Correction
from sizing.report.console import new_console, plain_table, section, text_of
from sizing.report.data import json_text
from sizing.report.json import as_dict as answer_as_dict
from sizing.report.text import as_text as answer_as_text
from sizing.simulate import (
    Judged,
    Measured,
    SimulatedClass,
    SimulatedDeployment,
    Simulation,
)

_METRICS: tuple[Metric, ...] = ("ttft", "tpot", "e2e")
_STATISTICS: tuple[Statistic, ...] = ("mean", "p50", "p90", "p95", "p99")
_ALWAYS = frozenset({"mean", "p50", "p95", "p99"})
"""Statistics that are shown even where they have no target."""
_DIGITS = 9
"""Of seconds: runs that are alike differ by rounding only."""


# Text


def as_text(simulation: Simulation) -> str:
    """Return a simulation as readable text."""
    console = new_console()
    _write(console, simulation)
    return text_of(console)


def _write(console: Console, simulation: Simulation) -> None:
    console.print(_summary(simulation))
    for found in simulation.classes:
        for each in found.deployments:
            section(console, _title(each), _latencies(each.measured, each))
            console.print(_replicas(each))
        if len(found.deployments) > 1:
            title = f"{found.traffic.name}, all of its requests"
            section(console, title, _latencies(found.measured, None))
    console.print()
    for line in _notes(simulation):
        console.print(f"- {line}")


def _summary(simulation: Simulation) -> str:
    settings = simulation.settings
    runs = "1 run" if simulation.runs == 1 else f"{simulation.runs} runs"
    judged = [j for d in simulation.deployments for j in d.measured.targets]
    said = {
        Verdict.PASS: "every target holds" if judged else "there is no target to judge",
        Verdict.UNDECIDED: "no target fails, but not all are decided; more --runs or "
        "--requests may tell",
        Verdict.FAIL: f"{sum(j.verdict is Verdict.FAIL for j in judged)} of "
        f"{len(judged)} targets fail",
    }
    plan = simulation.plan
    models = " and ".join(dict.fromkeys(plan.model_of(d) for d in plan.deployments))
    return (
        f"Simulated {models}: {said[simulation.verdict]}. {runs} of "
        f"{settings.requests:,} requests per class, router {_router(simulation)}, "
        f"seed {settings.seed}, in {simulation.seconds:.1f} s."
    )


def _router(simulation: Simulation) -> str:
    """Return the routers simulated, of each class where they differ."""
    stated = simulation.settings.router
    if stated is not None:
        return stated.value
    used = dict.fromkeys(found.traffic.router for found in simulation.classes)
    return ", ".join(used)


def _title(each: SimulatedDeployment) -> str:
    served = each.place.served
    each_of = "each" if served.decode is None else "together"
    unit = "requests in flight" if each.place.traffic.is_closed else "req/s"
    stated = (
        served.load.concurrency if each.place.traffic.is_closed else served.load.rate
    )
    return (
        f"{each.place.traffic.name} on {_names(served)}: {float(stated):.3g} "
        f"{unit} {each_of}, {served.utilisation:.0%} of what targets and memory allow"
    )


def _names(served: Served) -> str:
    if served.decode is None:
        return _name(served.deployment)
    return f"{_name(served.deployment)} for prefill, {_name(served.decode)} for decode"


def _name(deployment: PlannedDeployment) -> str:
    split = deployment.parallelism.text
    return (
        f"{deployment.replicas:,} x {deployment.npu} {split} ({deployment.precision})"
    )


def _latencies(measured: Measured, each: SimulatedDeployment | None) -> RichTable:
    """Return a row per latency and statistic, then one per goodput."""
    table = plain_table(
        "latency", ">simulated", ">+-", ">predicted", ">target", ">kept by", "verdict",
    )  # fmt: skip
    targets = {
        (j.target.metric, j.target.statistic): j
        for j in measured.targets
        if isinstance(j.target, LatencyTarget)
    }
    for metric in _METRICS:
        for statistic in _STATISTICS:
            judged = targets.get((metric, statistic))
            found = measured.figures[f"{metric}_{statistic}"]
            shown = statistic in _ALWAYS or judged is not None
            if not shown or math.isnan(found.mean):
                continue
            predicted = _predicted(each, metric, statistic)
            table.add_row(
                f"{statistic} {metric.upper()}",
                _seconds(found.mean),
                _seconds(found.half_width),
                _seconds(predicted),
                *_judgement(judged),
            )
    for judged in measured.targets:
        if not isinstance(judged.target, LatencyTarget):
            share = judged.simulated
            width = f"{share.half_width:.2%}" if math.isfinite(share.half_width) else ""
            table.add_row(
                judged.label, f"{share.mean:.2%}", width, "",
                f"{100 * judged.target.share:.4g}%", "", judged.verdict.value,
            )  # fmt: skip
    return table


def _judgement(judged: Judged | None) -> tuple[str, str, str]:
    if judged is None or not isinstance(judged.target, LatencyTarget):
        return "", "", ""
    kept = "" if judged.target.level is None else f"{judged.attained.mean:.1%}"
    return SECOND.format(judged.target.at_most), kept, judged.verdict.value


def _predicted(
    each: SimulatedDeployment | None, metric: str, statistic: str
) -> float | None:
    if each is None:
        return None
    figures = getattr(each.place.served.latencies, metric)
    return _finite(getattr(figures, statistic))


def _seconds(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return SECOND.format(round(value, _DIGITS))


def _replicas(each: SimulatedDeployment) -> str:
    simulated, of = each.place.queues, each.place.all_queues
    what = "all" if simulated == of else f"{simulated:,} of {of:,}"
    pair = each.place.served.pair
    one = "queue" if pair is None else "part"
    if pair is not None:
        reads, answers = (
            sum(row.replicas * row.dp for row in pool) // of
            for pool in (pair.prefill, pair.decode)
        )
        what = f"queues: {reads:,} for prefill, {answers:,} for decode; {what}"
    return (
        f"Each {one} ({what} simulated) runs {each.running.mean:.3g} requests on "
        f"average, its cache {each.cache_used.mean:.0%} full; of 1,000 requests "
        f"{1000 * each.preempted.mean:.3g} are preempted, "
        f"{1000 * each.rejected.mean:.3g} rejected."
    )


def _notes(simulation: Simulation) -> list[str]:
    """Return what the figures rest on, as far as it concerns this plan."""
    notes = [
        "+- is half the width of the 95 % interval over the runs; a target passes or "
        "fails where all of it lies on one side.",
    ]
    stations = [each.place.station for each in simulation.deployments]
    if any(isinstance(station, PairStation) for station in stations):
        notes.append(
            "A KV cache travels as long as one does on average at this load; TPOT has "
            "the transfer in it."
        )
    if any(s.groups > 1 for s in stations if isinstance(s, Station)):
        notes.append(
            "The data-parallel groups of a replica are queues that step independently; "
            "in truth they wait for each other."
        )
    if any(station.tokens_per_step != 1.0 for station in stations):
        notes.append("Every step of a request gains as many tokens as the average one.")
    if any(each.place.traffic.is_replayed for each in simulation.deployments):
        notes.append(
            "Recorded requests come at their own times: the intervals say nothing of "
            "other days."
        )
    if any(
        each.place.queues < each.place.all_queues for each in simulation.deployments
    ):
        notes.append(
            "Where not all queues are simulated, the requests are as many fewer; more "
            "--requests allow more queues."
        )
    return notes


# JSON


def as_json(simulation: Simulation) -> str:
    """Return a simulation as one JSON object, with every figure in SI units."""
    return json_text(as_dict(simulation))


def as_dict(simulation: Simulation) -> dict[str, Any]:
    """Return a simulation as plain dictionaries and lists."""
    settings = simulation.settings
    return {
        "model": simulation.plan.model,
        "verdict": simulation.verdict.value,
        "router": _router(simulation),
        "requests_per_run": settings.requests,
        "runs": simulation.runs,
        "seed": settings.seed,
        "seconds": simulation.seconds,
        "classes": [_class(found) for found in simulation.classes],
        "notes": _notes(simulation),
    }


def _class(found: SimulatedClass) -> dict[str, Any]:
    return {
        "traffic": found.traffic.name,
        "latencies": _figures(found.measured, None),
        "targets": _targets(found.measured),
        "deployments": [_deployment(each) for each in found.deployments],
    }


def _deployment(each: SimulatedDeployment) -> dict[str, Any]:
    place, served = each.place, each.place.served
    what = _replicas_of(served.deployment)
    if served.decode is not None:
        pools = {"prefill": what, "decode": _replicas_of(served.decode)}
        what = {"mode": "disaggregated", **pools}
    return {
        **what,
        "queues": place.all_queues,
        "queues_simulated": place.queues,
        "req_per_s_per_replica": _finite(place.served.load.rate),
        "in_flight_per_replica": _finite(place.served.load.concurrency),
        "utilisation": place.served.utilisation,
        "latencies": _figures(each.measured, each),
        "targets": _targets(each.measured),
        "running_per_queue": _interval(each.running),
        "cache_used": _interval(each.cache_used),
        "preemptions_per_request": _interval(each.preempted),
        "rejected_share": _interval(each.rejected),
    }


def _replicas_of(deployment: PlannedDeployment) -> dict[str, Any]:
    return {
        "npu": deployment.npu,
        **deployment.parallelism.degrees,
        "precision": deployment.precision,
        "replicas": deployment.replicas,
    }


def _figures(
    measured: Measured, each: SimulatedDeployment | None
) -> dict[str, dict[str, Any]]:
    """Return the statistics of each latency in seconds."""
    return {
        f"{metric}_s": {
            statistic: _interval(measured.figures[f"{metric}_{statistic}"])
            | ({"predicted": _predicted(each, metric, statistic)} if each else {})
            for statistic in _STATISTICS
        }
        for metric in _METRICS
    }


def _targets(measured: Measured) -> list[dict[str, Any]]:
    return [
        {
            "target": judged.label,
            **judged.target.model_dump(exclude_none=True),
            "simulated": _interval(judged.simulated),
            "attained": _interval(judged.attained),
            "verdict": judged.verdict.value,
        }
        for judged in measured.targets
    ]


def _interval(interval: Interval) -> dict[str, float | None]:
    return {
        "mean": _finite(interval.mean),
        "half_width": _finite(interval.half_width),
    }


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


# A checked answer


def checked_as_text(checked: Checked) -> str:
    """Return a sized plan as text, then what its simulation says."""
    console = new_console()
    console.print()
    console.print("Checked by simulation")
    for correction in (c for found in checked.corrections for c in found):
        console.print(f"- {_correction(correction)}")
    if checked.failed:
        console.print(
            f"- After {MOST_ROUNDS} corrections a target fails still; the plan is as "
            "it is."
        )
    if len(checked.simulations) > len(checked.corrections):
        _write(console, checked.simulations[-1])
    return answer_as_text(checked.answer) + text_of(console)


def _correction(correction: Correction) -> str:
    traffic, npu, split, precision, setting, mode = correction.deployed
    pool = "" if mode == "aggregated" else f" {mode}"
    return (
        f"{npu} {split.text}{pool} ({precision}, {setting.batch:,} requests at once, "
        f"{setting.chunk_tokens:,} tokens per step) for {traffic} misses "
        f"{' and '.join(correction.missed)} in the simulation: planned with at most "
        f"{correction.confirmed:.3g} instead of {correction.predicted:.3g} req/s."
    )


def checked_as_json(checked: Checked) -> str:
    """Return a sized plan as one JSON object, the simulation under ``check``."""
    whole = answer_as_dict(checked.answer) | {"check": _check(checked)}
    return json_text(whole)


def _check(checked: Checked) -> dict[str, Any]:
    has_plan = len(checked.simulations) > len(checked.corrections)
    return {
        "rounds": len(checked.corrections),
        "corrections": [
            {
                "round": number,
                "traffic": correction.deployed[0],
                "npu": correction.deployed[1],
                **correction.deployed[2].degrees,
                "precision": correction.deployed[3],
                "batch": correction.deployed[4].batch,
                "chunk_tokens": correction.deployed[4].chunk_tokens,
                "mode": correction.deployed[5],
                "missed": list(correction.missed),
                "predicted_req_per_s": correction.predicted,
                "confirmed_req_per_s": correction.confirmed,
            }
            for number, found in enumerate(checked.corrections, start=1)
            for correction in found
        ],
        "simulation": as_dict(checked.simulations[-1]) if has_plan else None,
    }


FORMATS: dict[str, Callable[[Simulation], str]] = {"text": as_text, "json": as_json}
"""Every format of a simulation."""

CHECKED: dict[str, Callable[[Checked], str]] = {
    "text": checked_as_text,
    "json": checked_as_json,
}
"""Every format of an answer that was checked."""
