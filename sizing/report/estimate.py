"""One deployment's prediction as text and JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table as RichTable

from model_ops.binding import bounds, load_steps
from model_ops.consumption import Consumption, consumption
from model_ops.estimate import Estimate, Load, LoadMode
from model_ops.opcost import OpCost
from model_ops.platform.energy import PowerRange
from model_ops.platform.kernels import OpTime
from model_ops.profiler.memory import MemoryFootprint
from model_ops.profiler.ops import Gemm
from model_ops.profiler.work import Step
from model_ops.serving.queueing import Latencies
from model_ops.serving.step import Replica, TimedOperator, timed_operators
from model_ops.units import BYTE, FLOP, JOULE, SECOND, WATT
from problems.accuracy import (
    evidence_of,
    interval,
    latency_intervals,
    untested,
)
from sizing.intervals import BETWEEN, weakness, widening
from sizing.report.console import new_console, plain_table, section, text_of
from sizing.report.data import json_text


@dataclass(frozen=True, slots=True)
class Prediction:
    """An estimate with what it was made from."""

    title: str
    replica: Replica
    load: Load
    replicas: int
    estimate: Estimate
    tails: Latencies | None = None

    def percentiles(self, metric: str) -> dict[str, float]:
        """Return a latency's p50 to p99 in seconds; empty where none are known."""
        if self.tails is None:
            return {}
        summary = getattr(self.tails, metric)
        return {name: float(getattr(summary, name)) for name in PERCENTILES}


PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """Operators of one name in one step, added up.

    Parameters
    ----------
    name, count
        Operator, and how often the step runs it.
    flop, bytes, link_bytes
        FLOP, memory traffic and least network traffic of one NPU.
    intensity
        FLOP per byte of memory traffic; None where it has none.
    seconds, share
        Time, and its share of the step.
    bound
        What most of it is spent on.
    joules
        Energy of one NPU; None where its TDP is unknown.
    """

    name: str
    count: float
    flop: float
    bytes: float
    link_bytes: float
    intensity: float | None
    seconds: float
    share: float
    bound: str
    joules: float | None


def breakdown(replica: Replica, step: Step) -> list[OperatorRow]:
    """Return a step's operators by name, in the order in which they run.

    Matrix products of one name but of two or three sizes, as of a dense and of a
    shared feed-forward, are apart. What the engine adds to the step is a row of its
    own.
    """
    power = PowerRange.of(replica.supply)
    operators = timed_operators(replica, step)
    named = _by_name([timed for timed in operators if float(timed.count)])
    rows = [_row(name, group, power) for name, group in named.items()]
    overhead = float(replica.overhead(step))
    if overhead:
        rows.append(_scheduler(overhead, power))
    whole = sum(row.seconds for row in rows)
    return [replace(row, share=row.seconds / whole) for row in rows if row.seconds]


_MOST_SIZES = 3
"""Sizes of a product that are shown one by one; with more, every layer differs."""


def _by_name(operators: Sequence[TimedOperator]) -> dict[str, list[TimedOperator]]:
    sizes: dict[str, set[tuple[int, int]]] = {}
    for timed in operators:
        sizes.setdefault(timed.name, set()).add(_size(timed))
    named: dict[str, list[TimedOperator]] = {}
    for timed in operators:
        name, size = timed.name, _size(timed)
        if any(size) and 1 < len(sizes[name]) <= _MOST_SIZES:
            name = f"{name} {size[0]}x{size[1]}"
        named.setdefault(name, []).append(timed)
    return named


def _size(timed: TimedOperator) -> tuple[int, int]:
    """Return the inner and outer width of a matrix product; zeros for the others."""
    operator = timed.operator
    if not isinstance(operator, Gemm):
        return 0, 0
    return round(float(operator.k)), round(float(operator.n))


_BOUNDS = ("compute", "memory", "network", "launch")


def _row(
    name: str, group: Sequence[TimedOperator], power: PowerRange | None
) -> OperatorRow:
    cost = sum((t.operator.cost() * t.count for t in group), start=OpCost())
    flop, moved = float(cost.total_flop), float(cost.bytes)
    spent = {
        bound: sum(float(t.count * getattr(t.time, bound)) for t in group)
        for bound in _BOUNDS
    }
    return OperatorRow(
        name=name,
        count=sum(float(t.count) for t in group),
        flop=flop,
        bytes=moved,
        link_bytes=float(cost.link_bytes),
        intensity=flop / moved if moved else None,
        seconds=sum(float(t.count * t.time.total) for t in group),
        share=0.0,
        bound=max(_BOUNDS, key=lambda bound: spent[bound]),
        joules=None
        if power is None
        else sum(float(t.count * power.energy(t.time)) for t in group),
    )


