"""What sequences keep in the KV cache, with their state."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.opcost import Number
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.held import Held, fullest
from model_ops.profiler.work import RequestShape, Shard
from model_ops.units import Bytes

KV_BLOCK_TOKENS = 16
"""Tokens of a paged KV block (vLLM's default block size)."""


def kv_bytes_per_sequence(
    arch: ModelArch, shard: Shard, tokens: Number, block: int = KV_BLOCK_TOKENS
) -> Bytes | Number:
    """Return the KV cache and state of one sequence of `tokens` on the fullest NPU.

    The cache comes in blocks; state has one size whatever the tokens.
    """
    each: list[Number] = []
    for run in arch.runs:
        mixer = run.layer.mixer
        each.append(0.0 if mixer is None else mixer.cache_bytes(shard, tokens, block))
    return fullest(arch, shard.parallelism.pp, each, 0.0)


@dataclass(frozen=True, slots=True)
class CacheDemand:
    """What decoding sequences keep in the KV cache, in bytes on the fullest NPU.

    Sequences are at random points of their answer, so N of them keep N times the
    mean, give or take sqrt(N) standard deviations; never more than N full ones.

    Parameters
    ----------
    prompt, mean, full
        A sequence with its prompt only, half its answer, all of it.
    deviation
        Standard deviation of one sequence: uniform from prompt to full.
    """

    prompt: Bytes | Number
    mean: Bytes | Number
    full: Bytes | Number
    deviation: Bytes | Number

    def kept(self, share: Number, each: Bytes | Number = 0.0) -> "CacheDemand":
        """Return a share of it, and so many bytes besides for each sequence."""
        return CacheDemand(
            prompt=share * self.prompt,
            mean=share * self.mean + each,
            full=share * self.full + each,
            deviation=share * self.deviation,
        )

    def of(self, batch: Number) -> Bytes | Number:
        """Return what `batch` sequences keep, exceeded one time in fifty."""
        spread = batch * self.mean + _DEVIATIONS * np.sqrt(batch) * self.deviation
        return np.minimum(spread, batch * self.full)

    def most(self, room: Bytes | Number) -> Number:
        """Return the sequences that `room` bytes hold: the inverse of `of`."""
        left = np.maximum(room, 0.0)
        spread = _DEVIATIONS * self.deviation
        root = np.sqrt(spread**2 + 4 * self.mean * left)
        return np.maximum(((root - spread) / (2 * self.mean)) ** 2, left / self.full)


_DEVIATIONS = 2.0
"""A normal variable exceeds its mean by more one time in 44."""


def cache_demand(held: Sequence[Held], shape: RequestShape) -> CacheDemand:
    """Return what a request of the given prompt and answer keeps.

    The prompt once, however many beams write answers to it; each beam has an answer,
    a window and a state of its own.
    """

    def of(tokens: Number, block: int = KV_BLOCK_TOKENS) -> Number:
        each = (kv_bytes_per_sequence(h.arch, h.shard, tokens, block) for h in held)
        return sum(each, start=0.0)

    def answered(share: float, block: int = KV_BLOCK_TOKENS) -> Number:
        answer = share * shape.output_tokens
        whole = of(shape.input_tokens + answer, block)
        if np.ndim(shape.beams) == 0 and shape.beams == 1:
            return whole
        return whole + (shape.beams - 1) * of(answer, block)

    # Without blocks: rounding must not make a longer prompt need less.
    grown = answered(1.0, block=1) - answered(0.0, block=1)
    return CacheDemand(
        prompt=of(shape.input_tokens),
        mean=answered(0.5),
        full=answered(1.0),
        deviation=grown / math.sqrt(12),
    )
