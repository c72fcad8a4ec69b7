"""An engine under a load: what its decode steps and its prompts cost on average.

Every figure is shaped [option..., 1] or [option..., k], so that it broadcasts against
batch sizes, prompt nodes or points in time along the last axis.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from model_ops.opcost import Number
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import Floats
from model_ops.serving.load import Load
from model_ops.serving.step_curve import StepCurve

RARE_PREEMPTION = 2.0
"""Standard deviations of cache use that stay free where preemption is to be rare."""


def column(value: Number) -> Floats:
    """Return a figure per option with a last axis of length one."""
    return np.asarray(value, dtype=float)[..., None]


@dataclass(frozen=True)
class Server:
    """Engines under one load: the fields of `Engine`, each shaped [option..., 1]."""

    load: Load
    curve: StepCurve
    per_cached: Floats
    per_pair: Floats
    chunk: Floats
    max_sequences: Floats
    cache_tokens: Floats
    overhead: Floats
    tokens_per_step: Floats
    groups: Floats

    @classmethod
    def of(cls, engine: Engine, profile: Profile) -> Self:
        """Return engines, arrays over options or plain numbers, under a profile."""
        return cls(
            load=Load.of(profile),
            curve=engine.curve,
            per_cached=column(engine.curve.per_cached),
            per_pair=column(engine.curve.per_pair),
            chunk=column(engine.chunk_tokens),
            # Each that decodes takes a token of the step.
            max_sequences=column(np.minimum(engine.max_sequences, engine.chunk_tokens)),
            cache_tokens=column(engine.cache_tokens),
            overhead=column(engine.request_overhead),
            tokens_per_step=column(engine.tokens_per_step),
            groups=column(engine.groups),
        )

    @cached_property
    def steps(self) -> Floats:
        """Decode steps of a request, on average."""
        return np.maximum(self.load.more_tokens / self.tokens_per_step, 1e-9)

    @property
    def fits(self) -> npt.NDArray[np.bool_]:
        """Whether the cache holds a mean request to its end."""
        return self.cache_tokens >= self.load.moments[1] + self.load.more_tokens

    def slot_cap(self, deviations: float = 0.0) -> Floats:
        """Return the requests that decode at once: slots, or what the cache holds.

        With `deviations` > 0 so many standard deviations of cache use stay free; one
        whole prompt must always fit besides.
        """
        mean, spread = self.load.cached, deviations * self.load.cached_deviation
        free = np.maximum(self.cache_tokens - self.load.moments[1], mean)
        root = (np.sqrt(spread**2 + 4 * mean * free) - spread) / (2 * mean)
        return np.asarray(np.minimum(self.max_sequences, np.maximum(root**2, 1.0)))

    def attention(self, batch: Floats) -> Floats:
        """Return the seconds that decoding requests add beside their tokens."""
        added = self.curve.decoding_at(batch) * np.minimum(batch, 1.0)
        return np.asarray(added + self.per_cached * self.load.cached * batch)

    def decode_step(self, batch: Floats) -> Floats:
        """Return the seconds of a step without prompts."""
        return np.asarray(self.curve.base_at(batch) + self.attention(batch))

    def room(self, batch: Floats) -> Floats:
        """Return the prompt tokens that fit into a step."""
        return np.maximum(self.chunk - batch, 1.0)

    def full_step(self, batch: Floats) -> Floats:
        """Return the seconds of a step filled with prompts, their attention apart."""
        return np.asarray(self.curve.base_at(self.chunk) + self.attention(batch))

    @cached_property
    def pairs_per_token(self) -> Floats:
        """Seconds of attention per prompt token, on average."""
        return self.per_pair * (self.load.mean_pairs / self.load.prompt_tokens)

    def prompt_cost(self, batch: Floats, together: float) -> Floats:
        """Return what a prompt adds to the steps beside a batch shaped [..., k].

        Parameters
        ----------
        batch
            Decoding requests.
        together
            Prompts that share their steps. What a memory-bound step hides, or the
            experts that nobody else reads, is shared among them.
        """
        load = self.load
        room = self.room(batch)[..., None]
        whole = np.ceil(together * load.prompts / room) - 1.0
        tokens = batch[..., None] + together * load.prompts - whole * room
        flat = tokens.reshape(*tokens.shape[:-2], -1)
        base = self.curve.base_at(batch)
        last = self.curve.base_at(flat).reshape(tokens.shape) @ load.prompt_weights
        full = (whole @ load.prompt_weights) * (self.curve.base_at(self.chunk) - base)
        return (full + last - base) / together + self.per_pair * load.mean_pairs
