"""What stands next to a plan: which limits bind, and the best plans without mixing."""

import math
from dataclasses import dataclass
from functools import partial

from problems.plan import Bought, Plan
from problems.requirements import requirements
from solver.binding import Binding
from solver.instance import Instance
from solver.model import SolveOptions
from solver.relaxing import Space, in_time
from solver.solve import Optimal, Workspace, objective_value


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


def limit_bindings(
    space: Space, plan: Bought, options: SolveOptions, *, targets: bool = False
) -> list[Binding]:
    """Return the limits that keep a proved plan from being better.

    And the latency `targets`, where nothing else tells which of those do.
    """
    options = options.started()
    problem, found = space.problem, []
    value = objective_value(problem, plan)
    for requirement in requirements(problem):
        if not options.remaining:
            break
        if requirement.target is not None and not targets:
            continue
        free = requirement.moved(problem, None)
        worth = in_time(partial(space.best, free, options))
        if worth is not None and worth.value < value * (1 - 1e-9):
            share = 1 - worth.value / value
            reason = f"without it the plan would be {share:.1%} better"
            found.append(Binding(requirement.label, "plan", reason))
    return found


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
    if not value:
        return []  # what is free is not undercut, nor compared with
    used = {deployment.npu for deployment in plan.deployments}
    found: list[RunnerUp] = []
    for bound, npu in sorted(_bounds(workspace, full)):
        if len(found) >= most and bound >= found[most - 1].value:
            break
        if not options.remaining:
            break
        if used == {npu}:
            continue
        alone = workspace.instance(problem, npu=npu)
        outcome = workspace.solve_instance(problem, alone, options)
        if isinstance(outcome, Optimal):
            theirs = objective_value(problem, outcome.plan)
            found.append(RunnerUp(npu, outcome.plan, theirs, theirs / value - 1))
            found.sort(key=lambda runner: runner.value)
    return found[:most]


def _bounds(workspace: Workspace, instance: Instance) -> list[tuple[float, str]]:
    """Return a lower bound of each NPU type's plans, where it can serve all classes."""
    bounds = []
    for npu in {offer.npu.name for offer in instance.offers}:
        pairs = workspace.pairs.least(instance, workspace.problem, npu)
        least = [
            min(
                (
                    candidate.npus * instance.unit_cost(offer) / candidate.capacity
                    for candidate in instance.candidates
                    if (candidate.traffic, candidate.mode) == (traffic, "aggregated")
                    and (offer := instance.offers[candidate.offer]).npu.name == npu
                ),
                default=pair,
            )
            for traffic, pair in enumerate(pairs)
        ]
        each = [min(both) for both in zip(least, pairs, strict=True)]
        bound = sum(c * d for c, d in zip(each, instance.demand, strict=True))
        if math.isfinite(bound):
            bounds.append((bound, npu))
    return bounds
