"""Many deployment points from a table: rows that are alike go through as arrays."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_ops.accuracy import interval, latency_intervals
from model_ops.dtypes import Dtype, Precision
from model_ops.errors import DeploymentError, GenzSizeError, ProblemError, nearest
from model_ops.estimate import Estimate, Load, LoadMode, bound_by, estimate
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism, check_parallelism
from model_ops.serving.steady_state import RequestShape
from model_ops.serving.step import Replica
from problems import catalogue
from problems.fields import read_text

INPUTS = (
    "model",
    "npu",
    "num_npus",
    "tp",
    "pp",
    "ep",
    "dp",
    "weight_dtype",
    "kv_dtype",
    "framework",
    "input_tokens",
    "output_tokens",
    "concurrency",
    "request_rate",
    "mode",
)
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
_LARGEST_COUNT = 10_000_000


@dataclass(frozen=True, slots=True)
class Point:
    """One row, read: what is deployed and what it has to serve."""

    model: str
    npu: str
    precision: Precision
    mode: LoadMode
    tp: int
    pp: int
    dp: int
    input_tokens: int
    output_tokens: int
    concurrency: float
    rate: float

    @property
    def group(self) -> tuple[str, str, Precision, LoadMode]:
        """What rows of one array share."""
        return self.model, self.npu, self.precision, self.mode


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
    return [{key: value or "" for key, value in row.items() if key} for row in rows]


def write_points(rows: Iterable[Mapping[str, str]]) -> str:
    """Return rows as CSV, inputs first."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text,
        (*INPUTS, *OUTPUTS),
        restval="",
        extrasaction="ignore",
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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


def read_point(row: Mapping[str, str]) -> Point:
    """Return the deployment and load that a row states.

    Blank cells take their default: one replica, tensor parallel over all its NPUs,
    the checkpoint's formats, and the mode that the given load implies.

    Raises
    ------
    GenzSizeError
        If a cell is missing, wrong, or contradicts another.
    """
    model = row.get("model", "").strip()
    arch = catalogue.load_model(model)
    npu = catalogue.canonical("npus", row.get("npu", ""))
    tp, pp, dp = _degrees(row)
    check_parallelism(arch, tp, pp)
    weights = row.get("weight_dtype", "").strip()
    kv_cache = row.get("kv_dtype", "").strip()
    precision = arch.precision
    if weights or kv_cache:
        stored = Dtype.of(weights) if weights else precision.weights
        kept = Dtype.of(kv_cache) if kv_cache else precision.kv_cache
        precision = Precision.serving(stored, kept)
    catalogue.load_npu(npu).engine(precision.compute)
    concurrency = _number(row, "concurrency")
    rate = _number(row, "request_rate")
    return Point(
        model=model,
        npu=npu,
        precision=precision,
        mode=_mode(row, concurrency, rate),
        tp=tp,
        pp=pp,
        dp=dp,
        input_tokens=_count(row, "input_tokens"),
        output_tokens=_count(row, "output_tokens"),
        concurrency=concurrency,
        rate=rate,
    )


