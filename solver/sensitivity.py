"""What each requirement costs: the best plans where it is a tenth tighter or looser."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from problems.problem import SizingProblem
from problems.requirements import Requirement, requirements
from solver.model import SolveOptions
from solver.relaxing import Space, Worth, in_time

SHARE = 0.1
"""By how much a requirement is moved either way."""

TRAFFIC = "traffic"
"""What is asked for besides requirements: the requests themselves."""


@dataclass(frozen=True, slots=True)
class Shift:
    """The proved best plan where one thing is asked for differently.

    Parameters
    ----------
    to
        What is asked for.
    worth
        What the plan is worth; None where there is none.
    change
        Its objective against that of the plan chosen, relatively; None without a plan.
    """

    to: str
    worth: Worth | None
    change: float | None


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What a requirement costs.

    Parameters
    ----------
    requirement, wanted
        What is asked for.
    tighter, looser
        With a tenth less room, and with a tenth more; None where time was up before
        it was known, or a count cannot be moved so little.
    """

    requirement: str
    wanted: str
    tighter: Shift | None
    looser: Shift | None


def sensitivities(
    space: Space, value: float, options: SolveOptions
) -> Iterator[Sensitivity]:
    """Yield what each requirement of a problem costs, and what more traffic does.

    Parameters
    ----------
    space
        Of the problem.
    value
        The proved objective of its best plan.
    options
        Whose time is shared by all.
    """
    problem = space.problem
    for requirement in requirements(problem):
        tighter, looser = (
            _shift(space, moved, to, value, options)
            for moved, to in (_moved(problem, requirement, sign) for sign in (-1, 1))
        )
        wanted = requirement.text(requirement.value)
        yield Sensitivity(requirement.label, wanted, tighter, looser)
    more, less = (
        _shift(
            space, scaled(problem, share), traffic_text(problem, share), value, options
        )
        for share in (1 + SHARE, 1 - SHARE)
    )
    yield Sensitivity(TRAFFIC, traffic_text(problem, 1.0), more, less)


def scaled(problem: SizingProblem, share: float) -> SizingProblem:
    """Return a problem with so many times the traffic."""
    classes = tuple(traffic.scaled(share) for traffic in problem.traffic)
    return problem.model_copy(update={"traffic": classes})


def _moved(
    problem: SizingProblem, requirement: Requirement, sign: int
) -> tuple[SizingProblem | None, str]:
    """Return a problem with a requirement a tenth away, and how that reads.

    No problem where a count stays the same, or what cannot be moved would be tighter.
    """
    if requirement.indivisible:
        return (requirement.moved(problem, None), "none") if sign > 0 else (None, "")
    to = requirement.value * (1 + sign * SHARE)
    if requirement.unit is None:
        to = float(math.ceil(to) if sign > 0 else math.floor(to))
        if not 0 < to != requirement.value:
            return None, ""
    return requirement.moved(problem, to), requirement.text(to)


def traffic_text(problem: SizingProblem, share: float) -> str:
    """Return the traffic as people read it: that of one class, else a share."""
    if len(problem.traffic) > 1:
        return f"{share:.1%}"
    (traffic,) = problem.traffic
    if traffic.is_closed:
        return f"{traffic.scaled(share).concurrency:,} users"
    return f"{share * traffic.demand(headroom=0.0):,.4g} req/s"


def _shift(
    space: Space,
    problem: SizingProblem | None,
    to: str,
    value: float,
    options: SolveOptions,
) -> Shift | None:
    if problem is None:
        return None
    known = in_time(lambda: (space.best(problem, options),))
    if known is None:
        return None
    (worth,) = known
    return Shift(to, worth, None if worth is None else worth.value / value - 1)
