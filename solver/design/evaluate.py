"""What shapes need on platforms, and the best of them nearby."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model_ops.opcost import Number
from solver.design.forms import Forms
from solver.design.space import Space

Floats = npt.NDArray[np.float64]


Indices = npt.NDArray[np.int64]


_HAIR = 1e-9
"""Relative tolerance of a target: what the verifier forgives, too."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A platform and a shape for each use case.

    Parameters
    ----------
    levels
        Of each figure.
    shapes
        Group of forms, and shape in it, per use case.
    replicas
        Per use case.
    value
        The objective.
    """

    levels: Indices
    shapes: tuple[tuple[int, int], ...]
    replicas: tuple[int, ...]
    value: float


@dataclass
class Evaluator:
    """What shapes do on platforms; see `Forms`."""

    space: Space
    forms: Sequence[Forms]
    evaluated: int = field(default=0)

    def npus(
        self,
        group: int,
        levels: Indices,
        which: Indices,
        without: tuple[str, ...] = (),
    ) -> Floats:
        """Return the NPUs that pairs of platform and shape need; infinite if none do.

        Parameters
        ----------
        group
            Of forms.
        levels
            Of each pair's platform; shaped [pair, figure].
        which
            Each pair's shape.
        without
            Requirements that are dropped: ``ttft``, ``tpot``, ``memory``, ``npus``.
        """
        forms, space = self.forms[group], self.space
        self.evaluated += len(which)
        if not len(which):
            return np.zeros(0)
        use_case = space.problem.use_case[forms.use_case]
        domain = levels[:, space.domain]
        ttft, tpot = forms.latencies(
            space.rates(levels), space.links(levels), domain, which
        )
        npus = forms.npus[which] * replicas(space, forms, tpot, which)
        limits: dict[str, tuple[Floats, Number]] = {
            "ttft": (ttft, use_case.targets["ttft"]),
            # The prompt's step gives the only token of an answer of one.
            "tpot": (tpot * (use_case.output_tokens > 1), use_case.targets["tpot"]),
            "memory": (
                forms.memory[which],
                space.capacities[levels[:, space.capacity]],
            ),
            "npus": (npus, use_case.max_npus or np.inf),
        }
        possible = forms.tp[which] <= space.domains[domain]
        for name, (value, limit) in limits.items():
            if name not in without:
                possible &= value <= limit * (1 + _HAIR)
        return np.where(possible, npus, np.inf)


def replicas(space: Space, forms: Forms, tpot: Floats, which: Indices) -> Floats:
    """Return the replicas that take a use case's rate at a TPOT."""
    use_case = space.problem.use_case[forms.use_case]
    steps = float(use_case.shape.held_steps)
    return np.maximum(
        np.ceil(use_case.rate * steps * tpot / forms.batch[which] * (1 - _HAIR)), 1.0
    )


def cheapest_shapes(
    evaluator: Evaluator, levels: Indices, alive: Sequence[Indices] | None = None
) -> Choice | None:
    """Return the fewest NPUs on one platform; None where a use case cannot run.

    Parameters
    ----------
    evaluator, levels
        The problem, and the platform.
    alive
        Shapes to try, per group of forms; all if None.
    """
    space = evaluator.space
    if not space.possible(levels[None])[0]:
        return None
    best = dict.fromkeys(range(len(space.problem.use_case)), (np.inf, -1, -1))
    for group, forms in enumerate(evaluator.forms):
        which = np.arange(forms.shapes) if alive is None else alive[group]
        if not len(which):
            continue
        npus = evaluator.npus(group, np.tile(levels, (len(which), 1)), which)
        at = int(np.argmin(npus))
        one = (float(npus[at]), group, int(which[at]))
        best[forms.use_case] = min(best[forms.use_case], one)
    if not all(np.isfinite(npus) for npus, _, _ in best.values()):
        return None
    return choice_of(evaluator, levels, tuple((g, s) for _, g, s in best.values()))


def choice_of(
    evaluator: Evaluator, levels: Indices, shapes: tuple[tuple[int, int], ...]
) -> Choice | None:
    """Return a platform with given shapes; None where they miss a target or limit."""
    space = evaluator.space
    if not space.possible(levels[None])[0]:
        return None
    npus = [evaluator.npus(g, levels[None], np.array([s]))[0] for g, s in shapes]
    total = float(np.sum(npus))
    if not np.isfinite(total) or total > (space.problem.limits.npus or np.inf):
        return None
    each = tuple(
        round(float(n / evaluator.forms[g].npus[s]))
        for n, (g, s) in zip(npus, shapes, strict=True)
    )
    value = space.distance(levels[None])[0]
    if space.is_cost:
        value = total * space.npu_usd(levels[None])[0]
    return Choice(levels.copy(), shapes, each, float(value))


def descended(evaluator: Evaluator, start: Choice) -> Choice:
    """Return what single steps along one figure make of a platform, shapes kept."""
    space, best = evaluator.space, start
    moves = [
        (k, level)
        for k, size in enumerate(space.sizes)
        for level in range(size)
        if size > 1
    ]
    if not moves:
        return best
    axis, level = (np.array(column) for column in zip(*moves, strict=True))
    most = space.problem.limits.npus or np.inf
    while True:
        levels = np.tile(best.levels, (len(moves), 1))
        levels[np.arange(len(moves)), axis] = level
        levels = space.lifted(levels)
        total = np.zeros(len(moves))
        for group, shape in best.shapes:
            total += evaluator.npus(group, levels, np.full(len(moves), shape))
        value = space.distance(levels)
        if space.is_cost:
            with np.errstate(invalid="ignore"):
                value = total * space.npu_usd(levels)
        possible = np.isfinite(total) & (total <= most) & space.possible(levels)
        value = np.where(possible, value, np.inf)
        at = int(np.argmin(value))
        if not value[at] < best.value * (1 - 1e-12):
            return best
        found = choice_of(evaluator, levels[at], best.shapes)
        assert found is not None
        best = found
