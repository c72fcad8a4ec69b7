"""State space models: Mamba-1 (selective scan) and Mamba-2 (state space duality)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, CollectiveKind, Number, Operator
from model_ops.profiler.ops import Elementwise, projection, tensor_parallel_sum
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.scan import Recurrence, rule_of_heads
from model_ops.profiler.work import Shard, Step

_SUM_BYTES = 4
"""Sums of squares are kept in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba1:
    """A selective state space: every channel has a decay and a state of its own.

    Source: A. Gu and T. Dao, "Mamba", 2023. The scan works element by element: 9 FLOP
    per element of the state (state-spaces/mamba#110), one each for skip and
    gate. They are counted at the rate of the matrix engine, where bytes bound the
    scan; vector units take about as long as those bytes.

    Parameters
    ----------
    intermediate_size, state_size, conv_kernel, time_step_rank
        As in Hugging Face configs; Jamba says ``mamba_expand * hidden_size``,
        ``mamba_d_state``, ``mamba_d_conv`` and ``mamba_dt_rank``.
    conv_bias, proj_bias
        Whether the convolution, and the outer projections, have a bias.
    inner_norms
        Whether dt, B and C are normalised (Jamba, Falcon-Mamba).
    inner_norm_weights
        Whether those norms have weights: Jamba's do, Falcon-Mamba's do not.
    ssm_dtype
        Format of the kept state; that of the residual stream if None, as vLLM's
        ``mamba_ssm_cache_dtype`` of "auto".
    """

    intermediate_size: int
    state_size: int
    conv_kernel: int
    time_step_rank: int
    conv_bias: bool = True
    proj_bias: bool = False
    inner_norms: bool = False
    inner_norm_weights: bool = True
    ssm_dtype: Dtype | None = None

    name: ClassVar[str] = "mamba"

    @property
    def _inner(self) -> int:
        """Columns of dt, B and C together."""
        return self.time_step_rank + 2 * self.state_size

    def _matrices(self, hidden_size: int, width: Number) -> Number:
        """Return the weights of the four projections of so many channels."""
        inner = self._inner + self.time_step_rank
        return width * (3 * hidden_size + inner)

    def _vectors(self, hidden_size: int, width: Number) -> Number:
        """Return all other weights: convolution, A, D, biases, norms."""
        channel = self.conv_kernel + self.conv_bias + self.state_size + 2
        biases = self.proj_bias * (2 * width + hidden_size)
        norms = self._inner if self.inner_norms and self.inner_norm_weights else 0
        return width * channel + biases + norms

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of projections, convolution, recurrence and norms."""
        width = self.intermediate_size
        vectors = self._vectors(hidden_size, width)
        return int(self._matrices(hidden_size, width) + vectors)

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: all of them."""
        return self.parameters(hidden_size)

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank."""
        width, hidden = self.intermediate_size / shard.tp, shard.hidden_size
        matrices = self._matrices(hidden, width)
        vectors = self._vectors(hidden, width) * shard.precision.residual.bytes
        return matrices * shard.precision.projection.weights.bytes + vectors

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest live pair: x, z, dt and y."""
        return 4 * (self.intermediate_size / shard.tp) + self._inner

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        return rule_of_heads(
            self.intermediate_size, "intermediate_size", parallelism.tp
        )

    def _recurrence(self, shard: Shard) -> Recurrence:
        width = self.intermediate_size / shard.tp
        flop = width * (9 * self.state_size + 2)
        return Recurrence(
            state_elements=width * self.state_size,
            state=self.ssm_dtype or shard.precision.residual,
            inputs=3 * width + 2 * self.state_size,
            outputs=width,
            step_flop=flop,
            token_flop=flop,
            conv_width=width,
            conv_kernel=self.conv_kernel,
        )

    def cache_bytes(self, shard: Shard, tokens: Number, block: int) -> Number:
        """Return the bytes of a sequence's state on each rank, whatever its tokens."""
        return self._recurrence(shard).cache_bytes(shard)

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order.

        B, C and the input of dt are sums over all channels, so that tensor-parallel
        ranks add their parts (vLLM ``MambaMixer``).
        """
        hidden, residual = shard.hidden_size, shard.precision.residual.bytes
        width, rows = self.intermediate_size / shard.tp, shard.rows(step)
        recurrence = self._recurrence(shard)
        yield projection("in_proj", shard, step, k=hidden, n=2 * width)
        yield from recurrence.convolution(shard, step)
        yield projection("x_proj", shard, step, k=width, n=self._inner)
        payload = rows * (self._inner * residual)
        yield Collective("x_all_reduce", CollectiveKind.ALL_REDUCE, payload, shard.tp)
        if self.inner_norms:
            yield Elementwise(
                name="inner_norm",
                elements=rows * self._inner,
                read=residual,
                written=residual,
            )
        yield projection("dt_proj", shard, step, k=self.time_step_rank, n=width)
        yield from recurrence.scans(shard, step)
        yield projection("out_proj", shard, step, k=width, n=hidden)

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield the sum of the ranks' partial outputs."""
        yield from tensor_parallel_sum(self.name, shard, payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2:
    """A state space with one decay per head, so that matrix engines can work on it.

    Source: T. Dao and A. Gu, "Transformers are SSMs", 2024, section 6: per chunk of
    tokens the products C B' (once per group) and its masked product with x, then the
    chunk's state, and what the state before it adds to the output.

    Parameters
    ----------
    num_heads, head_dim, state_size, n_groups, conv_kernel, chunk_size
        As in Hugging Face configs; Nemotron-H says ``mamba_num_heads``,
        ``mamba_head_dim`` and ``ssm_state_size``.
    conv_bias, proj_bias
        Whether the convolution, and the projections, have a bias.
    rms_norm
        Whether the gated output is normalised (``mamba_rms_norm`` of Falcon-H1).
    ssm_dtype
        Format of the kept state; that of the residual stream if None, as vLLM's
        ``mamba_ssm_cache_dtype`` of "auto". Nemotron-H keeps FP32 unless its config
        says otherwise (vLLM ``NemotronHForCausalLMConfig``).
    """

    num_heads: int
    head_dim: int
    state_size: int
    n_groups: int
    conv_kernel: int
    chunk_size: int = 256
    conv_bias: bool = True
    proj_bias: bool = False
    rms_norm: bool = True
    ssm_dtype: Dtype | None = None

    name: ClassVar[str] = "mamba"

    @property
    def intermediate_size(self) -> int:
        """Channels of all heads."""
        return self.num_heads * self.head_dim

    def groups_per_rank(self, tp: Number) -> Number:
        """Return the groups of B and C on each rank; a single one is copied."""
        return np.maximum(self.n_groups / tp, 1.0)

    def _conv_width(self, tp: Number) -> Number:
        """Return the channels of x, B and C on each rank."""
        groups = self.groups_per_rank(tp)
        return self.intermediate_size / tp + groups * (2 * self.state_size)

    def _in_width(self, tp: Number) -> Number:
        """Return the columns of z, x, B, C and dt on each rank."""
        heads = self.num_heads / tp
        return heads * (self.head_dim + 1) + self._conv_width(tp)

    def _matrices(self, hidden_size: int, tp: Number) -> Number:
        """Return the weights of both projections on each rank."""
        return hidden_size * (self._in_width(tp) + self.intermediate_size / tp)

    def _vectors(self, hidden_size: int, tp: Number) -> Number:
        """Return all other weights: convolution, A, D, dt bias, norm, biases."""
        conv = self._conv_width(tp) * (self.conv_kernel + self.conv_bias)
        heads = (3 + self.rms_norm * self.head_dim) * (self.num_heads / tp)
        biases = self.proj_bias * (self._in_width(tp) + hidden_size)
        return conv + heads + biases

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of projections, convolution, recurrence and norm."""
        vectors = self._vectors(hidden_size, 1)
        return int(self._matrices(hidden_size, 1) + vectors)

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: all of them."""
        return self.parameters(hidden_size)

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank, a copied group included."""
        dtype = shard.precision
        matrices = self._matrices(shard.hidden_size, shard.tp)
        vectors = self._vectors(shard.hidden_size, shard.tp) * dtype.residual.bytes
        return matrices * dtype.projection.weights.bytes + vectors

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest live pair: before, after conv."""
        return self._in_width(shard.tp) + self._conv_width(shard.tp)

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        tp = parallelism.tp
        if (broken := rule_of_heads(self.num_heads, "num_heads", tp)) is not None:
            return broken
        return (
            None if self.n_groups == 1 else rule_of_heads(self.n_groups, "n_groups", tp)
        )

    def _recurrence(self, shard: Shard) -> Recurrence:
        heads, groups = self.num_heads / shard.tp, self.groups_per_rank(shard.tp)
        width = heads * self.head_dim
        state = width * self.state_size
        return Recurrence(
            state_elements=state,
            state=self.ssm_dtype or shard.precision.residual,
            inputs=self._conv_width(shard.tp) + heads,
            outputs=width,
            step_flop=5 * state,
            token_flop=4 * state,
            pair_flop=2 * (groups * self.state_size + width),
            chunk=self.chunk_size,
            conv_width=self._conv_width(shard.tp),
            conv_kernel=self.conv_kernel,
        )

    def cache_bytes(self, shard: Shard, tokens: Number, block: int) -> Number:
        """Return the bytes of a sequence's state on each rank, whatever its tokens."""
        return self._recurrence(shard).cache_bytes(shard)

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order."""
        hidden, width = shard.hidden_size, self.intermediate_size / shard.tp
        recurrence = self._recurrence(shard)
        yield projection("in_proj", shard, step, k=hidden, n=self._in_width(shard.tp))
        yield from recurrence.convolution(shard, step)
        yield from recurrence.scans(shard, step)
        yield from self._gate(shard, shard.rows(step), width)
        yield projection("out_proj", shard, step, k=width, n=hidden)

    def _gate(
        self, shard: Shard, rows: Number, width: Number
    ) -> Iterator[Operator | Collective]:
        """Gate and normalise; a group that all ranks share needs the sum of squares.

        Source: vLLM ``Mixer2RMSNormGated``.
        """
        if self.rms_norm and self.n_groups == 1:
            kind, payload = CollectiveKind.ALL_REDUCE, rows * _SUM_BYTES
            yield Collective("norm_all_reduce", kind, payload, shard.tp)
        residual = shard.precision.residual.bytes
        yield Elementwise(
            name="gated_norm",
            elements=rows * width,
            read=2 * residual,
            written=residual,
        )

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield the sum of the ranks' partial outputs."""
        yield from tensor_parallel_sum(self.name, shard, payload)
