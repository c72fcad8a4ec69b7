"""Measured memory: bytes in use, KV cache capacity, and what fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from model_ops.dtypes import Dtype
from model_ops.errors import ProblemError, nearest
from problems import catalogue
from problems.measured import cells
from problems.measured.names import dtype, framework_name, model_name, npu_name
from problems.measured.served import Layout
from problems.measured.tables import Row


class Held(StrEnum):
    """What of the memory was measured."""

    USED = "gpu_memory_used"
    CAPACITY = "kv_capacity_tokens"
    PROMPT = "kv_cache_size_of_prompt"
    FITS = "fits"


UNITS: Mapping[str, float] = {"GB": 2.0**30, "MB": 2.0**20, "GiB": 2.0**30}
"""Bytes of a unit: the tools print binary units under decimal names."""


@dataclass(frozen=True, slots=True)
class MemoryTruth:
    """A deployment and one figure of its memory.

    Parameters
    ----------
    model, npu, framework, layout, weights, kv_cache
        As of a serving result.
    held
        What was measured.
    batch, input_tokens, output_tokens
        Requests in memory, and their lengths; None: not stated.
    usable
        Share of the capacity that the engine was given; None: its default.
    step_tokens
        Tokens of a step; None: not stated.
    unit
        Bytes of one unit of the figure; 1 for tokens and yes or no.
    """

    model: str
    npu: str
    framework: str
    layout: Layout
    weights: Dtype | None
    kv_cache: Dtype | None
    held: Held
    batch: float | None
    input_tokens: float | None
    output_tokens: float | None
    usable: float | None
    step_tokens: float | None
    unit: float


def memory_truth(row: Row) -> MemoryTruth:
    """Return what a row says.

    Raises
    ------
    GenzSizeError
        If a cell is wrong, or the catalogue lacks the model or the accelerator.
    """
    kind = cells.text(row, "kind").lower()
    if kind not in list(Held):
        raise ProblemError(f"kind: unknown '{kind}'{nearest(kind, list(Held))}")
    npu = npu_name(row["hardware"])
    vendor = catalogue.npu_file(npu).vendor
    npus, tp, pp = (cells.count(row, name) for name in ("num_accelerators", "tp", "pp"))
    return MemoryTruth(
        model=model_name(row["model"]),
        npu=npu,
        framework=framework_name(cells.text(row, "framework")),
        layout=Layout(npus or (tp or 1) * (pp or 1), tp, pp, None, None),
        weights=dtype(cells.text(row, "weight_dtype"), vendor=vendor),
        kv_cache=dtype(cells.text(row, "kv_dtype"), vendor=vendor),
        held=Held(kind),
        batch=cells.finite(row, "batch"),
        input_tokens=cells.finite(row, "isl"),
        output_tokens=cells.finite(row, "osl"),
        usable=cells.finite(row, "gpu_memory_utilization") or None,
        step_tokens=cells.finite(row, "max_num_batched_tokens") or None,
        unit=UNITS.get(cells.text(row, "unit").split(" ")[0], 1.0),
    )
