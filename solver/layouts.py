"""The ways of splitting a model over NPUs that are tried."""

import math
from collections.abc import Iterator, Sequence

from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism

LARGEST_REPLICA = 64
"""NPUs of one replica that are tried: a choice that keeps the tables small."""

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


def _of_stage(arch: ModelArch, ranks: int, pp: int) -> Iterator[Parallelism]:
    """Yield the ways in which the ranks of a stage may share its layers."""
    yield Parallelism(ranks, pp)
    ep = math.gcd(ranks, arch.num_experts)
    if not arch.num_experts or ep == 1:
        return
    yield Parallelism(ranks, pp, ep=ep)
    for tp in (tp for tp in MIXER_RANKS if ranks % tp == 0 and tp < ranks):
        yield Parallelism(tp, pp, ep=ep, dp=ranks // tp)
