"""Models that the NPUs of a replica hold, and what the fullest of them holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.opcost import Number
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.work import Shard


@dataclass(frozen=True, slots=True)
class Held:
    """A model that the NPUs of a replica hold, and one rank's share of it."""

    arch: ModelArch
    shard: Shard


def fullest(arch: ModelArch, pp: Number, each: Sequence[Number], end: Number) -> Number:
    """Return the most that a pipeline stage holds.

    Parameters
    ----------
    arch, pp
        The model and its stages.
    each
        What a layer of each kind takes.
    end
        What the embedding takes, and the head.
    """
    most: Number = 0.0
    for stage in arch.stages(pp):
        ends = np.asarray(stage.first, dtype=float) + stage.last
        if arch.tie_word_embeddings:
            ends = np.minimum(ends, 1.0)
        held = ends * end
        for count, layer in zip(stage.counts, each, strict=True):
            held = held + count * layer
        most = np.maximum(most, held)
    return most
