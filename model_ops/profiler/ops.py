"""Operators of a decoder, each with a cost that can be derived by hand.

Every dimension is per rank and may be a number or an array. One multiply-add
is two FLOP. Bytes are those that cross the memory interface once: inputs and
weights read, outputs written; what a fused kernel keeps on chip costs nothing.
"""

from dataclasses import dataclass

import numpy as np

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily, Number, OpCost
from model_ops.profiler.work import Shard, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """``y[m, n] = x[m, k] @ w[k, n]``."""

    name: str
    m: Number
    k: Number
    n: Number
    weights: Dtype
    inputs: Dtype
    outputs: Dtype
    engine: Dtype

    @property
    def family(self) -> KernelFamily:
        """Matrix multiplication."""
        return KernelFamily.GEMM

    def cost(self) -> OpCost:
        """2 m k n FLOP; x and w read, y written."""
        return OpCost(
            flop={self.engine: 2.0 * self.m * (self.k * self.n)},
            read=self.m * (self.k * self.inputs.bytes)
            + self.k * self.n * self.weights.bytes,
            written=self.m * (self.n * self.outputs.bytes),
            launches=1.0,
        )


def linear(name: str, shard: Shard, step: Step, *, k: Number, n: Number) -> Gemm:
    """Return a linear layer of the model on a step's tokens, in the shard's formats."""
    dtype = shard.precision
    return Gemm(
        name=name,
        m=step.tokens,
        k=k,
        n=n,
        weights=dtype.weights,
        inputs=dtype.activations,
        outputs=dtype.residual,
        engine=dtype.compute,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCore:
    """Softmax(q k') v of `queries` new tokens after `context` cached ones.

    Parameters
    ----------
    sequences, queries, context
        Sequences, new tokens of each, tokens of each already in the cache.
    heads, kv_heads, head_dim
        Query heads, KV heads and the size of a head, per rank.
    window
        Tokens that a query sees, itself included; None for all before it.
    kv_cache, outputs, engine
        Formats of the cache, of queries and outputs, and of the arithmetic.
    """

    name: str
    family: KernelFamily
    sequences: Number
    queries: Number
    context: Number
    heads: Number
    kv_heads: Number
    head_dim: int
    window: int | None
    kv_cache: Dtype
    outputs: Dtype
    engine: Dtype

    def pairs(self) -> Number:
        """Return the query-key pairs of one sequence under the causal mask.

        The i-th new token sees ``context + i`` tokens, at most `window`.
        """
        q, c = self.queries, self.context
        if self.window is None:
            return q * (c + (q + 1) / 2)
        growing = np.clip(self.window - c, 0, q)
        return growing * (c + (growing + 1) / 2) + (q - growing) * self.window

    def keys(self) -> Number:
        """Return the keys that the new tokens of one sequence see together."""
        seen = self.context + self.queries
        if self.window is None:
            return seen
        return np.minimum(seen, self.window + self.queries - 1)

    def cost(self) -> OpCost:
        """4 FLOP per pair, head and head element; q, k, v read, outputs written."""
        width = self.heads * self.head_dim
        rows = self.sequences * self.queries * (width * self.outputs.bytes)
        kv = 2 * self.kv_heads * self.head_dim * self.kv_cache.bytes
        return OpCost(
            flop={self.engine: 4.0 * self.sequences * self.pairs() * width},
            read=rows + self.sequences * self.keys() * kv,
            written=rows,
            launches=1.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Elementwise:
    """A fused pass over `elements`: norm, residual add, rotary, activation, gather.

    Parameters
    ----------
    elements
        Elements of the pass.
    read, written
        Bytes read and written per element.
    """

    name: str
    elements: Number
    read: float
    written: float

    @property
    def family(self) -> KernelFamily:
        """Elementwise kernels."""
        return KernelFamily.ELEMENTWISE

    def cost(self) -> OpCost:
        """Bytes only: its few FLOP per element are far below any NPU's balance."""
        return OpCost(
            read=self.elements * self.read,
            written=self.elements * self.written,
            launches=1.0,
        )
