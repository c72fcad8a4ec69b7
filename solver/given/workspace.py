"""A candidates table as a choice for the solver, and as a space of plans."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, cast

from problems.given.offers import (
    UNPRICED,
    Market,
    check_usable,
    market_of,
    usable,
)
from problems.given.plan import GivenPlan, planned
from problems.given.problem import GivenProblem, admitted_rows
from problems.given.rows import Row
from problems.given.table import CandidatesTable
from problems.given.verify import violations
from problems.problem import SizingProblem
from problems.traffic import LatencyTarget
from problems.violation import Violation
from solver.certificate import Certificate
from solver.counted import Counted
from solver.instance import Instance
from solver.model import Choice, SolveOptions
from solver.outcome import Outcome, best_of, found_of, has_any, outcome_of
from solver.relaxing import Worth
from solver.scaling import SLACK


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedRow(Counted):
    """Replicas of a row on an offer."""

    row: Row


GivenOutcome: TypeAlias = Outcome[GivenPlan]


@dataclass(frozen=True)
class GivenWorkspace:
    """A candidates table and what its rows may stand on, solved many times.

    Parameters
    ----------
    problem, table
        The question, and the table whose file the verifier reads again.
    rows, market
        The rows that the problem admits, and their offers.
    """

    problem: GivenProblem
    table: CandidatesTable
    rows: tuple[Row, ...]
    market: Market

    @classmethod
    def of(cls, problem: GivenProblem, table: CandidatesTable) -> "GivenWorkspace":
        """Return the workspace of a problem over a table.

        Raises
        ------
        ProblemError
            If the problem admits no row, or money is asked about and a row has no
            price, or no row can be had.
        """
        rows = admitted_rows(problem, table.rows)
        market = market_of(problem, rows)
        check_usable(problem, rows, market)
        return cls(problem, table, rows, market)

    @property
    def has_prices(self) -> bool:
        """Whether every row has a price."""
        return all(offer.provider != UNPRICED for offer in self.market.offers)

    def instance(self, problem: SizingProblem) -> Instance:
        """Return the rows within a problem's targets, without dominated ones.

        One is dominated if another on the same offer takes as much on no more NPUs, and
        may stand in for it.
        """
        offers = self.market.offers
        able = {n for n, offer in enumerate(offers) if usable(problem, offer)}
        groups: dict[tuple[int, Hashable], list[Row]] = {}
        for row in self.rows:
            if _is_within(problem, row):
                alike = self._alike(problem, row)
                for number in self.market.standing[row.name]:
                    if number in able:
                        groups.setdefault((number, alike), []).append(row)
        counted = tuple(
            CountedRow(
                traffic=0,
                offer=number,
                npus=row.npus,
                slot=offers[number].slot(row.npus),
                capacity=row.rate,
                kind=row.name,
                row=row,
            )
            for (number, _), here in groups.items()
            for row in _undominated(here)
        )
        return Instance(
            counted,
            offers,
            (problem.traffic[0].demand(problem.headroom),),
            problem.limits,
            problem.objective,
            redundancy=problem.redundancy,
            current=problem.current,
        )

    def _alike(self, problem: SizingProblem, row: Row) -> Hashable:
        """Return what a row shares with those that may stand in for it.

        Where hosts fail, smaller replicas lose more of a host; where NPUs are to stay
        in use, they use too few; and where few rows may be used, it must stand wherever
        the other does.
        """
        limits = problem.limits
        sized = problem.redundancy.domains > 0 or limits.changed_npus is not None
        few = limits.deployment_types is not None
        return (
            row.npus if sized else None,
            self.market.standing[row.name] if few else None,
        )

    def solve(
        self, options: SolveOptions, problem: SizingProblem | None = None
    ) -> GivenOutcome:
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
    ) -> GivenOutcome:
        """Return the outcome of a problem whose choice is a given instance."""
        found = Certificate(points=len(self.rows), candidates=len(full.candidates))
        return outcome_of(
            problem, full, options, found, _planned, partial(self._violations, problem)
        )

    def _violations(self, problem: SizingProblem, plan: GivenPlan) -> list[Violation]:
        return violations(problem, self.table.again, plan)

    # As a space of plans (`solver.relaxing.Space`)

    def has_plan(
        self, problem: SizingProblem, options: SolveOptions, *, sure: bool = False
    ) -> bool:
        """Return whether a problem over these rows has any plan, surely."""
        return has_any(self.instance(problem), options)

    def cheapest(self, problem: SizingProblem, options: SolveOptions) -> Worth | None:
        """Return what the cheapest plan costs; without prices, that of fewest NPUs."""
        objective = "cost" if self.has_prices else "npus"
        asked = problem.model_copy(update={"objective": objective})
        return found_of(asked, self.solve(options, asked))

    def best(self, problem: SizingProblem, options: SolveOptions) -> Worth | None:
        """Return what the best plan is worth; see `solver.relaxing.Space`."""
        return best_of(problem, self.solve(options, problem))


def _is_within(problem: SizingProblem, row: Row) -> bool:
    return all(meets(row, target) for target in problem.traffic[0].targets)


def meets(row: Row, target: LatencyTarget) -> bool:
    """Return whether a row is within a target."""
    return row.latencies[target.metric] <= target.at_most * (1 + SLACK)


def _undominated(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that take more than all smaller ones, the fastest of ties."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.npus, -r.rate, r.tpot, r.ttft, r.line)):
        if not kept or row.rate > kept[-1].rate:
            kept.append(row)
    return kept


def _planned(instance: Instance, choice: Choice) -> GivenPlan:
    """Return the plan that a choice of counts describes."""
    # An instance made from rows counts nothing else.
    rows = cast(tuple[CountedRow, ...], instance.candidates)
    return planned(
        [
            (counted.row, instance.offers[counted.offer], many)
            for counted, many in zip(rows, choice.replicas, strict=True)
            if many
        ]
    )
