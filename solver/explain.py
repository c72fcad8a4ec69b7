"""Why there is no plan, and what the least is that must be given up."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from model_ops.units import USD_PER_HOUR
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.requirements import Requirement, requirements
from problems.serve import served
from problems.stations import Station
from problems.traffic import LatencyTarget
from solver.floors import MEMORY, Floor, hardly_loaded, latency_floor, memory_floor
from solver.model import OutOfTimeError, SolveOptions
from solver.solve import Feasible, Optimal, Workspace

_DOUBLINGS = 40
_HALVINGS = 10
_TOLERANCE = 1e-3
"""Relative width at which the search for a least value ends."""

_WITH_FEW_SETTINGS, _TIGHTENINGS = 0.75, 4
"""What all settings bring a latency to at least, of what few do; and halvings from
there: to within two per cent."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One requirement moved as little as makes a plan possible.

    Parameters
    ----------
    requirement, wanted, to
        What moves, from where, to where.
    usd_per_hour, npus
        What the cheapest plan then costs and uses.
    """

    requirement: str
    wanted: str
    to: str
    usd_per_hour: float
    npus: int


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
    remedies
        Of the targets in the conflict that hardware meets but the limits do not.
    complete
        Whether the time sufficed; else the conflict may not be minimal, and floors
        and relaxations may be missing.
    """

    conflicts: tuple[str, ...]
    floors: tuple[Floor, ...]
    relaxations: tuple[Relaxation, ...]
    remedies: tuple[Remedy, ...] = ()
    complete: bool = True


_Part = TypeVar("_Part")


def explain(workspace: Workspace, options: SolveOptions) -> Explanation:
    """Return why a problem whose outcome is infeasible has no plan.

    Takes as long again as the options' time limit at most, and then tells what it
    has found.
    """
    options = options.started()
    problem = workspace.problem
    every = requirements(problem)
    bare = _without(problem, every)
    fits = _in_time(lambda: workspace.has_plan(bare, options, sure=True))
    if fits is False:
        return Explanation((MEMORY,), (memory_floor(workspace),), ())
    conflict = _in_time(lambda: minimal_conflict(workspace, every, options))
    floors, relaxed = [], []
    for requirement in every:
        floors.append(_in_time(partial(_floor, workspace, bare, requirement, options)))
    for requirement in every:
        relaxed.append(_in_time(partial(_relaxation, workspace, requirement, options)))
    relaxed.append(_in_time(partial(_less_traffic, workspace, options)))
    told = [r for r in relaxed if isinstance(r, Relaxation)]
    clash = every if conflict is None else conflict
    return Explanation(
        conflicts=tuple(r.label for r in clash),
        floors=tuple(floor for floor in floors if floor is not None),
        relaxations=tuple(sorted(told, key=lambda r: r.usd_per_hour)),
        remedies=tuple(_remedies(workspace, clash, options)),
        complete=options.remaining > 0,
    )


def _remedies(
    workspace: Workspace, clash: Sequence[Requirement], options: SolveOptions
) -> Iterator[Remedy]:
    """Yield what would meet the targets that clash with limits, were there none."""
    limits = [r for r in requirements(workspace.problem) if _is_limit(r)]
    if not any(_is_limit(r) for r in clash):
        return
    free = _without(workspace.problem, limits)
    free = free.model_copy(update={"objective": "cost"})
    outcome = workspace.solve(options, free)
    if not isinstance(outcome, Optimal | Feasible):
        return
    for requirement in clash:
        if requirement.target is not None:
            yield _remedy(free, outcome.plan, requirement, *requirement.target)


def _is_limit(requirement: Requirement) -> bool:
    return requirement.target is None and requirement.goodput is None


def _is_latency(requirement: Requirement) -> bool:
    return not _is_limit(requirement)


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
        deployment = each.deployment
        station = Station.of(plan, deployment, traffic)
        alone.append(hardly_loaded(station, target, deployment.rate))
        replicas.append(
            f"{deployment.replicas:,} x {deployment.npu} {deployment.parallelism.text} "
            f"at {float(each.latencies.utilisation):.0%} of saturation"
        )
    return Remedy(
        requirement=requirement.label,
        wanted=requirement.text(target.at_most),
        alone=requirement.text(max(alone)),
        replicas=" and ".join(replicas),
    )


def _in_time(part: Callable[[], _Part]) -> _Part | None:
    """Return a part of the explanation; None if the time was up before."""
    try:
        return part()
    except OutOfTimeError:
        return None