def _degrees(row: Mapping[str, str]) -> tuple[int, int, int]:
    pp, dp = _count(row, "pp", 1), _count(row, "dp", 1)
    if _count(row, "ep", 1) != 1:
        raise DeploymentError("ep: a dense model has no experts to spread; leave it 1")
    npus = _count(row, "num_npus", 0)
    if npus and npus % (pp * dp):
        raise DeploymentError(f"num_npus: {npus} is no multiple of pp {pp} x dp {dp}")
    tp = _count(row, "tp", npus // (pp * dp) if npus else 1)
    if npus and npus != tp * pp * dp:
        # Replicas that the table does not name fill the NPUs it does.
        if row.get("dp", "").strip() or npus % (tp * pp):
            raise DeploymentError(
                f"num_npus: {npus} is not tp {tp} x pp {pp} x dp {dp}"
            )
        dp = npus // (tp * pp)
    return tp, pp, dp


def _mode(row: Mapping[str, str], concurrency: float, rate: float) -> LoadMode:
    text = row.get("mode", "").strip().lower()
    if text:
        try:
            mode = LoadMode(text)
        except ValueError:
            known = [m.value for m in LoadMode]
            raise ProblemError(
                f"mode: unknown '{text}'{nearest(text, known)}"
            ) from None
    elif math.isfinite(rate):
        mode = LoadMode.OPEN_LOOP
    elif math.isfinite(concurrency):
        mode = LoadMode.CLOSED_LOOP
    else:
        mode = LoadMode.OFFLINE
    if mode is LoadMode.OPEN_LOOP and not math.isfinite(rate):
        raise ProblemError("request_rate: an open loop needs it")
    needs_users = mode in (LoadMode.STATIC_BATCH, LoadMode.CLOSED_LOOP)
    if needs_users and not math.isfinite(concurrency):
        raise ProblemError(f"concurrency: {mode.value} needs it")
    return mode


def _number(row: Mapping[str, str], column: str) -> float:
    """Return a positive number; infinity where the cell is blank."""
    text = row.get(column, "").strip()
    if not text:
        return math.inf
    try:
        value = float(text)
    except ValueError:
        raise ProblemError(f"{column}: '{text}' is not a number") from None
    if value == math.inf:
        return value
    if not 0 < value <= 1e9:
        raise ProblemError(f"{column}: {text} must be above 0 and at most 1e9")
    return value


def _count(row: Mapping[str, str], column: str, default: int | None = None) -> int:
    text = row.get(column, "").strip()
    if not text:
        if default is None:
            raise ProblemError(f"{column}: required, but blank")
        return default
    try:
        value = float(text)
    except ValueError:
        raise ProblemError(f"{column}: '{text}' is not a whole number") from None
    if not 1 <= value <= _LARGEST_COUNT or value != int(value):
        raise ProblemError(
            f"{column}: {text} must be a whole number from 1 to {_LARGEST_COUNT}"
        )
    return int(value)


def _predict(points: list[Point]) -> list[dict[str, str]]:
    """Return the output cells of points that share model, NPU, precision and mode."""

    def column(name: str) -> Any:
        return np.array([getattr(point, name) for point in points], dtype=float)

    first = points[0]
    replica = Replica(
        arch=catalogue.load_model(first.model),
        parallelism=Parallelism(column("tp"), column("pp")),
        precision=first.precision,
        supply=Supply.of(catalogue.load_npu(first.npu)),
    )
    replicas = column("dp")
    load = Load(
        shape=RequestShape(column("input_tokens"), column("output_tokens")),
        mode=first.mode,
        concurrency=column("concurrency") / replicas,
        rate=column("rate") / replicas,
    )
    result = estimate(replica, load)
    ttft_bound, tpot_bound = bound_by(replica, load, result.batch)
    tokens = result.output_tokens_per_s * replicas
    ranges = latency_intervals(replica, result, first.mode)
    ranges["output_tok_s"] = interval("rate", tokens, first.mode)
    columns: dict[str, Any] = {"output_tok_s": tokens}
    for metric in LATENCIES:
        columns[f"{metric}_ms"] = getattr(result, metric) * 1e3
    for name, sides in ranges.items():
        scale, unit = (1.0, "") if name == "output_tok_s" else (1e3, "_ms")
        for side, values in zip(("low", "high"), sides, strict=True):
            columns[f"{name}{unit}_{side}"] = values * scale
    columns["memory_gb"] = result.memory.total / 1e9
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


def _errors(result: Estimate) -> list[str]:
    fits = np.broadcast_to(result.fits, np.shape(result.ttft))
    overloaded = np.broadcast_to(result.overloaded, fits.shape)
    needed = np.broadcast_to(result.memory.total, fits.shape)
    errors = []
    for fit, over, bytes_, rate in zip(
        fits, overloaded, needed, np.broadcast_to(result.rate, fits.shape), strict=True
    ):
        if not fit:
            usable = float(np.max(result.usable_memory))
            errors.append(
                f"memory: needs {bytes_ / 1e9:.1f} GB per NPU, "
                f"{usable / 1e9:.1f} GB are usable"
            )
        elif over:
            errors.append(f"request_rate: a replica finishes at most {rate:.3g} req/s")
        else:
            errors.append("")
    return errors
