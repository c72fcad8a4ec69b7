"""What queueing and simulation know of a replica: its step times and its limits."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from model_ops.opcost import Number
from model_ops.serving.lengths import Floats, Lengths
from model_ops.serving.step_curve import StepCurve
from model_ops.units import Seconds


@dataclass(frozen=True)
class Engine:
    """A serving engine as its scheduler sees it; numbers, or arrays over options.

    Parameters
    ----------
    curve
        Seconds of a step.
    chunk_tokens
        Tokens that a step may process (vLLM ``max_num_batched_tokens``).
    max_sequences
        Requests that may run at once (vLLM ``max_num_seqs``).
    cache_tokens
        Tokens that the KV cache holds.
    request_overhead
        Seconds that a request spends outside the steps before its first token:
        tokenising, scheduling, streaming.
    tokens_per_step
        Tokens that a decoding request gains per step; above 1 with speculation.
    groups
        Data-parallel groups that step together; all else is that of one group, rates
        included. A prompt in any of them lengthens the step of all.
    """

    curve: StepCurve
    chunk_tokens: Number
    max_sequences: Number
    cache_tokens: Number
    request_overhead: Seconds | Number = 0.0
    tokens_per_step: Number = 1.0
    groups: Number = 1.0

    def some(self, which: Any) -> Self:
        """Return the engines at an index of the options' axes."""
        return self._each(lambda value: value[which])

    def rows(self, which: slice) -> Self:
        """Return some engines along a first axis, with a second for their rates."""
        return self._each(lambda value: value[which, None])

    def _each(self, pick: Callable[[Floats], Floats]) -> Self:
        curve, options = self.curve, self.curve.base.shape[:-1]

        def figure(value: Number) -> Number:
            return pick(np.broadcast_to(np.asarray(value, dtype=float), options))

        picked = replace(
            curve,
            base=pick(curve.base),
            decoding=pick(curve.decoding),
            per_cached=figure(curve.per_cached),
            per_pair=figure(curve.per_pair),
        )
        return replace(
            self,
            curve=picked,
            chunk_tokens=figure(self.chunk_tokens),
            max_sequences=figure(self.max_sequences),
            cache_tokens=figure(self.cache_tokens),
            request_overhead=figure(self.request_overhead),
            tokens_per_step=figure(self.tokens_per_step),
            groups=figure(self.groups),
        )


@dataclass(frozen=True)
class Profile:
    """The token lengths of a class of requests; prompt and answer are independent.

    Parameters
    ----------
    prompt, output
        Tokens read and tokens answered.
    cached_share
        Share of a prompt's tokens found in the prefix cache: they need no compute, but
        their place in the KV cache as all others.
    """

    prompt: Lengths
    output: Lengths
    cached_share: float = 0.0

    @property
    def longest(self) -> float:
        """Tokens of a long request, prompt and answer at their 99.9th percentiles."""
        rare = np.array(0.999)
        return float(self.prompt.quantile(rare) + self.output.quantile(rare))
