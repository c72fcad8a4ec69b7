"""The options of a problem: every [NPU, split] that its model fits on, as tables."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from model_ops.dtypes import Precision
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism, stacked
from model_ops.serving.deployed import curve_of, engine_of
from model_ops.serving.step import Replica
from problems import catalogue
from problems.offers import Offer
from problems.optimisations import Optimisations
from problems.problem import SizingProblem
from problems.traffic import TrafficClass
from solver.settings import settings_of
from solver.table import Flags, Table

LARGEST_REPLICA = 64
"""NPUs of one replica that are tried: a choice that keeps the tables small."""

PIPELINE_STAGES = (1, 2, 3, 4, 6, 8, 12, 16)

MIXER_RANKS = (1, 2, 4, 8)
"""Ranks that share a mixer where the groups of them share the experts."""

_NONE = Optimisations()


def splits(
    arch: ModelArch,
    offers: Sequence[Offer],
    optimisations: Optimisations = _NONE,
) -> list[Parallelism]:
    """Return the splits that the model allows and some offer admits.

    Experts are split as everything else or dealt whole, the mixers over all ranks of
    a stage or each on its own: what frameworks offer by one switch each.
    """
    return [
        split
        for ranks in range(1, LARGEST_REPLICA + 1)
        for pp in PIPELINE_STAGES
        if ranks * pp <= LARGEST_REPLICA
        for split in _layouts(arch, ranks, pp)
        if optimisations.rule_broken_by(arch, split) is None
        and any(offer.admits(split) for offer in offers)
    ]


def _layouts(arch: ModelArch, ranks: int, pp: int) -> Iterator[Parallelism]:
    """Yield the ways in which the ranks of a stage may share its layers."""
    yield Parallelism(ranks, pp)
    ep = math.gcd(ranks, arch.num_experts)
    if not arch.num_experts or ep == 1:
        return
    yield Parallelism(ranks, pp, ep=ep)
    for tp in (tp for tp in MIXER_RANKS if ranks % tp == 0 and tp < ranks):
        yield Parallelism(tp, pp, ep=ep, dp=ranks // tp)


def tabulate(problem: SizingProblem, offers: Sequence[Offer]) -> list[Table]:
    """Return a table per traffic class and precision over the offers' NPUs."""
    arch = catalogue.load_model(problem.model)
    npus = tuple({offer.npu.name: offer.npu for offer in offers}.values())
    axes = splits(arch, offers, problem.optimisations)
    return [
        _table(arch, problem, traffic, precision, offers, able, axes)
        for precision in problem.formats()
        if (able := tuple(npu for npu in npus if npu.computes(precision)))
        for traffic in problem.traffic
    ]


def _table(
    arch: ModelArch,
    problem: SizingProblem,
    traffic: TrafficClass,
    precision: Precision,
    offers: Sequence[Offer],
    npus: tuple[Npu, ...],
    axes: list[Parallelism],
) -> Table:
    replica = Replica(
        arch,
        stacked(axes, point_axes=1),
        precision,
        Supply.stack(npus, axes=2),
        **problem.optimisations.features(arch, precision),
    )
    settings = settings_of(problem, traffic.profile.prompt.tokens[-1])
    largest = max(setting.chunk_tokens for setting in settings)
    curve = curve_of(replica, largest, traffic.beams)
    engines = [
        engine_of(
            replica,
            traffic.profile,
            chunk_tokens=setting.chunk_tokens,
            max_sequences=setting.batch,
            beams=traffic.beams,
            curve=curve,
        )
        for setting in settings
    ]
    shape = (len(settings), len(npus), len(axes))
    cache = np.stack(
        [np.broadcast_to(engine.cache_tokens, shape[1:]) for engine in engines]
    )
    admitted = _admitted(offers, npus, axes)
    fits = cache[0] > np.max(traffic.profile.longest)
    npu_of, split_of = np.nonzero(fits & admitted.any(axis=0))
    return Table(
        traffic=traffic,
        precision=precision,
        settings=settings,
        npus=npus,
        splits=tuple(axes),
        npu_of=npu_of,
        split_of=split_of,
        admitted=admitted[:, npu_of, split_of],
        engines=engines[0].some((npu_of, split_of)),
        cache_tokens=cache[:, npu_of, split_of],
    )


def _admitted(
    offers: Sequence[Offer], npus: Sequence[Npu], axes: Sequence[Parallelism]
) -> Flags:
    """Return which offer admits which replica; shaped [offer, npu, split]."""
    return np.array(
        [
            [
                [offer.npu.name == npu.name and offer.admits(split) for split in axes]
                for npu in npus
            ]
            for offer in offers
        ]
    )
