"""A bound that takes a fleet apart into its traffic classes.

Rows that several classes share (stock, hosts, budget) are given up at a price: by
Lagrangian duality, for any prices y of such rows ``low <= a x <= high``,

    ``sum_r (y_r low_r, or y_r high_r where y_r < 0) + sum_classes min (c - y a) x``

is no more than any plan costs (A. M. Geoffrion, "Lagrangean relaxation for integer
programming", Mathematical Programming Study 2, 1974). Each class is then a problem of a
few dozen integers, which CP-SAT proves in milliseconds. Prices are those of the linear
relaxation, so the bound is never below that of the relaxation by more than rounding;
everything after them is computed in integers, and holds exactly.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

from solver.linear import LinearModel, Row

_FRACTION = 24
"""Binary places of the prices."""

_EFFORT = 0.5
"""Deterministic seconds for one class; what is proved until then counts."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the classes, each by itself, prove and choose.

    Parameters
    ----------
    bound
        What no plan undercuts, in steps of the objective.
    values
        Of all variables; they need not keep the rows that the classes share.
    """

    bound: int
    values: tuple[int, ...]


def decomposed(
    linear: LinearModel,
    owner: Sequence[int | None],
    prices: Sequence[float],
    seconds: float,
) -> Parts | None:
    """Return the bound and choice of the classes by themselves.

    Parameters
    ----------
    linear
        The model.
    owner
        The class that a variable counts replicas of, None for others.
    prices
        Of each row, in steps of the objective per step of the row.
    seconds
        Time after which it gives up, and returns None.
    """
    deadline = time.monotonic() + seconds
    shared = [_is_shared(row, owner) for row in linear.rows]
    one = 1 << _FRACTION
    costs = [cost * one for cost in linear.costs]
    constant = 0
    for row, price, given_up in zip(linear.rows, prices, shared, strict=True):
        end = row.low if price > 0 else row.high
        if given_up and price and end is not None:
            exact = round(price * one)
            constant += exact * end
            for variable, weight in zip(row.variables, row.weights, strict=True):
                costs[variable] -= exact * weight
    costs = [cost >> _FRACTION for cost in costs]
    bound, values = constant >> _FRACTION, [0] * len(costs)
    kept = [row for row, gone in zip(linear.rows, shared, strict=True) if not gone]
    for members, rows in _blocks(len(costs), kept):
        if time.monotonic() > deadline:
            return None
        least, found = _solved(linear, costs, members, rows)
        bound += least
        for member, value in zip(members, found, strict=True):
            values[member] = value
    return Parts(bound, tuple(values))


def _is_shared(row: Row, owner: Sequence[int | None]) -> bool:
    """Return whether a row always holds, and speaks of more than one class."""
    if row.literal is not None:
        return False
    return len({owner[variable] for variable in row.variables} - {None}) > 1


def _blocks(variables: int, rows: Sequence[Row]) -> list[tuple[list[int], list[Row]]]:
    """Return the variables that rows tie together, with those rows."""
    parent = list(range(variables))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for row in rows:
        first, *others = row.touched
        for other in others:
            parent[root(other)] = root(first)
    members: dict[int, list[int]] = {}
    for index in range(variables):
        members.setdefault(root(index), []).append(index)
    tied: dict[int, list[Row]] = {}
    for row in rows:
        tied.setdefault(root(row.variables[0]), []).append(row)
    return [(each, tied.get(at, [])) for at, each in members.items()]


def _solved(
    linear: LinearModel, costs: Sequence[int], members: list[int], rows: list[Row]
) -> tuple[int, list[int]]:
    """Return the least cost of a block, or a bound of it, and a choice."""
    cheapest = [_cheapest(linear.domains[index], costs[index]) for index in members]
    pairs = zip(members, cheapest, strict=True)
    least = sum(costs[index] * value for index, value in pairs)
    if not rows:
        return least, cheapest
    model, variables = _block_model(linear, costs, members, rows)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.linearization_level = 2
    solver.parameters.max_deterministic_time = _EFFORT
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return least, cheapest
    bound = math.floor(solver.best_objective_bound + 1e-6)
    return bound, [solver.value(variable) for variable in variables]


def _block_model(
    linear: LinearModel, costs: Sequence[int], members: list[int], rows: list[Row]
) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    model = cp_model.CpModel()
    place = {index: at for at, index in enumerate(members)}
    variables = [
        model.new_int_var_from_domain(
            cp_model.Domain.from_intervals(linear.domains[index]), ""
        )
        for index in members
    ]
    for row in rows:
        total = cp_model.LinearExpr.weighted_sum(
            [variables[place[index]] for index in row.variables], row.weights
        )
        low = cp_model.INT_MIN if row.low is None else row.low
        high = cp_model.INT_MAX if row.high is None else row.high
        added = model.add_linear_constraint(total, low, high)
        if row.literal is not None:
            index = row.literal if row.literal >= 0 else -1 - row.literal
            literal = variables[place[index]]
            added.only_enforce_if(literal if row.literal >= 0 else literal.negated())
    weights = [costs[index] for index in members]
    model.minimize(cp_model.LinearExpr.weighted_sum(variables, weights))
    return model, variables


def _cheapest(domain: Sequence[tuple[int, int]], cost: int) -> int:
    return domain[0][0] if cost >= 0 else domain[-1][1]
