"""One problem's answer, small enough to be kept in a file and set beside others."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from problems.given.plan import GivenPlan
from problems.given.table import CandidatesTable
from problems.offers import Offer, offers
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import served
from problems.standing import PlanT, Standing, standing
from problems.traffic import TrafficClass
from sizing.journal import Journal, key_of
from sizing.parallel import in_parallel, processes_for
from solver.explain import conflict
from solver.floors import MEMORY, STOCK
from solver.model import SolveOptions
from solver.outcome import Infeasible, Outcome, Status, TimedOut, objective_value
from solver.relaxing import Space
from solver.workspaces import Workspaces

AnyPlan: TypeAlias = Plan | GivenPlan
"""A plan, whether figures are our model's or a table's."""


class Record(BaseModel):
    """Something that is kept as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Means(Record):
    """What the requests of a class see on average; None is not known."""

    traffic: str
    ttft_s: Annotated[float, Field(ge=0)]
    tpot_s: Annotated[float, Field(ge=0)] | None
    e2e_s: Annotated[float, Field(ge=0)] | None


class Solved(Record):
    """What is known of a problem once it was solved.

    Parameters
    ----------
    status
        ``optimal``, ``feasible``, ``infeasible`` or ``timed_out``.
    value, bound, gap
        Of the objective, in USD/h, NPUs or W; what no plan can undercut; and how far
        the plan may be from it.
    plan, means
        Verified; None and empty where there is no plan.
    conflicts
        What cannot hold together, where nothing can.
    """

    status: Status
    value: float | None = None
    bound: float | None = None
    gap: float | None = None
    plan: AnyPlan | None = None
    means: tuple[Means, ...] = ()
    conflicts: tuple[str, ...] = ()

    @property
    def usd_per_hour(self) -> float | None:
        """What the plan costs; None without a plan, or without prices."""
        return None if self.plan is None else self.plan.usd_per_hour_if_known

    @property
    def clash(self) -> str:
        """Why there is no plan, in a line."""
        if self.conflicts == (STOCK,):
            return "what is owned is too little, and no more is for rent"
        if self.conflicts == (MEMORY,):
            return "the model and its longest requests fit on no replica"
        if len(self.conflicts) == 1:
            return f"nothing meets {self.conflicts[0]}"
        return f"{' and '.join(self.conflicts)} cannot hold together"


def solved(spaces: Workspaces, problem: SizingProblem, options: SolveOptions) -> Solved:
    """Return the answer to a problem, proved and verified.

    Raises
    ------
    GenzSizeError
        If the problem names no usable hardware or price.
    """
    workspace = spaces.of(problem)

    def means(plan: Plan) -> tuple[Means, ...]:
        return tuple(_means(problem, plan.at(None), each) for each in problem.traffic)

    return recorded(workspace, workspace.solve(options), means, options)


def recorded(
    space: Space,
    outcome: Outcome[PlanT],
    means: Callable[[PlanT], tuple[Means, ...]],
    options: SolveOptions,
) -> Solved:
    """Return what is kept of the outcome of a space's problem."""
    status = outcome.status
    if isinstance(outcome, Infeasible):
        return Solved(status=status, conflicts=conflict(space, options))
    if isinstance(outcome, TimedOut):
        return Solved(status=status)
    plan, certificate = outcome.plan, outcome.certificate
    return Solved(
        status=status,
        value=objective_value(space.problem, plan),
        bound=certificate.bound,
        gap=certificate.gap,
        plan=plan,
        means=means(plan),
    )


class Figures(Protocol):
    """Where the figures of replicas come from: our model, or a table."""

    @property
    def table(self) -> CandidatesTable | None:
        """The table, if it is one."""

    def offers(self, problem: SizingProblem) -> Sequence[Offer]:
        """Return what replicas may stand on.

        Raises
        ------
        GenzSizeError
            If the problem names no usable hardware or price.
        """

    def solved(self, problem: SizingProblem, options: SolveOptions) -> Solved:
        """Return the answer to a problem; what is shared with others is kept."""

    def standing(
        self, plan: AnyPlan, before: SizingProblem, after: SizingProblem
    ) -> Standing[Any]:
        """Return how the plan of one problem stands under another."""

    def anew(self) -> "Figures":
        """Return the same without what was kept, for another process."""


