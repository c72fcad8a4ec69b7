"""Tables of linear layers and experts."""

from collections.abc import Iterator

from model_ops.dtypes import LinearFormat, Precision
from model_ops.opcost import Collective, Operator
from model_ops.profiler.expert_load import BALANCED, ExpertLoad
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.ops import Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard
from problems.measured.operators.rows import LINEAR_FORMATS, Columns, Reader, formats

_NOT_GATED = "nongated"


def _gemm(rows: Columns) -> Iterator[Operator | Collective]:
    weights, inputs = LINEAR_FORMATS[rows.rows[0]["gemm_dtype"]]
    yield Gemm(
        name="gemm",
        m=rows["m"],
        k=rows["k"],
        n=rows["n"],
        **formats(weights, inputs),
    )


def _experts(rows: Columns) -> Iterator[Operator | Collective]:
    """One rank's experts of a layer; the busiest one's where load is uneven."""
    first = rows.rows[0]
    weights, inputs = LINEAR_FORMATS[first["moe_dtype"]]
    ffn = MoeFfn(
        num_experts=int(rows.only("num_experts")),
        num_experts_per_tok=int(rows.only("topk")),
        moe_intermediate_size=int(rows.only("inter_size")),
        gated=_NOT_GATED not in first["kernel_source"],
    )
    tp, ep = int(rows.only("moe_tp_size")), int(rows.only("moe_ep_size"))
    shard = Shard(
        hidden_size=int(rows.only("hidden_size")),
        parallelism=Parallelism(tp=tp * ep, pp=1, ep=ep),
        precision=Precision(
            weights=weights,
            activations=LinearFormat(weights, inputs).inputs,
        ),
        experts=_load(first["distribution"]),
    )
    yield from ffn.experts(shard, rows["num_tokens"])


def _load(distribution: str) -> ExpertLoad:
    kind, _, alpha = distribution.rpartition("_")
    return ExpertLoad(alpha=float(alpha)) if kind == "power_law" else BALANCED


GEMM = Reader(
    table="gemm",
    needs=("gemm_dtype", "m", "n", "k"),
    alike=("gemm_dtype",),
    shape=("n", "k"),
    label=("gemm_dtype",),
    build=_gemm,
)

MOE = Reader(
    table="moe",
    needs=("moe_dtype", "num_tokens", "inter_size"),
    alike=(
        "moe_dtype",
        "kernel_source",
        "hidden_size",
        "inter_size",
        "topk",
        "num_experts",
        "moe_tp_size",
        "moe_ep_size",
        "distribution",
    ),
    shape=("hidden_size", "inter_size", "topk", "num_experts"),
    label=("moe_dtype",),
    build=_experts,
)
