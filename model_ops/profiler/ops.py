"""Operators of a decoder, each with a cost that can be derived by hand.

Every dimension is per rank and may be a number or an array. One multiply-add
is two FLOP. Bytes are those that cross the memory interface once: inputs and
weights read, outputs written; what a fused kernel keeps on chip costs nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model_ops.dtypes import Dtype, LinearFormat
from model_ops.opcost import (
    Collective,
    CollectiveKind,
    KernelFamily,
    KernelShape,
    Number,
    OpCost,
)
from model_ops.profiler.work import Shard, Step
from model_ops.units import Bytes

SUM_BYTES: Bytes = 4.0
"""Of a sum that is not complete: matrix units add in FP32 or in INT32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """``y[m, n] = x[m, k] @ w[k, n]``, or `matrices` of them in one kernel.

    Parameters
    ----------
    m, k, n
        Rows, inner and outer width; with several matrices, the rows of all.
    weights, inputs, outputs, engine
        Formats of w, x and y, and of the arithmetic.
    matrices
        Weight matrices that the kernel reads: experts, heads, adapters.
    family
        Kernels that it shares its efficiency with.
    adapted
        Whether low-rank adapters go on it.
    cached
        Rows of x that are read from the KV cache.
    """

    name: str
    m: Number
    k: Number
    n: Number
    weights: Dtype
    inputs: Dtype
    outputs: Dtype
    engine: Dtype
    matrices: Number = 1.0
    family: KernelFamily = KernelFamily.GEMM
    adapted: bool = False
    cached: Number = 0.0

    def cost(self) -> OpCost:
        """2 m k n FLOP; x and w read, y written."""
        weights = self.k * self.n * self.weights.bytes * self.matrices
        return OpCost(
            flop={self.engine: 2.0 * self.m * (self.k * self.n)},
            read=self.m * (self.k * self.inputs.bytes) + weights,
            written=self.m * (self.n * self.outputs.bytes),
            weights=weights,
            cache=self.cached * (self.k * self.inputs.bytes),
            launches=1.0,
        )

    def shape(self) -> KernelShape:
        """Rows of one matrix; m, n and k. Of no experts chosen, none."""
        return KernelShape(
            format=self.weights,
            rows=self.m / np.maximum(self.matrices, 1e-300),
            columns=self.n,
            depth=self.k,
            groups=self.matrices,
            tile_bytes=(self.inputs.bytes * self.weights.bytes * SUM_BYTES) ** (1 / 3),
        )


def linear(
    name: str,
    shard: Shard,
    step: Step,
    *,
    k: Number,
    n: Number,
    format_: LinearFormat | None = None,
) -> Gemm:
    """Return a linear layer of the model on a step's tokens.

    Parameters
    ----------
    name, k, n
        What it is; inner and outer width, per rank.
    shard, step
        The rank's share of the layer and the step's work.
    format_
        Formats of its tensor class; those of plain linear layers if None.
    """
    dtype = format_ or shard.precision.linear
    return Gemm(
        name=name,
        m=shard.rows(step),
        k=k,
        n=n,
        weights=dtype.weights,
        inputs=dtype.inputs,
        outputs=shard.precision.residual,
        engine=dtype.engine,
        adapted=True,
    )


