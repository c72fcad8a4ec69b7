"""Softmax attention with a KV cache: MHA, GQA and MQA, full, sliding or chunked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, CollectiveKind, KernelFamily, Number, Operator
from model_ops.profiler.ops import (
    AttentionCore,
    Elementwise,
    projection,
    tensor_parallel_sum,
)
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.sparse_indexer import SparseIndexer
from model_ops.profiler.work import Phase, Segment, Shard, Step

_FAMILIES = {
    Phase.PREFILL: KernelFamily.ATTENTION_PREFILL,
    Phase.DECODE: KernelFamily.ATTENTION_DECODE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Grouped-query attention; MHA and MQA are its two ends.

    Parameters
    ----------
    num_attention_heads, num_key_value_heads, head_dim
        As in Hugging Face configs.
    v_head_dim
        Size of a value head; `head_dim` if None.
    qkv_bias, output_bias
        Whether the projections have a bias.
    qk_norm
        Whether queries and keys are normalised per head.
    rotary
        Whether positions are rotary (else learned or ALiBi).
    sliding_window
        Tokens a query sees, itself included; None for all before it.
    chunk_size
        Length of the chunks beyond whose start a query sees nothing (Llama 4);
        None for no chunks.
    output_gate
        Whether the output is gated by a projection of the input as wide as itself.
    key_is_value
        Whether one projection serves as keys and values (Gemma 4).
    kv_shared
        Whether keys and values are those of a layer before (Gemma 4).
    indexer
        Chooses the cached tokens that attention sees; None where it sees all.
    extra_parameters
        Parameters besides: sinks, norms over all heads.
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    v_head_dim: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    rotary: bool = True
    sliding_window: int | None = None
    chunk_size: int | None = None
    output_gate: bool = False
    key_is_value: bool = False
    kv_shared: bool = False
    indexer: SparseIndexer | None = None
    extra_parameters: int = 0

    name: ClassVar[str] = "attention"

    @property
    def v_dim(self) -> int:
        """Size of a value head."""
        return self.head_dim if self.v_head_dim is None else self.v_head_dim

    def _in_width(self, heads: Number, kv_heads: Number) -> Number:
        """Return the columns of the projections of so many heads."""
        query = self.head_dim + (self.v_dim if self.output_gate else 0)
        key = self.head_dim + (0 if self.key_is_value else self.v_dim)
        return heads * query + (0 if self.kv_shared else kv_heads * key)

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of the projections, biases and norms."""
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        wide = int(self._in_width(heads, kv_heads))
        biases = self.qkv_bias * wide + self.output_bias * hidden_size
        norms = self.qk_norm * (1 if self.kv_shared else 2) * self.head_dim
        weights = hidden_size * (wide + heads * self.v_dim)
        index = self._index_parameters(hidden_size)
        return weights + biases + norms + index + self.extra_parameters

    def _index_parameters(self, hidden_size: int) -> int:
        if self.indexer is None:
            return 0
        return self.indexer.parameters(hidden_size, hidden_size)

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: all of them."""
        return self.parameters(hidden_size)

    def kv_heads_per_rank(self, tp: Number) -> Number:
        """Return the KV heads on each rank; they are copied when tp exceeds them."""
        return np.maximum(self.num_key_value_heads / tp, 1.0)

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank, copied KV heads included."""
        heads = self.num_attention_heads / shard.tp
        wide = self._in_width(heads, self.kv_heads_per_rank(shard.tp))
        weights = shard.hidden_size * (wide + heads * self.v_dim)
        weights = weights + self._index_parameters(shard.hidden_size)
        return weights * shard.precision.projection.weights.bytes

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest live pair: qkv and output."""
        heads = self.num_attention_heads / shard.tp
        wide = self._in_width(heads, self.kv_heads_per_rank(shard.tp))
        return wide + heads * self.v_dim

    def cache_bytes(self, shard: Shard, tokens: Number, block: int) -> Number:
        """Return the bytes a sequence of `tokens` keeps on each rank, in blocks."""
        if self.kv_shared:
            return 0.0
        reach = self.sliding_window or self.chunk_size
        kept = tokens if reach is None else np.minimum(tokens, reach)
        elements = self.kv_heads_per_rank(shard.tp) * (self.head_dim + self.v_dim)
        index = 0.0 if self.indexer is None else self.indexer.key_bytes
        paged = np.ceil(kept / shard.parallelism.cp / block) * block
        return (elements * shard.precision.kv_cache.bytes + index) * paged

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        heads, kv = self.num_attention_heads, self.num_key_value_heads
        tp = int(parallelism.tp)
        if heads % tp:
            return f"tp {tp} does not divide num_attention_heads {heads}"
        if kv % tp and tp % kv:
            return f"tp {tp} neither divides num_key_value_heads {kv} nor is divided"
        return None

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order."""
        dtype = shard.precision
        heads = self.num_attention_heads / shard.tp
        kv_heads = self.kv_heads_per_rank(shard.tp)
        hidden, rows = shard.hidden_size, shard.rows(step)
        wide = self._in_width(heads, kv_heads)
        yield projection("qkv_proj", shard, step, k=hidden, n=wide)
        if self.rotary or self.qk_norm:
            yield Elementwise(
                name="rotary",
                elements=rows * ((heads + kv_heads) * self.head_dim),
                read=dtype.residual.bytes,
                written=dtype.residual.bytes,
            )
        if not self.kv_shared:
            yield Elementwise(
                name="kv_cache_write",
                elements=rows * (kv_heads * (self.head_dim + self.v_dim)),
                read=dtype.residual.bytes,
                written=dtype.kv_cache.bytes,
            )
        if self.indexer is not None:
            yield from self.indexer.operators(shard, step, hidden, _FAMILIES)
        for segment in step.segments:
            yield from self._core(shard, segment, heads, kv_heads)
        if self.output_gate:
            yield Elementwise(
                name="output_gate",
                elements=rows * (heads * self.v_dim),
                read=2 * dtype.residual.bytes,
                written=dtype.residual.bytes,
            )
        yield projection("o_proj", shard, step, k=heads * self.v_dim, n=hidden)

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield the sum of the ranks' partial outputs."""
        yield from tensor_parallel_sum(self.name, shard, payload)

    def _core(
        self, shard: Shard, segment: Segment, heads: Number, kv_heads: Number
    ) -> Iterator[Operator | Collective]:
        dtype = shard.precision
        chunk = self.chunk_size
        topk = None if self.indexer is None else self.indexer.index_topk
        elements = kv_heads * (self.head_dim + self.v_dim)
        yield from context_exchange(
            shard,
            segment,
            key_elements=elements,
            query_elements=heads * (self.head_dim + self.v_dim),
            cache=dtype.kv_cache,
        )
        reading = segment.phase is Phase.PREFILL
        cp = shard.parallelism.cp
        yield AttentionCore(
            name=_FAMILIES[segment.phase].value,
            family=_FAMILIES[segment.phase],
            sequences=segment.sequences,
            queries=segment.queries,
            context=segment.context,
            branches=segment.branches,
            heads=heads,
            qk_dim=self.head_dim,
            v_dim=self.v_dim,
            key_elements=elements,
            cache_bytes=dtype.kv_cache.bytes,
            outputs=dtype.residual,
            engine=dtype.attention,
            reach=self.sliding_window or chunk or topk,
            seen=None if chunk is None else (chunk + 1) / 2,
            query_shares=cp if reading else 1.0,
            key_shares=1.0 if reading else cp,
            kv_heads=kv_heads,
            cache=dtype.kv_cache,
        )


def context_exchange(
    shard: Shard,
    segment: Segment,
    *,
    key_elements: Number,
    query_elements: Number,
    cache: Dtype,
) -> Iterator[Collective]:
    """Yield what context-parallel ranks pass each other; nothing if there is one.

    In prefill each rank gathers the keys and values of all (ring attention moves the
    same bytes: H. Liu, M. Zaharia and P. Abbeel, 2023). In decode queries travel to
    the keys, and partial outputs back to be summed.
    """
    cp = shard.parallelism.cp
    if np.ndim(cp) == 0 and cp == 1:
        return
    stride = shard.tp
    if segment.phase is Phase.PREFILL:
        tokens = segment.sequences * (segment.context + segment.queries)
        payload = tokens * key_elements * cache.bytes
        yield Collective(
            "context_gather", CollectiveKind.ALL_GATHER, payload, cp, stride
        )
        return
    rows = segment.sequences * segment.queries
    payload = rows * query_elements * shard.precision.residual.bytes
    yield Collective("context_reduce", CollectiveKind.ALL_REDUCE, payload, cp, stride)
