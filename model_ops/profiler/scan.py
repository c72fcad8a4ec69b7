"""Recurrent mixers: a state of one size instead of a cache that grows.

What Mamba, gated delta nets and lightning attention share: a short causal
convolution, a scan that moves a state from token to token, and the state itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model_ops.dtypes import Dtype
from model_ops.opcost import (
    Collective,
    CollectiveKind,
    KernelFamily,
    KernelShape,
    Number,
    OpCost,
    Operator,
)
from model_ops.profiler.work import Phase, Segment, Shard, Step
from model_ops.units import Bytes, Flop


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A recurrence over the tokens of each sequence, from a kept state to a new one.

    Work inside a chunk of tokens is quadratic, between chunks it passes the state
    (T. Dao and A. Gu, "Transformers are SSMs", 2024, section 6). One kernel keeps
    the states between the chunks on chip.

    Parameters
    ----------
    sequences, queries
        Sequences, and new tokens of each.
    token_flop, pair_flop, chunk
        FLOP per token; FLOP per pair of tokens of one chunk, the causal half; tokens
        of a chunk.
    token_read, token_written
        Bytes of a token's inputs and outputs.
    state_bytes
        Bytes of the state of a sequence.
    states_written
        States that each sequence writes: the last one, or one per token.
    engine
        Format of the arithmetic.
    family
        Whether chunks of a prompt are scanned, or a few tokens one by one.
    """

    name: str
    sequences: Number
    queries: Number
    token_flop: Flop | Number
    token_read: Bytes | Number
    token_written: Bytes | Number
    state_bytes: Bytes | Number
    engine: Dtype
    pair_flop: Flop | Number = 0.0
    chunk: int = 1
    states_written: Number = 1.0
    family: KernelFamily = KernelFamily.SCAN

    def pairs(self) -> Number:
        """Return the pairs of tokens of one sequence that share a chunk."""
        whole = np.floor(self.queries / self.chunk)
        rest = self.queries - whole * self.chunk
        return whole * (self.chunk * (self.chunk + 1) / 2) + rest * (rest + 1) / 2

    def cost(self) -> OpCost:
        """Return FLOP of tokens and pairs; inputs and a state read, outputs written."""
        tokens = self.sequences * self.queries
        cache = self.sequences * self.state_bytes
        pairs = self.sequences * self.pairs() * self.pair_flop
        return OpCost(
            flop={self.engine: tokens * self.token_flop + pairs},
            read=tokens * self.token_read + cache,
            written=tokens * self.token_written + cache * self.states_written,
            cache=cache,
            launches=1.0,
        )

    def shape(self) -> KernelShape:
        """Tokens of a sequence; sequences."""
        return KernelShape(format=self.engine, rows=self.queries, groups=self.sequences)


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalConv:
    """A depthwise convolution over the last `kernel` tokens, its activation fused.

    Parameters
    ----------
    sequences, rows
        Sequences, and new tokens of all of them.
    width, kernel
        Channels per rank; tokens that each output sees.
    dtype
        Format of inputs, outputs, weights and the kept inputs.
    """

    name: str = "causal_conv"
    sequences: Number
    rows: Number
    width: Number
    kernel: int
    dtype: Dtype

    @property
    def family(self) -> KernelFamily:
        """Elementwise kernels: its few FLOP per element cost nothing."""
        return KernelFamily.ELEMENTWISE

    def cost(self) -> OpCost:
        """Tokens and the last ``kernel - 1`` inputs of each sequence, in and out."""
        row = self.width * self.dtype.bytes
        weights = row * self.kernel
        cache = self.sequences * row * (self.kernel - 1)
        return OpCost(
            read=self.rows * row + cache + weights,
            written=self.rows * row + cache,
            weights=weights,
            cache=cache,
            launches=1.0,
        )

    def shape(self) -> KernelShape:
        """Tokens and channels."""
        return KernelShape(format=self.dtype, rows=self.rows, columns=self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """What a mixer's recurrence needs on one rank.

    Parameters
    ----------
    state_elements, state
        Elements of a sequence's state, and their format.
    inputs, outputs
        Elements that a token brings to the scan, and takes from it.
    step_flop
        FLOP of a token by itself, as in decode.
    token_flop, pair_flop, chunk
        FLOP in prefill; see `Scan`.
    conv_width, conv_kernel
        Channels of the convolution and the tokens that it sees; 0 for none.
    """

    state_elements: Number
    state: Dtype
    inputs: Number
    outputs: Number
    step_flop: Flop | Number
    token_flop: Flop | Number
    pair_flop: Flop | Number = 0.0
    chunk: int = 1
    conv_width: Number = 0.0
    conv_kernel: int = 1

    def cache_bytes(self, shard: Shard) -> Number:
        """Return the bytes that a sequence keeps on a rank, however long it is.

        The state, and the last ``kernel - 1`` inputs of the convolution in the
        format of the residual stream (vLLM ``MambaStateShapeCalculator``). Ranks of
        a context-parallel group have a copy each.
        """
        inputs = self.conv_width * (self.conv_kernel - 1)
        kept = inputs * shard.precision.residual.bytes
        return kept + self.state_elements * self.state.bytes

    def convolution(self, shard: Shard, step: Step) -> Iterator[Operator]:
        """Yield the convolution of a step's tokens; nothing if there is none."""
        if self.conv_kernel > 1:
            yield CausalConv(
                sequences=step.sequences,
                rows=shard.rows(step),
                width=self.conv_width,
                kernel=self.conv_kernel,
                dtype=shard.precision.residual,
            )

    def scans(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield the scans of a step's segments, and what ranks exchange for them."""
        for segment in step.segments:
            yield from self._exchange(shard, segment)
            yield self._scan(shard, segment)

    def _scan(self, shard: Shard, segment: Segment) -> Scan:
        """Return the scan of a segment: in chunks in prefill, else token by token.

        In decode each token's state is written, so that rejected guesses can be
        undone (vLLM ``fused_recurrent_gated_delta_rule``).
        """
        residual = shard.precision.residual
        reading = segment.phase is Phase.PREFILL
        queries = segment.queries / shard.parallelism.cp if reading else segment.queries
        sequences = segment.sequences
        if segment.branches is not None:  # each beam has a state of its own
            sequences, queries = sequences * queries, 1.0
        return Scan(
            name=f"scan_{segment.phase}",
            sequences=sequences,
            queries=queries,
            token_flop=self.token_flop if reading else self.step_flop,
            pair_flop=self.pair_flop if reading else 0.0,
            chunk=self.chunk if reading else 1,
            token_read=self.inputs * residual.bytes,
            token_written=self.outputs * residual.bytes,
            state_bytes=self.state_elements * self.state.bytes,
            states_written=1.0 if reading else queries,
            engine=residual,
            family=KernelFamily.SCAN if reading else KernelFamily.SCAN_DECODE,
        )

    def _exchange(self, shard: Shard, segment: Segment) -> Iterator[Collective]:
        """Yield what context-parallel ranks pass each other; nothing if there is one.

        In prefill the states at the end of their shares (W. Sun et al., "LASP-2",
        2025); in decode the inputs of the tokens, as every rank keeps every state.
        """
        cp = shard.parallelism.cp
        if np.ndim(cp) == 0 and cp == 1:
            return
        if segment.phase is Phase.PREFILL:
            payload = segment.sequences * self.state_elements * self.state.bytes * cp
        else:
            rows = segment.sequences * segment.queries
            payload = rows * self.inputs * shard.precision.residual.bytes
        kind, stride = CollectiveKind.ALL_GATHER, shard.tp
        yield Collective(f"scan_{segment.phase}_gather", kind, payload, cp, stride)


def rule_of_heads(heads: int, name: str, tp: Number) -> str | None:
    """Return why `heads` of that name cannot be split over `tp` ranks, if so."""
    if heads % int(tp):
        return f"tp {int(tp)} does not divide {name} {heads}"
    return None
