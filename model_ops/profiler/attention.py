"""Softmax attention with a KV cache: MHA, GQA and MQA, full or sliding window."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model_ops.opcost import Collective, Number, Operator
from model_ops.profiler.ops import AttentionCore, Elementwise, linear
from model_ops.profiler.work import Shard, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Grouped-query attention; MHA and MQA are its two ends.

    Parameters
    ----------
    num_attention_heads, num_key_value_heads, head_dim
        As in Hugging Face configs.
    qkv_bias, output_bias
        Whether the projections have a bias.
    qk_norm
        Whether queries and keys are normalised per head.
    rotary
        Whether positions are rotary (else learned or ALiBi).
    sliding_window
        Tokens a query sees, itself included; None for all before it.
    """

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    rotary: bool = True
    sliding_window: int | None = None

    name: ClassVar[str] = "attention"

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of the four projections, biases and norms."""
        q = self.num_attention_heads * self.head_dim
        kv = self.num_key_value_heads * self.head_dim
        biases = self.qkv_bias * (q + 2 * kv) + self.output_bias * hidden_size
        norms = self.qk_norm * 2 * self.head_dim
        return hidden_size * (2 * q + 2 * kv) + biases + norms

    def kv_heads_per_rank(self, tp: Number) -> Number:
        """Return the KV heads on each rank; they are copied when tp exceeds them."""
        return np.maximum(self.num_key_value_heads / tp, 1.0)

    def weights_per_rank(self, hidden_size: int, tp: Number) -> Number:
        """Return the weights on each rank, copied KV heads included."""
        q = self.num_attention_heads * self.head_dim / tp
        kv = self.kv_heads_per_rank(tp) * self.head_dim
        return hidden_size * (2 * q + 2 * kv)

    def activation_width(self, tp: Number) -> Number:
        """Return the elements per token of the widest live pair: qkv and output."""
        q = self.num_attention_heads * self.head_dim / tp
        return 2 * q + 2 * self.kv_heads_per_rank(tp) * self.head_dim

    def cached_tokens(self, tokens: Number) -> Number:
        """Return the tokens whose keys and values a sequence must keep."""
        if self.sliding_window is None:
            return tokens
        return np.minimum(tokens, self.sliding_window)

    def kv_elements_per_token(self, tp: Number) -> Number:
        """Return the cache elements of one token on each rank of this layer."""
        return 2.0 * self.kv_heads_per_rank(tp) * self.head_dim

    def rule_broken_by(self, tp: int) -> str | None:
        """Return why this layer cannot be split over `tp` ranks, if it cannot."""
        heads, kv = self.num_attention_heads, self.num_key_value_heads
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
        width = heads * self.head_dim
        kv_width = kv_heads * self.head_dim
        hidden = shard.hidden_size
        yield linear("qkv_proj", shard, step, k=hidden, n=width + 2 * kv_width)
        if self.rotary or self.qk_norm:
            yield Elementwise(
                name="rotary",
                elements=step.tokens * (width + kv_width),
                read=dtype.residual.bytes,
                written=dtype.residual.bytes,
            )
        yield Elementwise(
            name="kv_cache_write",
            elements=step.tokens * (2 * kv_width),
            read=dtype.residual.bytes,
            written=dtype.kv_cache.bytes,
        )
        for segment in step.segments:
            yield AttentionCore(
                name=segment.family.value,
                family=segment.family,
                sequences=segment.sequences,
                queries=segment.queries,
                context=segment.context,
                heads=heads,
                kv_heads=kv_heads,
                head_dim=self.head_dim,
                window=self.sliding_window,
                kv_cache=dtype.kv_cache,
                outputs=dtype.residual,
                engine=dtype.attention,
            )
        yield linear("o_proj", shard, step, k=width, n=hidden)
