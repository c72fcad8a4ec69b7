"""Tables of linear layers and experts."""

from collections.abc import Iterator

import numpy as np

from model_ops.dtypes import Dtype, LinearFormat
from model_ops.opcost import Collective, Operator
from model_ops.profiler.moe import RoutedExperts
from model_ops.profiler.ops import Gemm
from problems.measured.operators.drawn_loads import busiest_rank
from problems.measured.operators.rows import LINEAR_FORMATS, Columns, Reader, formats
from problems.measured.tables import Row

_NOT_GATED = "nongated"

_PASSES_OVER_ALL = "vllm"
"""Its activation and its sum pass over every choice, also of experts elsewhere."""

_BESIDE = ("min_latency", "w4a4mxfp4moe_marlin")
"""Kernels that a stack runs on request, or for rarer checkpoints, beside its usual one
for the same format."""


def _gemm(rows: Columns) -> Iterator[Operator | Collective]:
    weights, inputs = LINEAR_FORMATS[rows.rows[0]["gemm_dtype"]]
    yield Gemm(
        name="gemm",
        m=rows["m"],
        k=rows["k"],
        n=rows["n"],
        **formats(weights, inputs),
    )


def _from_the_device(row: Row) -> bool:
    """Return whether the GPU's time was measured, not the host's.

    vLLM 0.24's layers with block scales take 56 us (Hopper) to 340 us (GB200) at any
    size: their calls from Python, which a captured graph does without.
    """
    return (row["framework"], row["gemm_dtype"]) != ("vllm", "fp8_block")


def _experts(rows: Columns) -> Iterator[Operator | Collective]:
    """One rank's experts of a layer; the busiest one's where load is uneven."""
    weights, inputs = LINEAR_FORMATS[rows.rows[0]["moe_dtype"]]
    load = np.array([_load(row) for row in rows.rows])
    every = rows.rows[0]["framework"] == _PASSES_OVER_ALL
    gated = np.array([_NOT_GATED not in row["kernel_source"] for row in rows.rows])
    yield from RoutedExperts(
        rows=load[:, 0],
        passed=rows["num_tokens"] * rows["topk"] if every else load[:, 0],
        distinct=load[:, 1],
        width=rows["hidden_size"],
        inner=rows["inter_size"] / rows["moe_tp_size"],
        up_matrices=np.where(gated, 2, 1),
        num_experts_per_tok=rows["topk"],
        dtype=LinearFormat(weights, inputs),
        outputs=Dtype.BF16,
    ).operators()


def _usual(row: Row) -> bool:
    return not any(name in row["kernel_source"] for name in _BESIDE)


def _load(row: Row) -> tuple[float, float]:
    """Return the rows of the busiest rank and its experts that have any."""
    kind, _, alpha = row["distribution"].rpartition("_")
    numbers = ("num_tokens", "topk", "num_experts", "moe_ep_size")
    return busiest_rank(
        *(int(row[name]) for name in numbers),
        alpha=float(alpha) if kind == "power_law" else 0.0,
    )


GEMM = Reader(
    table="gemm",
    needs=("gemm_dtype", "m", "n", "k"),
    alike=("gemm_dtype",),
    shape=("n", "k"),
    label=("gemm_dtype",),
    build=_gemm,
    repeats=True,
    usual=_from_the_device,
)

MOE = Reader(
    table="moe",
    needs=("moe_dtype", "num_tokens", "inter_size"),
    alike=("moe_dtype",),
    shape=(
        "hidden_size",
        "inter_size",
        "topk",
        "num_experts",
        "moe_tp_size",
        "moe_ep_size",
    ),
    label=("moe_dtype",),
    build=_experts,
    usual=_usual,
)
