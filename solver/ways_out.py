"""What clashes in a problem without a plan, and what would help: one thing, or two."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from problems.problem import SizingProblem
from problems.requirements import Requirement
from solver.options import SolveOptions
from solver.relaxing import (
    DOUBLINGS,
    WITH_FEW_SETTINGS,
    Relaxation,
    Space,
    few_halvings,
    halved,
    in_time,
    is_limit,
    less_traffic,
    minimal_conflict,
    relaxation,
    sayable,
    without,
)

_MUCH_LESS = 0.5
"""Share of what one requirement would have to give that makes two worth telling."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Several requirements moved by the same factor, as little as makes a plan.

    Parameters
    ----------
    requirements, wanted, to
        What moves, from where, to where.
    factor
        By how much each is multiplied, before rounding up to a number to say.
    usd_per_hour, npus
        What the cheapest plan then costs (None without prices) and uses.
    """

    requirements: tuple[str, ...]
    wanted: tuple[str, ...]
    to: tuple[str, ...]
    factor: float
    usd_per_hour: float | None
    npus: int


@dataclass(frozen=True, slots=True)
class WaysOut:
    """Relaxations that each make a plan possible, cheapest first, and a joint one."""

    relaxations: tuple[Relaxation, ...] = ()
    joint: Joint | None = None


def clash_of(
    space: Space, every: Sequence[Requirement], options: SolveOptions
) -> tuple[list[Requirement], WaysOut]:
    """Return what clashes in a problem without a plan, and what would help.

    As much of it as the time allows; a conflict may then not be minimal.
    """
    conflict = in_time(lambda: minimal_conflict(space, every, options))
    found = [in_time(partial(relaxation, space, r, options)) for r in every]
    alone = [each for each in found if each is not None]
    traffic = in_time(lambda: less_traffic(space, options))
    told = [told for told, _ in alone] + ([traffic] if traffic else [])
    factors = [factor for _, factor in alone]
    joint = in_time(lambda: joint_relaxation(space, every, factors, options))
    ordered = tuple(sorted(told, key=lambda r: (r.usd_per_hour or 0.0, r.npus)))
    clash = list(every) if conflict is None else conflict
    return clash, WaysOut(ordered, joint)


# Two requirements


def joint_relaxation(
    space: Space,
    every: Sequence[Requirement],
    alone: Sequence[float],
    options: SolveOptions,
) -> Joint | None:
    """Return the least common factor of two requirements that makes a plan possible.

    Told where no requirement suffices alone, or each alone would have to give at least
    twice as much; where no two suffice, all are moved together.

    Parameters
    ----------
    every
        The problem's requirements.
    alone
        Factors by which single ones must move, of those that suffice.
    """
    scalable = [r for r in every if r.value > 0 and not r.indivisible]
    best: tuple[float, Sequence[Requirement]] | None = None
    most = 1 + _MUCH_LESS * (min(alone) - 1) if alone else math.inf
    for pair in combinations(scalable, 2):
        ceiling = min(most, best[0]) if best else most
        factor = _least_factor(space, pair, ceiling, options)
        if factor is not None:
            best = (factor, pair)
    if best is None and not alone and len(scalable) > 2:
        factor = _least_factor(space, scalable, math.inf, options)
        best = None if factor is None else (factor, scalable)
    return None if best is None else _joint(space, *best, options)


def _least_factor(
    space: Space,
    members: Sequence[Requirement],
    ceiling: float,
    options: SolveOptions,
) -> float | None:
    """Return the least factor below a ceiling that makes a plan; None if none does."""
    slow = any(not is_limit(member) for member in members)

    def enough(factor: float, *, sure: bool = not slow) -> bool:
        moved = _moved(space.problem, members, factor)
        return space.has_plan(moved, options, sure=sure)

    if not space.has_plan(without(space.problem, members), options, sure=True):
        return None
    low, high = 1.0, ceiling
    if math.isinf(ceiling):
        high = next((f for f in _doubled() if enough(f)), math.inf)
        low = max(1.0, high / 2)
    if math.isinf(high) or not enough(high, sure=True):
        return None
    high = halved(enough, low, high, whole=False)
    if not slow:
        return high
    least = max(1.0, WITH_FEW_SETTINGS * high)
    return few_halvings(lambda factor: enough(factor, sure=True), least, high)


def _doubled() -> Iterator[float]:
    return (2.0**power for power in range(1, DOUBLINGS))


def _moved(
    problem: SizingProblem, members: Sequence[Requirement], factor: float
) -> SizingProblem:
    for member in members:
        problem = member.moved(problem, member.value * factor)
    return problem


def _joint(
    space: Space, factor: float, members: Sequence[Requirement], options: SolveOptions
) -> Joint | None:
    problem = space.problem
    to = []
    for member in members:
        # A count that a factor leaves below its next whole number is not moved.
        value = member.value * factor
        to.append(math.floor(value) if member.unit is None else sayable(member, value))
        problem = member.moved(problem, to[-1])
    worth = space.cheapest(problem, options)
    if worth is None:
        return None
    pairs = list(zip(members, to, strict=True))
    return Joint(
        requirements=tuple(member.label for member in members),
        wanted=tuple(member.text(member.value) for member in members),
        to=tuple(member.text(value) for member, value in pairs),
        factor=factor,
        usd_per_hour=worth.usd_per_hour,
        npus=worth.npus,
    )
