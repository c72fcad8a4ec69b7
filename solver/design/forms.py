"""Step times of deployments as functions of a platform's reciprocal rates.

For a fixed shape (split, formats, batch, chunk) an operator on constant efficiencies
takes ``launch + max(flop / (e C), bytes / (e M))`` and each algorithm of a collective a
line in the link's latency and reciprocal bandwidth. So an operator is the larger of two
linear functions of x = (1/C, 1/C8, 1/M), a collective the least of several of the links',
and a step a sum of both. The coefficients are not written down here: they are what the
operator model says at the base's figures, and, of links, at unit ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from model_ops.dtypes import Dtype, Precision
from model_ops.opcost import Collective, Number, Operator
from model_ops.platform.collectives import collective_lines
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.npu import Npu
from model_ops.platform.roofline import op_time
from model_ops.platform.specification import Specification, hypothetical, is_narrow
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism, stacked
from model_ops.profiler.work import Step
from model_ops.serving.steady_state import Mix, Waits, batch_cap
from model_ops.serving.step import Part, Replica, step_parts
from problems.design.statement import BATCHES, DesignProblem, DesignUseCase
from solver.table import layouts

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

RATES = ("flop_per_s", "flop_per_s_8bit", "memory_bandwidth")
"""Figures whose reciprocals operators are linear in."""

LINKS = (
    "scale_up_latency",
    "scale_up_bandwidth",
    "scale_out_latency",
    "scale_out_bandwidth",
)
"""Figures that collectives are linear in: latencies, and reciprocal bandwidths."""

STAGES = (1, 2, 4, 8)
"""Pipeline stages that are tried."""

MOST_SPLITS = 48
"""Splits of a model that are tried at most: the smaller ones first."""


@dataclass(frozen=True)
class Forms:
    """Shapes of one use case that differ only in numbers: same formats, stages, chunk.

    Parameters
    ----------
    use_case
        Position in the problem.
    precision, chunk_tokens
        Of all shapes.
    splits, batch
        Of each; shaped [shape].
    npus
        Of a replica; shaped [shape].
    memory
        Bytes of capacity that an NPU must have; shaped [shape].
    compute, compute_8bit, traffic
        Seconds of each operator with arithmetic at the base's rates; shaped
        [shape, operator].
    streamed
        Seconds of those without, in each path: they take what memory says; shaped
        [path, shape].
    lines
        Seconds of each collective by algorithm at the base's links, per figure of
        `LINKS`; infinite where an algorithm is impossible; shaped
        [domain, shape, collective, algorithm, figure].
    paths
        Weights of operators, and of collectives, in each path through a step, and
        seconds besides: [path, operator], [path, collective], [path, shape].
    mixed, plain
        Paths that a mixed step's period is the longest of, times the stages, and a
        plain one's; path 0 is the latency of a mixed step.
    waits
        Weights of the periods in TTFT and TPOT; shaped [shape].
    stages
        Pipeline stages of all shapes.
    """

    use_case: int
    precision: Precision
    chunk_tokens: int
    splits: tuple[Parallelism, ...]
    batch: Floats
    npus: Floats
    memory: Floats
    compute: Floats
    compute_8bit: Floats
    traffic: Floats
    streamed: Floats
    lines: Floats
    operator_weights: Floats
    collective_weights: Floats
    constants: Floats
    mixed: tuple[int, ...]
    plain: tuple[int, ...]
    waits: Waits
    stages: int

    @property
    def shapes(self) -> int:
        """How many there are."""
        return len(self.batch)

    @cached_property
    def share(self) -> Floats:
        """Share of mixed steps; shaped [shape]."""
        return np.broadcast_to(self.waits.share, self.batch.shape)

    @cached_property
    def waited(self) -> Floats:
        """Periods of mixed steps that a first token waits at most; shaped [shape].

        The step that a newcomer finds running counts as a mixed one, the longest.
        """
        waits = self.waits
        total = waits.running + waits.queued + waits.chunks
        return np.broadcast_to(total, self.batch.shape)

    def paths(self, rates: Floats, links: Floats, domain: Indices, which: Indices) -> Floats:
        """Return the seconds of each path for pairs of platform and shape.

        Parameters
        ----------
        rates, links
            Reciprocals over the base's, latencies as they are over the base's;
            shaped [pair, 3] and [pair, 4].
        domain, which
            Level of the scale-up domain, and shape; [pair].

        Returns
        -------
        Floats
            Shaped [pair, path].
        """
        busy = self.compute[which] * rates[:, 0, None]
        busy += self.compute_8bit[which] * rates[:, 1, None]
        np.maximum(busy, self.traffic[which] * rates[:, 2, None], out=busy)
        seconds = busy @ self.operator_weights.T
        seconds += self.streamed.T[which] * rates[:, 2, None]
        seconds += self.constants.T[which]
        if self.lines.shape[2]:
            each = np.einsum("pcaf,pf->pca", self.lines[domain, which], links)
            seconds += np.min(each, axis=2) @ self.collective_weights.T
        return seconds

    def periods(self, seconds: Floats) -> tuple[Floats, Floats, Floats]:
        """Return latency and period of mixed steps, and the period of plain ones."""
        mixed = np.max(seconds[:, self.mixed], axis=1) * self.stages
        plain = np.max(seconds[:, self.plain], axis=1) * self.stages
        return seconds[:, 0], mixed, plain

    def latencies(
        self, rates: Floats, links: Floats, domain: Indices, which: Indices
    ) -> tuple[Floats, Floats]:
        """Return TTFT and TPOT for pairs; see `paths`."""
        first, mixed, plain = self.periods(self.paths(rates, links, domain, which))
        share = self.share[which]
        ttft = first + self.waited[which] * mixed
        return ttft, share * mixed + (1.0 - share) * plain


def forms_of(problem: DesignProblem) -> list[Forms]:
    """Return the shapes of every use case, in groups of like ones."""
    return [
        forms
        for number, use_case in enumerate(problem.use_case)
        for precision in use_case.formats()
        for chunk in use_case.chunks(problem.framework)
        for pp in STAGES
        if (forms := _forms(problem, number, precision, chunk, pp)) is not None
    ]


def _splits(use_case: DesignUseCase, pp: int) -> list[Parallelism]:
    arch = use_case.arch
    legal = [s for s in layouts(arch, (pp,)) if arch.rule_broken_by(s) is None]
    return legal[:MOST_SPLITS]


def _forms(
    problem: DesignProblem, number: int, precision: Precision, chunk: int, pp: int
) -> Forms | None:
    """Return the shapes of some stages; None where there is none."""
    use_case = problem.use_case[number]
    pairs = [
        (split, batch)
        for split in _splits(use_case, pp)
        for batch in use_case.batches or BATCHES
    ]
    if not pairs:
        return None
    splits, batches = zip(*pairs, strict=True)
    batch = np.array(batches, dtype=float)
    npu = hypothetical(problem.base_npu, problem.today)
    layout = replace(stacked(splits), pp=pp)
    replica = Replica(use_case.arch, layout, precision, Supply.of(npu))
    shape = use_case.shape
    mix = Mix.of(replica.schedule, shape, batch, chunk)
    sequences = batch_cap(batch, layout.dp)
    need = replica.footprint(shape, sequences, chunk).total
    capacity = (need + npu.runtime_reserve) / npu.memory_usable
    usable = (np.asarray(mix.prompt_load) < 1.0) & (
        sequences / layout.dp <= shape_cap(shape.beams)
    )
    mixed = _StepForms.of(problem, replica, mix.mixed_step(shape), len(batch))
    plain = _StepForms.of(problem, replica, mix.decode_step(shape), len(batch))
    forms = _joined(mixed, plain, pp)
    busy = np.any((forms.compute > 0) | (forms.compute_8bit > 0), axis=0)
    kept = np.flatnonzero(np.broadcast_to(usable, batch.shape))
    if not len(kept):
        return None
    waits = Waits.of(mix, shape, batch)
    return Forms(
        use_case=number,
        precision=precision,
        chunk_tokens=chunk,
        splits=tuple(splits[i] for i in kept),
        batch=batch[kept],
        npus=np.array([int(splits[i].npus) for i in kept], dtype=float),
        memory=np.broadcast_to(capacity, batch.shape)[kept],
        compute=forms.compute[kept][:, busy],
        compute_8bit=forms.compute_8bit[kept][:, busy],
        traffic=forms.traffic[kept][:, busy],
        streamed=forms.operator_weights[:, ~busy] @ forms.traffic[kept][:, ~busy].T,
        lines=forms.lines[:, kept],
        operator_weights=forms.operator_weights[:, busy],
        collective_weights=forms.collective_weights,
        constants=forms.constants[:, kept],
        mixed=forms.mixed,
        plain=forms.plain,
        waits=Waits(
            *(
                np.broadcast_to(getattr(waits, name), batch.shape)[kept]
                for name in ("share", "running", "queued", "chunks")
            )
        ),
        stages=pp,
    )


def shape_cap(beams: int) -> float:
    """Return the requests that an engine may decode at once, however much fits."""
    return 1024.0 / beams


@dataclass(frozen=True, slots=True)
class _StepForms:
    """The same of one step, all shapes kept; see `Forms`."""

    compute: Floats
    compute_8bit: Floats
    traffic: Floats
    lines: Floats
    operator_weights: Floats
    collective_weights: Floats
    constants: Floats

    @classmethod
    def of(
        cls, problem: DesignProblem, replica: Replica, step: Step, shapes: int
    ) -> "_StepForms":
        """Return the forms of a step; path 0 is the whole, the others are stages."""
        parts = step_parts(replica, step)
        stretch, overhead = replica.stretch(step), replica.overhead(step)
        base, today = problem.base_npu, problem.today
        wide, narrow = (Supply.of(n) for n in _one_rate_each(base, today))
        rows: list[tuple[Floats, Floats, Floats]] = []
        weights: list[Floats] = []
        constants = np.zeros((1 + len(parts[0].stages), shapes)) + overhead
        for part, operator in _of_kind(parts, Operator_):
            whole = op_time(operator, replica.supply).times(stretch)
            rows.append(
                (
                    _column(op_time(operator, wide).times(stretch).compute, shapes),
                    _column(op_time(operator, narrow).times(stretch).compute, shapes),
                    _column(whole.memory, shapes),
                )
            )
            weights.append(_weights(part))
            constants += weights[-1][:, None] * _column(whole.launch, shapes)
        groups = _Collectives.of(problem, replica, parts, stretch, shapes)
        return cls(
            *(np.stack(column, axis=1) for column in zip(*rows, strict=True)),
            lines=groups.lines,
            operator_weights=np.stack(weights, axis=1),
            collective_weights=groups.weights,
            constants=constants,
        )


Operator_ = Operator


def _of_kind(parts: Sequence[Part], kind: object) -> Iterator[tuple[Part, Operator]]:
    for part in parts:
        for operator in part.operators:
            if not isinstance(operator, Collective):
                yield part, operator


def _column(value: Number, shapes: int) -> Floats:
    return np.array(np.broadcast_to(np.asarray(value, dtype=float), (shapes,)))


def _weights(part: Part) -> Floats:
    """Return how often each path runs a part: the whole, and each stage."""
    return np.array([float(part.whole), *(float(n) for n in part.stages)])


def _one_rate_each(base: Npu, today: Specification) -> tuple[Npu, Npu]:
    """Return the base with 16-bit arithmetic alone taking time, and with 8-bit alone."""
    npu = hypothetical(base, today)

    def without(narrow: bool) -> Npu:
        rates: dict[Dtype, float] = {
            engine: np.inf if is_narrow(engine) is narrow else rate
            for engine, rate in npu.flop_per_s.items()
        }
        return replace(npu, flop_per_s=rates)

    return without(narrow=True), without(narrow=False)


@dataclass(frozen=True, slots=True)
class _Collectives:
    """Lines of a step's collectives and their weights; like ones are one."""

    lines: Floats
    weights: Floats

    @classmethod
    def of(
        cls,
        problem: DesignProblem,
        replica: Replica,
        parts: Sequence[Part],
        stretch: Number,
        shapes: int,
    ) -> "_Collectives":
        domains = np.array(problem.ladders.levels["scale_up_npus"])
        found: list[Floats] = []
        weights: list[Floats] = []
        for part in parts:
            for operator in part.operators:
                if not isinstance(operator, Collective):
                    continue
                lines = _lines(problem, replica.supply, operator, domains, shapes)
                lines = lines * np.broadcast_to(
                    replica.supply.pace * stretch, (shapes,)
                ).reshape(1, -1, 1, 1)
                if not np.any(lines[np.isfinite(lines)]):
                    continue
                same = [n for n, other in enumerate(found) if _like(lines, other)]
                if same:
                    weights[same[0]] = weights[same[0]] + _weights(part)
                else:
                    found.append(lines)
                    weights.append(_weights(part))
        paths = 1 + len(parts[0].stages)
        if not found:
            return cls(np.zeros((len(domains), shapes, 0, 1, 4)), np.zeros((paths, 0)))
        most = max(lines.shape[2] for lines in found)
        padded = [_padded(lines, most) for lines in found]
        return cls(np.stack(padded, axis=2), np.stack(weights, axis=1))


