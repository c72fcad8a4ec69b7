"""Deployments that could serve a problem, evaluated as arrays.

For each traffic class and precision one `Table` holds every point of
[NPU, split, batch]: what a replica would do there, whatever the targets. `select`
then keeps, for a set of targets, the fastest batch of each [NPU, split] and, per
offer, those that no smaller replica matches.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model_ops.dtypes import Precision
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism, stacked
from model_ops.serving.speculative import Schedule
from model_ops.serving.steady_state import (
    batch_cap,
    mean_batch,
    saturating_batch,
    steady_state,
)
from model_ops.serving.step import Replica
from problems import catalogue
from problems.offers import Offer
from problems.optimisations import Optimisations
from problems.problem import LatencyTarget, SizingProblem, TrafficClass

Floats = npt.NDArray[np.float64]

LARGEST_REPLICA = 64
"""NPUs of one replica that are tried: a choice that keeps the tables small."""

PIPELINE_STAGES = (1, 2, 3, 4, 6, 8, 12, 16)

LARGEST_BATCH = 1024
"""Decoding sequences of one replica at once (vLLM ``max_num_seqs`` on large GPUs)."""

MIXER_RANKS = (1, 2, 4, 8)
"""Ranks that share a mixer where the groups of them share the experts."""

_NONE = Optimisations()

_POINTS_AT_ONCE = 40_000
"""Points per array: small enough for the arrays to stay in the processor's cache."""


PROMPT_LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 0.99)
"""Shares of the prompt room tried besides: batches of long prompts are fractions."""


def batch_grid(schedule: Schedule, traffic: TrafficClass, chunk_tokens: int) -> Floats:
    """Return the mean batches tried, ascending, shaped [split, batch].

    Steps of 12 % below one sequence and of 4 % above; and those at which prompts
    take given shares of the room for them.
    """
    most = float(mean_batch(LARGEST_BATCH))
    counts = np.concatenate(
        [np.geomspace(0.01, 1, 41)[:-1], np.geomspace(1, most, 175)]
    )
    full = np.asarray(saturating_batch(schedule, traffic.shape, chunk_tokens))
    shares = np.minimum(full * np.array(PROMPT_LOADS), most)
    tried = [np.broadcast_to(counts, (len(full), len(counts))), shares]
    return np.sort(np.concatenate(tried, axis=1), axis=1)


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


@dataclass(frozen=True, slots=True)
class Table:
    """What a replica does at every point of [NPU, split, batch], for one class.

    Parameters
    ----------
    traffic, precision
        The class and the formats.
    npus, splits
        The first two axes.
    batches
        Mean batches, ascending, shaped [split, batch].
    ttft, tpot, rate, in_flight
        Seconds, requests per second and requests, shaped [npu, split, batch].
    free_memory
        Usable bytes less needed ones on the fullest NPU, same shape; of the second
        memory where something is kept there and less is free.
    """

    traffic: TrafficClass
    precision: Precision
    npus: tuple[Npu, ...]
    splits: tuple[Parallelism, ...]
    batches: Floats
    ttft: Floats
    tpot: Floats
    rate: Floats
    in_flight: Floats
    free_memory: Floats

    def admitted(self, offers: Sequence[Offer]) -> npt.NDArray[np.bool_]:
        """Return which [npu, split] some offer admits."""
        return np.array(
            [
                [
                    any(o.npu.name == npu.name and o.admits(split) for o in offers)
                    for split in self.splits
                ]
                for npu in self.npus
            ]
        )

    @property
    def points(self) -> int:
        """Points evaluated."""
        return self.rate.size

    @property
    def capacity(self) -> Floats:
        """What a replica covers of the demand: its rate, or its requests in flight."""
        if self.traffic.concurrency is not None:
            return self.in_flight
        return self.rate

    def latency(self, metric: str) -> Floats:
        """Return a latency in seconds, shaped [npu, split, batch]."""
        if metric == "ttft":
            return self.ttft
        if metric == "tpot":
            return self.tpot
        return self.ttft + self.traffic.shape.decode_steps * self.tpot

    def feasible(self, targets: Sequence[LatencyTarget]) -> npt.NDArray[np.bool_]:
        """Return where the memory suffices, the queue is finite and targets hold."""
        good = (self.free_memory >= 0) & np.isfinite(self.ttft)
        for target in targets:
            good &= self.latency(target.metric) <= target.at_most
        return good


