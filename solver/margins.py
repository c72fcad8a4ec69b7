"""How near other plans are: what requirements cost, and what would change the plan."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from problems.plan import Bought, Plan
from problems.problem import SizingProblem
from solver.instance import Instance
from solver.model import SolveOptions
from solver.outcome import best_of, objective_value
from solver.relaxing import Space, Worth, in_time
from solver.sensitivity import Sensitivity, sensitivities
from solver.solve import Workspace
from solver.switches import Switch, price_switches, without
from solver.tolerance import borne, cheaper

_NEAR = 3
"""NPU types beside the plan's whose prices are looked at."""


@dataclass(frozen=True, slots=True)
class Without:
    """The best plan where an NPU type of the plan cannot be had.

    Parameters
    ----------
    npu, owned
        The type, and whether some of it is there already.
    worth
        What the plan is worth; None where there is none.
    change
        Its objective against that of the plan chosen, relatively; None without a plan.
    """

    npu: str
    worth: Worth | None
    change: float | None
    owned: bool = False


@dataclass(frozen=True, slots=True)
class Margins:
    """How near other plans are; what was not known in time is missing.

    Parameters
    ----------
    switches
        How far things must move before another plan wins.
    without
        The best plan without each NPU type of the plan.
    sensitivities
        What each requirement costs; only where it was asked for, if it is dear.
    """

    switches: tuple[Switch, ...] = ()
    without: tuple[Without, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()


def margins(
    workspace: Workspace,
    plan: Plan,
    near: Sequence[str],
    options: SolveOptions,
    *,
    deep: bool,
) -> Margins:
    """Return how near other plans are to a proved one.

    Parameters
    ----------
    near
        NPU types whose plans come next, best first.
    deep
        Whether to size again for what is cheaper or asked differently, which takes
        many times as long as the sizing.
    """
    options = options.started()
    problem = workspace.problem
    if not objective_value(problem, plan):
        # What is free is not undercut, nor compared with.
        return Margins(tuple(borne(problem, plan)))
    full = workspace.instance(problem)

    def best(npu: str) -> Worth | None:
        if not full.pairings:
            part = without(full, npu)
            return best_of(problem, workspace.solve_instance(problem, part, options))
        # Of pairs only those were kept that may be of use where all types are there.
        other = _excluding(problem, npu)
        return best_of(problem, Workspace.of(other).solve(options))

    switches = [*_prices(problem, plan, full, near, options), *borne(problem, plan)]
    dear = bool(full.pairings)
    left = () if dear and not deep else tuple(_without(problem, plan, full, best))
    told: tuple[Sensitivity, ...] = ()
    if deep:
        value = objective_value(problem, plan)
        told = tuple(sensitivities(workspace, value, options))
        switches += cheaper(workspace, plan, options)
    return Margins(tuple(switches), left, told)


def margins_of_space(
    space: Space,
    plan: Bought,
    full: Instance,
    best: Callable[[Instance], Worth | None],
    options: SolveOptions,
) -> Margins:
    """Return how near other plans are, in a space where asking again is cheap.

    Parameters
    ----------
    full, best
        The whole choice, and what the proved best plan of a part of it is worth.
    """
    options = options.started()
    problem = space.problem
    value = objective_value(problem, plan)
    if not value:
        return Margins()

    def left(npu: str) -> Worth | None:
        return best(without(full, npu))

    near = sorted({offer.npu.name for offer in full.offers})
    return Margins(
        switches=tuple(_prices(problem, plan, full, near, options)),
        without=tuple(_without(problem, plan, full, left)),
        sensitivities=tuple(sensitivities(space, value, options)),
    )


def _prices(
    problem: SizingProblem,
    plan: Bought,
    full: Instance,
    near: Sequence[str],
    options: SolveOptions,
) -> list[Switch]:
    types = {full.offers[candidate.offer].npu.name for candidate in full.candidates}
    # Candidates of pairs are those that may be of use at the prices as they are.
    if problem.objective != "cost" or len(types) < 2 or full.pairings:
        return []
    return price_switches(full, plan.usd_per_hour, near[:_NEAR], options)


def _excluding(problem: SizingProblem, npu: str) -> SizingProblem:
    exclude = (*problem.hardware.exclude, npu)
    hardware = problem.hardware.model_copy(update={"exclude": exclude})
    return problem.model_copy(update={"hardware": hardware})


def _without(
    problem: SizingProblem,
    plan: Bought,
    full: Instance,
    best: Callable[[str], Worth | None],
) -> Iterator[Without]:
    """Yield the best plan without each type of a plan, where there are others."""
    value = objective_value(problem, plan)
    types = {full.offers[candidate.offer].npu.name for candidate in full.candidates}
    used = dict.fromkeys(purchase.npu for purchase in plan.purchases)
    owned = {each.npu for each in problem.owned}
    for npu in used if len(types) > 1 else ():
        known = in_time(partial(_known, best, npu))
        if known is not None:
            (worth,) = known
            change = None if worth is None else worth.value / value - 1
            yield Without(npu, worth, change, npu in owned)


def _known(best: Callable[[str], Worth | None], npu: str) -> tuple[Worth | None]:
    """Return what is known, so that no plan is told from no answer in time."""
    return (best(npu),)