def _like(one: Floats, other: Floats) -> bool:
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-12, atol=0))


def _padded(lines: Floats, most: int) -> Floats:
    """Return as many algorithms as others have, the last one repeated."""
    return np.concatenate([lines, *[lines[:, :, -1:]] * (most - lines.shape[2])], axis=2)


def _lines(
    problem: DesignProblem,
    supply: Supply,
    collective: Collective,
    domains: Floats,
    shapes: int,
) -> Floats:
    """Return a collective's seconds per figure of `LINKS` at the base's links.

    A line is a sum over tiers of latency, and of bytes over bandwidth: what it is with
    one tier's links at the base's figures and the other's infinitely fast.

    Returns
    -------
    Floats
        Shaped [domain, shape, algorithm, figure].
    """
    today = problem.today
    columns = []
    for tier in (0, 1):
        lines = collective_lines(
            collective, _fabric(supply, domains, today, tier), supply.link_efficiency
        )
        whole = (len(domains), shapes)
        columns.append(
            np.stack(
                [
                    np.stack(
                        [
                            np.broadcast_to(line.latency, whole),
                            np.broadcast_to(line.per_byte * collective.payload, whole),
                        ],
                        axis=-1,
                    )
                    for line in lines
                ],
                axis=2,
            )
        )
    return np.concatenate(columns, axis=-1)


