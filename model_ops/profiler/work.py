"""What one step of the engine has to do, and on which share of the model."""

from dataclasses import dataclass

from model_ops.dtypes import Precision
from model_ops.opcost import KernelFamily, Number


@dataclass(frozen=True, slots=True)
class Segment:
    """Sequences of a step that are alike.

    Parameters
    ----------
    sequences
        How many.
    queries
        New tokens of each: 1 in decode, a chunk of the prompt in prefill.
    context
        Tokens of each already in the KV cache.
    family
        The attention kernel that serves them.
    """

    sequences: Number
    queries: Number
    context: Number
    family: KernelFamily


def prefill(sequences: Number, queries: Number, context: Number = 0.0) -> Segment:
    """Return sequences whose next `queries` prompt tokens are processed."""
    return Segment(sequences, queries, context, KernelFamily.ATTENTION_PREFILL)


def decode(sequences: Number, context: Number) -> Segment:
    """Return sequences that each produce their next token."""
    return Segment(sequences, 1.0, context, KernelFamily.ATTENTION_DECODE)


@dataclass(frozen=True, slots=True)
class Step:
    """The segments that one forward pass processes together."""

    segments: tuple[Segment, ...]

    @property
    def tokens(self) -> Number:
        """New tokens: the rows of every linear layer."""
        return sum((s.sequences * s.queries for s in self.segments), start=0.0)

    @property
    def sampled(self) -> Number:
        """Rows of the LM head: one per sequence."""
        return sum((s.sequences for s in self.segments), start=0.0)


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's share of a layer.

    Parameters
    ----------
    hidden_size
        Width of the residual stream, which every rank holds whole.
    tp
        Ranks that share each layer.
    precision
        Formats of the tensor classes.
    """

    hidden_size: int
    tp: Number
    precision: Precision
