"""Bytes that a deployment needs on its fullest NPU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_ops.opcost import RESIDENT, Number, Placement
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.cache import cache_demand, kv_bytes_per_sequence
from model_ops.profiler.held import Held, fullest
from model_ops.profiler.ops import Gemm
from model_ops.profiler.work import RequestShape, Shard, Step, decode
from model_ops.units import Bytes

_LOGITS_BYTES = 8
"""Sampling turns fp32 logits into fp32 probabilities."""


@dataclass(frozen=True, slots=True)
class MemoryFootprint:
    """Bytes on the fullest NPU of a replica; numbers or arrays.

    Parameters
    ----------
    weights, kv_cache, activations
        In its own memory.
    outer
        In its second, larger memory.
    """

    weights: Bytes | Number
    kv_cache: Bytes | Number
    activations: Bytes | Number
    outer: Bytes | Number = 0.0

    @property
    def total(self) -> Bytes | Number:
        """All that is in the NPU's own memory."""
        return self.weights + self.kv_cache + self.activations

    def placed(self, placement: Placement) -> "MemoryFootprint":
        """Return the footprint with shares of it moved to the second memory."""
        if placement is RESIDENT:
            return self
        away, cached = placement.weights, placement.cache
        return MemoryFootprint(
            weights=self.weights * (1 - away),
            kv_cache=self.kv_cache * (1 - cached),
            activations=self.activations,
            outer=self.weights * away + self.kv_cache * cached,
        )


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that an NPU offers: its own memory, and a second, larger one."""

    own: Bytes | Number
    outer: Bytes | Number = 0.0


def weight_bytes(arch: ModelArch, shard: Shard) -> Bytes | Number:
    """Return the weights on the fullest NPU, adapters included.

    Embedding and head, split over the vocabulary, stay in the residual's format;
    a pipeline puts them on its first and last stage, a single stage holds both.
    """
    residual = shard.precision.residual.bytes
    each = [
        sum((half.weight_bytes(shard) for half in run.layer.halves), start=0.0)
        + adapter_bytes(run.layer, shard)
        for run in arch.runs
    ]
    end = arch.embedding_parameters / shard.tp * residual
    positions = arch.learned_positions * arch.hidden_size * residual
    if arch.shares_embedding:
        # Of its own it has a projection, 2H x H, that joins it to the model.
        end, positions = 0.0, 2 * arch.hidden_size**2 * residual
    return fullest(arch, shard.parallelism.pp, each, end) + positions


def adapter_bytes(layer: Layer, shard: Shard) -> Bytes | Number:
    """Return the adapters of a layer on each rank: two matrices per linear layer."""
    if shard.lora is None:
        return 0.0
    one = Step((decode(1.0, 0.0),))
    widths: Number = 0.0
    for half in layer.halves:
        for operator in half.operators(replace(shard, lora=None), one):
            if isinstance(operator, Gemm) and operator.adapted:
                widths = widths + operator.k + operator.n
    each = shard.lora.rank * widths * shard.precision.residual.bytes
    return shard.lora.adapters * each


def activation_bytes(
    arch: ModelArch, shard: Shard, tokens: Number, sampled: Number
) -> Bytes | Number:
    """Return the peak of live activations of a step.

    The residual stream with one layer's widest pair of tensors, or later the logits
    of the sampled rows, which every rank gathers whole: the larger of the two.
    """
    logits = sampled * logits_bytes(arch)
    return np.maximum(_stream_bytes(arch, shard, tokens), logits)


def logits_bytes(arch: ModelArch) -> Bytes:
    """Return what sampling keeps for a row."""
    return arch.vocab_size * _LOGITS_BYTES


def _stream_bytes(arch: ModelArch, shard: Shard, tokens: Number) -> Bytes | Number:
    widest: Number = 0.0
    for run in arch.runs:
        for half in run.layer.halves:
            widest = np.maximum(widest, half.activation_width(shard))
    rows = tokens / shard.parallelism.cp
    return rows * (2 * arch.hidden_size + widest) * shard.precision.residual.bytes


def _weights(held: Sequence[Held]) -> Number:
    return sum((weight_bytes(h.arch, h.shard) for h in held), start=0.0)


def _activations(held: Sequence[Held], tokens: Number, sampled: Number) -> Number:
    """Return the peak of a step: the models of a replica run one after another."""
    most: Number = 0.0
    for each in held:
        peak = activation_bytes(each.arch, each.shard, tokens, sampled)
        most = np.maximum(most, peak)
    return most


def footprint(  # noqa: PLR0913 - keywords
    held: Sequence[Held],
    shape: RequestShape,
    *,
    batch: Number,
    step_tokens: Number,
    requests: Number = np.inf,
    rows_each: Number = 1.0,
    placement: Placement = RESIDENT,
    activation_factor: Number = 1.0,
) -> MemoryFootprint:
    """Return what a replica needs on its fullest NPU in continuous batching.

    Parameters
    ----------
    held
        The models: the one that is served, and one that guesses for it if any.
    shape
        Tokens of a request.
    batch
        Decoding sequences over all stages; every stage holds its layers' cache
        of all of them, and of the prompts in prefill: a step of them per stage.
        Each data-parallel rank holds its share of the sequences.
    step_tokens
        Tokens that one step may process on each data-parallel rank.
    requests
        Requests that the replica has at most: no more prompts are in prefill.
    rows_each
        Tokens of each decoding request in a step: beams, guesses to check.
    placement
        What is kept in the second memory.
    activation_factor
        Activations kept alive over those that must be.
    """
    split = held[0].shard.parallelism
    cache = cache_demand(held, shape)
    # A step of short prompts carries several; what hits is in the cache once.
    carried = split.pp * np.maximum(step_tokens / shape.input_tokens, 1.0)
    prompts = np.minimum(carried, np.maximum(requests / split.dp, 1.0))
    own = batch / split.dp
    whole = MemoryFootprint(
        weights=_weights(held),
        kv_cache=cache.of(own) + prompts * cache.prompt,
        activations=activation_factor
        * _activations(held, step_tokens, own / split.pp * rows_each + 1),
    )
    return whole.placed(placement)


def lockstep_footprint(
    held: Sequence[Held],
    shape: RequestShape,
    batch: Number,
    rows_each: Number = 1.0,
    placement: Placement = RESIDENT,
    activation_factor: Number = 1.0,
) -> MemoryFootprint:
    """Return what a replica needs for a batch that starts and ends together."""
    split = held[0].shard.parallelism
    demand = cache_demand(held, shape)
    own = np.maximum(batch / split.dp, 1.0)
    together = np.maximum(own / split.pp, 1.0)
    whole = MemoryFootprint(
        weights=_weights(held),
        kv_cache=own * demand.full,
        activations=activation_factor
        * _activations(
            held,
            together * np.maximum(shape.new_tokens, rows_each),
            together * rows_each,
        ),
    )
    return whole.placed(placement)


def largest_batch(  # noqa: PLR0913 - keywords
    held: Sequence[Held],
    shape: RequestShape,
    *,
    room: Room,
    step_tokens: Number,
    requests: Number = np.inf,
    rows_each: Number = 1.0,
    placement: Placement = RESIDENT,
    activation_factor: Number = 1.0,
) -> Number:
    """Return the most decoding sequences that fit in an NPU's memory; see `footprint`.

    Zero where not even the weights and one prompt fit.
    """
    split = held[0].shard.parallelism

    def at(batch: Number) -> MemoryFootprint:
        return footprint(
            held,
            shape,
            batch=batch,
            step_tokens=step_tokens,
            requests=requests,
            rows_each=rows_each,
            placement=placement,
            activation_factor=activation_factor,
        )

    # Without logits, and then with those of each sequence: both must fit.
    empty = at(0.0)
    cache = cache_demand(held, shape).kept(1 - placement.cache)
    most = cache.kept(1, _NEXT_TO_NOTHING).most(room.own - empty.total)
    each = activation_factor * rows_each / split.pp * _row_bytes(held)
    unsampled = empty.total - empty.activations + activation_factor * _row_bytes(held)
    most = np.minimum(most, cache.kept(1, each).most(room.own - unsampled))
    if placement is not RESIDENT:
        outside = cache_demand(held, shape).kept(placement.cache, _NEXT_TO_NOTHING)
        most = np.minimum(most, outside.most(room.outer - empty.outer))
    return split.dp * np.floor(most)


def _row_bytes(held: Sequence[Held]) -> Bytes:
    return max(logits_bytes(each.arch) for each in held)


_NEXT_TO_NOTHING = 1e-6
"""Keeps a demand of nothing divisible."""


def cache_tokens(
    held: Sequence[Held],
    room: Room,
    *,
    length: Number,
    step_tokens: Number,
    sampled: Number,
    placement: Placement = RESIDENT,
) -> Number:
    """Return the tokens that sequences of a length can keep in the cache together.

    Parameters
    ----------
    held, room
        The models, and the bytes of an NPU.
    length
        Tokens of each sequence: what slides or has a state needs less per token the
        longer it is.
    step_tokens, sampled
        Tokens and sampled rows of the largest step, whose activations are reserved.
    placement
        What is kept in the second memory.
    """
    each = (kv_bytes_per_sequence(h.arch, h.shard, length) for h in held)
    per_token = sum(each, start=0.0) / length
    weights = _weights(held)
    own = room.own - weights * (1.0 - placement.weights)
    own = own - _activations(held, step_tokens, sampled)
    tokens = own / np.maximum(per_token * (1.0 - placement.cache), _NEXT_TO_NOTHING)
    if np.any(np.asarray(placement.weights) + np.asarray(placement.cache)):
        outer = room.outer - weights * placement.weights
        beyond = outer / np.maximum(per_token * placement.cache, _NEXT_TO_NOTHING)
        tokens = np.minimum(tokens, np.where(outer < 0, 0.0, beyond))
    return np.maximum(np.floor(tokens), 0.0)
