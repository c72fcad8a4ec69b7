"""The linear part of a CP-SAT model, as plain integers.

Whatever a constraint adds in linear rows is seen here, so that other solvers bound what
CP-SAT solves without a second copy of any constraint. Anything else is left out: what
remains admits every plan of the whole, and bounds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

INFINITE = 2**62
"""Ends of a row beyond which it has none."""


@dataclass(frozen=True, slots=True)
class Row:
    """``low <= sum weights * variables <= high``, if a literal holds.

    Parameters
    ----------
    variables, weights
        Indices, and their weights; not empty.
    low, high
        None where there is no such end.
    literal
        Index of the variable that enforces it (below 0: ``-1 - index``, negated); None:
        it always holds.
    """

    variables: tuple[int, ...]
    weights: tuple[int, ...]
    low: int | None
    high: int | None
    literal: int | None = None

    @property
    def touched(self) -> tuple[int, ...]:
        """All variables that it speaks of."""
        if self.literal is None:
            return self.variables
        index = self.literal if self.literal >= 0 else -1 - self.literal
        return (*self.variables, index)

    def holds(self, values: Sequence[int]) -> bool:
        """Return whether values of all variables keep it."""
        if self.literal is not None:
            index = self.literal if self.literal >= 0 else -1 - self.literal
            if bool(values[index]) is not (self.literal >= 0):
                return True
        pairs = zip(self.weights, self.variables, strict=True)
        total = sum(weight * values[variable] for weight, variable in pairs)
        return (self.low is None or total >= self.low) and (
            self.high is None or total <= self.high
        )


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Bounded integer variables, rows over them, and what is minimised.

    Parameters
    ----------
    domains
        Of each variable, as intervals in rising order.
    rows
        Every linear constraint.
    costs
        Of each variable.
    """

    domains: tuple[tuple[tuple[int, int], ...], ...]
    rows: tuple[Row, ...]
    costs: tuple[int, ...]

    @classmethod
    def of(cls, model: cp_model.CpModel) -> "LinearModel":
        """Return the linear part of a model that minimises."""
        proto = model.proto
        domains = [list(each.domain) for each in proto.variables]
        costs = [0] * len(domains)
        objective = proto.objective
        for index, cost in zip(objective.vars, objective.coeffs, strict=True):
            costs[index] += cost
        rows = []
        for constraint in proto.constraints:
            linear = constraint.linear
            variables, domain = tuple(linear.vars), list(linear.domain)
            literals = list(constraint.enforcement_literal)
            if not variables or len(literals) > 1:
                continue
            weights = tuple(linear.coeffs)
            if weights == (1,) and not literals:
                domains[variables[0]] = _both(domains[variables[0]], domain)
                continue
            low = None if domain[0] <= -INFINITE else domain[0]
            high = None if domain[-1] >= INFINITE else domain[-1]
            rows.append(Row(variables, weights, low, high, *literals))
        intervals = (tuple(zip(d[::2], d[1::2], strict=True)) for d in domains)
        return cls(tuple(intervals), tuple(rows), tuple(costs))

    def range(self, row: Row) -> tuple[int, int]:
        """Return the least and the most that a row's sum can be."""
        ends = [
            sorted((weight * domain[0][0], weight * domain[-1][1]))
            for weight, variable in zip(row.weights, row.variables, strict=True)
            for domain in [self.domains[variable]]
        ]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    def admits(self, values: Sequence[int]) -> bool:
        """Return whether values of all variables keep every domain and row."""
        inside = all(
            any(low <= value <= high for low, high in domain)
            for value, domain in zip(values, self.domains, strict=True)
        )
        return inside and all(row.holds(values) for row in self.rows)

    def value(self, values: Sequence[int]) -> int:
        """Return what values of the variables cost."""
        return sum(c * v for c, v in zip(self.costs, values, strict=True))


def _both(domain: list[int], other: list[int]) -> list[int]:
    """Return what two flat domains have in common."""
    kept = cp_model.Domain.from_flat_intervals(domain).intersection_with(
        cp_model.Domain.from_flat_intervals(other)
    )
    return list(kept.flattened_intervals())
