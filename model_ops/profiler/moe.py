"""Mixture-of-experts feed-forward: a router, routed experts, shared experts.

A step reads the weights of the experts that its tokens choose, not of the K that one
token does: of E_r experts on a rank, T tokens choose ``E_r (1 - (1 - K / E) ** T)``
distinct ones on average.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from model_ops.dtypes import Dtype, LinearFormat
from model_ops.opcost import Collective, CollectiveKind, KernelFamily, Number, Operator
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.ops import Elementwise, Gemm, linear, tensor_parallel_sum
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedExperts:
    """The experts of one rank on the rows that chose them.

    Parameters
    ----------
    rows
        Rows of all experts together: a token is a row of each expert that it chose.
    passed
        Rows that the passes after a matrix go over: these, or every choice of the
        tokens where a framework does not skip those of experts elsewhere.
    distinct
        Experts that were chosen at all.
    width, inner
        Width of a row, and between an expert's matrices, per rank.
    up_matrices
        Matrices of an expert from the one to the other: 2 with a gate, else 1.
    num_experts_per_tok
        Rows that a token's output is summed from.
    dtype, outputs
        Formats of the experts, and of what they give.
    """

    rows: Number
    passed: Number
    distinct: Number
    width: Number
    inner: Number
    up_matrices: Number
    num_experts_per_tok: Number
    dtype: LinearFormat
    outputs: Dtype

    def operators(self) -> Iterator[Operator]:
        """Yield up-projection, activation, down-projection and sum, in order."""
        hidden = self.up_matrices * self.inner
        yield self._gemm("experts_up", k=self.width, n=hidden)
        yield Elementwise(
            name="expert_activation",
            elements=self.passed * self.inner,
            read=self.up_matrices * self.outputs.bytes,
            written=self.dtype.inputs.bytes,
        )
        yield self._gemm("experts_down", k=self.inner, n=self.width)
        # Each token's outputs are weighted and summed.
        yield Elementwise(
            name="expert_sum",
            elements=self.passed * self.width,
            read=self.outputs.bytes,
            written=self.outputs.bytes / self.num_experts_per_tok,
        )

    def _gemm(self, name: str, k: Number, n: Number) -> Gemm:
        return Gemm(
            name=name,
            m=self.rows,
            k=k,
            n=n,
            weights=self.dtype.weights,
            inputs=self.dtype.inputs,
            outputs=self.outputs,
            engine=self.dtype.engine,
            matrices=self.distinct,
            family=KernelFamily.MOE,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeFfn:
    """Experts of which each token takes some, beside one that every token takes.

    Parameters
    ----------
    num_experts, num_experts_per_tok, moe_intermediate_size
        As in Hugging Face configs.
    gated
        Whether an expert has a gate matrix (SwiGLU).
    bias
        Whether the experts' and the router's linear layers have a bias.
    shared
        Shared experts, or a dense feed-forward beside the routed ones; None for none.
    latent_size
        Width between a down- and an up-projection that the routed experts work in;
        None where they work on the residual stream itself.
    extra_parameters
        Parameters besides: routing bias, gate of the shared expert.
    """

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    gated: bool = True
    bias: bool = False
    shared: DenseFfn | None = None
    latent_size: int | None = None
    extra_parameters: int = 0

    name: ClassVar[str] = "moe"

    @property
    def up_matrices(self) -> int:
        """Matrices of an expert from the hidden to the intermediate size."""
        return 2 if self.gated else 1

    def width(self, hidden_size: int) -> int:
        """Return the width that the routed experts work in."""
        return self.latent_size or hidden_size

    def expert_parameters(self, hidden_size: int) -> int:
        """Return the parameters of one routed expert."""
        width, up = self.width(hidden_size), self.up_matrices
        biases = self.bias * (up * self.moe_intermediate_size + width)
        return width * (up + 1) * self.moe_intermediate_size + biases

    def _beside(self, hidden_size: int) -> int:
        """Return the parameters that every token passes: all but the routed experts."""
        router = (hidden_size + self.bias) * self.num_experts
        latent = 2 * hidden_size * (self.latent_size or 0)
        shared = 0 if self.shared is None else self.shared.parameters(hidden_size)
        return router + latent + shared + self.extra_parameters

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of router, experts and what is beside them."""
        experts = self.num_experts * self.expert_parameters(hidden_size)
        return experts + self._beside(hidden_size)

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: those of its own experts."""
        experts = self.num_experts_per_tok * self.expert_parameters(hidden_size)
        return experts + self._beside(hidden_size)

    def _experts_per_rank(self, shard: Shard) -> Number:
        """Return the experts that the fullest rank holds, further copies included."""
        held = self.num_experts + shard.experts.redundant_experts
        return np.ceil(held / shard.parallelism.ep)

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank; the router is on all of them."""
        hidden, dtype = shard.hidden_size, shard.precision
        each = self.width(hidden) * (self.up_matrices + 1) * self.moe_intermediate_size
        held = self._experts_per_rank(shard) * each / shard.parallelism.expert_tp
        total = held * dtype.expert.weights.bytes
        total = total + hidden * self.num_experts * dtype.residual.bytes
        if self.latent_size is not None:
            total = total + 2 * hidden * self.latent_size * dtype.linear.weights.bytes
        return total if self.shared is None else total + self.shared.weight_bytes(shard)

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest live pair: up and activated.

        For each of the rank's own tokens, or of those that it gets from others if
        they are more in the mean.
        """
        split = shard.parallelism
        width = self.moe_intermediate_size / split.expert_tp
        received = np.maximum(split.token_groups / split.ep, 1.0)
        return self.num_experts_per_tok * (self.up_matrices + 1) * width * received

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        ranks, ep = int(parallelism.expert_ranks), int(parallelism.ep)
        if ranks % ep:
            return f"ep {ep} does not divide the {ranks} ranks that share a layer"
        if ep > self.num_experts:
            return f"ep {ep} exceeds num_experts {self.num_experts}"
        if self.moe_intermediate_size % (ranks // ep):
            return (
                f"{ranks // ep} ranks per expert (tp x dp / ep) do not divide "
                f"moe_intermediate_size {self.moe_intermediate_size}"
            )
        return None if self.shared is None else self.shared.rule_broken_by(parallelism)

    def distinct_experts(self, shard: Shard, tokens: Number) -> Number:
        """Return the distinct experts of the busiest rank that `tokens` choose.

        Popular experts are chosen again and again, so that the mean popularity on
        the rank bounds the distinct ones from above (Jensen).
        """
        copies = self.num_experts + shard.experts.redundant_experts
        chance = self.num_experts_per_tok / copies * self._imbalance(shard)
        missed = np.log1p(-np.minimum(chance, 1.0 - 1e-12))
        return self._experts_per_rank(shard) * -np.expm1(tokens * missed)

    def _imbalance(self, shard: Shard) -> Number:
        return shard.experts.imbalance(
            self.num_experts, self.num_experts_per_tok, shard.parallelism.ep
        )

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order."""
        hidden, dtype = shard.hidden_size, shard.precision
        rows, width = shard.rows(step), self.width(hidden)
        yield Gemm(
            name="router",
            m=rows,
            k=hidden,
            n=self.num_experts,
            weights=dtype.residual,
            inputs=dtype.residual,
            outputs=dtype.residual,
            engine=dtype.residual,
        )
        if self.latent_size is not None:
            yield linear("latent_down_proj", shard, step, k=hidden, n=width)
        sent, returned = dtype.expert.inputs.bytes, dtype.residual.bytes
        yield from self._exchange(CollectiveKind.DISPATCH, shard, rows, sent)
        yield from self.experts(shard, shard.gathered(step))
        yield from self._exchange(CollectiveKind.COMBINE, shard, rows, returned)
        if self.latent_size is not None:
            yield linear("latent_up_proj", shard, step, k=width, n=hidden)
        if self.shared is not None:
            yield from self.shared.operators(shard, step)

    def experts(self, shard: Shard, tokens: Number) -> Iterator[Operator]:
        """Yield the busiest rank's experts on its share of all ranks' tokens."""
        dtype, split = shard.precision, shard.parallelism
        chosen = tokens * (self.num_experts_per_tok / split.ep) * self._imbalance(shard)
        distinct = self.distinct_experts(shard, tokens)
        width = self.width(shard.hidden_size)
        inner = self.moe_intermediate_size / split.expert_tp
        yield from RoutedExperts(
            rows=chosen,
            passed=chosen,
            distinct=distinct,
            width=width,
            inner=inner,
            up_matrices=self.up_matrices,
            num_experts_per_tok=self.num_experts_per_tok,
            dtype=dtype.expert,
            outputs=dtype.residual,
        ).operators()

    def _exchange(
        self, kind: CollectiveKind, shard: Shard, rows: Number, element_bytes: float
    ) -> Iterator[Collective]:
        """Yield the all-to-all between ranks with tokens of their own.

        Each rank starts from its share of the tokens and sends each once to every
        rank with an expert that the token chose (DeepSeek-AI, DeepEP, 2025).
        """
        split = shard.parallelism
        if np.ndim(split.token_groups) == 0 and split.token_groups == 1:
            return  # every rank has all tokens; partial outputs are summed at the end
        reached = split.ep * -np.expm1(
            self.num_experts_per_tok * np.log1p(-1.0 / np.maximum(split.ep, 1 + 1e-9))
        )
        copies = np.maximum(reached, 1.0) * split.expert_tp
        width = self.width(shard.hidden_size) * element_bytes
        payload = rows / split.tp * copies * width * self._imbalance(shard)
        alone = np.asarray(split.token_groups) == 1
        ranks = np.where(alone, 1, split.expert_ranks)
        yield Collective(kind.value, kind, payload, ranks)

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield what makes the output whole on every rank of the layer.

        Where every rank has all tokens, the ranks' partial sums are added. Else the
        combine has brought whole rows back, which the tp ranks gather; to them the
        shared experts' sums are scattered before.
        """
        split = shard.parallelism
        if np.ndim(split.token_groups) == 0 and split.token_groups == 1:
            yield from tensor_parallel_sum(self.name, shard, payload)
            return
        alone = np.asarray(split.token_groups) == 1
        adding = replace(split, tp=np.where(alone, split.tp, 1))
        summing = replace(shard, parallelism=adding)
        yield from tensor_parallel_sum(self.name, summing, payload)
        ranks, scatter = np.where(alone, 1, split.tp), CollectiveKind.REDUCE_SCATTER
        if self.shared is not None:
            yield Collective("shared_reduce_scatter", scatter, payload, ranks)
        yield Collective("moe_gather", CollectiveKind.ALL_GATHER, payload, ranks)
