"""One deployment's prediction as text and JSON, operator by operator."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as RichTable

from model_ops.accuracy import interval, latency_intervals
from model_ops.estimate import Estimate, Load, LoadMode, bounds, load_steps
from model_ops.serving.step import Replica, TimedOperator, timed_operators
from model_ops.units import BYTE, FLOP, SECOND
from sizing.report.console import new_console, plain_table, section, text_of


@dataclass(frozen=True, slots=True)
class Prediction:
    """An estimate with what it was made from."""

    title: str
    replica: Replica
    load: Load
    replicas: int
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """Operators of one name in one step, added up.

    Parameters
    ----------
    name, count
        Operator, and how often the step runs it.
    flop, bytes, link_bytes
        FLOP, memory traffic and least network traffic of one NPU.
    seconds, share
        Time, and its share of the step.
    bound
        What most of it is spent on.
    """

    name: str
    count: float
    flop: float
    bytes: float
    link_bytes: float
    seconds: float
    share: float
    bound: str


def breakdown(
    replica: Replica, operators: Sequence[TimedOperator]
) -> list[OperatorRow]:
    """Return a step's operators by name, in the order in which they run.

    The scheduler's time between steps is a row of its own.
    """
    rows: dict[str, dict[str, float]] = {}
    for timed in operators:
        count = float(timed.count)
        if count == 0:
            continue
        cost, time = timed.operator.cost(), timed.time
        row = rows.setdefault(
            timed.operator.name,
            dict.fromkeys(
                ("count", "flop", "bytes", "link_bytes", "seconds", *_BOUNDS), 0.0
            ),
        )
        row["count"] += count
        row["flop"] += count * float(cost.total_flop)
        row["bytes"] += count * float(cost.bytes)
        row["link_bytes"] += count * float(cost.link_bytes)
        row["seconds"] += count * float(time.total)
        for bound in _BOUNDS:
            row[bound] += count * float(getattr(time, bound))
    overhead = float(replica.supply.step_overhead)
    whole = sum(row["seconds"] for row in rows.values()) + overhead
    found = [_row(name, row, whole) for name, row in rows.items() if row["seconds"]]
    if overhead:
        share = overhead / whole
        found.append(OperatorRow("scheduler", 1, 0, 0, 0, overhead, share, "launch"))
    return found


_BOUNDS = ("compute", "memory", "network", "launch")


def _row(name: str, row: dict[str, float], whole: float) -> OperatorRow:
    return OperatorRow(
        name=name,
        count=row["count"],
        flop=row["flop"],
        bytes=row["bytes"],
        link_bytes=row["link_bytes"],
        seconds=row["seconds"],
        share=row["seconds"] / whole,
        bound=max(_BOUNDS, key=lambda bound: row[bound]),
    )


def steps(prediction: Prediction) -> dict[str, list[TimedOperator]]:
    """Return the timed operators of the steps that set TTFT and TPOT."""
    replica, load = prediction.replica, prediction.load
    first, further = load_steps(replica, load, prediction.estimate.batch)
    return {
        "prompt step": timed_operators(replica, first),
        "decode step": timed_operators(replica, further),
    }


def latencies(prediction: Prediction) -> dict[str, tuple[float, float, float]]:
    """Return the mean, low and high seconds of each latency that there is."""
    estimate = prediction.estimate
    means = {"ttft": estimate.ttft, "tpot": estimate.tpot, "e2e": estimate.e2e}
    mode = prediction.load.mode
    ranges = latency_intervals(prediction.replica, estimate, mode)
    return {
        metric: (float(mean), float(ranges[metric][0]), float(ranges[metric][1]))
        for metric, mean in means.items()
        if metric != "tpot" or estimate.shape.decode_steps > 0
    }


def as_text(prediction: Prediction) -> str:
    """Return the prediction as readable text."""
    console = new_console()
    estimate = prediction.estimate
    console.print(prediction.title)
    table = plain_table("figure", ">predicted", ">low", ">high")
    for metric, (value, low, high) in latencies(prediction).items():
        cells = (SECOND.format(seconds) for seconds in (value, low, high))
        table.add_row(metric.upper(), *cells)
    for name, each in (
        ("requests/s", estimate.rate),
        ("output tokens/s", estimate.output_tokens_per_s),
    ):
        value = float(each) * prediction.replicas
        arriving = prediction.load.mode is LoadMode.OPEN_LOOP
        around = interval("rate", value, prediction.load.mode)
        cells = (f"{v:,.4g}" for v in ((value,) if arriving else (value, *around)))
        table.add_row(name, *cells)
    title = "Predicted means; 9 of 10 measurements should lie from low to high"
    section(console, title, table)
    console.print()
    memory = estimate.memory
    console.print(
        f"Batch {float(estimate.batch):.4g} decoding sequences per replica. Memory per "
        f"NPU: {BYTE.format(float(memory.total))} of "
        f"{BYTE.format(float(estimate.usable_memory))} usable (weights "
        f"{BYTE.format(float(memory.weights))}, KV cache "
        f"{BYTE.format(float(memory.kv_cache))}, activations "
        f"{BYTE.format(float(memory.activations))})."
    )
    for name, operators in steps(prediction).items():
        rows = breakdown(prediction.replica, operators)
        whole = SECOND.format(sum(row.seconds for row in rows))
        section(console, f"One {name}: {whole} per NPU", _breakdown_table(rows))
    return text_of(console)


def _breakdown_table(rows: Sequence[OperatorRow]) -> RichTable:
    table = plain_table(
        "operator", ">runs", ">FLOP", ">bytes", ">time", ">share", "mostly"
    )
    for row in rows:
        moved = row.bytes or row.link_bytes
        table.add_row(
            row.name,
            f"{row.count:.0f}",
            FLOP.format(row.flop) if row.flop else "",
            BYTE.format(moved),
            SECOND.format(row.seconds),
            f"{row.share:.1%}",
            row.bound,
        )
    return table


def as_json(prediction: Prediction) -> str:
    """Return the prediction as one JSON object in SI units."""
    estimate, replica = prediction.estimate, prediction.replica
    result: dict[str, Any] = {}
    for metric, (value, low, high) in latencies(prediction).items():
        result[f"{metric}_s"] = {"mean": value, "low": low, "high": high}
    result["requests_per_s"] = float(estimate.rate) * prediction.replicas
    tokens = float(estimate.output_tokens_per_s)
    result["output_tokens_per_s"] = tokens * prediction.replicas
    result["batch"] = float(estimate.batch)
    result["memory_bytes"] = {
        "weights": float(estimate.memory.weights),
        "kv_cache": float(estimate.memory.kv_cache),
        "activations": float(estimate.memory.activations),
        "total": float(estimate.memory.total),
        "usable": float(estimate.usable_memory),
    }
    result["steps"] = {
        name: {
            "bound_s": {k: float(v) for k, v in bounds(operators, replica).items()},
            "operators": [
                {field: getattr(row, field) for field in OperatorRow.__slots__}
                for row in breakdown(replica, operators)
            ],
        }
        for name, operators in steps(prediction).items()
    }
    return json.dumps(result, indent=2, allow_nan=False) + "\n"


FORMATS = {"text": as_text, "json": as_json}
