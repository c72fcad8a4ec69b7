"""How near other plans are: what requirements cost, and what would change the plan."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from problems.plan import Bought, Plan
from problems.problem import ServingMode, SizingProblem
from solver.instance import Instance
from solver.model import SolveOptions
from solver.outcome import best_of, objective_value
from solver.relaxing import Space, Worth, in_time
from solver.sensitivity import Sensitivity, sensitivities
from solver.solve import Workspace
from solver.switches import (
    Repriced,
    Switch,
    price_switches,
    repriced_offers,
    without,
)
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
class Apart:
    """What the best plan is worth where pools may read and answer apart.

    Parameters
    ----------
    worth, change
        Of the plan, and its objective against that of the plan chosen, relatively.
    """

    worth: Worth
    change: float


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
    apart
        The best plan where prefill and decode may be apart too; only where it was asked
        for, and the problem leaves them together.
    """

    switches: tuple[Switch, ...] = ()
    without: tuple[Without, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    apart: Apart | None = None


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

    dear = bool(full.pairings)
    if not deep:
        prices = () if dear else _prices(problem, plan, full, near, options)
        left = () if dear else tuple(_without(problem, plan, full, best))
        return Margins((*prices, *borne(problem, plan)), left)
    again = _repricing(workspace, full) if dear else None
    # What is asked for first is told first, should the time run out.
    value = objective_value(problem, plan)
    told = tuple(sensitivities(workspace, value, options))
    prices = _prices(problem, plan, full, near, options, again)
    left = tuple(_without(problem, plan, full, best))
    apart = _apart(problem, plan, options)
    less = cheaper(workspace, plan, options)
    return Margins((*prices, *borne(problem, plan), *less), left, told, apart)


def _repricing(workspace: Workspace, full: Instance) -> Repriced:
    """Return the choice by prices where pairs are looked for anew at each."""
    problem = workspace.problem
    free = problem.limits.model_copy(update={"usd_per_hour": None})
    asked = problem.model_copy(update={"limits": free})

    def repriced(npu: str, factor: float) -> Instance:
        offers = repriced_offers(full.offers, npu, factor)
        other = replace(workspace, offers=offers, pairs=workspace.pairs.anew())
        return other.instance(asked)

    return repriced


def _apart(problem: SizingProblem, plan: Plan, options: SolveOptions) -> Apart | None:
    """Return the best plan of both modes, where the problem leaves out pairs."""
    modes: tuple[ServingMode, ...] = ("aggregated", "disaggregated")
    if "disaggregated" in problem.modes:
        return None
    asked = problem.model_copy(update={"modes": modes})
    workspace = Workspace.of(asked)
    if not workspace.pairs.pools:
        return None
    known = in_time(lambda: best_of(asked, workspace.solve(options)))
    if known is None:
        return None
    return Apart(known, known.value / objective_value(problem, plan) - 1)


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
    again: Repriced | None = None,
) -> list[Switch]:
    """Return how far prices may move, where that matters.

    Parameters
    ----------
    again
        The choice by prices, where it is not `full` at others.
    """
    types = {full.offers[candidate.offer].npu.name for candidate in full.candidates}
    if problem.objective != "cost" or len(types) < 2:
        return []
    free = full.limits.model_copy(update={"usd_per_hour": None})
    unlimited = replace(full, limits=free)

    def repriced(npu: str, factor: float) -> Instance:
        offers = repriced_offers(full.offers, npu, factor)
        return replace(unlimited, offers=offers)

    near = near[:_NEAR]
    asked = again or repriced
    return price_switches(asked, full.offers, plan.usd_per_hour, near, options)


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
