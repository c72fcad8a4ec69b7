"""One row of a points table: what is deployed and what it has to serve."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_ops.dtypes import Dtype, Precision
from model_ops.errors import CatalogueError, DeploymentError, ProblemError, nearest
from model_ops.estimate import LoadMode
from model_ops.platform.npu import Npu
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.parallelism import Parallelism
from problems import catalogue
from problems.catalogue import DEFAULT_FRAMEWORK

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
_LARGEST_COUNT = 10_000_000


ALIKE = "alike"
"""In a row's further cell ``lengths``: its requests are all of one length."""


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
    in_step: bool = False

    @property
    def group(self) -> tuple[Any, ...]:
        """What rows of one array share: under arrivals, their lengths too."""
        arriving = self.mode is LoadMode.OPEN_LOOP
        lengths = (self.input_tokens, self.output_tokens) if arriving else ()
        where = (self.model, self.npu, self.framework, self.precision)
        return (*where, self.mode, self.in_step, *lengths)

    @property
    def chunk_tokens(self) -> int:
        """Tokens that a step may process by the framework's default."""
        return catalogue.chunk_tokens_under(self.framework or DEFAULT_FRAMEWORK)

    def load_npu(self) -> Npu:
        """Return the NPU as the row's framework uses it, if that is known."""
        if self.framework:
            return catalogue.load_npu_under(self.npu, self.framework)
        return catalogue.load_npu(self.npu)


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
        in_step=row.get("lengths", "") == ALIKE and _prefill_first(row),
    )


def _prefill_first(row: Mapping[str, str]) -> bool:
    framework = _framework(row)
    return bool(framework) and catalogue.framework_file(framework).prefill_first


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
