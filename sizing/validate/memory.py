"""Bytes, tokens and fits of measured deployments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from model_ops.errors import GenzSizeError
from model_ops.platform.supply import Supply
from model_ops.profiler.cache import kv_bytes_per_sequence
from model_ops.profiler.memory import cache_tokens
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape
from model_ops.serving.step import Replica
from problems import catalogue
from problems.measured import cells
from problems.measured.memory import Held, MemoryTruth, memory_truth
from problems.measured.tables import Row
from sizing.validate.answers import Answer, figure, refused
from sizing.validate.layouts import tensor_ranks

LARGE_NPU = 70 * 2**30
"""From here on vLLM's default ``max_num_seqs`` is 1024, below it 256."""

LONGEST_CHUNK = 8192
"""Tokens of a step where the source does not say."""

_LENGTH = 4096
"""Tokens of the requests for which a cache's capacity is counted."""

_OF_A_FIT = 512


def answers(rows: Sequence[Row]) -> list[Answer]:
    """Return the figure for each row, in the row's unit; of a fit, 1 or 0."""
    return [_answer(row) for row in rows]


def _answer(row: Row) -> Answer:
    try:
        truth = memory_truth(row)
        replica = _replica(truth)
    except GenzSizeError as error:
        return refused(error)
    value = _FIGURES[truth.held](truth, replica) / truth.unit
    # That it does not fit is an answer, and the number zero.
    fits = truth.held is Held.FITS
    return Answer(value, value, value) if fits else figure(value)


def _replica(truth: MemoryTruth) -> Replica:
    arch = catalogue.load_model(truth.model)
    npu = catalogue.load_npu(truth.npu)
    if truth.framework:
        npu = catalogue.load_npu_under(truth.npu, truth.framework)
    if truth.usable is not None and truth.usable <= 1:
        npu = replace(npu, memory_usable=truth.usable)
    precision = arch.precision.stored(truth.weights, truth.kv_cache)
    tp = tensor_ranks(truth.layout, arch, precision, npu, whole=True)
    split = Parallelism(tp, truth.layout.pp or 1)
    return Replica(arch, split, precision, Supply.of(npu))


def _used(truth: MemoryTruth, replica: Replica) -> float:
    shape = RequestShape(truth.input_tokens or 1.0, truth.output_tokens or 1.0)
    needed = replica.lockstep_footprint(shape, truth.batch or 1.0)
    return float(needed.total + replica.supply.runtime_reserve)


def _capacity(truth: MemoryTruth, replica: Replica) -> float:
    large = replica.supply.npus[0].memory_capacity >= LARGE_NPU
    return float(
        cache_tokens(
            replica.held,
            replica.room,
            length=_LENGTH,
            step_tokens=truth.step_tokens or LONGEST_CHUNK,
            sampled=1024 if large else 256,
        )
    )


def _of_prompt(truth: MemoryTruth, replica: Replica) -> float:
    # The first token of the answer has its place already.
    tokens = (truth.input_tokens or 1.0) + 1
    each = kv_bytes_per_sequence(replica.arch, replica.shard, tokens)
    return float(each * replica.parallelism.tp)


def _fits(truth: MemoryTruth, replica: Replica) -> float:
    shape = RequestShape(max(truth.input_tokens or 1.0, 1.0), truth.output_tokens or 1)
    needed = replica.footprint(shape, truth.batch or 1.0, _OF_A_FIT)
    return float(needed.total <= replica.room.own)


_FIGURES: Mapping[Held, Callable[[MemoryTruth, Replica], float]] = {
    Held.USED: _used,
    Held.CAPACITY: _capacity,
    Held.PROMPT: _of_prompt,
    Held.FITS: _fits,
}


def measured(row: Row) -> float:
    """Return the row's figure; that something did not fit is zero.

    Raises
    ------
    ProblemError
        If there is none.
    """
    if cells.number(row, "value") == 0.0 and row["kind"] == Held.FITS:
        return 0.0
    return cells.measured(row, "value")


def labels(row: Row) -> dict[str, str]:
    """Return what a row's tables are made by."""
    return {
        "device": row.get("hardware", ""),
        "model": row.get("model", ""),
        "framework": " ".join(row.get("framework", "").lower().split()[:1]),
    }
