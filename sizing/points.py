"""Many deployment points from a table: rows that are alike go through as arrays."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model_ops.arrivals import alike_engine, under_arrivals, under_users
from model_ops.binding import bound_by
from model_ops.errors import (
    GenzSizeError,
    ProblemError,
    nearest,
)
from model_ops.estimate import (
    REQUESTS_PER_USER,
    Estimate,
    Load,
    LoadMode,
    estimate,
    start_of_users,
)
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism, stacked
from model_ops.profiler.work import RequestShape
from model_ops.serving.queueing import Latencies
from model_ops.serving.step import Replica
from problems import catalogue
from problems.accuracy import evidence_of, interval, latency_intervals
from problems.fields import read_text
from sizing.intervals import widening
from sizing.point import INPUTS, Point, read_point
from sizing.report.data import csv_text

LATENCIES = ("ttft", "tpot", "e2e")
OUTPUTS = (
    *(f"{metric}_ms" for metric in LATENCIES),
    "output_tok_s",
    *(f"{metric}_p99_ms" for metric in ("ttft", "tpot")),
    *(f"{m}_ms_{side}" for m in LATENCIES for side in ("low", "high")),
    "output_tok_s_low",
    "output_tok_s_high",
    "memory_gb",
    "bound_by",
    "error",
)
LARGEST_TABLE = 200_000_000


def read_points(path: Path) -> list[dict[str, str]]:
    """Return the rows of a points table.

    Raises
    ------
    ProblemError
        If it cannot be read, or lacks the columns that no row can do without.
    """
    text = read_text(path, "--points", LARGEST_TABLE)
    reader = csv.DictReader(io.StringIO(text))
    try:
        columns = reader.fieldnames or ()
        rows = list(reader)
    except csv.Error as error:
        raise ProblemError(f"--points: {path} is not a table: {error}") from None
    _check_columns(columns, path)
    return [{key: value or "" for key, value in row.items() if key} for row in rows]


def _check_columns(columns: Sequence[str], path: Path) -> None:
    if not columns:
        raise ProblemError(f"--points: {path} is empty")
    for column in columns:
        if columns.count(column) > 1:
            raise ProblemError(f"--points: {path} has the column '{column}' twice")
    for column in ("model", "npu", "input_tokens", "output_tokens"):
        if column not in columns:
            raise ProblemError(f"--points: {path} lacks the column '{column}'")
    for column in columns:
        if column not in INPUTS and column not in OUTPUTS:
            raise ProblemError(
                f"--points: unknown column '{column}'{nearest(column, INPUTS)}"
            )


def write_points(rows: Iterable[Mapping[str, str]]) -> str:
    """Return rows as CSV, inputs first."""
    return csv_text((*INPUTS, *OUTPUTS), rows, only=True)


def evaluate(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows with their predictions, or with why there is none."""
    groups: dict[Any, list[tuple[int, Point]]] = defaultdict(list)
    results = [dict(row) for row in rows]
    for number, row in enumerate(rows):
        try:
            point = read_point(row)
        except GenzSizeError as error:
            results[number]["error"] = str(error)
        else:
            groups[point.group].append((number, point))
    for members in groups.values():
        numbers = [number for number, _ in members]
        for number, cells in zip(
            numbers, _predict([p for _, p in members]), strict=True
        ):
            results[number].update(cells)
    return results


def _predict(points: list[Point]) -> list[dict[str, str]]:
    """Return the output cells of points that share model, NPU, precision and mode."""

    def column(name: str) -> Any:
        return np.array([getattr(point, name) for point in points], dtype=float)

    first = points[0]
    replica = Replica(
        arch=catalogue.load_model(first.model),
        parallelism=stacked([point.split for point in points]),
        precision=first.precision,
        supply=Supply.of(first.load_npu()),
    )
    replicas = column("replicas")
    load = Load(
        shape=RequestShape(column("input_tokens"), column("output_tokens")),
        mode=first.mode,
        concurrency=column("concurrency") / replicas,
        rate=column("rate") / replicas,
        chunk_tokens=first.chunk_tokens,
        requests_per_user=REQUESTS_PER_USER,
        in_step=first.in_step,
    )
    result, columns, seen = _estimated(points, replica, load, replicas)
    ttft_bound, tpot_bound = bound_by(replica, load, result.batch)
    tokens = result.output_tokens_per_s * replicas
    ranges = latency_intervals(replica, result, first.mode, wider=widening(seen))
    ranges["output_tok_s"] = interval("rate", tokens, first.mode, evidence_of(replica))
    columns["output_tok_s"] = tokens
    for metric in LATENCIES:
        columns[f"{metric}_ms"] = getattr(result, metric) * 1e3
    for name, sides in ranges.items():
        scale, unit = (1.0, "") if name == "output_tok_s" else (1e3, "_ms")
        for side, values in zip(("low", "high"), sides, strict=True):
            columns[f"{name}{unit}_{side}"] = values * scale
    reserve = replica.supply.runtime_reserve
    columns["memory_gb"] = (result.memory.total + reserve) / 1e9
    arrays = {n: np.broadcast_to(v, replicas.shape) for n, v in columns.items()}
    cells = []
    for i, error in enumerate(_errors(result)):
        if error:
            cells.append({"error": error})
            continue
        bound = str((tpot_bound if points[i].output_tokens > 1 else ttft_bound)[i])
        numbers = {name: f"{float(array[i]):.6g}" for name, array in arrays.items()}
        cells.append({**numbers, "bound_by": bound})
    return cells


