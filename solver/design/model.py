"""The design problem as CP-SAT constraints, over the boxes and shapes that are left."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from ortools.sat.python import cp_model

from model_ops.errors import SolverError
from solver.design.bounds import Pruned
from solver.design.evaluate import Choice
from solver.design.forms import Forms
from solver.design.platform import Platform
from solver.design.price import USD_PER, add_limits, price_of
from solver.design.space import Space
from solver.design.user import UseCase
from solver.scaling import LARGEST_LOSS, ceiling, floor

Indices = npt.NDArray[np.int64]

DISTANCE_PER = 1e9
"""Integers per one of a distance."""

_ANY_NPUS = 1 << 24
"""NPUs that are never needed."""


class DesignModel:
    """Variables and constraints of a pruned design problem.

    Parameters
    ----------
    space, forms, left
        The problem, its shapes, and the boxes and shapes that may hold the optimum.

    Attributes
    ----------
    total, per
        The objective, and its integers per USD/h, or per one of a distance.
    loss
        Relative loss of times and prices by rounding.
    """

    def __init__(self, space: Space, forms: Sequence[Forms], left: Pruned) -> None:
        self.space, self.left = space, left
        self.model = cp_model.CpModel()
        self.platform = Platform(self.model, space, left.boxes)
        add_limits(self.platform)
        users = range(len(space.problem.use_case))
        self.users = [
            UseCase(self.platform, forms, user, self._most_npus) for user in users
        ]
        most = min(self._most_npus, sum(user.limit for user in self.users))
        self.npus = self.model.new_int_var(len(users), most, "npus")
        self.model.add(
            self.npus == cp_model.LinearExpr.sum([user.npus for user in self.users])
        )
        self.loss = self.platform.loss
        self.per = USD_PER if space.is_cost else DISTANCE_PER
        self.total = self._cost(most) if space.is_cost else self._distance()
        self.model.minimize(self.total)

    @cached_property
    def _most_npus(self) -> int:
        """NPUs of all use cases that a platform worth having needs at most."""
        limits = [_ANY_NPUS]
        if self.space.problem.limits.npus is not None:
            limits.append(self.space.problem.limits.npus)
        if self.left.best is not None and self.space.is_cost:
            cheapest = float(np.min(self.space.npu_usd(self.left.boxes.low)))
            limits.append(ceiling(self.left.best.value / cheapest * 1.001) + 1)
        return min(limits)

    def _cost(self, most: int) -> cp_model.IntVar:
        """Return NPUs times the price of one, with what bounds it."""
        price, left = price_of(self.platform), self.left
        self.loss = max(self.loss, price.loss)
        low = floor(float(np.min(left.boxes.bound)) * self.per)
        high = most * price.high
        if left.best is not None:
            high = min(high, ceiling(left.best.value * self.per * (1 + LARGEST_LOSS)))
        if high > 1 << 60:
            raise SolverError("the design problem's costs are too many times apart")
        total = self.model.new_int_var(min(low, high), high, "usd")
        self.model.add_multiplication_equality(total, [self.npus, price.usd])
        bounds = list(zip(self.platform.in_box, left.boxes.bound, strict=False))
        for user in self.users:
            bounds += zip(user.shapes, user.bounds, strict=True)
        for literal, bound in bounds:
            least = floor(float(bound) * self.per)
            self.model.add(total >= least).only_enforce_if(literal)
        return total

    def _distance(self) -> cp_model.LinearExpr:
        """Return the sum of the figures' distances, no more than what is known."""
        total = self.platform.total(self.space.distances, self.per)
        if self.left.best is not None:
            most = ceiling(self.left.best.value * self.per) + len(self.space.sizes)
            self.model.add(total <= most)
        return total

    def hint(self, choice: Choice) -> None:
        """Hint at a known platform and its shapes."""
        for k, at in enumerate(self.platform.at):
            for n, literal in at.items():
                self.model.add_hint(literal, int(n == choice.levels[k]))
        for user, key, replicas in zip(
            self.users, choice.shapes, choice.replicas, strict=True
        ):
            for other, literal in zip(user.keys, user.shapes, strict=True):
                self.model.add_hint(literal, int(other == key))
            self.model.add_hint(user.replicas, replicas)

    def read(
        self, solver: cp_model.CpSolver
    ) -> tuple[Indices, tuple[tuple[int, int], ...]]:
        """Return the levels and shapes of a solution."""
        levels = [
            next(n for n, literal in at.items() if solver.boolean_value(literal))
            for at in self.platform.at
        ]
        shapes = tuple(
            next(
                key
                for key, literal in zip(user.keys, user.shapes, strict=True)
                if solver.boolean_value(literal)
            )
            for user in self.users
        )
        return np.array(levels), shapes
