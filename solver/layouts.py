"""The ways of splitting a model over NPUs that are tried."""

import math
from collections.abc import Iterator, Sequence

from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.units import Bytes

LARGEST_REPLICA = 64
"""NPUs of one replica that are tried: a choice that keeps the tables small. Where so
many hardly hold the model, larger ones are tried in powers of two."""

_ROOM = 4
"""Times as many NPUs as hold the weights that a replica may then have, at most."""

_MOST_STAGES = 64

PIPELINE_STAGES = (1, 2, 3, 4, 6, 8, 12, 16)

MIXER_RANKS = (1, 2, 4, 8)
"""Ranks that share a mixer where the groups of them share the experts."""


def layouts(
    arch: ModelArch, stages: Sequence[int] = PIPELINE_STAGES
) -> list[Parallelism]:
    """Return the splits that are tried, whether the model allows them or not.

    Experts are split as everything else or dealt whole, the mixers over all ranks of
    a stage or each on its own: what frameworks offer by one switch each.
    """
    return [
        split
        for ranks in range(1, LARGEST_REPLICA + 1)
        for pp in stages
        if ranks * pp <= LARGEST_REPLICA
        for split in _of_stage(arch, ranks, pp)
    ]


def large_layouts(arch: ModelArch, memory: Bytes) -> list[Parallelism]:
    """Return splits over more NPUs, if the model is large for their memory.

    Parameters
    ----------
    memory
        Bytes of the smallest NPU.
    """
    weights = arch.parameters * arch.precision.weights.bytes
    needed = weights / memory
    if needed <= LARGEST_REPLICA:
        return []
    powers = [2**n for n in range(math.ceil(math.log2(_ROOM * needed)) + 1)]
    return [
        split
        for ranks in powers
        for pp in powers
        if pp <= _MOST_STAGES and LARGEST_REPLICA < ranks * pp <= powers[-1]
        for split in _of_stage(arch, ranks, pp)
    ]


def _of_stage(arch: ModelArch, ranks: int, pp: int) -> Iterator[Parallelism]:
    """Yield the ways in which the ranks of a stage may share its layers."""
    yield Parallelism(ranks, pp)
    ep = math.gcd(ranks, arch.num_experts)
    if not arch.num_experts or ep == 1:
        return
    yield Parallelism(ranks, pp, ep=ep)
    for tp in (tp for tp in MIXER_RANKS if ranks % tp == 0 and tp < ranks):
        yield Parallelism(tp, pp, ep=ep, dp=ranks // tp)
