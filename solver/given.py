"""Sizing from a candidates table: its rows counted by the same model as ours."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from model_ops.errors import SolverError
from problems.given.offers import UNPRICED, Market, market_of
from problems.given.plan import GivenPlan, planned, violations
from problems.given.problem import GivenProblem
from problems.given.rows import Row, read_rows
from problems.offers import Offer
from problems.problem import SizingProblem
from problems.requirements import Requirement, requirements
from problems.traffic import LatencyTarget
from solver.binding import Binding
from solver.certificate import Certificate, decided
from solver.counted import Counted
from solver.explain import Explanation, limit_floor
from solver.floors import Floor
from solver.instance import Instance
from solver.margins import Margins, margins_of_space
from solver.model import OutOfTimeError, SolveOptions, is_possible
from solver.prune import lower_bound
from solver.relaxing import Worth, in_time, is_limit, without
from solver.scaling import SLACK
from solver.solve import objective_value, proved_by
from solver.ways_out import clash_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedRow(Counted):
    """Replicas of a row on an offer."""

    row: Row


@dataclass(frozen=True, slots=True)
class GivenOutcome:
    """What was proved of a question to a candidates table.

    Parameters
    ----------
    status
        ``"optimal"``, ``"feasible"``, ``"infeasible"`` or ``"timed_out"``.
    plan
        In the first two cases.
    certificate
        What stands behind it.
    """

    status: str
    plan: GivenPlan | None
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Single:
    """The best plan of one kind: one row, or one NPU type.

    Parameters
    ----------
    of, kind
        The row's or the NPU's name, and which of the two: ``"row"`` or ``"npu"``.
    plan
        The plan.
    value, distance
        Its objective, and how much worse than the chosen plan's, relatively.
    """

    of: str
    kind: str
    plan: GivenPlan
    value: float
    distance: float


@dataclass(frozen=True)
class GivenWorkspace:
    """A candidates table and what its rows may stand on, solved many times.

    Parameters
    ----------
    problem, table
        The question, and the file that the verifier reads again.
    rows, market
        The rows that the problem admits, and their offers.
    """

    problem: GivenProblem
    table: Path
    rows: tuple[Row, ...]
    market: Market

    @classmethod
    def of(
        cls, problem: GivenProblem, rows: Sequence[Row], table: Path
    ) -> "GivenWorkspace":
        """Return the workspace of a problem over rows.

        Raises
        ------
        ProblemError
            If money is asked about and a row has no price, or no row can be had.
        """
        return cls(problem, table, tuple(rows), market_of(problem, rows))

    @cached_property
    def _again(self) -> tuple[Row, ...]:
        """The file read once more, for the verifier."""
        return read_rows(self.table)

    @property
    def has_prices(self) -> bool:
        """Whether every row has a price."""
        return all(offer.provider != UNPRICED for offer in self.market.offers)

    def instance(self, problem: SizingProblem) -> Instance:
        """Return the rows within a problem's targets, without dominated ones.

        One is dominated if another on the same offer takes as much on no more NPUs.
        """
        offers = self.market.offers
        within = [row for row in self.rows if _is_within(problem, row)]
        on_offer: dict[int, list[Row]] = {}
        for row in within:
            for number in self.market.standing[row.name]:
                on_offer.setdefault(number, []).append(row)
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
            for number, here in on_offer.items()
            for row in _undominated(here)
        )
        demand = (problem.traffic[0].demand(problem.headroom),)
        return Instance(counted, offers, demand, problem.limits, problem.objective)

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
        start = time.perf_counter()
        found = Certificate(points=len(self.rows), candidates=len(full.candidates))
        if not full.candidates:
            return GivenOutcome("infeasible", None, found)
        instance, choice = decided(full, options)
        seconds = {"solve": time.perf_counter() - start}
        certificate = found.of(full, instance, choice, seconds)
        if choice.status in ("infeasible", "timed_out"):
            return GivenOutcome(choice.status, None, certificate)
        plan = planned(list(_chosen(instance, choice.replicas)))
        broken = violations(problem, self._again, plan)
        if broken:
            raise SolverError(
                "the plan does not pass verification; please report this: "
                + "; ".join(str(violation) for violation in broken)
            )
        value = objective_value(problem, plan)
        return GivenOutcome(choice.status, plan, proved_by(certificate, choice, value))

    # As a space of plans (`solver.relaxing.Space`)

    def has_plan(
        self, problem: SizingProblem, options: SolveOptions, *, sure: bool = False
    ) -> bool:
        """Return whether a problem over these rows has any plan, surely."""
        instance = self.instance(problem)
        if not instance.candidates:
            return False
        return not instance.limited or is_possible(instance, options)

    def cheapest(self, problem: SizingProblem, options: SolveOptions) -> Worth | None:
        """Return what the cheapest plan costs; without prices, that of fewest NPUs."""
        objective = "cost" if self.has_prices else "npus"
        asked = problem.model_copy(update={"objective": objective})
        plan = self.solve(options, asked).plan
        return None if plan is None else _worth(asked, plan)

    def best(self, problem: SizingProblem, options: SolveOptions) -> Worth | None:
        """Return what the best plan is worth; see `solver.relaxing.Space`."""
        return self.best_in(problem, self.instance(problem), options)

    def best_in(
        self, problem: SizingProblem, full: Instance, options: SolveOptions
    ) -> Worth | None:
        """Return the same where the choice is a given instance."""
        outcome = self.solve_instance(problem, full, options)
        if outcome.status == "infeasible":
            return None
        if outcome.plan is None or outcome.status != "optimal":
            raise OutOfTimeError
        return _worth(problem, outcome.plan)


def _worth(problem: SizingProblem, plan: GivenPlan) -> Worth:
    value = objective_value(problem, plan)
    return Worth(plan.usd_per_hour_if_known, plan.total_npus, value, plan.hardware)


def _is_within(problem: SizingProblem, row: Row) -> bool:
    return all(_meets(row, target) for target in problem.traffic[0].targets)


def _meets(row: Row, target: LatencyTarget) -> bool:
    return row.latencies[target.metric] <= target.at_most * (1 + SLACK)


def _undominated(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that take more than all smaller ones, the fastest of ties."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.npus, -r.rate, r.tpot, r.ttft, r.line)):
        if not kept or row.rate > kept[-1].rate:
            kept.append(row)
    return kept


def _chosen(
    instance: Instance, counts: Sequence[int]
) -> Iterable[tuple[Row, Offer, int]]:
    for counted, many in zip(instance.candidates, counts, strict=True):
        if many:
            assert isinstance(counted, CountedRow)
            yield counted.row, instance.offers[counted.offer], many


# What stands beside a plan


def singles(
    workspace: GivenWorkspace, plan: GivenPlan, options: SolveOptions
) -> list[Single]:
    """Return the best plan of one row and of each NPU type, but the plan itself.

    What was not proved in time is left out.
    """
    options = options.started()
    full = workspace.instance(workspace.problem)
    mixed = len({row.name for row in plan.rows}) > 1
    found = [_best_row(workspace, plan, options)] if mixed else []
    types = sorted({full.offers[c.offer].npu.name for c in full.candidates})
    used = {row.npu for row in plan.rows}
    for npu in types:
        if used != {npu}:
            kept = [c for c in full.candidates if full.offers[c.offer].npu.name == npu]
            part = replace(full, candidates=tuple(kept))
            found.append(_single(workspace, plan, (npu, "npu"), part, options))
    return [single for single in found if single is not None]


def _best_row(
    workspace: GivenWorkspace,
    plan: GivenPlan,
    options: SolveOptions,
) -> Single | None:
    """Return the best plan of one row, on any offers, in order of lower bounds."""
    alone = (replace(workspace, rows=(row,)) for row in workspace.rows)
    parts = [one.instance(workspace.problem) for one in alone]
    best: Single | None = None
    for part in sorted((p for p in parts if p.candidates), key=lower_bound):
        if not options.remaining or (best and lower_bound(part) >= best.value):
            break
        name = (str(part.candidates[0].kind), "row")
        single = _single(workspace, plan, name, part, options)
        if single and (best is None or single.value < best.value):
            best = single
    return best


def _single(
    workspace: GivenWorkspace,
    plan: GivenPlan,
    name: tuple[str, str],
    part: Instance,
    options: SolveOptions,
) -> Single | None:
    problem = workspace.problem
    outcome = workspace.solve_instance(problem, part, options)
    if outcome.plan is None or outcome.status != "optimal":
        return None
    value = objective_value(problem, outcome.plan)
    distance = value / objective_value(problem, plan) - 1
    return Single(*name, outcome.plan, value, distance)


def binding_limits(
    workspace: GivenWorkspace, plan: GivenPlan, options: SolveOptions
) -> list[Binding]:
    """Return the requirements that keep a proved plan from being better."""
    options = options.started()
    problem = workspace.problem
    value = objective_value(problem, plan)
    found = []
    for requirement in requirements(problem):
        free = requirement.moved(problem, None)
        worth = in_time(partial(workspace.best, free, options))
        if worth is not None and worth.value < value * (1 - 1e-9):
            share = 1 - worth.value / value
            reason = f"without it the plan would be {share:.1%} better"
            found.append(Binding(requirement.label, "plan", reason))
    return found


def given_margins(
    workspace: GivenWorkspace, plan: GivenPlan, options: SolveOptions
) -> Margins:
    """Return how near other plans are to a proved one."""
    options = options.started()
    problem = workspace.problem
    full = workspace.instance(problem)
    best = partial(workspace.best_in, problem, options=options)
    return margins_of_space(workspace, plan, full, best, options)


# Why there is none


def explain_given(workspace: GivenWorkspace, options: SolveOptions) -> Explanation:
    """Return why no rows of a table solve a problem."""
    options = options.started()
    every = requirements(workspace.problem)
    bare = without(workspace.problem, every)
    clash, ways_out = clash_of(workspace, every, options)
    parts = (in_time(partial(_floor, workspace, bare, r, options)) for r in every)
    return Explanation(
        conflicts=tuple(r.label for r in clash),
        floors=tuple(floor for floor in parts if floor is not None),
        relaxations=ways_out.relaxations,
        joint=ways_out.joint,
        complete=options.remaining > 0,
    )


def _floor(
    workspace: GivenWorkspace,
    bare: SizingProblem,
    requirement: Requirement,
    options: SolveOptions,
) -> Floor:
    """Return the least of a target in the table, or of a limit by itself."""
    if is_limit(requirement) or requirement.target is None:
        return limit_floor(workspace, bare, requirement, options)
    _, target = requirement.target
    row = min(workspace.rows, key=lambda r: r.latencies[target.metric])
    within = sum(_meets(r, target) for r in workspace.rows)
    least = row.latencies[target.metric]
    reason = f"row {row.name} (line {row.line}): {row.text}"
    if within:
        reason += f"; {within:,} of {len(workspace.rows):,} rows are within"
    return Floor(
        requirement=requirement.label,
        wanted=requirement.text(target.at_most),
        least=requirement.text(least),
        possible=within > 0,
        reason=reason,
    )