def projection(name: str, shard: Shard, step: Step, *, k: Number, n: Number) -> Gemm:
    """Return a mixer's projection on a step's tokens; see `linear`."""
    return linear(name, shard, step, k=k, n=n, format_=shard.precision.projection)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCore:
    """Softmax(q k') v of `queries` new tokens after `context` cached ones.

    Parameters
    ----------
    sequences, queries, context
        Sequences, new tokens of each, tokens of each already in the cache.
    heads
        Query heads per rank.
    qk_dim, v_dim
        Elements of a query and of an output head.
    key_elements
        Cache elements of one token that a rank reads, keys and values together.
    reach
        Tokens that a query may see, itself included; None for all before it.
    seen
        Tokens that a query sees on average once there are more than `reach`:
        `reach` itself where it slides, about half where it starts anew.
    cache_bytes
        Bytes of one cache element.
    outputs, engine
        Formats of queries and outputs, and of the arithmetic.
    key_shares, query_shares
        Ranks that the keys are dealt to (decode context parallel), or the queries
        (prefill).
    branches
        Cached tokens that each query has for itself behind the shared context; None
        where the queries follow each other.
    cached
        Whether keys and values come from the cache itself, not from a tensor that
        was made of it.
    kv_heads
        Key heads per rank; query heads that share one can be multiplied together.
    cache
        Format of the cache.
    """

    name: str
    family: KernelFamily
    sequences: Number
    queries: Number
    context: Number
    heads: Number
    qk_dim: int
    v_dim: int
    key_elements: Number
    cache_bytes: Bytes
    outputs: Dtype
    engine: Dtype
    reach: int | None = None
    seen: float | None = None
    key_shares: Number = 1.0
    query_shares: Number = 1.0
    branches: Number | None = None
    cached: bool = True
    kv_heads: Number = 1.0
    cache: Dtype = Dtype.BF16

    @property
    def _steady(self) -> float:
        """Tokens a query sees beyond the reach."""
        return float(self.reach if self.seen is None else self.seen)  # type: ignore[arg-type]

    def _seen(self, tokens: Number) -> Number:
        """Return how many of the last `tokens` a query sees."""
        if self.reach is None:
            return tokens
        return np.where(tokens > self.reach, self._steady, tokens)

    def pairs(self) -> Number:
        """Return the query-key pairs of one sequence under the causal mask.

        The i-th new token sees ``context + i`` tokens, within the reach.
        """
        q, c = self.queries, self.context
        if self.branches is not None:
            return q * self._seen(c + self.branches + 1)
        if self.reach is None:
            return q * (c + (q + 1) / 2)
        growing = self._growing()
        return growing * (c + (growing + 1) / 2) + (q - growing) * self._steady

    def _growing(self) -> Number:
        """Return the queries that still see everything before them."""
        reach = np.inf if self.reach is None else self.reach
        return np.clip(reach - self.context, 0, self.queries)

    def keys(self) -> Number:
        """Return the keys that the new tokens of one sequence see together."""
        if self.branches is not None:
            seen = self._seen(self.context + self.branches + 1)
            own = np.minimum(self.branches + 1, seen)
            return seen - own + self.queries * own
        present = self.context + self.queries
        if self.reach is None:
            return present
        beyond = np.where(present > self.reach, self._steady, self.reach)
        return np.minimum(present, beyond + self.queries - 1)

    def cost(self) -> OpCost:
        """2 FLOP per pair, head and element of q and of v; q, k, v read."""
        rows = self.sequences * self.queries * self.heads / self.query_shares
        width = self.qk_dim + self.v_dim
        shares = self.key_shares * self.query_shares
        pairs = self.sequences * self.pairs() * (self.heads / shares)
        keys = self.key_elements * (self.cache_bytes / self.key_shares)
        present = self.sequences * self.keys() * keys
        return OpCost(
            flop={self.engine: 2.0 * width * pairs},
            read=rows * (self.qk_dim * self.outputs.bytes) + present,
            written=rows * (self.v_dim * self.outputs.bytes),
            cache=present if self.cached else 0.0,
            launches=1.0,
        )

    def shape(self) -> KernelShape:
        """Query rows per key head, keys that a query sees on average, key size."""
        queries = self.queries / self.query_shares
        repeats = self.heads / self.kv_heads
        row = self.qk_dim * self.outputs.bytes + self.v_dim * SUM_BYTES
        key = self.key_elements * (self.cache_bytes / self.kv_heads)
        return KernelShape(
            format=self.cache,
            rows=queries * repeats,
            columns=self.pairs() / (self.queries * self.key_shares),
            depth=self.qk_dim,
            groups=self.sequences * self.kv_heads,
            repeats=repeats,
            windowed=self.reach is not None,
            cut=0.0 if self.reach is None else 1.0 - self._growing() / self.queries,
            sweep_bytes=(row * key / (2.0 * (self.qk_dim + self.v_dim))) ** 0.5,
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
    read: Number
    written: Number

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

    def shape(self) -> KernelShape:
        """Its elements, each by itself."""
        return KernelShape(format=Dtype.BF16, rows=self.elements)


def tensor_parallel_sum(
    name: str, shard: Shard, payload: Number
) -> Iterator[Collective]:
    """Yield what sums the tp ranks' partial outputs: `payload` bytes on each."""
    split = shard.parallelism
    if not split.sequence_parallel:
        kind = CollectiveKind.ALL_REDUCE
        yield Collective(f"{name}_all_reduce", kind, payload, split.tp)
        return
    for kind in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.ALL_GATHER):
        yield Collective(f"{name}_{kind}", kind, payload, split.tp)
