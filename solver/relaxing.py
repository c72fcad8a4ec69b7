"""What clashes, and the least that must be given up: questions to a space of plans.

A space answers whether a changed problem has a plan, and what its cheapest costs; how
it knows is its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from model_ops.units import USD_PER_HOUR
from problems.problem import SizingProblem
from problems.requirements import Requirement
from solver.instance import Instance
from solver.model import OutOfTimeError, SolveOptions

DOUBLINGS = 40
_HALVINGS = 10
_TOLERANCE = 1e-3
"""Relative width at which the search for a least value ends."""

_SAME = 1e-9
"""Relative difference of what is the same but for rounding."""

WITH_FEW_SETTINGS, _TIGHTENINGS = 0.75, 4
"""What all settings bring a latency to at least, of what few do; and halvings from
there: to within two per cent."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What a plan costs and uses; no cost without prices.

    Parameters
    ----------
    usd_per_hour, npus
        Dollars, and NPUs paid for.
    value
        Its objective, in USD/h, NPUs or W.
    hardware
        NPUs paid for by type, in words.
    """

    usd_per_hour: float | None
    npus: int
    value: float
    hardware: str


class Space(Protocol):
    """Plans that may be asked for, over the same deployments."""

    @property
    def problem(self) -> SizingProblem:
        """The question that was asked."""

    def instance(self, problem: SizingProblem) -> Instance:
        """Return the choice that a changed problem leaves."""

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

    One that cannot be met even alone is the plainest conflict. Else by deletion: each
    is dropped in turn and stays out if the rest still clash.
    """
    for requirement in every:
        others = [other for other in every if other is not requirement]
        alone = without(space.problem, others)
        if not space.has_plan(alone, options, sure=True):
            return [requirement]
    kept = list(every)
    for requirement in every:
        rest = [other for other in kept if other is not requirement]
        dropped = [other for other in every if other not in rest]
        fewer = without(space.problem, dropped)
        if not space.has_plan(fewer, options, sure=True):
            kept = rest
    return kept


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
    if requirement.indivisible:
        return _dropped(space, requirement, options)
    least = least_value(space, problem, requirement, options)
    if least is None:
        return None
    to = tightest(space, problem, requirement, least, options)
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
    return told, to / requirement.value if requirement.value else math.inf


def _dropped(
    space: Space, requirement: Requirement, options: SolveOptions
) -> tuple[Relaxation, float] | None:
    """Return what it is worth to drop a requirement that cannot be moved."""
    worth = space.cheapest(requirement.moved(space.problem, None), options)
    if worth is None:
        return None
    wanted = requirement.text(requirement.value)
    usd, npus = worth.usd_per_hour, worth.npus
    return Relaxation(requirement.label, wanted, "none", usd, npus), math.inf


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
    for _ in range(DOUBLINGS):
        high = max(2 * low, 1.0) if whole else 2 * low
        if enough(high):
            return halved(enough, low, high, whole=whole)
        low = high
    return None


def tightest(
    space: Space,
    problem: SizingProblem,
    requirement: Requirement,
    least: float,
    options: SolveOptions,
    digits: int = 2,
) -> float:
    """Return the tightest value with a plan among those of so many digits, or cents.

    With every setting of the scheduler tried; `least` has a plan already.
    """
    if requirement.unit is None:
        return least
    scale = _Scale(requirement, digits)
    near = 1 - 2 * _TOLERANCE if is_limit(requirement) else WITH_FEW_SETTINGS
    low = max(requirement.value, near * least)

    def enough(rank: float) -> bool:
        moved = requirement.moved(problem, scale.value(int(rank)))
        return space.has_plan(moved, options, sure=True)

    below, above = scale.below(low), scale.above(least)
    return scale.value(int(halved(enough, below, above, whole=True)))


def sayable(requirement: Requirement, value: float) -> float:
    """Return a value rounded up to one that people say: cents, or two digits."""
    if requirement.unit is None:
        return math.ceil(value)
    scale = _Scale(requirement, 2)
    return scale.value(scale.above(value))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values of a requirement that people say, by rank: cents, or so many digits."""

    requirement: Requirement
    digits: int

    def above(self, value: float) -> int:
        """Return the rank of the least value that is no less."""
        return self._rank(value * (1 - _SAME), math.ceil)

    def below(self, value: float) -> int:
        """Return the rank of the greatest value that is no more."""
        return self._rank(value * (1 + _SAME), math.floor)

    def value(self, rank: int) -> float:
        """Return the value of a rank, as it is read back from its text."""
        if self.requirement.unit is USD_PER_HOUR:
            return self.requirement.said(rank / 100)
        decade, steps = divmod(rank, 9 * self._first)
        return self.requirement.said((self._first + steps) * 10.0**decade)

    @property
    def _first(self) -> int:
        return int(10 ** (self.digits - 1))

    def _rank(self, value: float, whole: Callable[[float], int]) -> int:
        if self.requirement.unit is USD_PER_HOUR:
            return whole(100 * value)
        decade = math.floor(math.log10(value)) - self.digits + 1
        return 9 * self._first * decade + whole(value / 10.0**decade) - self._first


def few_halvings(enough: Callable[[float], bool], low: float, high: float) -> float:
    """Return about the least value that is enough, after a few halvings."""
    for _ in range(_TIGHTENINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def halved(
    enough: Callable[[float], bool], low: float, high: float, *, whole: bool
) -> float:
    """Return the least value that is enough, to `_TOLERANCE` or the next count."""
    while high - low > (1 if whole else _TOLERANCE * high):
        middle = math.floor((low + high) / 2) if whole else (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
