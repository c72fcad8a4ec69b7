"""Attention to a short window of tokens and to compressed entries for those before.

Source: DeepSeek-AI, "DeepSeek-V4", 2026, section 2.3, and its published configs: one
head serves as key and value of all query heads; every `compress_ratio` tokens are
pooled into one entry; where the ratio is small an indexer chooses among the entries;
outputs are projected in groups through a narrow rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model_ops.dtypes import Dtype
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
from model_ops.profiler.work import Phase, Segment, Shard, Step

_STATE_BYTES = 4
"""The tokens of a window that is not yet full are pooled in FP32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressor:
    """Pools tokens into entries, each element weighted by a gate of its own.

    Parameters
    ----------
    ratio
        Tokens from one entry to the next.
    width
        Elements of an entry.
    overlapping
        Whether an entry pools the tokens of the one before it too.
    """

    ratio: int
    width: int
    overlapping: bool

    @property
    def series(self) -> int:
        """Entries that each token takes part in."""
        return 2 if self.overlapping else 1

    @property
    def columns(self) -> int:
        """Columns of the projections of values and gates."""
        return 2 * self.series * self.width

    def parameters(self, hidden_size: int) -> int:
        """Return the projections, the gates' position bias and a norm."""
        bias = self.ratio * self.series * self.width
        return hidden_size * self.columns + bias + self.width

    @property
    def state_bytes(self) -> float:
        """Bytes that a sequence keeps of the tokens not yet pooled."""
        return self.series * self.ratio * self.columns * _STATE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryIndexer:
    """Chooses the entries that attention sees, by narrower entries of its own.

    Parameters
    ----------
    index_n_heads, index_head_dim, index_topk
        As in Hugging Face configs.
    """

    index_n_heads: int
    index_head_dim: int
    index_topk: int

    @property
    def width(self) -> int:
        """Columns of the projection of queries."""
        return self.index_n_heads * self.index_head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedAttention:
    """One key-value head for all queries, a window and compressed entries.

    Parameters
    ----------
    num_attention_heads, head_dim, q_lora_rank, o_lora_rank, o_groups, sliding_window
        As in Hugging Face configs.
    compress_ratio
        Tokens per entry; 0 for the window alone.
    indexer
        Chooses among the entries; None where attention sees all of them. Entries
        overlap where there is one.
    """

    num_attention_heads: int
    head_dim: int
    q_lora_rank: int
    o_lora_rank: int
    o_groups: int
    sliding_window: int
    compress_ratio: int = 0
    indexer: EntryIndexer | None = None

    name: ClassVar[str] = "attention"

    @property
    def compressors(self) -> tuple[Compressor, ...]:
        """What pools entries: for attention, and for the indexer if there is one."""
        if not self.compress_ratio:
            return ()
        widths = [self.head_dim]
        if self.indexer is not None:
            widths.append(self.indexer.index_head_dim)
        overlapping = self.indexer is not None
        return tuple(
            Compressor(ratio=self.compress_ratio, width=width, overlapping=overlapping)
            for width in widths
        )

    def _columns(self) -> int:
        """Return the columns of what is projected from the residual stream."""
        compressing = sum(each.columns for each in self.compressors)
        weighing = 0 if self.indexer is None else self.indexer.index_n_heads
        return self.q_lora_rank + self.head_dim + compressing + weighing

    def _whole(self, hidden: int) -> int:
        """Return the weights that every rank holds whole."""
        index = 0 if self.indexer is None else self.q_lora_rank * self.indexer.width
        return hidden * self._columns() + index

    def _split(self, hidden: int) -> int:
        """Return the weights that the ranks share: queries and output projections."""
        width = self.num_attention_heads * self.head_dim
        outputs = width * self.o_lora_rank + self.o_groups * self.o_lora_rank * hidden
        return self.q_lora_rank * width + outputs

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of projections, compressors, norms and sinks."""
        matrices = self._whole(hidden_size) + self._split(hidden_size)
        pooling = sum(
            each.parameters(hidden_size) - hidden_size * each.columns
            for each in self.compressors
        )
        norms = self.q_lora_rank + self.head_dim
        return matrices + pooling + norms + self.num_attention_heads

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: all of them."""
        return self.parameters(hidden_size)

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank."""
        hidden = shard.hidden_size
        held = self._whole(hidden) + self._split(hidden) / shard.tp
        return held * shard.precision.projection.weights.bytes

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest live pair: queries, outputs."""
        return 2 * (self.num_attention_heads / shard.tp) * self.head_dim

    def cache_bytes(self, shard: Shard, tokens: Number, block: int) -> Number:
        """Return the bytes a sequence keeps on each rank: window, entries, state."""
        kept = tokens / shard.parallelism.cp
        element = shard.precision.kv_cache.bytes
        near = np.ceil(np.minimum(kept, self.sliding_window) / block) * block
        held = near * (self.head_dim * element)
        for each in self.compressors:
            entries = np.ceil(kept / block) * block / each.ratio
            held = held + entries * (each.width * element) + each.state_bytes
        return held

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        tp = int(parallelism.tp)
        for key in ("num_attention_heads", "o_groups"):
            if getattr(self, key) % tp:
                return f"tp {tp} does not divide {key} {getattr(self, key)}"
        return None

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order."""
        residual, hidden = shard.precision.residual, shard.hidden_size
        heads = self.num_attention_heads / shard.tp
        rows, rank = shard.rows(step), self.q_lora_rank
        yield projection("qkv_a_proj", shard, step, k=hidden, n=self._columns())
        yield Elementwise(
            name="latent_norm",
            elements=rows * (rank + self.head_dim),
            read=residual.bytes,
            written=residual.bytes,
        )
        yield projection("q_b_proj", shard, step, k=rank, n=heads * self.head_dim)
        yield Elementwise(
            name="rotary",
            elements=rows * ((heads + 1) * self.head_dim),
            read=residual.bytes,
            written=residual.bytes,
        )
        yield Elementwise(
            name="kv_cache_write",
            elements=rows * self.head_dim,
            read=residual.bytes,
            written=shard.precision.kv_cache.bytes,
        )
        for each in self.compressors:
            yield Elementwise(
                name="compress",
                elements=rows * each.columns,
                read=residual.bytes,
                written=_STATE_BYTES,
            )
        if self.indexer is not None:
            width = self.indexer.width
            yield projection("index_q_proj", shard, step, k=rank, n=width)
        for segment in step.segments:
            yield from self._cores(shard, segment, heads)
        yield from self._outputs(shard, step, heads)

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield the sum of the ranks' partial outputs."""
        yield from tensor_parallel_sum(self.name, shard, payload)

    def _cores(
        self, shard: Shard, segment: Segment, heads: Number
    ) -> Iterator[Operator | Collective]:
        """Scores of the indexer, then attention to the window and to the entries."""
        dtype = shard.precision
        ratio = self.compress_ratio
        yield from context_exchange(
            shard,
            segment,
            key_elements=self.head_dim * (1 + (1 / ratio if ratio else 0)),
            query_elements=2 * heads * self.head_dim,
            cache=dtype.kv_cache,
        )
        if self.indexer is not None:
            yield self._core(
                f"index_{segment.phase}",
                shard,
                segment,
                heads=self.indexer.index_n_heads,
                dims=(self.indexer.index_head_dim, 0),
                ratio=ratio,
                engine=Dtype.FP8,
            )
        dims = (self.head_dim, self.head_dim)
        window = self.sliding_window
        name = f"window_{segment.phase}"
        yield self._core(name, shard, segment, heads=heads, dims=dims, reach=window)
        if ratio:
            topk = None if self.indexer is None else self.indexer.index_topk * ratio
            name = f"entries_{segment.phase}"
            yield self._core(
                name, shard, segment, heads=heads, dims=dims, reach=topk, ratio=ratio
            )

    def _core(  # noqa: PLR0913 - what is attended to, and how
        self,
        name: str,
        shard: Shard,
        segment: Segment,
        *,
        heads: Number,
        dims: tuple[int, int],
        reach: int | None = None,
        ratio: int = 1,
        engine: Dtype | None = None,
    ) -> AttentionCore:
        """Return attention to entries of `ratio` tokens each.

        It is counted by tokens, each of which stands for a share of an entry.
        """
        dtype, cp = shard.precision, shard.parallelism.cp
        reading = segment.phase is Phase.PREFILL
        return AttentionCore(
            name=name,
            family=_FAMILIES[segment.phase],
            sequences=segment.sequences,
            queries=segment.queries,
            context=segment.context,
            branches=segment.branches,
            heads=heads / ratio,
            qk_dim=dims[0],
            v_dim=dims[1],
            key_elements=dims[0] / ratio,
            cache_bytes=dtype.kv_cache.bytes,
            outputs=dtype.residual,
            engine=engine or dtype.attention,
            reach=reach,
            query_shares=cp if reading else 1.0,
            key_shares=1.0 if reading else cp,
            kv_heads=1.0 / ratio,
            cache=dtype.kv_cache,
        )

    def _outputs(self, shard: Shard, step: Step, heads: Number) -> Iterator[Operator]:
        """Each group of heads to its narrow rank, then all of them to the stream."""
        format_ = shard.precision.projection
        groups, rank = self.o_groups / shard.tp, self.o_lora_rank
        yield Gemm(
            name="o_a_proj",
            m=shard.rows(step) * groups,
            k=heads * self.head_dim / groups,
            n=rank,
            weights=format_.weights,
            inputs=format_.inputs,
            outputs=shard.precision.residual,
            engine=format_.engine,
            matrices=groups,
        )
        yield projection("o_b_proj", shard, step, k=groups * rank, n=shard.hidden_size)


_FAMILIES = {
    Phase.PREFILL: KernelFamily.MLA_PREFILL,
    Phase.DECODE: KernelFamily.MLA_DECODE,
}
