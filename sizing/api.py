"""The public function: a problem in, an answer out."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import Served, served
from solver.alternatives import RunnerUp, limit_bindings, runners_up
from solver.binding import Binding, batch_bindings
from solver.corrections import NO_CORRECTIONS, Corrections
from solver.explain import Explanation, explain
from solver.instance import Instance
from solver.margins import Margins, margins
from solver.model import SolveOptions
from solver.prune import pruned
from solver.solve import (
    Feasible,
    Infeasible,
    Optimal,
    SolveOutcome,
    TimedOut,
    Workspace,
)

_LEAST_TO_EXPLAIN = 5.0
"""Seconds that margins may take, if the sizing itself took less."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome with everything a report says of it.

    Parameters
    ----------
    problem, outcome
        The question, and what the solver proved.
    served
        Per traffic class, each deployment at its share of the demand.
    bindings, runners_up
        What keeps the plan from being better, and the best plans of one NPU type.
    margins
        How near other plans are to a proved one.
    explanation
        Why there is no plan, if there is none.
    seconds
        Wall time by phase.
    """

    problem: SizingProblem
    outcome: SolveOutcome
    served: dict[str, list[Served]] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    runners_up: tuple[RunnerUp, ...] = ()
    margins: Margins | None = None
    explanation: Explanation | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """``optimal``, ``feasible``, ``infeasible`` or ``timed_out``."""
        return self.outcome.status


def size(
    problem: SizingProblem,
    options: SolveOptions | None = None,
    corrections: Corrections = NO_CORRECTIONS,
    export: Callable[[Instance], None] | None = None,
    *,
    deep: bool = False,
) -> Answer:
    """Return the cheapest plan for a problem, proved and explained.

    Parameters
    ----------
    problem
        From `problems.problem.problem_of`, or built in Python.
    options
        Time limit, threads and seed of the search.
    corrections
        Shares of the predicted rates that a simulation has confirmed.
    export
        Told what the solver chooses from, before it does.
    deep
        Whether to find out what each requirement costs and where cheaper plans win,
        for as long again as the time limit at most.

    Raises
    ------
    GenzSizeError
        If the problem names what does not exist, or contradicts itself.
    """
    options = options or SolveOptions()
    start = time.perf_counter()
    problem = problem.checked()
    workspace = Workspace.of(problem, corrections)
    if export is not None:
        export(pruned(workspace.instance(problem)))
    outcome = workspace.solve(options)
    solved = time.perf_counter()
    seconds = dict(outcome.certificate.seconds)
    if isinstance(outcome, Infeasible):
        explanation = explain(workspace, options)
        answer = Answer(problem, outcome, explanation=explanation, seconds=seconds)
    elif isinstance(outcome, TimedOut):
        answer = Answer(problem, outcome, seconds=seconds)
    else:
        within = options.time_limit
        if not deep:
            within = min(max(solved - start, _LEAST_TO_EXPLAIN), within)
        shared = replace(options, time_limit=within)
        answer = _planned(workspace, outcome, options, shared, deep=deep)
        answer.seconds.update(seconds)
    end = time.perf_counter()
    answer.seconds["explain"] = end - solved
    answer.seconds["total"] = end - start
    return answer


def _planned(
    workspace: Workspace,
    outcome: Optimal[Plan] | Feasible[Plan],
    options: SolveOptions,
    shared: SolveOptions,
    *,
    deep: bool,
) -> Answer:
    """Return an answer with a plan; margins take the time of `shared` at most."""
    problem, plan = workspace.problem, outcome.plan
    answer = Answer(
        problem,
        outcome,
        served={t.name: served(problem, plan.at(None), t) for t in problem.traffic},
        bindings=tuple(batch_bindings(workspace, plan)),
    )
    if not isinstance(outcome, Optimal):
        # Beside an unproved plan another might win: nothing is said of those.
        return answer
    limits = limit_bindings(workspace, plan, options)
    runners = runners_up(workspace, plan, options)
    near = [runner.npu for runner in runners]
    # Margins are asked of the formulas, which rates that were corrected contradict.
    told = not workspace.corrections
    return replace(
        answer,
        bindings=(*answer.bindings, *limits),
        runners_up=tuple(runners),
        margins=margins(workspace, plan, near, shared, deep=deep) if told else None,
    )
