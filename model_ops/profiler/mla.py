"""Multi-head latent attention: keys and values kept as one narrow latent.

Source: DeepSeek-AI, "DeepSeek-V2", 2024, section 2.1 and appendix C. In decode the
up-projections of keys and values are absorbed into queries and outputs, so that
attention works on the latent itself; in prefill the latents are expanded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model_ops.opcost import Collective, KernelFamily, Number, Operator
from model_ops.profiler.attention import context_exchange
from model_ops.profiler.ops import (
    AttentionCore,
    Elementwise,
    Gemm,
    projection,
    tensor_parallel_sum,
)
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.sparse_indexer import SparseIndexer
from model_ops.profiler.work import Phase, Segment, Shard, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention, with a sparse indexer where the model has one.

    Parameters
    ----------
    num_attention_heads, q_lora_rank, kv_lora_rank, qk_nope_head_dim,
    qk_rope_head_dim, v_head_dim
        As in Hugging Face configs; a `q_lora_rank` of None is a plain projection.
    indexer
        Chooses the tokens that attention sees; None where it sees all.
    output_gate
        Whether the output is gated by a projection of the input.
    """

    num_attention_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    indexer: SparseIndexer | None = None
    output_gate: bool = False

    name: ClassVar[str] = "attention"

    @property
    def qk_head_dim(self) -> int:
        """Size of a query head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cache_elements(self) -> int:
        """Elements that one token keeps in the cache: latent and rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of the projections, their norms and the indexer."""
        whole, split = self._matrices(hidden_size, self.num_attention_heads)
        norms = (self.q_lora_rank or 0) + self.kv_lora_rank
        return int(whole + split) + norms + self._index_parameters(hidden_size)

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: all of them."""
        return self.parameters(hidden_size)

    def _index_parameters(self, hidden_size: int) -> int:
        if self.indexer is None:
            return 0
        return self.indexer.parameters(hidden_size, self.q_lora_rank or hidden_size)

    def _matrices(self, hidden: int, heads: Number) -> tuple[Number, Number]:
        """Return the weights that every rank holds whole, and those of some heads."""
        rank = self.q_lora_rank
        whole = hidden * (self.cache_elements + (rank or 0))
        queries = (rank or hidden) * heads * self.qk_head_dim
        expanding = (
            self.kv_lora_rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
        )
        gates = 2 if self.output_gate else 1
        return whole, queries + expanding + gates * hidden * heads * self.v_head_dim

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank; the down-projections are copied."""
        heads = self.num_attention_heads / shard.tp
        whole, split = self._matrices(shard.hidden_size, heads)
        index = self._index_parameters(shard.hidden_size)
        return (whole + split + index) * shard.precision.projection.weights.bytes

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest live pair: q, k, v expanded."""
        heads = self.num_attention_heads / shard.tp
        return heads * (2 * self.qk_head_dim + 2 * self.v_head_dim)

    def cache_bytes(self, shard: Shard, tokens: Number, block: int) -> Number:
        """Return the bytes a sequence keeps on each rank: one latent for all heads."""
        each = self.cache_elements * shard.precision.kv_cache.bytes
        if self.indexer is not None:
            each += self.indexer.key_bytes
        return each * (np.ceil(tokens / shard.parallelism.cp / block) * block)

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        heads, tp = self.num_attention_heads, int(parallelism.tp)
        if heads % tp:
            return f"tp {tp} does not divide num_attention_heads {heads}"
        return None

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order."""
        dtype, hidden = shard.precision, shard.hidden_size
        heads = self.num_attention_heads / shard.tp
        rows = shard.rows(step)
        latent, rank = self.cache_elements, self.q_lora_rank
        queries = heads * self.qk_head_dim
        if rank is None:
            yield projection("q_kv_a_proj", shard, step, k=hidden, n=latent + queries)
        else:
            yield projection("qkv_a_proj", shard, step, k=hidden, n=rank + latent)
            yield Elementwise(
                name="latent_norm",
                elements=rows * (rank + self.kv_lora_rank),
                read=dtype.residual.bytes,
                written=dtype.residual.bytes,
            )
            yield projection("q_b_proj", shard, step, k=rank, n=queries)
        yield Elementwise(
            name="rotary",
            elements=rows * ((heads + 1) * self.qk_rope_head_dim),
            read=dtype.residual.bytes,
            written=dtype.residual.bytes,
        )
        yield Elementwise(
            name="kv_cache_write",
            elements=rows * latent,
            read=dtype.residual.bytes,
            written=dtype.kv_cache.bytes,
        )
        if self.indexer is not None:
            yield from self.indexer.operators(shard, step, rank or hidden, _FAMILIES)
        for segment in step.segments:
            yield from self._core(shard, segment, heads)
        outputs = heads * self.v_head_dim
        if self.output_gate:
            yield projection("gate_proj", shard, step, k=hidden, n=outputs)
        yield projection("o_proj", shard, step, k=outputs, n=hidden)

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield the sum of the ranks' partial outputs."""
        yield from tensor_parallel_sum(self.name, shard, payload)

    def _core(
        self, shard: Shard, segment: Segment, heads: Number
    ) -> Iterator[Operator | Collective]:
        yield from context_exchange(
            shard,
            segment,
            key_elements=self.cache_elements,
            query_elements=heads * (self.cache_elements + self.kv_lora_rank),
            cache=shard.precision.kv_cache,
        )
        # With few keys to see per query the latent itself is the cheaper form.
        absorbed = segment.phase is Phase.DECODE or self.indexer is not None
        if absorbed:
            yield from self._absorbed(shard, segment, heads)
        else:
            yield from self._expanded(shard, segment, heads)

    def _absorbed(
        self, shard: Shard, segment: Segment, heads: Number
    ) -> Iterator[Operator]:
        """Yield the way into the latent space, attention there, and the way back."""
        dtype, cp = shard.precision, shard.parallelism.cp
        reading = segment.phase is Phase.PREFILL
        rows = shard.rows(Step((segment,))) * heads
        for name, k, n in (
            ("q_absorb", self.qk_nope_head_dim, self.kv_lora_rank),
            ("v_absorb", self.kv_lora_rank, self.v_head_dim),
        ):
            yield Gemm(
                name=name,
                m=rows,
                k=k,
                n=n,
                weights=dtype.residual,
                inputs=dtype.residual,
                outputs=dtype.residual,
                engine=dtype.residual,
                matrices=heads,
            )
        topk = None if self.indexer is None else self.indexer.index_topk
        yield AttentionCore(
            name=f"mla_{segment.phase}",
            family=_FAMILIES[segment.phase],
            sequences=segment.sequences,
            queries=segment.queries,
            context=segment.context,
            branches=segment.branches,
            heads=heads,
            qk_dim=self.cache_elements,
            v_dim=self.kv_lora_rank,
            key_elements=self.cache_elements,
            cache_bytes=dtype.kv_cache.bytes,
            outputs=dtype.residual,
            engine=dtype.attention,
            reach=topk,
            query_shares=cp if reading else 1.0,
            key_shares=1.0 if reading else cp,
            cache=dtype.kv_cache,
        )

    def _expanded(
        self, shard: Shard, segment: Segment, heads: Number
    ) -> Iterator[Operator]:
        """Keys and values of chunk and context are made from their latents."""
        dtype, cp = shard.precision, shard.parallelism.cp
        tokens = segment.sequences * (segment.context + segment.queries)
        expanded = self.qk_nope_head_dim + self.v_head_dim
        format_ = dtype.projection
        yield Gemm(
            name="kv_b_proj",
            m=tokens,
            k=self.kv_lora_rank,
            n=heads * expanded,
            weights=format_.weights,
            inputs=format_.inputs,
            outputs=dtype.residual,
            engine=format_.engine,
            cached=segment.sequences * segment.context,
        )
        yield AttentionCore(
            name=f"mla_{segment.phase}",
            family=_FAMILIES[segment.phase],
            sequences=segment.sequences,
            queries=segment.queries,
            context=segment.context,
            branches=segment.branches,
            heads=heads,
            qk_dim=self.qk_head_dim,
            v_dim=self.v_head_dim,
            key_elements=heads * (self.qk_head_dim + self.v_head_dim),
            cache_bytes=dtype.residual.bytes,
            outputs=dtype.residual,
            engine=dtype.attention,
            query_shares=cp,
            cached=False,
            kv_heads=heads,
            cache=dtype.kv_cache,
        )


_FAMILIES = {
    Phase.PREFILL: KernelFamily.MLA_PREFILL,
    Phase.DECODE: KernelFamily.MLA_DECODE,
}
