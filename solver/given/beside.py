"""What stands beside a plan over a candidates table."""

from dataclasses import dataclass, replace

from problems.given.plan import GivenPlan
from problems.survival import Standing, left_standing
from solver.given.workspace import GivenWorkspace
from solver.instance import Instance
from solver.margins import Margins, margins_of_space
from solver.model import SolveOptions
from solver.outcome import Optimal, best_of, objective_value
from solver.prune import lower_bound
from solver.relaxing import Worth
from solver.sensitivity import TRAFFIC, traffic_text
from solver.switches import Switch
from solver.tolerance import ALL_TIMES


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


def singles(
    workspace: GivenWorkspace, plan: GivenPlan, options: SolveOptions
) -> list[Single]:
    """Return the best plan of one row and of each NPU type, but the plan itself.

    What was not proved in time is left out.
    """
    options = options.started()
    problem = workspace.problem
    if not objective_value(problem, plan):
        return []  # what is free is not undercut, nor compared with
    full = workspace.instance(problem)
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
    problem = workspace.problem
    few = problem.limits.model_copy(update={"deployment_types": 1})
    # What no other row may stand in for by itself.
    able = workspace.instance(problem.model_copy(update={"limits": few})).candidates
    names = {counted.kind for counted in able}
    alone = (replace(workspace, rows=(r,)) for r in workspace.rows if r.name in names)
    parts = [one.instance(problem) for one in alone]
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
    if not isinstance(outcome, Optimal):
        return None
    value = objective_value(problem, outcome.plan)
    distance = value / objective_value(problem, plan) - 1
    return Single(*name, outcome.plan, value, distance)


def given_margins(
    workspace: GivenWorkspace, plan: GivenPlan, options: SolveOptions
) -> Margins:
    """Return how near other plans are to a proved one."""
    options = options.started()
    problem = workspace.problem

    def best(part: Instance) -> Worth | None:
        outcome = workspace.solve_instance(problem, part, options)
        return best_of(problem, outcome)

    full = workspace.instance(problem)
    found = margins_of_space(workspace, plan, full, best, options)
    return replace(found, switches=(*found.switches, *borne(workspace, plan)))


def borne(workspace: GivenWorkspace, plan: GivenPlan) -> tuple[Switch, Switch]:
    """Return how much more traffic, and how much slower rows, a proved plan bears.

    With the headroom and the failures asked for. It stays the best till there, since
    neither makes a plan cheaper. Rows that take so many times as long take so many
    times fewer requests.
    """
    problem = workspace.problem
    traffic = problem.traffic[0]
    offers = {offer.key: offer for offer in workspace.market.offers}
    left = left_standing(
        problem,
        [
            Standing(offers[row.offer], row.npus_per_replica, row.replicas, row.rate)
            for row in plan.rows
        ],
    )
    more = left / traffic.demand(problem.headroom)
    limits = [(more, _FULL)]
    for target in traffic.targets:
        worst = max(row.latencies[target.metric] for row in plan.rows)
        limits.append((target.at_most / worst, f"{target.label} no longer holds"))
    slower, then = min(limits)
    to = traffic_text(problem, more)
    return (
        Switch(TRAFFIC, traffic_text(problem, 1.0), to, more, _FULL),
        Switch(ALL_TIMES, "as the table says", f"x {slower:.4g}", slower, then),
    )


_FULL = "the rows take no more"
