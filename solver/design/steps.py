"""What the operator model says of a step, as coefficients of reciprocal rates.

Nothing is written down here: coefficients are what the model says at the base's figures
with one rate alone taking time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, Number, Operator
from model_ops.platform.collectives import collective_lines
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.npu import Npu
from model_ops.platform.roofline import op_time
from model_ops.platform.specification import Specification, hypothetical, is_narrow
from model_ops.platform.supply import Supply
from model_ops.profiler.work import Step
from model_ops.serving.step import Part, Replica, step_parts
from problems.design.statement import DesignProblem
from solver.design.forms import RELOADS

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

CROWDED = 2.0**-40
"""Share of the base's on-chip memory with which reloads alone take time."""


@dataclass(frozen=True, slots=True)
class StepForms:
    """The coefficients of one step, or of several joined; see `Forms` for the fields.

    Its paths are the whole step, then its stages.
    """

    compute: Floats
    compute_8bit: Floats
    traffic: Floats
    tiles: Floats
    sweeps: Floats
    lines: Floats
    operator_weights: Floats
    collective_weights: Floats
    constants: Floats

    @classmethod
    def of(
        cls, problem: DesignProblem, replica: Replica, step: Step, shapes: int
    ) -> "StepForms":
        """Return the coefficients of a step of so many shapes."""
        parts = step_parts(replica, step)
        stretch, overhead = replica.stretch(step), replica.scheduling(step)
        one_each = _one_rate_each(problem.base_npu, problem.today)
        wide, narrow, crowded = (Supply.of(npu) for npu in one_each)
        columns: list[list[Floats]] = []
        weights: list[Floats] = []
        constants = np.zeros((1 + len(parts[0].stages), shapes)) + overhead
        for part, operator in _operators(parts):
            whole = op_time(operator, replica.supply).times(stretch)
            reloads = op_time(operator, crowded).times(stretch).tiles
            swept = bool(np.any(np.asarray(operator.shape().sweep_bytes) > 0))
            seconds = (
                op_time(operator, wide).times(stretch).compute,
                op_time(operator, narrow).times(stretch).compute,
                whole.memory,
                reloads * (not swept) * CROWDED ** RELOADS["tiles"],
                reloads * swept * CROWDED ** RELOADS["sweeps"],
            )
            columns.append([_column(each, shapes) for each in seconds])
            weights.append(_weights(part))
            constants += weights[-1][:, None] * _column(whole.launch, shapes)
        compute, compute_8bit, traffic, tiles, sweeps = (
            np.stack(column, axis=1) for column in zip(*columns, strict=True)
        )
        groups = _Collectives.of(problem, replica, parts, stretch, shapes)
        return cls(
            compute=compute,
            compute_8bit=compute_8bit,
            traffic=traffic,
            tiles=tiles,
            sweeps=sweeps,
            lines=groups.lines,
            operator_weights=np.stack(weights, axis=1),
            collective_weights=groups.weights,
            constants=constants,
        )

    def paths(self, which: slice) -> "StepForms":
        """Return some of the paths."""
        return replace(
            self,
            operator_weights=self.operator_weights[which],
            collective_weights=self.collective_weights[which],
            constants=self.constants[which],
        )

    def merged(self) -> "StepForms":
        """Return the same with operators, and collectives, that are alike as one."""
        fields = ("compute", "compute_8bit", "traffic", "tiles", "sweeps")
        stacked = np.concatenate([getattr(self, name) for name in fields])
        first, to = _alike(stacked)
        lines = np.moveaxis(self.lines, 2, -1)
        first_line, line_to = _alike(lines.reshape(-1, lines.shape[-1]))
        return replace(
            self,
            **{name: getattr(self, name)[:, first] for name in fields},
            lines=self.lines[:, :, first_line],
            operator_weights=self.operator_weights @ to,
            collective_weights=self.collective_weights @ line_to,
        )

    def beside(self, other: "StepForms") -> "StepForms":
        """Return both steps as one: the operators and paths of each."""
        most = max(self.lines.shape[3], other.lines.shape[3])
        lines = [_padded(each.lines, most) for each in (self, other)]
        return StepForms(
            compute=np.concatenate([self.compute, other.compute], axis=1),
            compute_8bit=np.concatenate([self.compute_8bit, other.compute_8bit], 1),
            traffic=np.concatenate([self.traffic, other.traffic], axis=1),
            tiles=np.concatenate([self.tiles, other.tiles], axis=1),
            sweeps=np.concatenate([self.sweeps, other.sweeps], axis=1),
            lines=np.concatenate(lines, axis=2),
            operator_weights=_diagonal(self.operator_weights, other.operator_weights),
            collective_weights=_diagonal(
                self.collective_weights, other.collective_weights
            ),
            constants=np.concatenate([self.constants, other.constants]),
        )


def _diagonal(one: Floats, other: Floats) -> Floats:
    """Return two matrices as the blocks of one."""
    right = np.zeros((len(one), other.shape[1]))
    left = np.zeros((len(other), one.shape[1]))
    return np.block([[one, right], [left, other]])


def _operators(parts: Sequence[Part]) -> Iterator[tuple[Part, Operator]]:
    for part in parts:
        for operator in part.operators:
            if not isinstance(operator, Collective):
                yield part, operator


def _column(value: Number, shapes: int) -> Floats:
    return np.array(np.broadcast_to(np.asarray(value, dtype=float), (shapes,)))


def _weights(part: Part) -> Floats:
    """Return how often each path runs a part: the whole, and each stage."""
    return np.array([float(part.whole), *(float(n) for n in part.stages)])


def _one_rate_each(base: Npu, today: Specification) -> tuple[Npu, Npu, Npu]:
    """Return the base with only 16-bit arithmetic taking time, only 8-bit, or reloads.

    The last has so little on-chip memory that arithmetic takes none of the time.
    """
    npu = hypothetical(base, today)
    own = npu.on_chip_memory
    crowded = replace(npu, on_chip_memory=None if own is None else own * CROWDED)

    def without(narrow: bool) -> Npu:
        rates: dict[Dtype, float] = {
            engine: np.inf if is_narrow(engine) is narrow else rate
            for engine, rate in npu.flop_per_s.items()
        }
        return replace(npu, flop_per_s=rates)

    return without(narrow=True), without(narrow=False), crowded


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
        each = [_padded(lines[:, :, None], most) for lines in found]
        return cls(np.concatenate(each, axis=2), np.stack(weights, axis=1))


def _like(one: Floats, other: Floats) -> bool:
    return one.shape == other.shape and bool(
        np.allclose(one, other, rtol=1e-12, atol=0)
    )


def _alike(columns: Floats) -> tuple[Indices, Floats]:
    """Return the first of columns that are equal, and which column is which of them.

    The latter is 1 where it is; shaped [column, first].
    """
    known: dict[bytes, int] = {}
    to = [known.setdefault(c.tobytes(), len(known)) for c in columns.T]
    first = np.array([to.index(number) for number in range(len(known))], dtype=np.int64)
    return first, np.eye(len(known))[to]


def _padded(lines: Floats, most: int) -> Floats:
    """Return as many algorithms as others have, the last one repeated."""
    missing = most - lines.shape[3]
    return np.concatenate([lines, *[lines[:, :, :, -1:]] * missing], axis=3)


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
                tier(
                    inner, today.scale_up_latency, today.scale_up_bandwidth, timed == 0
                ),
                npus=each,
            ),
            tier(outer, today.scale_out_latency, today.scale_out_bandwidth, timed == 1),
        )
    )
