"""Sizing from a candidates table: a problem and a file in, an answer out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from problems.given.problem import GivenProblem, given_problem_of
from problems.given.rows import read_rows
from solver.binding import Binding
from solver.explain import Explanation
from solver.given import (
    GivenOutcome,
    GivenWorkspace,
    Single,
    binding_limits,
    explain_given,
    given_margins,
    singles,
)
from solver.margins import Margins
from solver.model import SolveOptions


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An outcome over a candidates table with everything a report says of it.

    Parameters
    ----------
    problem, table
        The question, and the file.
    outcome
        What the solver proved.
    bindings, singles
        What keeps the plan from being better, and the best plans of one kind.
    margins
        How near other plans are to a proved one.
    explanation
        Why there is no plan, if there is none.
    seconds
        Wall time by phase.
    """

    problem: GivenProblem
    table: Path
    outcome: GivenOutcome
    bindings: tuple[Binding, ...] = ()
    singles: tuple[Single, ...] = ()
    margins: Margins | None = None
    explanation: Explanation | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """``optimal``, ``feasible``, ``infeasible`` or ``timed_out``."""
        return self.outcome.status


def size_given(
    data: Mapping[str, Any], table: Path, options: SolveOptions | None = None
) -> GivenAnswer:
    """Return the best plan over the rows of a candidates table, proved and explained.

    Parameters
    ----------
    data
        The problem, as parsed from TOML.
    table
        The CSV file; see `problems.given.rows`.
    options
        Time limit, threads and seed of the search.

    Raises
    ------
    GenzSizeError
        If the problem or the table is malformed, or a row has no price where money
        is asked about.
    """
    options = options or SolveOptions()
    start = time.perf_counter()
    problem, rows = given_problem_of(data, read_rows(table), source="file")
    workspace = GivenWorkspace.of(problem, rows, table)
    read = time.perf_counter()
    outcome = workspace.solve(options)
    solved = time.perf_counter()
    answer = _explained(workspace, outcome, options)
    end = time.perf_counter()
    answer.seconds.update(
        candidates=read - start,
        solve=solved - read,
        explain=end - solved,
        total=end - start,
    )
    return answer


def _explained(
    workspace: GivenWorkspace, outcome: GivenOutcome, options: SolveOptions
) -> GivenAnswer:
    answer = (workspace.problem, workspace.table, outcome)
    plan = outcome.plan
    if outcome.status == "infeasible":
        return GivenAnswer(*answer, explanation=explain_given(workspace, options))
    if plan is None or outcome.status != "optimal":
        # Beside an unproved plan another might win: nothing is said of those.
        return GivenAnswer(*answer)
    return GivenAnswer(
        *answer,
        bindings=tuple(binding_limits(workspace, plan, options)),
        singles=tuple(singles(workspace, plan, options)),
        margins=given_margins(workspace, plan, options),
    )
