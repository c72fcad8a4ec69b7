"""The options of a problem: every [NPU, split] that its model fits on, as tables."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from model_ops.dtypes import Precision
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism, stacked
from model_ops.serving.deployed import curve_of, engine_of
from model_ops.serving.engine import Profile
from model_ops.serving.pair import sent_per_token
from model_ops.serving.pools import first_token_only
from model_ops.serving.step import Replica
from model_ops.serving.step_curve import StepCurve
from problems import catalogue
from problems.offers import Offer
from problems.optimisations import Optimisations
from problems.problem import SizingProblem
from problems.traffic import TrafficClass
from solver.layouts import large_layouts, layouts
from solver.pool_table import DecodeTable, Pools, PrefillTable, evenly
from solver.settings import Setting, settings_of
from solver.table import Flags, Table

_NONE = Optimisations()


def splits(
    arch: ModelArch,
    offers: Sequence[Offer],
    optimisations: Optimisations = _NONE,
) -> list[Parallelism]:
    """Return the splits that the model allows and some offer admits."""
    smallest = min(offer.npu.memory_capacity for offer in offers)
    return [
        split
        for split in (*layouts(arch), *large_layouts(arch, float(smallest)))
        if optimisations.rule_broken_by(arch, split) is None
        and any(offer.admits(split) for offer in offers)
    ]


@dataclass(frozen=True)
class Options:
    """The replicas of a class and precision, and their step times.

    Parameters
    ----------
    traffic, precision, settings
        The class, the formats, and the settings to try, the default one first.
    replica, curve
        All of them, over [npu, split], and the seconds of their steps.
    npus, splits
        What is combined.
    admitted
        Whether a replica may stand on an offer; shaped [offer, npu, split].
    like
        Options of a class whose table serves this one too.
    """

    traffic: TrafficClass
    precision: Precision
    settings: tuple[Setting, ...]
    replica: Replica
    curve: StepCurve
    npus: tuple[Npu, ...]
    splits: tuple[Parallelism, ...]
    admitted: Flags
    like: "Options | None" = None

    @cached_property
    def table(self) -> Table:
        """The replicas that read and answer."""
        if self.like is not None:
            return replace(self.like.table, traffic=self.traffic)
        return Table(**self._fields(self.traffic.profile, self.settings))

    @property
    def pools(self) -> Pools | None:
        """The replicas that only read, and those that only answer; None without use."""
        traffic = self.traffic
        whole = traffic.profile
        if traffic.kept_whole:
            return None
        steps = tuple(s for s in self.settings if s.batch == self.settings[0].batch)
        reading = self._fields(first_token_only(whole), steps)
        answering = self._fields(whole, self.settings[:1])
        decode = DecodeTable(**answering | {"traffic": evenly(traffic)})
        sent = np.broadcast_to(
            sent_per_token(self.replica, whole), (len(self.npus), len(self.splits), 1)
        )
        return Pools(
            traffic=traffic,
            prefill=PrefillTable(**reading),
            decode=decode,
            sent=sent[decode.npu_of, decode.split_of, 0],
        )

    def _fields(
        self, profile: Profile, settings: tuple[Setting, ...]
    ) -> dict[str, Any]:
        """Return the fields of a table of the replicas whose caches hold requests."""
        engines = [
            engine_of(
                self.replica,
                profile,
                chunk_tokens=setting.chunk_tokens,
                max_sequences=setting.batch,
                beams=self.traffic.beams,
                curve=self.curve,
            )
            for setting in settings
        ]
        shape = (len(self.npus), len(self.splits))
        cache = np.stack([np.broadcast_to(e.cache_tokens, shape) for e in engines])
        fits = cache.max(axis=0) > np.max(profile.longest)
        npu_of, split_of = np.nonzero(fits & self.admitted.any(axis=0))
        return {
            "traffic": self.traffic,
            "precision": self.precision,
            "settings": settings,
            "npus": self.npus,
            "splits": self.splits,
            "npu_of": npu_of,
            "split_of": split_of,
            "admitted": self.admitted[:, npu_of, split_of],
            "engines": engines[0].some((npu_of, split_of)),
            "cache_tokens": cache[:, npu_of, split_of],
        }


def options_of(problem: SizingProblem, offers: Sequence[Offer]) -> list[Options]:
    """Return the options per traffic class and precision over the offers' NPUs.

    Classes of the same model, lengths and arrivals share what is evaluated of them.
    """
    npus = tuple({offer.npu.name: offer.npu for offer in offers}.values())
    found: dict[tuple[str, str], Options] = {}
    every = []
    for model in problem.models:
        arch = catalogue.load_model(model)
        axes = splits(arch, offers, problem.optimisations)
        for precision in problem.formats(model):
            able = tuple(npu for npu in npus if npu.computes(precision))
            for traffic in problem.traffic if able else ():
                if problem.model_of(traffic) != model:
                    continue
                key = (f"{model} {precision.name}", _alike(traffic))
                if key in found:
                    every.append(replace(found[key], traffic=traffic, like=found[key]))
                    continue
                what = (arch, problem, traffic, precision, offers, able, axes)
                found[key] = _options(*what)
                every.append(found[key])
    return every


def _alike(traffic: TrafficClass) -> str:
    """Return what fixes a class's table: not how many requests, nor how fast."""
    dumped = traffic.model_dump_json(
        exclude={"name", "model", "rate", "concurrency", "diurnal", "targets"}
        | {"goodput"}
    )
    return f"{dumped} {traffic.is_closed}"


def tabulate(problem: SizingProblem, offers: Sequence[Offer]) -> list[Table]:
    """Return a table per traffic class and precision over the offers' NPUs."""
    return [options.table for options in options_of(problem, offers)]


def _options(
    arch: ModelArch,
    problem: SizingProblem,
    traffic: TrafficClass,
    precision: Precision,
    offers: Sequence[Offer],
    npus: tuple[Npu, ...],
    axes: list[Parallelism],
) -> Options:
    replica = Replica(
        arch,
        stacked(axes, point_axes=1),
        precision,
        Supply.stack(npus, axes=2),
        **problem.optimisations.features(arch, precision),
    )
    settings = settings_of(problem, traffic)
    largest = max(setting.chunk_tokens for setting in settings)
    return Options(
        traffic=traffic,
        precision=precision,
        settings=settings,
        replica=replica,
        curve=curve_of(replica, largest, traffic.beams),
        npus=npus,
        splits=tuple(axes),
        admitted=_admitted(offers, npus, axes),
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
