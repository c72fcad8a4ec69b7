"""One problem's answer, small enough to be kept in a file and set beside others."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from problems.offers import offers
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import served
from problems.traffic import TrafficClass
from sizing.journal import Journal
from solver.explain import conflict
from solver.floors import MEMORY
from solver.model import SolveOptions
from solver.solve import Feasible, Infeasible, Optimal, TimedOut, objective_value
from solver.workspaces import Workspaces

Status = Literal["optimal", "feasible", "infeasible", "timed_out"]

_STATUS: dict[type, Status] = {
    Optimal: "optimal",
    Feasible: "feasible",
    Infeasible: "infeasible",
    TimedOut: "timed_out",
}


class Record(BaseModel):
    """Something that is kept as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Means(Record):
    """What the requests of a class see on average, at the problem's traffic."""

    traffic: str
    ttft_s: Annotated[float, Field(ge=0)]
    tpot_s: Annotated[float, Field(ge=0)] | None
    e2e_s: Annotated[float, Field(ge=0)]


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
    plan: Plan | None = None
    means: tuple[Means, ...] = ()
    conflicts: tuple[str, ...] = ()

    @property
    def clash(self) -> str:
        """Why there is no plan, in a line."""
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
    outcome = workspace.solve(options)
    status = _STATUS[type(outcome)]
    if isinstance(outcome, Infeasible):
        return Solved(status=status, conflicts=conflict(workspace, options))
    if isinstance(outcome, TimedOut):
        return Solved(status=status)
    plan, certificate = outcome.plan, outcome.certificate
    return Solved(
        status=status,
        value=objective_value(problem, plan),
        bound=certificate.bound,
        gap=certificate.gap,
        plan=plan,
        means=tuple(_means(problem, plan.at(None), each) for each in problem.traffic),
    )


@dataclass(frozen=True)
class Answers:
    """Answers to many problems: of some the tables are shared, some are known already.

    Parameters
    ----------
    options
        Of each proof; the time limit holds for every problem by itself.
    journal
        What is known, and where it is kept.
    """

    options: SolveOptions = field(default_factory=SolveOptions)
    journal: Journal = field(default_factory=Journal)
    _spaces: Workspaces = field(default_factory=Workspaces)

    def of(self, problem: SizingProblem) -> Solved:
        """Return the answer to a problem, solved or known.

        Raises
        ------
        GenzSizeError
            If the problem names no usable hardware or price, or what was found cannot
            be kept.
        """
        prices = [(offer.key, offer.usd_per_hour_per_npu) for offer in offers(problem)]
        question = (problem.model_dump(mode="json"), prices)
        known = self.journal.get(*question)
        if known is not None:
            return Solved.model_validate(known)
        found = solved(self._spaces, problem, self.options)
        # What ran out of time is worth another try.
        if found.status != "timed_out":
            self.journal.put(found.model_dump(mode="json"), *question)
        return found


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