def _estimated(
    points: list[Point], replica: Replica, load: Load, replicas: Any
) -> tuple[Estimate, dict[str, Any], Latencies | None]:
    """Return the means, columns of percentiles, and all that arrivals at random see."""
    means = estimate(replica, load)
    if load.mode is LoadMode.CLOSED_LOOP:
        return means, _tails_of_users(points, replica, load), None
    if load.mode is not LoadMode.OPEN_LOOP:
        return means, {}, None
    found = under_arrivals(
        replace(replica, parallelism=_splits(points)),
        _alike(points[0], load),
        means,
        replicas=replicas,
    )
    result = replace(found.estimate, shape=load.shape)
    latencies = found.latencies
    return result, _tails(latencies.ttft.p99, latencies.tpot.p99), latencies


def _splits(points: Sequence[Point]) -> Parallelism:
    return stacked([point.split for point in points], point_axes=1)


def _tails(ttft: Any, tpot: Any) -> dict[str, Any]:
    """Return the columns of the 99th percentiles; a row that has none is an error."""
    tails = {"ttft_p99_ms": ttft * 1e3, "tpot_p99_ms": tpot * 1e3}
    return {name: np.nan_to_num(v, posinf=0.0) for name, v in tails.items()}


def _tails_of_users(
    points: list[Point], replica: Replica, load: Load
) -> dict[str, Any]:
    """Return the percentiles of closed loops, rows of like lengths at once.

    The slowest of `REQUESTS_PER_USER` requests of each user is mostly the first, when
    all ask at once.
    """
    steady = estimate(replica, replace(load, requests_per_user=np.inf))
    groups = np.asarray(replica.parallelism.dp)
    means = np.broadcast_arrays(steady.rate / groups, steady.ttft, steady.tpot)
    whole = replace(replica, parallelism=_splits(points))
    engine, _ = alike_engine(whole, _alike(points[0], load))
    near: dict[tuple[float, float], list[int]] = defaultdict(list)
    for number, point in enumerate(points):
        near[_near(point.input_tokens), _near(point.output_tokens)].append(number)
    found = np.zeros((2, len(points)))
    for lengths, rows in near.items():
        some = replace(replica, parallelism=_splits([points[row] for row in rows]))
        curve, shape = engine.some(rows).curve, RequestShape(*lengths)
        alike = alike_engine(some, replace(load, shape=shape), curve)
        found[:, rows] = under_users(*alike, *(mean[rows] for mean in means))
    level = 1.0 - 0.01 * REQUESTS_PER_USER
    first = start_of_users(replica, load, steady, level)
    further = found[1] * (load.shape.decode_steps > 0)
    return _tails(np.maximum(found[0], first), further)


def _near(tokens: float) -> float:
    """Return a length within a tenth, so that many rows share the laws of one.

    A row's stays the same whatever the others are.
    """
    return float(2.0 ** (np.rint(4.0 * np.log2(tokens)) / 4.0))


def _alike(point: Point, load: Load) -> Load:
    """Return a load with the lengths of one point."""
    return replace(load, shape=RequestShape(point.input_tokens, point.output_tokens))


def _errors(result: Estimate) -> list[str]:
    fits = np.broadcast_to(result.fits, np.shape(result.ttft))
    overloaded = np.broadcast_to(result.overloaded, fits.shape)
    needed = np.broadcast_to(result.memory.total, fits.shape)
    errors = []
    for fit, over, bytes_, rate in zip(
        fits, overloaded, needed, np.broadcast_to(result.rate, fits.shape), strict=True
    ):
        if not fit:
            usable = float(np.max(result.room.own))
            errors.append(
                f"memory: needs {bytes_ / 1e9:.1f} GB per NPU, "
                f"{usable / 1e9:.1f} GB are usable"
            )
        elif over:
            errors.append(f"request_rate: a replica finishes at most {rate:.3g} req/s")
        else:
            errors.append("")
    return errors
