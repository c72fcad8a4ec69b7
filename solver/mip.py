"""The linear part of a model, solved by the MIP solvers inside OR-Tools' MathOpt.

They bound covering problems far better than CP-SAT does. They compute in floats: what
they prove is lowered by `TOLERANCE` before anybody relies on it.
"""

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solver.linear import LinearModel, Row
from solver.quiet import quiet

TOLERANCE = 1e-6
"""Relative error of a bound that a MIP solver proves in floats."""

SOLVERS = {"SCIP": "GSCIP", "HiGHS": "HIGHS"}
"""MIP solvers by their names in MathOpt, the one that proves most often first."""


@dataclass(frozen=True, slots=True)
class MipResult:
    """What a solver found.

    Parameters
    ----------
    bound
        What no plan undercuts, in the steps of the objective; minus infinity if
        nothing was proved.
    values
        Of every variable, in the best solution; empty if there is none.
    """

    bound: float = -math.inf
    values: tuple[int, ...] = ()


def solved(
    linear: LinearModel,
    name: str,
    seconds: float,
    hint: Sequence[int] = (),
    seed: int = 0,
) -> MipResult:
    """Return what a solver of `SOLVERS` proves and finds in so many seconds.

    Nothing where this OR-Tools lacks the solver, or it fails: others remain.
    """
    try:
        from ortools.math_opt.python import mathopt

        program = _Program(mathopt, linear)
        # HiGHS tells of some of its troubles, though its output is off.
        with quiet():
            result = mathopt.solve(
                program.model,
                getattr(mathopt.SolverType, SOLVERS[name]),
                params=mathopt.SolveParameters(
                    time_limit=datetime.timedelta(seconds=seconds),
                    random_seed=seed,
                    relative_gap_tolerance=TOLERANCE / 10,
                ),
                model_params=mathopt.ModelSolveParameters(
                    solution_hints=program.hints(hint)
                ),
            )
        values: tuple[int, ...] = ()
        if result.has_primal_feasible_solution():
            found = result.variable_values(program.variables)
            values = tuple(round(value) for value in found)
        bound = result.termination.objective_bounds.dual_bound * program.unit
    except Exception:  # its binding raises many kinds where a solver is missing
        return MipResult()
    return MipResult(bound - TOLERANCE * abs(bound), values)


def multipliers(linear: LinearModel) -> list[float]:
    """Return the price of each row in the linear relaxation; see `solved`.

    In steps of the objective per step of the row, 0 for rows that a literal enforces;
    empty if there is none.
    """
    try:
        from ortools.math_opt.python import mathopt

        program = _Program(mathopt, linear)
        for variable in program.model.variables():
            variable.integer = False
        result = mathopt.solve(program.model, mathopt.SolverType.GLOP)
        prices = result.dual_values()
    except Exception:  # as above
        return []
    return [
        0.0 if added is None else prices[added] * program.unit / _largest(row.weights)
        for added, row in zip(program.rows, linear.rows, strict=True)
    ]


def _largest(numbers: Sequence[int]) -> float:
    return float(max((abs(number) for number in numbers), default=1) or 1)


class _Program:
    """A MathOpt model with numbers near 1: rows and objective each over a unit."""

    def __init__(self, mathopt: Any, linear: LinearModel) -> None:
        self._mathopt, self._linear = mathopt, linear
        self.model = mathopt.Model()
        self.variables = [
            self.model.add_integer_variable(lb=domain[0][0], ub=domain[-1][1])
            for domain in linear.domains
        ]
        self.rows = [self._row(row) for row in linear.rows]
        for variable, domain in zip(self.variables, linear.domains, strict=True):
            if len(domain) == 2 and domain[0] == (0, 0):
                some, (least, most) = self.model.add_binary_variable(), domain[1]
                self.model.add_linear_constraint(variable >= least * some)
                self.model.add_linear_constraint(variable <= most * some)
        self.unit = _largest(linear.costs)
        costs = zip(linear.costs, self.variables, strict=True)
        total = mathopt.LinearSum(c / self.unit * v for c, v in costs if c)
        self.model.minimize(total)

    def hints(self, values: Sequence[int]) -> list[Any]:
        """Return what tells a solver of a solution."""
        if not values:
            return []
        known = dict(zip(self.variables, values, strict=True))
        return [self._mathopt.SolutionHint(variable_values=known)]

    def _row(self, row: Row) -> Any:
        """Add a row; return it if it always holds."""
        unit = _largest(row.weights)
        terms = zip(row.weights, row.variables, strict=True)
        total = self._mathopt.LinearSum(c / unit * self.variables[i] for c, i in terms)
        low = -math.inf if row.low is None else row.low / unit
        high = math.inf if row.high is None else row.high / unit
        if row.literal is None:
            return self.model.add_linear_constraint(lb=low, ub=high, expr=total)
        index = row.literal if row.literal >= 0 else -1 - row.literal
        free = self.variables[index]
        free = 1 - free if row.literal >= 0 else free
        least, most = (end / unit for end in self._linear.range(row))
        if row.low is not None and least < low:
            self.model.add_linear_constraint(total >= low - (low - least) * free)
        if row.high is not None and most > high:
            self.model.add_linear_constraint(total <= high + (most - high) * free)
        return None
