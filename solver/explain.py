"""Why there is no plan, and what the least is that must be given up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from problems.plan import Plan
from problems.problem import SizingProblem
from problems.requirements import Requirement, requirements
from problems.serve import served
from problems.traffic import LatencyTarget
from solver.floors import (
    MEMORY,
    STOCK,
    Floor,
    hardly_loaded,
    latency_floor,
    memory_floor,
)
from solver.model import SolveOptions
from solver.outcome import serves_all
from solver.relaxing import (
    Relaxation,
    Space,
    in_time,
    is_limit,
    least_value,
    less_traffic,
    minimal_conflict,
    tightest,
    without,
)
from solver.solve import Feasible, Optimal, Workspace
from solver.ways_out import Joint, clash_of


@dataclass(frozen=True, slots=True)
class Remedy:
    """How a target that fails only through load would be met without the limits.

    Parameters
    ----------
    requirement, wanted
        The target.
    alone
        What a request sees where next to nobody waits, on these replicas.
    replicas
        The cheapest that meet it, and how near saturation each then is.
    """

    requirement: str
    wanted: str
    alone: str
    replicas: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a problem has no plan.

    Parameters
    ----------
    conflicts
        Requirements that cannot hold together; without any one of them the
        others of the set can.
    floors
        The least of each requirement by itself.
    relaxations
        Single requirements whose relaxation alone suffices, cheapest first.
    joint
        Requirements that suffice together, each moved by the same factor, where no
        single one does or where that asks for much less; None if there are none.
    remedies
        Of the targets in the conflict that hardware meets but the limits do not.
    complete
        Whether the time sufficed; else the conflict may not be minimal, and floors
        and relaxations may be missing.
    """

    conflicts: tuple[str, ...]
    floors: tuple[Floor, ...]
    relaxations: tuple[Relaxation, ...]
    joint: Joint | None = None
    remedies: tuple[Remedy, ...] = ()
    complete: bool = True


def explain(workspace: Workspace, options: SolveOptions) -> Explanation:
    """Return why a problem whose outcome is infeasible has no plan.

    Takes as long again as the options' time limit at most, and then tells what it
    has found.
    """
    options = options.started()
    problem = workspace.problem
    every = requirements(problem)
    bare = without(problem, every)
    nothing = nothing_helps(workspace, bare, options)
    if nothing == MEMORY:
        return Explanation((MEMORY,), (memory_floor(workspace),), ())
    if nothing == STOCK:
        return exhausted(workspace, options)
    clash, ways_out = clash_of(workspace, every, options)
    parts = (
        in_time(partial(_floor, workspace, bare, requirement, options))
        for requirement in every
    )
    return Explanation(
        conflicts=tuple(r.label for r in clash),
        floors=tuple(floor for floor in parts if floor is not None),
        relaxations=ways_out.relaxations,
        joint=ways_out.joint,
        remedies=tuple(_remedies(workspace, clash, options)),
        complete=options.remaining > 0,
    )


def nothing_helps(
    space: Space, bare: SizingProblem, options: SolveOptions
) -> str | None:
    """Return what is missing where even without requirements there is no plan.

    None where there is one, or the time is up.
    """
    if in_time(lambda: space.has_plan(bare, options, sure=True)) is not False:
        return None
    return STOCK if serves_all(space.instance(bare)) else MEMORY


def exhausted(space: Space, options: SolveOptions) -> Explanation:
    """Return why there is no plan where all that there is was used up."""
    traffic = in_time(lambda: less_traffic(space, options))
    told = () if traffic is None else (traffic,)
    return Explanation((STOCK,), (), told, complete=options.remaining > 0)


def conflict(space: Space, options: SolveOptions) -> tuple[str, ...]:
    """Return what cannot hold together of a problem without a plan, and no more.

    All requirements, where the time was up before it was known.
    """
    options = options.started()
    every = requirements(space.problem)
    nothing = nothing_helps(space, without(space.problem, every), options)
    if nothing is not None:
        return (nothing,)
    found = in_time(lambda: minimal_conflict(space, every, options))
    return tuple(r.label for r in (every if found is None else found))


def _remedies(
    workspace: Workspace, clash: Sequence[Requirement], options: SolveOptions
) -> Iterator[Remedy]:
    """Yield what would meet the targets that clash with limits, were there none."""
    limits = [r for r in requirements(workspace.problem) if is_limit(r)]
    if not any(is_limit(r) for r in clash):
        return
    free = without(workspace.problem, limits)
    free = free.model_copy(update={"objective": "cost"})
    outcome = workspace.solve(options, free)
    if not isinstance(outcome, Optimal | Feasible):
        return
    for requirement in clash:
        if requirement.target is not None:
            yield _remedy(free, outcome.plan, requirement, *requirement.target)


def _remedy(
    problem: SizingProblem,
    plan: Plan,
    requirement: Requirement,
    number: int,
    target: LatencyTarget,
) -> Remedy:
    traffic = problem.traffic[number]
    alone, replicas = [], []
    for each in served(problem, plan, traffic):
        station, rate = each.station(plan, traffic), float(each.estimate.rate)
        alone.append(hardly_loaded(station, target, rate / each.utilisation))
        replicas.append(
            f"{each.text} at {float(each.latencies.utilisation):.0%} of saturation"
        )
    return Remedy(
        requirement=requirement.label,
        wanted=requirement.text(target.at_most),
        alone=requirement.text(max(alone)),
        replicas=" and ".join(replicas),
    )


def _floor(
    workspace: Workspace,
    bare: SizingProblem,
    requirement: Requirement,
    options: SolveOptions,
) -> Floor:
    """Return a requirement's least value with every other one dropped."""
    modes = workspace.problem.modes
    if requirement.target is None:
        return limit_floor(workspace, bare, requirement, options)
    every = requirements(workspace.problem)
    others = [other for other in every if other.label != requirement.label]
    alone = without(workspace.problem, others)
    if "aggregated" not in modes:
        return limit_floor(workspace, alone, requirement, options)
    floor = latency_floor(workspace, requirement, *requirement.target)
    if floor.possible or "disaggregated" not in modes:
        return floor
    # That is the least of replicas that read and answer; a pair may do with less.
    by_pairs = limit_floor(workspace, alone, requirement, options)
    return by_pairs if by_pairs.possible else floor


def limit_floor(
    space: Space,
    bare: SizingProblem,
    requirement: Requirement,
    options: SolveOptions,
) -> Floor:
    """Return the least value of what bounds no single latency, alone.

    `bare` is the problem without any other requirement.
    """
    wanted = requirement.text(requirement.value)
    alone = requirement.moved(bare, requirement.value)
    if space.has_plan(alone, options, sure=True):
        reason = "enough by itself"
        return Floor(requirement.label, wanted, f"<= {wanted}", True, reason)
    least = least_value(space, bare, requirement, options)
    if least is not None and is_limit(requirement):
        least = tightest(space, bare, requirement, least, options, digits=3)
    text = "none found" if least is None else requirement.text(least)
    reason = "to carry the traffic, however slowly"
    return Floor(requirement.label, wanted, text, False, reason)
