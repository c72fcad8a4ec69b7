"""From a problem to a typed outcome; every plan in it has passed the verifier."""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from model_ops.errors import ProblemError
from problems.offers import Offer, offers
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.verify import violations
from solver.candidates import Candidate
from solver.certificate import Certificate as Certificate
from solver.corrections import NO_CORRECTIONS, Corrections
from solver.instance import Instance
from solver.model import SolveOptions
from solver.outcome import Feasible as Feasible
from solver.outcome import Infeasible as Infeasible
from solver.outcome import Optimal as Optimal
from solver.outcome import Outcome, best_of, found_of, has_any, outcome_of
from solver.outcome import TimedOut as TimedOut
from solver.outcome import objective_value as objective_value
from solver.pairs import Pairs
from solver.planning import plan_of
from solver.relaxing import Worth
from solver.selection import select
from solver.table import Table
from solver.tabulation import options_of

_DEFAULT_OPTIONS = SolveOptions()

SolveOutcome: TypeAlias = Outcome[Plan]


@dataclass(frozen=True)
class Workspace:
    """A problem's offers and tables, evaluated once and solved many times.

    Tables do not depend on targets or limits, so a changed problem over the same
    hardware, traffic and prices reuses them.
    """

    problem: SizingProblem
    offers: tuple[Offer, ...]
    tables: tuple[Table, ...]
    pairs: Pairs
    seconds: float
    corrections: Corrections = field(default_factory=dict)
    _selected: dict[str, list[Candidate]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, problem: SizingProblem, corrections: Corrections = NO_CORRECTIONS
    ) -> "Workspace":
        """Evaluate every deployment point of a problem; see `select` for corrections.

        Raises
        ------
        GenzSizeError
            If the problem names no usable hardware or price.
        """
        start = time.perf_counter()
        available = offers(problem)
        every = options_of(problem, available)
        if not every:
            every_format = {
                f for model in problem.models for f in problem.formats(model)
            }
            formats = ", ".join(sorted(precision.name for precision in every_format))
            raise ProblemError(f"precisions: no NPU here computes {formats}")
        tables = tuple(options.table for options in every)
        pairs = Pairs.of(every if "disaggregated" in problem.modes else (), corrections)
        elapsed = time.perf_counter() - start
        return cls(problem, tuple(available), tables, pairs, elapsed, corrections)

    def instance(
        self, problem: SizingProblem, *, exact: bool = True, npu: str | None = None
    ) -> Instance:
        """Return the choice that a problem over these tables leaves the solver.

        Parameters
        ----------
        problem
            One over the same hardware, traffic and prices.
        exact
            See `select`; otherwise pairs are left out, where anything else is allowed.
        npu
            The only NPU type to use; None: all.
        """
        together = "aggregated" in problem.modes
        found = self._candidates(problem) if exact else self._select(problem, False)
        powered = problem.objective == "power" or problem.limits.power is not None
        usable = {
            number
            for number, offer in enumerate(self.offers)
            if npu in (None, offer.npu.name)
            and not (powered and offer.npu.power is None)
        }
        # Few replicas may be left, and each must keep its targets: no pools.
        safe = problem.redundancy.domains > 0
        instance = Instance(
            tuple(
                c
                for c in found
                if together and c.offer in usable and not (safe and c.least > 1)
            ),
            self.offers,
            tuple(t.demand(problem.headroom) for t in problem.traffic),
            problem.limits,
            problem.objective,
            redundancy=problem.redundancy,
            current=problem.current,
        )
        if exact or not together:
            return self.pairs.beside(instance, problem, usable, npu)
        return instance

    def _candidates(self, problem: SizingProblem) -> list[Candidate]:
        """Return the exact candidates; problems often differ in their limits alone."""
        asked = problem.model_dump_json(
            include={"traffic", "headroom", "redundancy", "current"}
        )
        limits = problem.limits
        tied = (limits.changed_npus is not None, limits.deployment_types is not None)
        asked += f" {tied} {limits.racks}"
        if asked not in self._selected:
            self._selected[asked] = self._select(problem, True)
        return self._selected[asked]

    def _select(self, problem: SizingProblem, exact: bool) -> list[Candidate]:
        return select(
            self.tables,
            self.offers,
            problem,
            exact=exact,
            corrections=self.corrections,
        )

    def solve(
        self,
        options: SolveOptions = _DEFAULT_OPTIONS,
        problem: SizingProblem | None = None,
    ) -> SolveOutcome:
        """Return the outcome of the problem, or of one with other targets or limits.

        Raises
        ------
        SolverError
            If the plan does not pass the verifier, which is a fault of ours.
        """
        problem = problem or self.problem
        return self.solve_instance(problem, self.instance(problem), options)

    def solve_instance(
        self, problem: SizingProblem, full: Instance, options: SolveOptions
    ) -> SolveOutcome:
        """Return the outcome of a problem whose choice is a given instance."""
        found = Certificate(
            points=sum(table.options for table in self.tables),
            candidates=len(full.candidates),
            seconds={"candidates": self.seconds},
        )
        made = partial(plan_of, problem)
        return outcome_of(
            problem, full, options, found, made, partial(violations, problem)
        )

    def has_plan(
        self,
        problem: SizingProblem,
        options: SolveOptions = _DEFAULT_OPTIONS,
        *,
        sure: bool = False,
    ) -> bool:
        """Return whether a problem over these tables has any plan.

        Judged quickly, from few settings of the scheduler; where that finds none and
        the answer must be `sure`, from all of them.

        Raises
        ------
        OutOfTimeError
            If neither is known when the time is up.
        """
        return any(
            has_any(self.instance(problem, exact=exact), options)
            for exact in ((False, True) if sure else (False,))
        )

    def cheapest(self, problem: SizingProblem, options: SolveOptions) -> Worth | None:
        """Return what the cheapest plan of a problem costs; None if none is found."""
        asked = problem.model_copy(update={"objective": "cost"})
        return found_of(asked, self.solve(options, asked))

    def best(self, problem: SizingProblem, options: SolveOptions) -> Worth | None:
        """Return what the best plan is worth; see `solver.relaxing.Space`."""
        return best_of(problem, self.solve(options, problem))
