"""What clashes, and the least that must be given up: questions to a space of plans.

A space answers whether a changed problem has a plan, and what its cheapest costs; how
it knows is its own.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Protocol, TypeVar

from model_ops.units import USD_PER_HOUR
from problems.problem import SizingProblem
from problems.requirements import Requirement
from solver.model import OutOfTimeError, SolveOptions

_DOUBLINGS = 40
_HALVINGS = 10
_TOLERANCE = 1e-3
"""Relative width at which the search for a least value ends."""

_WITH_FEW_SETTINGS, _TIGHTENINGS = 0.75, 4
"""What all settings bring a latency to at least, of what few do; and halvings from
there: to within two per cent."""

_MUCH_LESS = 0.5
"""Share of what one requirement would have to give that makes two worth telling."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What a plan costs and uses; no cost without prices.

    Parameters
    ----------
    usd_per_hour, npus
        Dollars, and NPUs paid for.
    value
        Its objective, in USD/h, NPUs or W.
    """

    usd_per_hour: float | None
    npus: int
    value: float


class Space(Protocol):
    """Plans that may be asked for, over the same deployments."""

    @property
    def problem(self) -> SizingProblem:
        """The question that was asked."""

    def has_plan(
        self, problem: SizingProblem, options: SolveOptions, *, sure: bool = False
    ) -> bool:
        """Return whether a changed problem has a plan; quickly unless `sure`."""

    def cheapest(self, problem: SizingProblem, options: SolveOptions) -> Worth | None:
        """Return what the cheapest plan costs; None if none is found."""

    def best(self, problem: SizingProblem, options: SolveOptions) -> Worth | None:
        """Return what the best plan is worth, proved; None if there is no plan.

        Raises
        ------
        OutOfTimeError
            If it is not proved when the time is up.
        """


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One requirement moved as little as makes a plan possible.

    Parameters
    ----------
    requirement, wanted, to
        What moves, from where, to where.
    usd_per_hour, npus
        What the cheapest plan then costs (None without prices) and uses.
    """

    requirement: str
    wanted: str
    to: str
    usd_per_hour: float | None
    npus: int


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


_Part = TypeVar("_Part")


def in_time(part: Callable[[], _Part]) -> _Part | None:
    """Return a part of an explanation; None if the time was up before."""
    try:
        return part()
    except OutOfTimeError:
        return None


def without(problem: SizingProblem, dropped: Sequence[Requirement]) -> SizingProblem:
    """Return a problem without some requirements."""
    for requirement in dropped:
        problem = requirement.moved(problem, None)
    return problem


def is_limit(requirement: Requirement) -> bool:
    """Return whether a requirement bounds what is used, not how fast it is."""
    return requirement.target is None and requirement.goodput is None


def minimal_conflict(
    space: Space, every: Sequence[Requirement], options: SolveOptions
) -> list[Requirement]:
    """Return requirements that clash, of which none can be left out.

    Deletion: each is dropped in turn and stays out if the rest still clash.
    """
    kept = list(every)
    for requirement in every:
        rest = [other for other in kept if other is not requirement]
        dropped = [other for other in every if other not in rest]
        fewer = without(space.problem, dropped)
        if not space.has_plan(fewer, options, sure=True):
            kept = rest
    return kept


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


# One requirement


def relaxation(
    space: Space, requirement: Requirement, options: SolveOptions
) -> tuple[Relaxation, float] | None:
    """Return the least change of a requirement that alone makes a plan possible.

    And the factor by which that changes it; None if no change of it does.
    """
    problem = space.problem
    if not space.has_plan(requirement.moved(problem, None), options, sure=True):
        return None
    least = least_value(space, problem, requirement, options)
    if least is None:
        return None
    least = _tightened(space, requirement, least, options)
    to = sayable(requirement, least)
    worth = space.cheapest(requirement.moved(problem, to), options)
    if worth is None:
        return None
    told = Relaxation(
        requirement.label,
        requirement.text(requirement.value),
        requirement.text(to),
        worth.usd_per_hour,
        worth.npus,
    )
    return told, least / requirement.value if requirement.value else math.inf


def less_traffic(space: Space, options: SolveOptions) -> Relaxation | None:
    """Return the share of the traffic that the limits leave room for."""
    problem = space.problem

    def scaled(share: float) -> SizingProblem:
        classes = tuple(traffic.scaled(share) for traffic in problem.traffic)
        return problem.model_copy(update={"traffic": classes})

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        possible = space.has_plan(scaled(middle), options)
        low, high = (middle, high) if possible else (low, middle)
    if low == 0.0:
        return None
    worth = space.cheapest(scaled(low), options)
    if worth is None:
        return None
    share = math.floor(low * 1000) / 10
    return Relaxation(
        "traffic", "100 %", f"{share:.1f} %", worth.usd_per_hour, worth.npus
    )


def least_value(
    space: Space,
    problem: SizingProblem,
    requirement: Requirement,
    options: SolveOptions,
) -> float | None:
    """Return the least value of a requirement with a plan, above the one asked for."""

    def enough(value: float) -> bool:
        moved = requirement.moved(problem, value)
        return space.has_plan(moved, options, sure=is_limit(requirement))

    whole = requirement.unit is None
    low = requirement.value
    for _ in range(_DOUBLINGS):
        high = max(2 * low, 1.0) if whole else 2 * low
        if enough(high):
            return _halved(enough, low, high, whole=whole)
        low = high
    return None


def sayable(requirement: Requirement, value: float) -> float:
    """Return a value rounded up to one that people say: cents, or two digits."""
    if requirement.unit is USD_PER_HOUR:
        return math.ceil(value * 100) / 100
    if requirement.unit is None:
        return math.ceil(value)
    return _rounded_up(value)


def _tightened(
    space: Space, requirement: Requirement, least: float, options: SolveOptions
) -> float:
    """Return a least latency once more, with every setting of the scheduler tried."""
    if is_limit(requirement):
        return least

    def enough(value: float) -> bool:
        moved = requirement.moved(space.problem, value)
        return space.has_plan(moved, options, sure=True)

    low = max(requirement.value, _WITH_FEW_SETTINGS * least)
    return _few_halvings(enough, low, least)


def _few_halvings(enough: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(_TIGHTENINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
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
    scalable = [r for r in every if r.value > 0]
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
    high = _halved(enough, low, high, whole=False)
    if not slow:
        return high
    least = max(1.0, _WITH_FEW_SETTINGS * high)
    return _few_halvings(lambda factor: enough(factor, sure=True), least, high)


def _doubled() -> Iterator[float]:
    return (2.0**power for power in range(1, _DOUBLINGS))


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
