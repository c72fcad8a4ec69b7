"""Tables of attention with a KV cache: prompts (context) and answers (generation)."""

from collections.abc import Iterator

import numpy as np

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, KernelFamily, Operator
from model_ops.profiler.ops import AttentionCore
from problems.measured.operators.rows import Columns, Floats, Reader
from problems.measured.tables import Row


def _core(
    rows: Columns, family: KernelFamily, queries: Floats, context: Floats
) -> AttentionCore:
    first = rows.rows[0]
    heads = rows["num_heads"]
    given = rows["num_key_value_heads"]
    kv_heads = np.where(given > 0, given, heads)
    size, window = int(rows.only("head_dim")), rows.only("window_size")
    cache = Dtype.of(first["kv_cache_dtype"])
    return AttentionCore(
        name=family.value,
        family=family,
        sequences=rows["batch_size"],
        queries=queries,
        context=context,
        heads=heads,
        qk_dim=size,
        v_dim=size,
        key_elements=kv_heads * (2 * size),
        cache_bytes=cache.bytes,
        outputs=Dtype.BF16,
        engine=Dtype.of(first["attn_dtype"]),
        reach=int(window) if window > 0 else None,
        kv_heads=kv_heads,
        cache=cache,
    )


def _attention(rows: Columns) -> Iterator[Operator | Collective]:
    reading = _part(rows.rows[0]) == CONTEXT
    prefill, decode = KernelFamily.ATTENTION_PREFILL, KernelFamily.ATTENTION_DECODE
    yield _core(rows, prefill if reading else decode, rows["isl"], rows["step"])


def _part(row: Row) -> str:
    """Return the table: an answer's token has something before it."""
    one_token = float(row["isl"]) == 1 and float(row["step"] or 0) > 0
    return GENERATION if one_token else CONTEXT


CONTEXT, GENERATION = "context_attention", "generation_attention"

ATTENTION = Reader(
    table=CONTEXT,
    needs=("attn_dtype", "kv_cache_dtype", "isl", "head_dim", "num_key_value_heads"),
    alike=("attn_dtype", "kv_cache_dtype", "head_dim", "window_size"),
    shape=("num_heads", "num_key_value_heads", "head_dim", "window_size"),
    label=("attn_dtype", "kv_cache_dtype"),
    build=_attention,
    part=_part,
    repeats=True,
)