def tabulate(problem: SizingProblem, offers: Sequence[Offer]) -> list[Table]:
    """Return a table per traffic class and precision over the offers' NPUs."""
    arch = catalogue.load_model(problem.model)
    npus = tuple({offer.npu.name: offer.npu for offer in offers}.values())
    axes = splits(arch, offers, problem.optimisations)
    return [
        _table(arch, problem, traffic, precision, able, axes)
        for precision in problem.formats()
        if (able := tuple(npu for npu in npus if npu.computes(precision)))
        for traffic in problem.traffic
    ]


def _table(
    arch: ModelArch,
    problem: SizingProblem,
    traffic: TrafficClass,
    precision: Precision,
    npus: tuple[Npu, ...],
    axes: list[Parallelism],
) -> Table:
    parallelism = stacked(axes, point_axes=1)
    features = problem.optimisations.features(arch, precision)
    any_npu = Replica(arch, parallelism, precision, Supply.of(npus[0]), **features)
    batches = batch_grid(any_npu.schedule, traffic, problem.chunk_tokens)
    most = batch_cap(batches, parallelism.dp)
    needed = any_npu.footprint(traffic.shape, most, problem.chunk_tokens)
    parts = []
    for some in npu_groups(npus, batches.size):
        replica = replace(any_npu, supply=Supply.stack(some, axes=2))
        state = steady_state(replica, traffic.shape, batches, problem.chunk_tokens)
        room = replica.room
        # An empty second memory is not full, however small it is.
        outside = np.where(needed.outer > 0, room.outer - needed.outer, np.inf)
        free = np.minimum(room.own - needed.total, outside)
        parts.append((state.ttft, state.tpot, state.rate, state.in_flight, free))
    arrays = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Table(traffic, precision, npus, tuple(axes), batches, *arrays)


def npu_groups(npus: Sequence[Npu], points_each: int) -> Iterator[Sequence[Npu]]:
    """Yield the NPUs in groups whose arrays fit the processor's cache."""
    size = max(1, _POINTS_AT_ONCE // max(points_each, 1))
    for start in range(0, len(npus), size):
        yield npus[start : start + size]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Replicas that a plan may count.

    Parameters
    ----------
    traffic
        Index of the class served.
    offer
        Index of the offer stood on.
    split, mean_batch, precision
        The deployment.
    npus, slot
        NPUs used, and NPUs of a host occupied.
    capacity
        What one replica covers of the class's demand.
    """

    traffic: int
    offer: int
    split: Parallelism
    mean_batch: float
    precision: Precision
    npus: int
    slot: int
    capacity: float


def select(
    tables: Sequence[Table],
    offers: Sequence[Offer],
    problem: SizingProblem,
) -> list[Candidate]:
    """Return the candidates that meet their class's targets, without dominated ones.

    One is dominated if another on the same offer, for the same class, uses no
    more NPUs and covers as much.
    """
    targets = {traffic.name: traffic.targets for traffic in problem.traffic}
    index = {traffic.name: i for i, traffic in enumerate(problem.traffic)}
    found: dict[tuple[int, int], list[Candidate]] = {}
    for table in tables:
        name = table.traffic.name
        good = table.feasible(targets[name])
        capacity = np.where(good, table.capacity, 0.0)
        best = capacity.argmax(axis=2)
        row = {npu.name: i for i, npu in enumerate(table.npus)}
        for number, offer in enumerate(offers):
            at = row.get(offer.npu.name)
            if at is None:
                continue
            for number_of_split, split in enumerate(table.splits):
                where = best[at, number_of_split]
                value = float(capacity[at, number_of_split, where])
                npus = int(split.npus)
                if value <= 0 or not offer.admits(split):
                    continue
                found.setdefault((index[name], number), []).append(
                    Candidate(
                        traffic=index[name],
                        offer=number,
                        split=split,
                        mean_batch=float(table.batches[number_of_split, where]),
                        precision=table.precision,
                        npus=npus,
                        slot=offer.slot(npus),
                        capacity=value,
                    )
                )
    return [kept for group in found.values() for kept in undominated(group)]


def _simplest_first(candidate: Candidate) -> tuple[float, ...]:
    split = candidate.split
    degrees = (split.pp, split.dp, split.ep, split.tp)
    return (candidate.npus, -candidate.capacity, *map(float, degrees))


def undominated(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates of a group that cover more than all smaller ones."""
    ordered = sorted(candidates, key=_simplest_first)
    kept: list[Candidate] = []
    for candidate in ordered:
        if not kept or candidate.capacity > kept[-1].capacity:
            kept.append(candidate)
    return kept
