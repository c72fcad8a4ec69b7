"""Tables of multi-head latent attention: its kernel, its products, whole modules.

All are of DeepSeek-V3's shapes, and `num_heads` are those of one rank.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from model_ops.dtypes import Dtype, Precision
from model_ops.opcost import Collective, KernelFamily, Operator
from model_ops.profiler.mla import LatentAttention
from model_ops.profiler.ops import AttentionCore
from model_ops.profiler.work import Phase, Segment, Shard, Step
from problems.measured.operators.rows import LINEAR_FORMATS, Columns, Reader
from problems.measured.tables import Row

DEEPSEEK_V3 = LatentAttention(
    num_attention_heads=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)
"""Source: ``config.json`` of deepseek-ai/DeepSeek-V3."""

_HIDDEN = 7168


def _operators(
    rows: Columns, phase: Phase, precision: Precision
) -> Iterator[Operator | Collective]:
    """Yield the layer's operators on one rank, which has all the heads there are."""
    mixer = replace(DEEPSEEK_V3, num_attention_heads=int(rows.only("num_heads")))
    segment = Segment(rows["batch_size"], rows["isl"], rows["step"], phase)
    shard = Shard(hidden_size=_HIDDEN, precision=precision)
    yield from mixer.operators(shard, Step((segment,)))


def _phase(row: Row) -> Phase:
    """Return what the row's sequences do: an answer's token has some before it."""
    one_token = float(row["isl"]) == 1 and float(row["step"] or 0) > 0
    return Phase.DECODE if one_token else Phase.PREFILL


def _kernel(rows: Columns) -> Iterator[Operator | Collective]:
    first = rows.rows[0]
    precision = Precision(kv_cache=Dtype.of(first["kv_cache_dtype"]))
    every = _operators(rows, _phase(first), precision)
    yield from (each for each in every if isinstance(each, AttentionCore))


def _module(rows: Columns) -> Iterator[Operator | Collective]:
    first = rows.rows[0]
    weights, inputs = LINEAR_FORMATS[first["gemm_type"]]
    cache = Dtype.of(first["kv_cache_dtype"])
    precision = Precision(weights=weights, activations=inputs, kv_cache=cache)
    yield from _operators(rows, _phase(first), precision)


_PRODUCTS: Mapping[str, str] = {"mla_gen_pre": "q_absorb", "mla_gen_post": "v_absorb"}


def _product(rows: Columns) -> Iterator[Operator | Collective]:
    """One product with the absorbed projections, in the layer's own format."""
    name = _PRODUCTS[rows.rows[0]["op_name"]]
    heads = int(rows.only("num_heads"))
    mixer = replace(DEEPSEEK_V3, num_attention_heads=heads)
    segment = Segment(rows["num_tokens"], 1.0, 1.0, Phase.DECODE)
    every = mixer.operators(Shard(hidden_size=_HIDDEN), Step((segment,)))
    yield from (each for each in every if each.name == name)


def _table(context: str, generation: str) -> Callable[[Row], str]:
    return lambda row: generation if _phase(row) is Phase.DECODE else context


_MEASURED_ALONE = ("trtllm",)
"""Stacks whose kernel was measured without the projections around it."""

MLA = Reader(
    table="context_mla",
    needs=("mla_dtype", "kv_cache_dtype", "num_heads", "batch_size", "isl", "tp_size"),
    alike=("mla_dtype", "kv_cache_dtype", "num_heads"),
    shape=("num_heads", "tp_size"),
    label=("mla_dtype", "kv_cache_dtype"),
    build=_kernel,
    part=_table("context_mla", "generation_mla"),
    repeats=True,
)

MLA_MODULE = Reader(
    table="mla_context_module",
    needs=("mla_dtype", "kv_cache_dtype", "gemm_type", "num_heads", "architecture"),
    alike=("mla_dtype", "kv_cache_dtype", "gemm_type", "num_heads"),
    shape=("num_heads", "gemm_type"),
    label=("gemm_type", "kv_cache_dtype"),
    build=_module,
    part=_table("mla_context_module", "mla_generation_module"),
    about=(KernelFamily.MLA_PREFILL, KernelFamily.MLA_DECODE),
    usual=lambda row: row["framework"] not in _MEASURED_ALONE,
)

MLA_PRODUCT = Reader(
    table="mla_bmm",
    needs=("bmm_dtype", "op_name", "num_heads", "num_tokens"),
    alike=("bmm_dtype", "op_name", "num_heads"),
    shape=("num_heads",),
    label=("bmm_dtype",),
    build=_product,
    fitted=False,
)