def _fabric(
    supply: Supply, domains: Floats, today: Specification, timed: int
) -> Fabric:
    """Return the fabric of each domain with one tier that takes time; [domain, 1]."""
    inner, outer = supply.fabric.tiers
    each = domains.reshape(-1, 1).astype(np.int64)

    def tier(of: Tier, latency: float, bandwidth: float, takes: bool) -> Tier:
        return replace(
            of,
            latency=latency if takes else 0.0,
            bandwidth=bandwidth if takes else np.inf,
        )

    return Fabric(
        (
            replace(
                tier(inner, today.scale_up_latency, today.scale_up_bandwidth, timed == 0),
                npus=each,
            ),
            tier(outer, today.scale_out_latency, today.scale_out_bandwidth, timed == 1),
        )
    )


def _joined(mixed: _StepForms, plain: _StepForms, pp: int) -> "_Joined":
    """Return both steps as one: the latency of a mixed one, and the stages of both.

    Without a pipeline the whole is the one stage.
    """
    # The whole of a plain step is in nothing: its stages, times their number, are longer.
    first = 1 if pp == 1 else mixed.operator_weights.shape[0]
    stages = range(1, plain.operator_weights.shape[0])

    def block(a: Floats, b: Floats) -> Floats:
        a, b = a[:first], b[1:]
        top = np.concatenate([a, np.zeros((len(a), b.shape[1]))], axis=1)
        low = np.concatenate([np.zeros((len(b), a.shape[1])), b], axis=1)
        return np.concatenate([top, low])

    most = max(mixed.lines.shape[3], plain.lines.shape[3])

    def wide(lines: Floats) -> Floats:
        missing = most - lines.shape[3]
        return np.concatenate([lines, *[lines[:, :, :, -1:]] * missing], axis=3)

    return _Joined(
        compute=np.concatenate([mixed.compute, plain.compute], axis=1),
        compute_8bit=np.concatenate([mixed.compute_8bit, plain.compute_8bit], axis=1),
        traffic=np.concatenate([mixed.traffic, plain.traffic], axis=1),
        lines=np.concatenate([wide(mixed.lines), wide(plain.lines)], axis=2),
        operator_weights=block(mixed.operator_weights, plain.operator_weights),
        collective_weights=block(mixed.collective_weights, plain.collective_weights),
        constants=np.concatenate([mixed.constants[:first], plain.constants[1:]]),
        mixed=(0,) if pp == 1 else tuple(range(1, first)),
        plain=tuple(first + n for n in range(len(stages))),
    )


@dataclass(frozen=True, slots=True)
class _Joined:
    compute: Floats
    compute_8bit: Floats
    traffic: Floats
    lines: Floats
    operator_weights: Floats
    collective_weights: Floats
    constants: Floats
    mixed: tuple[int, ...]
    plain: tuple[int, ...]