def _scheduler(seconds: float, power: PowerRange | None) -> OperatorRow:
    joules = None if power is None else float(power.energy(OpTime(launch=seconds)))
    return OperatorRow(
        "scheduler", 1, 0.0, 0.0, 0.0, None, seconds, 0.0, "launch", joules
    )


def steps(prediction: Prediction) -> dict[str, Step]:
    """Return the steps that set TTFT and TPOT."""
    replica, load = prediction.replica, prediction.load
    first, further = load_steps(replica, load, prediction.estimate.batch)
    return {"prompt step": first, "decode step": further}


def latencies(prediction: Prediction) -> dict[str, tuple[float, float, float]]:
    """Return the mean, low and high seconds of each latency that there is."""
    estimate = prediction.estimate
    means = {"ttft": estimate.ttft, "tpot": estimate.tpot, "e2e": estimate.e2e}
    ranges = latency_intervals(
        prediction.replica,
        estimate,
        prediction.load.mode,
        wider=widening(prediction.tails),
    )
    return {
        metric: (float(mean), float(ranges[metric][0]), float(ranges[metric][1]))
        for metric, mean in means.items()
        if metric != "tpot" or estimate.shape.decode_steps > 0
    }


def as_text(prediction: Prediction, *, operators: bool = False) -> str:
    """Return the prediction as readable text, on request operator by operator."""
    console = new_console()
    console.print(prediction.title)
    section(console, f"Predicted; {BETWEEN}", _figures(prediction))
    console.print()
    console.print(_memory(prediction.estimate))
    console.print(_energy(prediction))
    for line in (
        *weakness(prediction.tails),
        *untested(prediction.replica.arch, prediction.replica.supply.npus[0]),
    ):
        console.print(line)
    title = "What a step's time goes to, per NPU"
    section(console, title, _bounds_table(prediction))
    for name, step in steps(prediction).items() if operators else ():
        rows = breakdown(prediction.replica, step)
        whole = SECOND.format(sum(row.seconds for row in rows))
        section(console, f"One {name}: {whole} per NPU", breakdown_table(rows))
    return text_of(console)


def as_long_text(prediction: Prediction) -> str:
    """Return the prediction as readable text with every operator."""
    return as_text(prediction, operators=True)


def _figures(prediction: Prediction) -> RichTable:
    estimate = prediction.estimate
    known = PERCENTILES if prediction.tails is not None else ()
    columns = (f">{name}" for name in known)
    table = plain_table("figure", ">predicted", ">low", ">high", *columns)
    for metric, (value, low, high) in latencies(prediction).items():
        cells = (value, low, high, *prediction.percentiles(metric).values())
        table.add_row(metric.upper(), *(SECOND.format(cell) for cell in cells))
    for name, each in (
        ("requests/s", estimate.rate),
        ("output tokens/s", estimate.output_tokens_per_s),
    ):
        value = float(each) * prediction.replicas
        arriving = prediction.load.mode is LoadMode.OPEN_LOOP
        evidence = evidence_of(prediction.replica)
        around = interval("rate", value, prediction.load.mode, evidence)
        numbers = (value,) if arriving else (value, *around)
        table.add_row(name, *(f"{number:,.4g}" for number in numbers))
    return table


def _memory(estimate: Estimate) -> str:
    return (
        f"Batch {float(estimate.batch):.4g} decoding sequences per replica. Peak "
        "memory per NPU, all of them at their full length: "
        f"{memory_text(estimate.memory, float(estimate.room.own))}."
    )


def memory_text(memory: MemoryFootprint, usable: float) -> str:
    """Return what an NPU's memory is used for, as a clause."""
    return (
        f"{BYTE.format(float(memory.total))} of {BYTE.format(usable)} usable (weights "
        f"{BYTE.format(float(memory.weights))}, KV cache "
        f"{BYTE.format(float(memory.kv_cache))}, activations "
        f"{BYTE.format(float(memory.activations))})"
    )


def _consumed(prediction: Prediction) -> Consumption | None:
    return consumption(prediction.replica, prediction.load, prediction.estimate)


def _energy(prediction: Prediction) -> str:
    used = _consumed(prediction)
    (npu,) = prediction.replica.supply.npus
    if used is None or npu.tdp is None:
        return f"Energy: unknown, the TDP of {npu.name} is not published."
    return (
        f"Energy: {float(used.joules_per_output_token):.3g} J per output token, "
        f"{float(used.joules_per_request):.3g} J per request; "
        f"{WATT.format(float(used.watts_per_npu))} per NPU of "
        f"{WATT.format(npu.tdp)} TDP, on average, without host and cooling."
    )