@dataclass(frozen=True)
class Modelled:
    """Figures that our model predicts; tables of them are shared."""

    _spaces: Workspaces = field(default_factory=Workspaces)

    @property
    def table(self) -> None:
        """None: no table is read."""

    def offers(self, problem: SizingProblem) -> Sequence[Offer]:
        """Return what replicas may stand on; see `Figures`."""
        return offers(problem)

    def solved(self, problem: SizingProblem, options: SolveOptions) -> Solved:
        """Return the answer to a problem; see `Figures`."""
        return solved(self._spaces, problem, options)

    def standing(
        self, plan: AnyPlan, before: SizingProblem, after: SizingProblem
    ) -> Standing[Any]:
        """Return how the plan of one problem stands under another."""
        assert isinstance(plan, Plan)
        return standing(plan, before, after)

    def anew(self) -> "Modelled":
        """Return the same without tables."""
        return Modelled()


@dataclass(frozen=True)
class Answers:
    """Answers to many problems: of some the tables are shared, some are known already.

    Parameters
    ----------
    options
        Of each proof; the time limit holds for every problem by itself.
    journal
        What is known, and where it is kept.
    jobs
        Processes that may be used for many problems.
    figures
        Where those of replicas come from.
    """

    options: SolveOptions = field(default_factory=SolveOptions)
    journal: Journal = field(default_factory=Journal)
    jobs: int = 1
    figures: Figures = field(default_factory=Modelled)

    def of(self, problem: SizingProblem) -> Solved:
        """Return the answer to a problem, solved or known.

        Raises
        ------
        GenzSizeError
            If the problem names no usable hardware or price, or what was found cannot
            be kept.
        """
        key = self._key(problem)
        return self._known(key) or self._kept(
            key, self.figures.solved(problem, self.options)
        )

    def each(self, problems: Iterable[SizingProblem]) -> Iterator[Solved]:
        """Yield the answers to many problems in turn; see `of`."""
        asked = [(self._key(problem), problem) for problem in problems]
        new = {key: p for key, p in asked if self._known(key) is None}
        jobs = processes_for(len(new), self.jobs)
        if jobs < 2:
            yield from (self.of(problem) for _, problem in asked)
            return
        found: dict[str, Solved] = {}
        with closing(
            in_parallel(new, self.options, jobs, self.figures.anew())
        ) as running:
            for key, _ in asked:
                while key in new and key not in found:
                    at, answer = next(running)
                    found[at] = self._kept(at, answer)
                known = found.get(key) or self._known(key)
                assert known is not None
                yield known

    def _known(self, key: str) -> Solved | None:
        known = self.journal.get(key)
        return None if known is None else Solved.model_validate(known)

    def _kept(self, key: str, found: Solved) -> Solved:
        # What ran out of time is worth another try.
        if found.status != "timed_out":
            self.journal.put(key, found.model_dump(mode="json"))
        return found

    def _key(self, problem: SizingProblem) -> str:
        """Return what an answer hangs on, as it is told from others."""
        available = self.figures.offers(problem)
        prices = [(offer.key, offer.usd_per_hour_per_npu) for offer in available]
        table = self.figures.table
        digests = () if table is None else (table.digest,)
        return key_of(problem.model_dump(mode="json"), prices, *digests)


def _means(problem: SizingProblem, plan: Plan, traffic: TrafficClass) -> Means:
    """Return the means over a class's deployments, weighted by their requests."""
    found = served(problem, plan, traffic)
    rates = [each.stations * float(each.estimate.rate) for each in found]

    def mean(metric: str) -> float:
        each = [float(getattr(one.latencies, metric).mean) for one in found]
        parts = zip(rates, each, strict=True)
        return sum(rate * seconds for rate, seconds in parts) / sum(rates)

    tpot = mean("tpot")
    return Means(
        traffic=traffic.name,
        ttft_s=mean("ttft"),
        tpot_s=tpot if math.isfinite(tpot) else None,
        e2e_s=mean("e2e"),
    )
