"""What stands next to a plan: what binds it, and the best plans without mixing."""

from dataclasses import dataclass, replace

from problems.plan import Plan, PlannedDeployment
from problems.requirements import requirements
from problems.serve import served
from problems.stations import Station
from solver.floors import load_text
from solver.instance import Instance
from solver.model import SolveOptions
from solver.solve import Optimal, Workspace, objective_value
from solver.table import MOST_LOAD


@dataclass(frozen=True, slots=True)
class Binding:
    """A requirement that keeps a plan from being better.

    Parameters
    ----------
    requirement
        What binds.
    where
        The deployment that it binds, or the whole plan.
    reason
        What would happen beyond it.
    """

    requirement: str
    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The best plan that uses one NPU type only.

    Parameters
    ----------
    npu, plan
        The type and the plan.
    value, distance
        Its objective, and how much worse than the chosen plan's, relatively.
    """

    npu: str
    plan: Plan
    value: float
    distance: float


def batch_bindings(workspace: Workspace, plan: Plan) -> list[Binding]:
    """Return what stops each deployment from taking more."""
    rates = {
        each.deployment: float(each.estimate.rate)
        for traffic in workspace.problem.traffic
        for each in served(workspace.problem, plan, traffic)
    }
    return [
        _batch_binding(workspace, plan, deployment, rates[deployment])
        for deployment in plan.deployments
    ]


def limit_bindings(
    workspace: Workspace, plan: Plan, options: SolveOptions
) -> list[Binding]:
    """Return the limits that keep a proved plan from being better."""
    options = options.started()
    found = []
    problem = workspace.problem
    value = objective_value(problem, plan)
    for requirement in requirements(problem):
        if requirement.target is not None or not options.remaining:
            continue
        free = workspace.solve(options, requirement.moved(problem, None))
        if isinstance(free, Optimal):
            better = objective_value(problem, free.plan)
            if better < value * (1 - 1e-9):
                reason = f"without it the plan would be {1 - better / value:.1%} better"
                found.append(Binding(requirement.label, "plan", reason))
    return found


def _batch_binding(
    workspace: Workspace, plan: Plan, deployment: PlannedDeployment, share: float
) -> Binding:
    """Return what a little more load would break, and what load does to it.

    Parameters
    ----------
    workspace, plan, deployment
        The question, and one deployment of its answer.
    share
        Requests per second that one replica gets of the demand.
    """
    problem = workspace.problem
    traffic = next(t for t in problem.traffic if t.name == deployment.traffic)
    station = Station.of(plan, deployment, traffic)
    where = f"{deployment.npu} {deployment.parallelism.text}"
    full = float(station.latencies(deployment.rate).utilisation)
    for extra in MORE_LOAD:
        more = deployment.rate * (1 + extra)
        over = [
            (station.excess(target, more), target) for target in traffic.sized_targets
        ]
        worst, target = max(over, key=lambda found: found[0], default=(0.0, None))
        if target is None or full > FULL:
            break
        if worst > 0:
            reason = (
                f"at {deployment.rate:.3g} req/s it holds, at {more:.3g} it does not"
            )
            reason += f"; {load_text(station, target, deployment.rate, share)}"
            return Binding(f"{traffic.name} {target.label}", where, reason)
    return Binding("throughput", where, "more requests would not be finished")


MORE_LOAD = (0.01, 0.03, 0.1, 0.3)
"""Shares of load on top at which a binding target no longer holds.

Where more replicas stand behind the router than the rate needs, it holds a little more.
"""

FULL = MOST_LOAD * (1 - 1e-3)
"""Utilisation at which the steps, not the targets, are what binds."""


def runners_up(
    workspace: Workspace, plan: Plan, options: SolveOptions, most: int = 5
) -> list[RunnerUp]:
    """Return the best plans of one NPU type each, best first.

    Types are tried in the order of what they cost per capacity, which no plan of
    theirs undercuts, until no type left can be among the best.
    """
    options = options.started()
    problem = workspace.problem
    full = workspace.instance(problem)
    value = objective_value(problem, plan)
    used = {deployment.npu for deployment in plan.deployments}
    found: list[RunnerUp] = []
    for bound, npu in sorted(_bounds(full)):
        if len(found) >= most and bound >= found[most - 1].value:
            break
        if not options.remaining:
            break
        if used == {npu}:
            continue
        outcome = workspace.solve_instance(problem, _only(full, npu), options)
        if isinstance(outcome, Optimal):
            theirs = objective_value(problem, outcome.plan)
            found.append(RunnerUp(npu, outcome.plan, theirs, theirs / value - 1))
            found.sort(key=lambda runner: runner.value)
    return found[:most]


def _bounds(instance: Instance) -> list[tuple[float, str]]:
    """Return a lower bound of each NPU type's plans, where it can serve all classes."""
    bounds = []
    for npu in {offer.npu.name for offer in instance.offers}:
        least = [
            min(
                (
                    candidate.npus * instance.unit_cost(offer) / candidate.capacity
                    for candidate in instance.candidates
                    if candidate.traffic == traffic
                    and (offer := instance.offers[candidate.offer]).npu.name == npu
                ),
                default=None,
            )
            for traffic in range(len(instance.demand))
        ]
        if None not in least:
            pairs = zip(least, instance.demand, strict=True)
            bounds.append((sum(each * wanted for each, wanted in pairs if each), npu))
    return bounds


def _only(instance: Instance, npu: str) -> Instance:
    kept = tuple(
        candidate
        for candidate in instance.candidates
        if instance.offers[candidate.offer].npu.name == npu
    )
    return replace(instance, candidates=kept)