def _is_drafted(timed: TimedOperator) -> bool:
    return timed.name.startswith("draft_")


def _bounds_table(prediction: Prediction) -> RichTable:
    replica = prediction.replica
    power = PowerRange.of(replica.supply)
    watts = [] if power is None else [">power"]
    kinds = [f">{kind}" for kind in bounds([], 0.0)]
    table = plain_table("step", ">time", *kinds, *watts)
    for name, step in steps(prediction).items():
        timed, overhead = timed_operators(replica, step), float(replica.overhead(step))
        parts = spent(replica, step)
        whole = sum(parts.values())
        _add_part(table, name, parts, whole, _watts(timed, overhead, power))
        drafted = [each for each in timed if _is_drafted(each)]
        if drafted:
            part = {kind: float(s) for kind, s in bounds(drafted, 0.0).items()}
            _add_part(table, "  its drafter", part, whole, _watts(drafted, 0.0, power))
    return table


def spent(replica: Replica, step: Step) -> dict[str, float]:
    """Return the seconds of a step by what binds them; see `bounds`."""
    found = bounds(timed_operators(replica, step), replica.overhead(step))
    return {kind: float(seconds) for kind, seconds in found.items()}


def _watts(
    operators: list[TimedOperator], overhead: float, power: PowerRange | None
) -> list[str]:
    """Return the mean power of an NPU over some operators and a gap, as cells."""
    if power is None:
        return []
    gap = OpTime(launch=overhead)
    runs = [(1.0, gap), *((float(each.count), each.time) for each in operators)]
    joules = sum(count * float(power.energy(time)) for count, time in runs)
    seconds = sum(count * float(time.total) for count, time in runs)
    return [WATT.format(joules / seconds)]


def _add_part(
    table: RichTable,
    name: str,
    spent: Mapping[str, float],
    step: float,
    watts: list[str],
) -> None:
    shares = (f"{seconds / step:.1%}" for seconds in spent.values())
    table.add_row(name, SECOND.format(sum(spent.values())), *shares, *watts)


def _intensity(row: OperatorRow) -> str:
    if not row.intensity:
        return ""
    return f"{row.intensity:,.0f}" if row.intensity >= 100 else f"{row.intensity:.3g}"


def breakdown_table(rows: Sequence[OperatorRow]) -> RichTable:
    """Return the operators of a step as a table."""
    known = any(row.joules is not None for row in rows)
    energy = [">energy"] if known else []
    table = plain_table(
        "operator",
        ">runs",
        ">FLOP",
        ">bytes",
        ">FLOP/B",
        ">time",
        ">share",
        *energy,
        "mostly",
    )
    for row in rows:
        moved = row.bytes or row.link_bytes
        joules = [] if row.joules is None else [JOULE.format(row.joules)]
        table.add_row(
            row.name,
            f"{row.count:.0f}",
            FLOP.format(row.flop) if row.flop else "",
            BYTE.format(moved) if moved else "",
            _intensity(row),
            SECOND.format(row.seconds),
            f"{row.share:.1%}",
            *joules,
            row.bound,
        )
    return table


def memory_as_dict(memory: MemoryFootprint, replica: Replica) -> dict[str, float]:
    """Return the bytes of a replica's fullest NPU."""
    return {
        "weights": float(memory.weights),
        "kv_cache": float(memory.kv_cache),
        "activations": float(memory.activations),
        "total": float(memory.total),
        "second_memory": float(memory.outer),
        "used": float(memory.total + replica.supply.runtime_reserve),
        "usable": float(replica.room.own),
    }


def as_json(prediction: Prediction) -> str:
    """Return the prediction as one JSON object in SI units."""
    estimate, replica = prediction.estimate, prediction.replica
    result: dict[str, Any] = {}
    for metric, (value, low, high) in latencies(prediction).items():
        around = {"mean": value, "low": low, "high": high}
        result[f"{metric}_s"] = around | prediction.percentiles(metric)
    result["requests_per_s"] = float(estimate.rate) * prediction.replicas
    tokens = float(estimate.output_tokens_per_s)
    result["output_tokens_per_s"] = tokens * prediction.replicas
    result["batch"] = float(estimate.batch)
    result["peak_memory_bytes"] = memory_as_dict(estimate.memory, replica)
    used = _consumed(prediction)
    result["energy"] = used and {k: float(v) for k, v in asdict(used).items()}
    result["steps"] = {
        name: {
            "bound_s": spent(replica, step),
            "operators": [asdict(row) for row in breakdown(replica, step)],
        }
        for name, step in steps(prediction).items()
    }
    return json_text(result)


FORMATS: Mapping[str, Callable[[Prediction], str]] = {"text": as_text, "json": as_json}
