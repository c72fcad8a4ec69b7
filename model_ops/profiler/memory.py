"""Bytes that a deployment needs on its fullest NPU."""

import math
from dataclasses import dataclass, replace

import numpy as np

from model_ops.dtypes import Precision
from model_ops.opcost import Number
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.units import Bytes

KV_BLOCK_TOKENS = 16
"""Tokens of a paged KV block (vLLM's default block size)."""

_LOGITS_BYTES = 4
"""Sampling works on fp32 logits."""


@dataclass(frozen=True, slots=True)
class MemoryFootprint:
    """Bytes on the fullest NPU of a replica; numbers or arrays."""

    weights: Bytes | Number
    kv_cache: Bytes | Number
    activations: Bytes | Number

    @property
    def total(self) -> Bytes | Number:
        """All of it."""
        return self.weights + self.kv_cache + self.activations


def weight_bytes(
    arch: ModelArch, parallelism: Parallelism, precision: Precision
) -> Bytes | Number:
    """Return the weights on the fullest NPU.

    Embedding and head, split over the vocabulary, stay in the residual's format;
    a pipeline puts them on its first and last stage, a single stage holds both.
    """
    tp, pp = parallelism.tp, np.asarray(parallelism.pp)
    share = parallelism.largest_stage(arch.num_hidden_layers) / arch.num_hidden_layers
    linear: Number = 0.0
    for run in arch.runs:
        for half in run.layer.halves:
            linear = linear + run.count * half.weights_per_rank(arch.hidden_size, tp)
    ends = np.where((pp == 1) & (not arch.tie_word_embeddings), 2, 1)
    embedding = ends * arch.embedding_parameters / tp
    positions = arch.learned_positions * arch.hidden_size
    unquantised = embedding + positions
    return linear * share * precision.weights.bytes + (
        unquantised * precision.residual.bytes
    )


def kv_bytes_per_sequence(
    arch: ModelArch,
    parallelism: Parallelism,
    precision: Precision,
    tokens: Number,
    block: int = KV_BLOCK_TOKENS,
) -> Bytes | Number:
    """Return the KV cache of one sequence of `tokens` on the fullest NPU, in blocks."""
    share = parallelism.largest_stage(arch.num_hidden_layers) / arch.num_hidden_layers
    elements: Number = 0.0
    for run in arch.runs:
        mixer = run.layer.mixer
        if mixer is not None:
            kept = mixer.cached_tokens(tokens)
            paged = np.ceil(kept / block) * block
            elements = elements + (
                run.count * mixer.kv_elements_per_token(parallelism.tp) * paged
            )
    return elements * share * precision.kv_cache.bytes


def activation_bytes(
    arch: ModelArch,
    parallelism: Parallelism,
    precision: Precision,
    tokens: Number,
    sampled: Number,
) -> Bytes | Number:
    """Return the peak of live activations of a step.

    The residual stream, one layer's widest pair of tensors, and the logits of
    the sampled rows, which every rank gathers whole.
    """
    tp = parallelism.tp
    widest: Number = 0.0
    for run in arch.runs:
        for half in run.layer.halves:
            widest = np.maximum(widest, half.activation_width(tp))
    stream = tokens * (2 * arch.hidden_size + widest) * precision.residual.bytes
    logits = sampled * (arch.vocab_size * (_LOGITS_BYTES + precision.residual.bytes))
    return stream + logits


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


def cache_demand(
    arch: ModelArch,
    parallelism: Parallelism,
    precision: Precision,
    *,
    input_tokens: Number,
    output_tokens: Number,
) -> CacheDemand:
    """Return what a sequence of the given prompt and answer keeps."""

    def of(tokens: Number, block: int = KV_BLOCK_TOKENS) -> Number:
        return kv_bytes_per_sequence(arch, parallelism, precision, tokens, block)

    full = input_tokens + output_tokens
    # Without blocks: rounding must not make a longer prompt need less.
    grown = of(full, block=1) - of(input_tokens, block=1)
    return CacheDemand(
        prompt=of(input_tokens),
        mean=of(input_tokens + output_tokens / 2),
        full=of(full),
        deviation=grown / math.sqrt(12),
    )


def footprint(
    arch: ModelArch,
    parallelism: Parallelism,
    precision: Precision,
    *,
    batch: Number,
    input_tokens: Number,
    output_tokens: Number,
    step_tokens: Number,
) -> MemoryFootprint:
    """Return what a replica needs on its fullest NPU in continuous batching.

    Parameters
    ----------
    arch, parallelism, precision
        The model and how it is laid out.
    batch
        Decoding sequences over all stages; every stage holds its layers' cache
        of all of them, and of the prompts in prefill: a step of them per stage.
    input_tokens, output_tokens
        Tokens of a sequence's prompt and answer.
    step_tokens
        Tokens that one step may process.
    """
    cache = cache_demand(
        arch,
        parallelism,
        precision,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )
    # A step of short prompts carries several of them.
    in_step = kv_bytes_per_sequence(arch, parallelism, precision, step_tokens)
    prefilling = parallelism.pp * np.maximum(cache.prompt, in_step)
    return MemoryFootprint(
        weights=weight_bytes(arch, parallelism, precision),
        kv_cache=cache.of(batch) + prefilling,
        activations=activation_bytes(
            arch, parallelism, precision, step_tokens, batch / parallelism.pp + 1
        ),
    )


def lockstep_footprint(
    arch: ModelArch,
    parallelism: Parallelism,
    precision: Precision,
    *,
    batch: Number,
    input_tokens: Number,
    output_tokens: Number,
) -> MemoryFootprint:
    """Return what a replica needs for a batch that starts and ends together."""
    full = kv_bytes_per_sequence(
        arch, parallelism, precision, input_tokens + output_tokens
    )
    together = np.maximum(batch / parallelism.pp, 1.0)
    return MemoryFootprint(
        weights=weight_bytes(arch, parallelism, precision),
        kv_cache=batch * full,
        activations=activation_bytes(
            arch, parallelism, precision, together * input_tokens, together
        ),
    )


def largest_batch(
    arch: ModelArch,
    parallelism: Parallelism,
    precision: Precision,
    *,
    usable: Bytes | Number,
    input_tokens: Number,
    output_tokens: Number,
    step_tokens: Number,
) -> Number:
    """Return the most decoding sequences that fit in `usable` bytes per NPU.

    Zero where not even the weights and one prompt fit.
    """
    lengths = {"input_tokens": input_tokens, "output_tokens": output_tokens}

    def at(batch: float) -> MemoryFootprint:
        return footprint(
            arch,
            parallelism,
            precision,
            batch=batch,
            step_tokens=step_tokens,
            **lengths,
        )

    # Each sequence adds its cache and, linearly, its row of logits.
    logits = at(1.0).activations - at(0.0).activations
    cache = cache_demand(arch, parallelism, precision, **lengths)
    grown = replace(cache, mean=cache.mean + logits, full=cache.full + logits)
    return np.floor(grown.most(usable - at(0.0).total))
