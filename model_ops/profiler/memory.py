"""Bytes that a deployment needs on its fullest NPU."""

from dataclasses import dataclass

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
) -> Bytes | Number:
    """Return the KV cache of one sequence of `tokens` on the fullest NPU, paged."""
    share = parallelism.largest_stage(arch.num_hidden_layers) / arch.num_hidden_layers
    elements: Number = 0.0
    for run in arch.runs:
        mixer = run.layer.mixer
        if mixer is not None:
            kept = mixer.cached_tokens(tokens)
            paged = np.ceil(kept / KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS
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


def footprint(
    arch: ModelArch,
    parallelism: Parallelism,
    precision: Precision,
    *,
    batch: Number,
    tokens: Number,
    step_tokens: Number,
) -> MemoryFootprint:
    """Return what a replica needs on its fullest NPU.

    Parameters
    ----------
    arch, parallelism, precision
        The model and how it is laid out.
    batch
        Decoding sequences over all stages; every stage holds its layers' cache
        of all of them, and of one prompt in prefill per stage.
    tokens
        Tokens of a finished sequence: nothing is preempted even if all sequences
        end together.
    step_tokens
        Tokens that one step may process.
    """
    each = kv_bytes_per_sequence(arch, parallelism, precision, tokens)
    held = batch + parallelism.pp
    sampled = batch / parallelism.pp + 1
    return MemoryFootprint(
        weights=weight_bytes(arch, parallelism, precision),
        kv_cache=held * each,
        activations=activation_bytes(
            arch, parallelism, precision, step_tokens, sampled
        ),
    )


def largest_batch(
    arch: ModelArch,
    parallelism: Parallelism,
    precision: Precision,
    *,
    usable: Bytes | Number,
    tokens: Number,
    step_tokens: Number,
) -> Number:
    """Return the most decoding sequences that fit in `usable` bytes per NPU.

    Zero or less where not even the weights and one prompt fit.
    """
    empty = footprint(
        arch, parallelism, precision, batch=0, tokens=tokens, step_tokens=step_tokens
    )
    one = footprint(
        arch, parallelism, precision, batch=1, tokens=tokens, step_tokens=step_tokens
    )
    return np.floor((usable - empty.total) / (one.total - empty.total))
