"""Many deployment points from a table: rows that are alike go through as arrays."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model_ops.arrivals import under_arrivals
from model_ops.dtypes import Dtype, Precision
from model_ops.errors import (
    CatalogueError,
    DeploymentError,
    GenzSizeError,
    ProblemError,
    nearest,
)
from model_ops.estimate import Estimate, Load, LoadMode, bound_by, estimate
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.parallelism import Parallelism, stacked
from model_ops.profiler.work import RequestShape
from model_ops.serving.steady_state import DEFAULT_CHUNK_TOKENS
from model_ops.serving.step import Replica
from problems import catalogue
from problems.accuracy import evidence_of, interval, latency_intervals
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
REQUESTS_PER_USER = 10
"""Of a closed loop whose users start together (InferenceX: prompts = 10 x users)."""

LARGEST_TABLE = 200_000_000
_LARGEST_COUNT = 10_000_000


@dataclass(frozen=True, slots=True)
class Point:
    """One row, read: what is deployed and what it has to serve."""

    model: str
    npu: str
    framework: str
    precision: Precision
    mode: LoadMode
    split: Parallelism
    replicas: int
    input_tokens: float
    output_tokens: float
    concurrency: float
    rate: float

    @property
    def group(self) -> tuple[Any, ...]:
        """What rows of one array share: under arrivals, their lengths too."""
        arriving = self.mode is LoadMode.OPEN_LOOP
        lengths = (self.input_tokens, self.output_tokens) if arriving else ()
        where = (self.model, self.npu, self.framework, self.precision)
        return (*where, self.mode, *lengths)

    @property
    def chunk_tokens(self) -> int:
        """Tokens that a step may process by the framework's default."""
        name = self.framework or catalogue.DEFAULT_FRAMEWORK
        return catalogue.framework_file(name).chunk_tokens or DEFAULT_CHUNK_TOKENS

    def load_npu(self) -> Npu:
        """Return the NPU as the row's framework uses it, if that is known."""
        if self.framework:
            return catalogue.load_npu_under(self.npu, self.framework)
        return catalogue.load_npu(self.npu)


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
    chip = catalogue.load_npu(npu)
    precision = arch.precision.stored(
        _dtype(row, "weight_dtype"), _dtype(row, "kv_dtype")
    )
    chip.engine(precision.compute)
    split, replicas = _layout(row, arch, precision, chip)
    concurrency = _number(row, "concurrency")
    rate = _number(row, "request_rate")
    return Point(
        model=model,
        npu=npu,
        framework=_framework(row),
        precision=precision,
        mode=_mode(row, concurrency, rate),
        split=split,
        replicas=replicas,
        input_tokens=_tokens(row, "input_tokens"),
        output_tokens=_tokens(row, "output_tokens"),
        concurrency=concurrency,
        rate=rate,
    )


def _layout(
    row: Mapping[str, str], arch: ModelArch, precision: Precision, npu: Npu
) -> tuple[Parallelism, int]:
    """Return how a replica is split, and how many replicas there are.

    The degrees are those of serving frameworks: ``tp x pp x dp`` NPUs, of which dp
    groups either share experts (ep spans them) or are replicas.
    """
    pp, dp, ep = (_count(row, name, 1) for name in ("pp", "dp", "ep"))
    npus = _count(row, "num_npus", 0)
    if npus and npus % (pp * dp):
        raise DeploymentError(f"num_npus: {npus} is no multiple of pp {pp} x dp {dp}")
    tp = _count(row, "tp", npus // (pp * dp) if npus else 1)
    sharing = _sharing_groups(arch, precision, npu, Parallelism(tp, pp, ep, dp))
    if dp % sharing:
        raise DeploymentError(f"ep: {ep} spans {sharing} of dp {dp} groups of tp {tp}")
    split = Parallelism(tp, pp, ep, sharing)
    arch.check(split)
    replicas = dp // sharing
    each = int(split.npus)
    if npus and npus != each * replicas:
        # Replicas that the table does not name fill the NPUs it does.
        unnamed = replicas == 1 and (sharing > 1 or not row.get("dp", "").strip())
        if not unnamed or npus % each:
            raise DeploymentError(
                f"num_npus: {npus} is not tp {tp} x pp {pp} x dp {dp}"
            )
        replicas = npus // each
    return split, replicas


def _sharing_groups(
    arch: ModelArch, precision: Precision, npu: Npu, named: Parallelism
) -> int:
    """Return how many of the dp groups share their experts; 1: they are replicas."""
    if not arch.num_experts:
        return 1
    if named.ep > named.tp:
        return max(1, int(named.ep // named.tp))
    alone = arch.shard(Parallelism(named.tp, named.pp, named.ep), precision)
    if np.max(weight_bytes(arch, alone)) > npu.usable_memory:
        return int(named.dp)
    return 1


def _framework(row: Mapping[str, str]) -> str:
    """Return the framework's catalogue name without its version; blank if unknown."""
    words = row.get("framework", "").split()
    try:
        return catalogue.canonical("frameworks", words[0]) if words else ""
    except CatalogueError:
        return ""


def _dtype(row: Mapping[str, str], column: str) -> Dtype | None:
    text = row.get(column, "").strip()
    return Dtype.of(text) if text else None


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


def _tokens(row: Mapping[str, str], column: str) -> float:
    """Return tokens of a request; a mean over requests may be a fraction."""
    value = _number(row, column)
    if math.isinf(value):
        raise ProblemError(f"{column}: required, but blank")
    if value < 1:
        raise ProblemError(f"{column}: {value:g} must be at least 1")
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
    )
    result, columns = _estimated(points, replica, load, replicas)
    ttft_bound, tpot_bound = bound_by(replica, load, result.batch)
    tokens = result.output_tokens_per_s * replicas
    ranges = latency_intervals(replica, result, first.mode)
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
) -> tuple[Estimate, dict[str, Any]]:
    """Return the means, and columns of percentiles where requests arrive at random."""
    means = estimate(replica, load)
    if load.mode is not LoadMode.OPEN_LOOP:
        return means, {}
    first = points[0]
    split = stacked([point.split for point in points], point_axes=1)
    shape = RequestShape(first.input_tokens, first.output_tokens)
    found = under_arrivals(
        replace(replica, parallelism=split),
        replace(load, shape=shape),
        means,
        replicas=replicas,
    )
    tails = {
        "ttft_p99_ms": found.latencies.ttft.p99 * 1e3,
        "tpot_p99_ms": found.latencies.tpot.p99 * 1e3,
    }
    result = replace(found.estimate, shape=load.shape)
    return result, {name: np.nan_to_num(v, posinf=0.0) for name, v in tails.items()}


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
