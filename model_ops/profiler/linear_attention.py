"""Linear attention: a matrix per head that tokens write to, instead of a KV cache.

The delta rule replaces what a key already stands for. In prefill it works on chunks
of tokens, whose keys are made independent of each other by a triangular inverse
(S. Yang et al., "Parallelizing linear transformers with the delta rule over sequence
length", 2024, section 3; "Gated delta networks", 2024, section 3.3).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, CollectiveKind, Number, Operator
from model_ops.profiler.ops import Elementwise, projection, tensor_parallel_sum
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.scan import Recurrence, rule_of_heads
from model_ops.profiler.work import Shard, Step

_DELTA_CHUNK = 64
"""Tokens of a chunk of the delta rule (flash-linear-attention)."""

_LIGHTNING_CHUNK = 256
"""Tokens of a block of lightning attention (Z. Qin et al., "Lightning Attention-2")."""

_SUM_BYTES = 4
"""Sums of squares are kept in fp32."""


def _delta_rule(
    *,
    heads: Number,
    key_dim: int,
    value_dim: int,
    state: Dtype,
    inputs: Number,
    conv_width: Number,
    conv_kernel: int,
) -> Recurrence:
    """Return the recurrence of `heads` heads under the delta rule.

    Per token by itself, each element of the state decays (1 FLOP), is read by the key
    (2), corrected (2) and read by the query (2). In chunks three products per token
    meet the state; per pair of tokens k k', q k' and the inverse times k have the
    size of a key, the inverse times v and q k' times v that of a value, and the
    inverse itself costs a third of a chunk cubed.
    """
    state_elements = heads * (key_dim * value_dim)
    pair = 6 * key_dim + 4 * value_dim + 2 * _DELTA_CHUNK / 3
    return Recurrence(
        state_elements=state_elements,
        state=state,
        inputs=inputs,
        outputs=heads * value_dim,
        step_flop=7 * state_elements,
        token_flop=6 * state_elements,
        pair_flop=heads * pair,
        chunk=_DELTA_CHUNK,
        conv_width=conv_width,
        conv_kernel=conv_kernel,
    )


def _gated_norm(shard: Shard, step: Step, width: Number) -> Elementwise:
    """Return the pass that normalises `width` outputs per token and gates them."""
    residual = shard.precision.residual.bytes
    return Elementwise(
        name="gated_norm",
        elements=shard.rows(step) * width,
        read=2 * residual,
        written=residual,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDeltaNet:
    """Gated delta net of Qwen3-Next and Qwen3.5: the delta rule, one decay per head.

    Parameters
    ----------
    linear_num_key_heads, linear_num_value_heads, linear_key_head_dim,
    linear_value_head_dim, linear_conv_kernel_dim
        As in Hugging Face configs.
    ssm_dtype
        Format of the kept state; that of the residual stream if None, as vLLM's
        ``mamba_ssm_cache_dtype`` of "auto" (Qwen3-Next). Qwen3.5 keeps what its
        config's ``mamba_ssm_dtype`` says, FP32.
    """

    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int
    ssm_dtype: Dtype | None = None

    name: ClassVar[str] = "linear_attention"

    @property
    def value_width(self) -> int:
        """Columns of all values."""
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def conv_width(self) -> int:
        """Columns of all queries, keys and values."""
        keys = self.linear_num_key_heads * self.linear_key_head_dim
        return 2 * keys + self.value_width

    @property
    def _in_width(self) -> int:
        """Columns of queries, keys, values, gates, betas and decays."""
        return self.conv_width + self.value_width + 2 * self.linear_num_value_heads

    @property
    def _matrices(self) -> int:
        """Columns of the projections in, and rows of the one out."""
        return self._in_width + self.value_width

    @property
    def _split_vectors(self) -> int:
        """Other weights that ranks share: convolution, A and dt bias."""
        conv = self.conv_width * self.linear_conv_kernel_dim
        return conv + 2 * self.linear_num_value_heads

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of projections, convolution, decay and norm."""
        vectors = self._split_vectors + self.linear_value_head_dim
        return hidden_size * self._matrices + vectors

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: all of them."""
        return self.parameters(hidden_size)

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank; the norm of a head is copied."""
        dtype = shard.precision
        matrices = shard.hidden_size * self._matrices / shard.tp
        vectors = self._split_vectors / shard.tp + self.linear_value_head_dim
        return (
            matrices * dtype.projection.weights.bytes + vectors * dtype.residual.bytes
        )

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest live pair: before, after conv."""
        return (self._in_width + self.conv_width) / shard.tp

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        for name in ("linear_num_key_heads", "linear_num_value_heads"):
            broken = rule_of_heads(getattr(self, name), name, parallelism.tp)
            if broken is not None:
                return broken
        return None

    def _recurrence(self, shard: Shard) -> Recurrence:
        heads, conv = self.linear_num_value_heads / shard.tp, self.conv_width / shard.tp
        return _delta_rule(
            heads=heads,
            key_dim=self.linear_key_head_dim,
            value_dim=self.linear_value_head_dim,
            state=self.ssm_dtype or shard.precision.residual,
            inputs=conv + 2 * heads,
            conv_width=conv,
            conv_kernel=self.linear_conv_kernel_dim,
        )

    def cache_bytes(self, shard: Shard, tokens: Number, block: int) -> Number:
        """Return the bytes of a sequence's state on each rank, whatever its tokens."""
        return self._recurrence(shard).cache_bytes(shard)

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order."""
        hidden, values = shard.hidden_size, self.value_width / shard.tp
        wide = self.conv_width / shard.tp + values
        heads = self.linear_num_value_heads / shard.tp
        recurrence = self._recurrence(shard)
        yield projection("qkvz_proj", shard, step, k=hidden, n=wide)
        yield projection("ba_proj", shard, step, k=hidden, n=2 * heads)
        yield from recurrence.convolution(shard, step)
        yield from recurrence.scans(shard, step)
        yield _gated_norm(shard, step, values)
        yield projection("out_proj", shard, step, k=values, n=hidden)

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield the sum of the ranks' partial outputs."""
        yield from tensor_parallel_sum(self.name, shard, payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class KimiDeltaAttention:
    """Kimi delta attention: the delta rule with a decay for each channel of a key.

    Source: Kimi Team, "Kimi Linear", 2025, section 3; vLLM ``KimiDeltaAttention``.

    Parameters
    ----------
    num_heads, head_dim, short_conv_kernel_size
        As in ``linear_attn_config`` of Hugging Face configs; `head_dim` is also the
        rank of the decay's projections.
    full_rank_gate
        Whether one full matrix makes the output gate (Kimi K3), else two of rank
        `head_dim` (Kimi Linear).
    ssm_dtype
        Format of the kept state; vLLM keeps FP32.
    """

    num_heads: int
    head_dim: int
    short_conv_kernel_size: int
    full_rank_gate: bool = False
    ssm_dtype: Dtype = Dtype.FP32

    name: ClassVar[str] = "linear_attention"

    @property
    def width(self) -> int:
        """Columns of all queries, of all keys, and of all values."""
        return self.num_heads * self.head_dim

    def _split(self, hidden_size: int) -> int:
        """Return the projections' weights that ranks share: those of heads."""
        through_rank = self.head_dim * self.width
        gate = hidden_size * self.width if self.full_rank_gate else through_rank
        outer = hidden_size * (4 * self.width + self.num_heads)
        return outer + through_rank + gate

    def _copied(self, hidden_size: int) -> int:
        """Return the projections' weights that every rank holds: down to a rank."""
        return hidden_size * self.head_dim * (1 if self.full_rank_gate else 2)

    @property
    def _split_vectors(self) -> int:
        """Other weights that ranks share: convolutions, dt bias and A."""
        return self.width * (3 * self.short_conv_kernel_size + 1) + self.num_heads

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of projections, convolutions, decay and norm."""
        matrices = self._split(hidden_size) + self._copied(hidden_size)
        return matrices + self._split_vectors + self.head_dim

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: all of them."""
        return self.parameters(hidden_size)

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank; down-projections are copied."""
        dtype, hidden = shard.precision, shard.hidden_size
        matrices = self._split(hidden) / shard.tp + self._copied(hidden)
        vectors = self._split_vectors / shard.tp + self.head_dim
        return (
            matrices * dtype.projection.weights.bytes + vectors * dtype.residual.bytes
        )

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of q, k, v before and after conv, two gates."""
        return 8 * (self.width / shard.tp)

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        return rule_of_heads(self.num_heads, "num_heads", parallelism.tp)

    def _recurrence(self, shard: Shard) -> Recurrence:
        heads, width = self.num_heads / shard.tp, self.width / shard.tp
        return _delta_rule(
            heads=heads,
            key_dim=self.head_dim,
            value_dim=self.head_dim,
            state=self.ssm_dtype,
            inputs=4 * width + heads,
            conv_width=3 * width,
            conv_kernel=self.short_conv_kernel_size,
        )

    def cache_bytes(self, shard: Shard, tokens: Number, block: int) -> Number:
        """Return the bytes of a sequence's state on each rank, whatever its tokens."""
        return self._recurrence(shard).cache_bytes(shard)

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order."""
        hidden, width = shard.hidden_size, self.width / shard.tp
        rank, heads = self.head_dim, self.num_heads / shard.tp
        recurrence = self._recurrence(shard)
        yield projection("qkv_proj", shard, step, k=hidden, n=3 * width)
        yield projection("f_a_proj", shard, step, k=hidden, n=rank)
        yield projection("f_b_proj", shard, step, k=rank, n=width)
        yield projection("b_proj", shard, step, k=hidden, n=heads)
        if self.full_rank_gate:
            yield projection("g_proj", shard, step, k=hidden, n=width)
        else:
            yield projection("g_a_proj", shard, step, k=hidden, n=rank)
            yield projection("g_b_proj", shard, step, k=rank, n=width)
        yield from recurrence.convolution(shard, step)
        yield from recurrence.scans(shard, step)
        yield _gated_norm(shard, step, width)
        yield projection("o_proj", shard, step, k=width, n=hidden)

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield the sum of the ranks' partial outputs."""
        yield from tensor_parallel_sum(self.name, shard, payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningAttention:
    """Lightning attention of MiniMax-01: each head's state decays at a fixed rate.

    Source: Z. Qin et al., "Lightning Attention-2", 2024; vLLM
    ``MiniMaxText01LinearAttention``.

    Parameters
    ----------
    num_attention_heads, head_dim
        As in Hugging Face configs.
    ssm_dtype
        Format of the kept state; that of the residual stream if None, as vLLM's
        ``mamba_cache_dtype`` of "auto".
    """

    num_attention_heads: int
    head_dim: int
    ssm_dtype: Dtype | None = None

    name: ClassVar[str] = "linear_attention"

    @property
    def width(self) -> int:
        """Columns of all queries, of all keys, and of all values."""
        return self.num_attention_heads * self.head_dim

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of q, k, v, gate and output projection, and norm."""
        return (5 * hidden_size + 1) * self.width

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: all of them."""
        return self.parameters(hidden_size)

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank."""
        dtype, width = shard.precision, self.width / shard.tp
        matrices = 5 * shard.hidden_size * dtype.projection.weights.bytes
        return width * (matrices + dtype.residual.bytes)

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest live pair: q, k, v and output."""
        return 4 * (self.width / shard.tp)

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        heads = self.num_attention_heads
        return rule_of_heads(heads, "num_attention_heads", parallelism.tp)

    def _recurrence(self, shard: Shard) -> Recurrence:
        width = self.width / shard.tp
        state = width * self.head_dim
        return Recurrence(
            state_elements=state,
            state=self.ssm_dtype or shard.precision.residual,
            inputs=3 * width,
            outputs=width,
            step_flop=5 * state,
            token_flop=4 * state,
            pair_flop=4 * width,
            chunk=_LIGHTNING_CHUNK,
        )

    def cache_bytes(self, shard: Shard, tokens: Number, block: int) -> Number:
        """Return the bytes of a sequence's state on each rank, whatever its tokens."""
        return self._recurrence(shard).cache_bytes(shard)

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order.

        The norm spans all heads, so that the ranks add their sums of squares.
        """
        hidden, width = shard.hidden_size, self.width / shard.tp
        yield projection("qkv_proj", shard, step, k=hidden, n=3 * width)
        yield from self._recurrence(shard).scans(shard, step)
        yield projection("output_gate", shard, step, k=hidden, n=width)
        kind, payload = CollectiveKind.ALL_REDUCE, shard.rows(step) * _SUM_BYTES
        yield Collective("norm_all_reduce", kind, payload, shard.tp)
        yield _gated_norm(shard, step, width)
        yield projection("out_proj", shard, step, k=width, n=hidden)

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield the sum of the ranks' partial outputs."""
        yield from tensor_parallel_sum(self.name, shard, payload)
