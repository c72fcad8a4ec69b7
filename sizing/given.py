"""Sizing from a candidates table: a problem and a file in, an answer out."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from problems.given.offers import usable
from problems.given.plan import GivenPlan
from problems.given.problem import GivenProblem, given_problem_of
from problems.given.standing import standing
from problems.given.table import CandidatesTable
from problems.offers import Offer
from problems.problem import SizingProblem
from problems.standing import Standing
from sizing.solved import AnyPlan, Means, Solved, recorded
from solver.alternatives import limit_bindings
from solver.binding import Binding
from solver.explain import Explanation
from solver.given.beside import Single, given_margins, singles
from solver.given.explain import explain_given
from solver.given.workspace import GivenOutcome, GivenWorkspace
from solver.instance import Instance
from solver.margins import Margins
from solver.model import SolveOptions
from solver.outcome import Feasible, Infeasible, Optimal
from solver.prune import pruned


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An outcome over a candidates table with everything a report says of it.

    Parameters
    ----------
    problem, table
        The question, and the table.
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
    table: CandidatesTable
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

    @property
    def plan(self) -> GivenPlan | None:
        """The plan, if there is one."""
        found = self.outcome
        return found.plan if isinstance(found, Optimal | Feasible) else None


def size_given(
    data: Mapping[str, Any],
    path: Path,
    options: SolveOptions | None = None,
    export: Callable[[Instance], None] | None = None,
) -> GivenAnswer:
    """Return the best plan over the rows of a candidates table, proved and explained.

    Parameters
    ----------
    data
        The problem, as parsed from TOML.
    path
        The CSV file; see `problems.given.rows`.
    options
        Time limit, threads and seed of the search.
    export
        Told what the solver chooses from, before it does.

    Raises
    ------
    GenzSizeError
        If the problem or the table is malformed, or a row has no price where money
        is asked about.
    """
    options = options or SolveOptions()
    start = time.perf_counter()
    table = CandidatesTable.read(path)
    problem = given_problem_of(data, table.npus, source="file")
    workspace = GivenWorkspace.of(problem, table)
    if export is not None:
        export(pruned(workspace.instance(problem)))
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
    if isinstance(outcome, Infeasible):
        return GivenAnswer(*answer, explanation=explain_given(workspace, options))
    if not isinstance(outcome, Optimal):
        # Beside an unproved plan another might win: nothing is said of those.
        return GivenAnswer(*answer)
    plan = outcome.plan
    return GivenAnswer(
        *answer,
        bindings=tuple(limit_bindings(workspace, plan, options, targets=True)),
        singles=tuple(singles(workspace, plan, options)),
        margins=given_margins(workspace, plan, options),
    )


@dataclass(frozen=True)
class Tabled:
    """Figures of a candidates table, for many problems; see `sizing.solved.Figures`."""

    table: CandidatesTable

    def offers(self, problem: SizingProblem) -> Sequence[Offer]:
        """Return what rows may stand on."""
        found = self._space(problem).market.offers
        return [offer for offer in found if usable(problem, offer)]

    def solved(self, problem: SizingProblem, options: SolveOptions) -> Solved:
        """Return the answer to a problem, proved and verified."""
        space = self._space(problem)

        def means(plan: GivenPlan) -> tuple[Means]:
            each = {f"{metric}_s": plan.mean(metric) for metric in ("ttft", "tpot")}
            return (Means(traffic=problem.traffic[0].name, e2e_s=None, **each),)

        return recorded(space, space.solve(options), means, options)

    def standing(
        self, plan: AnyPlan, before: SizingProblem, after: SizingProblem
    ) -> Standing[Any]:
        """Return how the plan of one problem stands under another."""
        assert isinstance(plan, GivenPlan)
        return standing(plan, after, self.table.again)

    def anew(self) -> "Tabled":
        """Return the same with nothing but the rows."""
        return Tabled(CandidatesTable(self.table.path, self.table.rows))

    def _space(self, problem: SizingProblem) -> GivenWorkspace:
        # A table is asked of what was stated for it.
        assert isinstance(problem, GivenProblem)
        return GivenWorkspace.of(problem, self.table)