def minimal_conflict(
    workspace: Workspace, every: Sequence[Requirement], options: SolveOptions
) -> list[Requirement]:
    """Return requirements that clash, of which none can be left out.

    Deletion: each is dropped in turn and stays out if the rest still clash.
    """
    kept = list(every)
    for requirement in every:
        rest = [other for other in kept if other is not requirement]
        dropped = [other for other in every if other not in rest]
        fewer = _without(workspace.problem, dropped)
        if not workspace.has_plan(fewer, options, sure=True):
            kept = rest
    return kept


def _without(problem: SizingProblem, dropped: Sequence[Requirement]) -> SizingProblem:
    for requirement in dropped:
        problem = requirement.moved(problem, None)
    return problem


def _relaxation(
    workspace: Workspace, requirement: Requirement, options: SolveOptions
) -> Relaxation | None:
    problem = workspace.problem
    if not workspace.has_plan(requirement.moved(problem, None), options, sure=True):
        return None
    least = _least(workspace, problem, requirement, options)
    if least is None:
        return None
    least = _tightened(workspace, requirement, least, options)
    to = least
    if requirement.unit is USD_PER_HOUR:
        to = math.ceil(least * 100) / 100
    elif requirement.unit is not None:
        to = _rounded_up(least)
    cheapest = requirement.moved(problem, to).model_copy(update={"objective": "cost"})
    outcome = workspace.solve(options, cheapest)
    if not isinstance(outcome, Optimal | Feasible):
        return None
    return Relaxation(
        requirement.label,
        requirement.text(requirement.value),
        requirement.text(to),
        outcome.plan.usd_per_hour,
        outcome.plan.total_npus,
    )


def _less_traffic(workspace: Workspace, options: SolveOptions) -> Relaxation | None:
    """Return the share of the traffic that the limits leave room for."""
    problem = workspace.problem

    def scaled(share: float) -> SizingProblem:
        classes = tuple(traffic.scaled(share) for traffic in problem.traffic)
        return problem.model_copy(update={"traffic": classes})

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        possible = workspace.has_plan(scaled(middle), options)
        low, high = (middle, high) if possible else (low, middle)
    if low == 0.0:
        return None
    cheapest = scaled(low).model_copy(update={"objective": "cost"})
    outcome = workspace.solve(options, cheapest)
    if not isinstance(outcome, Optimal | Feasible):
        return None
    share = math.floor(low * 1000) / 10
    plan = outcome.plan
    return Relaxation(
        "traffic", "100 %", f"{share:.1f} %", plan.usd_per_hour, plan.total_npus
    )


def _least(
    workspace: Workspace,
    problem: SizingProblem,
    requirement: Requirement,
    options: SolveOptions,
) -> float | None:
    """Return the least value of a requirement with a plan, above the one asked for."""

    def enough(value: float) -> bool:
        moved = requirement.moved(problem, value)
        return workspace.has_plan(moved, options, sure=not _is_latency(requirement))

    whole = requirement.unit is None
    low = requirement.value
    for _ in range(_DOUBLINGS):
        high = max(2 * low, 1.0) if whole else 2 * low
        if enough(high):
            return _halved(enough, low, high, whole=whole)
        low = high
    return None


def _tightened(
    workspace: Workspace, requirement: Requirement, least: float, options: SolveOptions
) -> float:
    """Return a least latency once more, with every setting of the scheduler tried."""
    if not _is_latency(requirement):
        return least
    low, high = max(requirement.value, _WITH_FEW_SETTINGS * least), least
    for _ in range(_TIGHTENINGS):
        middle = (low + high) / 2
        moved = requirement.moved(workspace.problem, middle)
        possible = workspace.has_plan(moved, options, sure=True)
        low, high = (low, middle) if possible else (middle, high)
    return high


def _halved(
    enough: Callable[[float], bool], low: float, high: float, *, whole: bool
) -> float:
    while high - low > (1 if whole else _TOLERANCE * high):
        middle = math.floor((low + high) / 2) if whole else (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _rounded_up(value: float) -> float:
    """Round up to two significant digits: a number to say in a meeting."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step * (1 - 1e-9)) * step


def _floor(
    workspace: Workspace,
    bare: SizingProblem,
    requirement: Requirement,
    options: SolveOptions,
) -> Floor:
    """Return a requirement's least value with every other one dropped."""
    if requirement.target is not None:
        return latency_floor(workspace, requirement, *requirement.target)
    wanted = requirement.text(requirement.value)
    alone = requirement.moved(bare, requirement.value)
    if workspace.has_plan(alone, options, sure=True):
        reason = "enough by itself"
        return Floor(requirement.label, wanted, f"<= {wanted}", True, reason)
    least = _least(workspace, bare, requirement, options)
    text = "none found" if least is None else requirement.text(least)
    reason = "to carry the traffic, however slowly"
    return Floor(requirement.label, wanted, text, False, reason)
