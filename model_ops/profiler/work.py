"""What one step of the engine has to do, and on which share of the model."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from model_ops.dtypes import BF16, Precision
from model_ops.opcost import Number
from model_ops.profiler.expert_load import BALANCED, ExpertLoad
from model_ops.profiler.parallelism import ALONE, Parallelism


@dataclass(frozen=True, slots=True)
class RequestShape:
    """Tokens of a request: prompt in, answer out; numbers or arrays.

    Parameters
    ----------
    input_tokens, output_tokens
        Of the prompt and of the answer.
    cached_tokens
        Tokens of the prompt whose keys and values are in the cache already, from
        requests with the same beginning (prefix caching).
    beams
        Answers that are written side by side; they share the prompt's cache.
    """

    input_tokens: Number
    output_tokens: Number
    cached_tokens: Number = 0.0
    beams: Number = 1

    @property
    def new_tokens(self) -> Number:
        """Prompt tokens to process: at least the last, whose output is sampled."""
        return np.maximum(self.input_tokens - self.cached_tokens, 1.0)

    @property
    def decode_steps(self) -> Number:
        """Tokens after the first."""
        return np.maximum(self.output_tokens - 1, 0)

    @property
    def held_steps(self) -> Number:
        """Tokens for which a sequence stays in the batch: at least one."""
        return np.maximum(self.output_tokens - 1, 1)

    @property
    def mean_context(self) -> Number:
        """Tokens in the KV cache of a decoding sequence, on average."""
        return self.input_tokens + self.output_tokens / 2


class Phase(StrEnum):
    """What a sequence is doing: reading its prompt, or writing its answer."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Segment:
    """Sequences of a step that are alike.

    Parameters
    ----------
    sequences
        How many.
    queries
        New tokens of each: a chunk of the prompt in prefill; one in decode, more
        where a step checks guessed tokens or advances several beams.
    context
        Tokens of each already in the KV cache.
    phase
        Whether they read or write.
    sampled
        Rows of each that go through the head.
    branches
        Tokens that each query has behind the context for itself alone, as beams
        have their answers; None where the queries follow each other.
    """

    sequences: Number
    queries: Number
    context: Number
    phase: Phase
    sampled: Number = 1.0
    branches: Number | None = None


def prefill(sequences: Number, queries: Number, context: Number = 0.0) -> Segment:
    """Return sequences whose next `queries` prompt tokens are processed."""
    return Segment(sequences, queries, context, Phase.PREFILL)


def decode(sequences: Number, context: Number, guessed: Number = 0.0) -> Segment:
    """Return sequences that each produce their next token, or check guessed ones."""
    queries = 1.0 + guessed
    return Segment(sequences, queries, context, Phase.DECODE, queries)


def decode_beams(
    sequences: Number, prompt: Number, answer: Number, beams: Number
) -> Segment:
    """Return sequences that advance several answers to one prompt by a token."""
    return Segment(sequences, beams, prompt, Phase.DECODE, beams, branches=answer)


@dataclass(frozen=True, slots=True)
class Step:
    """The segments that one forward pass processes together on one rank.

    Parameters
    ----------
    segments
        The rank's own sequences: those of its data-parallel group.
    elsewhere
        Tokens of each other data-parallel group meanwhile; None: as many as here.
    """

    segments: tuple[Segment, ...]
    elsewhere: Number | None = None

    @property
    def tokens(self) -> Number:
        """New tokens: the rows of every linear layer."""
        return sum((s.sequences * s.queries for s in self.segments), start=0.0)

    @property
    def prompt_share(self) -> Number:
        """Share of the new tokens that prompts bring."""
        reading = [s for s in self.segments if s.phase is Phase.PREFILL]
        if len(reading) in (0, len(self.segments)):
            return float(bool(reading))
        tokens = sum((s.sequences * s.queries for s in reading), start=0.0)
        return tokens / np.maximum(self.tokens, 1e-300)

    @property
    def sequences(self) -> Number:
        """Sequences of all segments."""
        return sum((s.sequences for s in self.segments), start=0.0)

    @property
    def sampled(self) -> Number:
        """Rows of the LM head."""
        return sum((s.sequences * s.sampled for s in self.segments), start=0.0)


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters on the linear layers of attention and dense feed-forwards.

    Parameters
    ----------
    rank
        Inner width of an adapter.
    adapters
        Adapters kept in memory; a step uses as many of them as it has sequences,
        at most all.
    """

    rank: int
    adapters: int = 1


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's share of a layer.

    Parameters
    ----------
    hidden_size
        Width of the residual stream, which every rank holds whole.
    parallelism
        The degrees of the split.
    precision
        Formats of the tensor classes.
    experts
        How tokens choose among the routed experts.
    lora
        Adapters on the linear layers; None for none.
    """

    hidden_size: int
    parallelism: Parallelism = ALONE
    precision: Precision = BF16
    experts: ExpertLoad = BALANCED
    lora: Lora | None = None

    @property
    def tp(self) -> Number:
        """Ranks that share each layer."""
        return self.parallelism.tp

    def rows(self, step: Step) -> Number:
        """Return the tokens of a step that one context-parallel rank works on."""
        cp = self.parallelism.cp
        if np.ndim(cp) == 0 and cp == 1:
            return step.tokens
        return np.maximum(step.tokens / cp, np.minimum(step.tokens, 1.0))

    def gathered(self, step: Step) -> Number:
        """Return the tokens of a step on all ranks that share its experts."""
        split = self.parallelism
        if step.elsewhere is None:
            return self.rows(step) * (split.dp * split.cp)
        others = (split.dp - 1) * step.elsewhere
        return self.rows(step) * split.cp + others
