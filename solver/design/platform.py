"""The platform as CP-SAT sees it: one literal per level that is left, and integers.

Reciprocal rates are integers q over a figure's least; every coefficient rounds up,
every limit down, so that what holds in integers holds in floats.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from ortools.sat.python import cp_model

from model_ops.errors import SolverError
from solver.design.boxes import Boxes
from solver.design.forms import LINKS, RATES, RELOADS
from solver.design.space import Space
from solver.scaling import ceiling

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

FINEST = 1 << 17
"""A figure's least reciprocal as an integer: rounding loses less than 1e-5 of it."""

MOST_APART = 1 << 26
"""Times that a product of reciprocals may be its least: the square of `FINEST` times as
much is an integer of 60 bits."""

MOST_BOXES = 256
"""Boxes that the model names one by one; more are held by their hull alone."""


class Platform:
    """Levels of each figure.

    Parameters
    ----------
    model
        To add to.
    space, boxes
        The platforms, and the boxes that may hold the optimum.

    Attributes
    ----------
    levels
        Of each figure, that some box has.
    at
        A literal for each of them.
    q
        Integer reciprocals, latencies as they are, by figure; of `RELOADS` those that
        were asked for.
    in_box
        A literal per box; none where there are too many.
    """

    def __init__(self, model: cp_model.CpModel, space: Space, boxes: Boxes) -> None:
        self.model, self.space, self.boxes = model, space, boxes
        self.levels = [self._left(k) for k in range(len(space.sizes))]
        self.at = [
            {int(n): model.new_bool_var(f"{name}={n}") for n in levels}
            for name, levels in zip(space.names, self.levels, strict=True)
        ]
        for literals in self.at:
            model.add_exactly_one(literals.values())
        self.q = {figure: self._reciprocal(figure) for figure in (*RATES, *LINKS)}
        self.in_box = self._boxes()
        self._among: dict[tuple[int, frozenset[int]], cp_model.IntVar] = {}

    def _left(self, position: int) -> Indices:
        """Return the levels of a figure that some box has."""
        starts = np.zeros(int(self.space.sizes[position]) + 1, dtype=np.int64)
        np.add.at(starts, self.boxes.low[:, position], 1)
        np.add.at(starts, self.boxes.high[:, position] + 1, -1)
        return np.flatnonzero(np.cumsum(starts)[:-1] > 0)

    def slowness(self, figure: str) -> Floats:
        """Return a figure's reciprocals over today's at the levels left."""
        levels = self.levels[self.space.position(figure)]
        return self.space.slowness(figure)[levels]

    def least(self, figure: str) -> float:
        """Return the least of them; of `RELOADS`, too."""
        if figure in RELOADS:
            return self.least(RATES[2]) * float(np.min(self._lacking(figure)))
        return float(np.min(self.slowness(figure)))

    def _lacking(self, figure: str) -> Floats:
        """Return how many times a reload's bytes are today's at the levels left."""
        levels = self.levels[self.space.on_chip]
        return np.asarray(self.space.lacking[levels] ** RELOADS[figure])

    def reciprocal(self, figure: str) -> cp_model.IntVar:
        """Return an integer reciprocal by figure, or one of `RELOADS`."""
        if figure not in self.q:
            self.q[figure] = self._reload(figure)
        return self.q[figure]

    def _reload(self, figure: str) -> cp_model.IntVar:
        """Return a product of reciprocals: no less than each level makes of the other.

        Only what is at least enters the model, so that a larger one is never chosen.
        """
        bandwidth, lacking = self.q[RATES[2]], self._lacking(figure)
        if len(lacking) == 1:
            return bandwidth
        times = lacking / np.min(lacking)
        slowness = self.slowness(RATES[2])
        most = float(np.max(slowness)) / self.least(RATES[2]) * float(np.max(times))
        if most > MOST_APART:
            raise SolverError(
                "platform.on_chip_memory: its levels are too many times apart for the "
                "proof"
            )
        found = self.model.new_int_var(FINEST, ceiling(FINEST * most) + 2, figure)
        self.model.add(found >= bandwidth)
        at = self.at[self.space.on_chip].values()
        for each, literal in zip(times, at, strict=True):
            self.model.add(
                FINEST * found >= ceiling(FINEST * float(each)) * bandwidth
            ).only_enforce_if(literal)
        return found

    @property
    def loss(self) -> float:
        """Relative loss by rounding: of a reciprocal, its factor and the product."""
        several = len(self.levels[self.space.on_chip]) > 1
        products = several and bool(self.q.keys() & RELOADS.keys())
        return (3.0 if products else 1.0) / FINEST

    def _reciprocal(self, figure: str) -> cp_model.IntVar:
        slowness, least = self.space.slowness(figure), self.least(figure)
        at = self.at[self.space.position(figure)]
        values = {n: ceiling(FINEST * float(slowness[n]) / least) for n in at}
        found = self.model.new_int_var(
            min(values.values()), max(values.values()), f"q_{figure}"
        )
        chosen = [values[n] * literal for n, literal in at.items()]
        self.model.add(found == cp_model.LinearExpr.sum(chosen))
        return found

    def _boxes(self) -> list[cp_model.IntVar]:
        if self.boxes.count > MOST_BOXES:
            return []
        inside = [self.model.new_bool_var(f"box{b}") for b in range(self.boxes.count)]
        self.model.add_exactly_one(inside)
        low, high = self.boxes.low, self.boxes.high
        for box, literal in enumerate(inside):
            for k in range(len(self.at)):
                self.require(k, range(int(low[box, k]), int(high[box, k]) + 1), literal)
        return inside

    def require(
        self, position: int, levels: Sequence[int], literal: cp_model.IntVar
    ) -> None:
        """Add that a literal asks for one of some levels of a figure."""
        at = self.at[position]
        allowed = [at[n] for n in levels if n in at]
        if len(allowed) < len(at):
            self.model.add_bool_or(allowed).only_enforce_if(literal)

    def among(self, position: int, levels: frozenset[int]) -> list[cp_model.IntVar]:
        """Return what holds where a figure has one of some levels: none if always."""
        at = self.at[position]
        if len(levels) == len(at):
            return []
        if len(levels) == 1:
            return [at[min(levels)]]
        key = (position, levels)
        if key not in self._among:
            found = self.model.new_bool_var(f"among{len(self._among)}")
            for level in levels:
                self.model.add_implication(at[level], found)
            self._among[key] = found
        return [self._among[key]]

    def total(self, tables: Sequence[Floats], per: float) -> cp_model.LinearExpr:
        """Return the sum of tables at the chosen levels, rounded up."""
        return cp_model.LinearExpr.sum(
            [
                ceiling(float(table[n]) * per) * literal
                for table, at in zip(tables, self.at, strict=True)
                for n, literal in at.items()
            ]
        )

    @cached_property
    def stacks(self) -> dict[int, cp_model.IntVar]:
        """A literal per number of memory stacks; levels ask for at least so many."""
        needs = [
            {n: int(table[n]) for n in at}
            for table, at in zip(self.space.stacks, self.at, strict=True)
        ]
        least = max(min(need.values()) for need in needs)
        counts = sorted({least, *(v for n in needs for v in n.values() if v > least)})
        literals = {c: self.model.new_bool_var(f"stacks={c}") for c in counts}
        self.model.add_exactly_one(literals.values())
        for need, at in zip(needs, self.at, strict=True):
            for n, literal in at.items():
                if need[n] > least:
                    enough = [z for c, z in literals.items() if c >= need[n]]
                    self.model.add_bool_or(enough).only_enforce_if(literal)
        return literals

    def area(self, per: float) -> cp_model.LinearExpr:
        """Return the die area in so many parts of a square millimetre, rounded up."""
        cost = self.space.problem.cost_model
        places = [
            ceiling(cost.mm2_per_stack * count * per) * literal
            for count, literal in self.stacks.items()
        ]
        own = self.total(self.space.area, per) + ceiling(cost.die_mm2 * per)
        return own + cp_model.LinearExpr.sum(places)
