"""What stands next to a plan: what binds it, and the best plans without mixing."""

from dataclasses import dataclass, replace

import numpy as np

from model_ops.errors import SolverError
from problems.plan import Plan, PlannedDeployment
from problems.requirements import requirements
from solver.candidates import Table
from solver.instance import Instance
from solver.model import SolveOptions
from solver.solve import Optimal, Workspace, objective_value


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
    """Return what stops each deployment's batch."""
    return [_batch_binding(workspace, deployment) for deployment in plan.deployments]


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


def _batch_binding(workspace: Workspace, deployment: PlannedDeployment) -> Binding:
    table = _table_of(workspace, deployment)
    where = f"{deployment.npu} {deployment.parallelism.text}"
    npu = [n.name for n in table.npus].index(deployment.npu)
    split = table.splits.index(deployment.parallelism)
    batches = table.batches[split]
    larger = int(np.searchsorted(batches, deployment.mean_batch, side="right"))
    if larger == len(batches):
        return Binding("batch cap", where, "the largest batch that is tried")
    at = (npu, split, larger)
    reason = (
        f"at a mean batch of {deployment.mean_batch:.4g} it just holds, "
        f"at {batches[larger]:.4g} it does not"
    )
    for target in table.traffic.targets:
        if not table.latency(target.metric)[at] <= target.at_most:
            return Binding(f"{table.traffic.name} {target.label}", where, reason)
    if table.free_memory[at] < 0:
        return Binding("memory capacity", where, reason)
    return Binding("prompt processing", where, "a larger batch finishes no more")


def _table_of(workspace: Workspace, deployment: PlannedDeployment) -> Table:
    for table in workspace.tables:
        same_class = table.traffic.name == deployment.traffic
        if same_class and table.precision.name == deployment.precision:
            return table
    raise SolverError(f"no table holds the deployment {deployment}")


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
