"""Cost against one figure of a problem: proved points, none of which beats another.

Along a target, a rate or another field the problem is solved at values of it. Along
NPUs or power the points are stepped through (epsilon constraint: Y. Haimes, L. Lasdon,
D. Wismer, IEEE Transactions on Systems, Man, and Cybernetics 1, 1971): the cheapest
plan, of those the one that uses least, and again with the limit just below that.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from model_ops.errors import ProblemError, UnitError, nearest
from model_ops.units import REQUEST_PER_SECOND, SECOND, WATT, Unit
from problems.changes import Change, changed
from problems.fields import shown
from problems.offers import Offer
from problems.plan import Bought
from problems.problem import Objective, SizingProblem
from sizing.solved import Answers, Record, Solved

POINTS = 9
"""Values of a field that are tried, unless it is said how many."""

_MOST = 1000
_CLOSE = 1e-9
_BELOW = 1 - 1e-6
"""A limit just below a plan's power, as a share of it."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What cost is set against.

    Parameters
    ----------
    key
        Of the problem, as `problems.changes` takes it.
    name
        As reports say it.
    unit
        Of its values; None where it is a number, or counts things.
    whole
        Whether it counts things.
    more
        Whether more of it is better, so that it may cost more.
    """

    key: str
    name: str
    unit: Unit | None = None
    whole: bool = False
    more: bool = False

    def parse(self, text: str, option: str) -> float:
        """Return the value that an option's text states.

        Raises
        ------
        ProblemError
            If it is none.
        """
        try:
            if self.unit is not None:
                return self.unit.parse(text)
            return int(text) if self.whole else float(text)
        except UnitError as error:
            raise ProblemError(f"{option}: {error}") from None
        except ValueError:
            kind = "whole number" if self.whole else "number"
            raise ProblemError(f"{option}: {shown(text)} is no {kind}") from None

    def text(self, value: float) -> str:
        """Return a value as people read it."""
        if self.unit is not None:
            return self.unit.format(value)
        return f"{value:,.6g}"

    def change(self, value: float) -> Change:
        """Return the change that gives a problem a value."""
        if self.unit is not None:
            return Change(self.key, f"{value!r} {self.unit.base}")
        return Change(self.key, str(round(value)) if self.whole else repr(value))


_LATENCIES = {
    f"{metric}{statistic}": Axis(f"{metric}{statistic}", f"{metric.upper()}", SECOND)
    for metric in ("ttft", "tpot", "e2e")
    for statistic in ("", ".mean", ".p50", ".p90", ".p95", ".p99")
}
_FIELDS = {
    "rate": Axis("rate", "rate", REQUEST_PER_SECOND, more=True),
    "concurrency": Axis("concurrency", "users", whole=True, more=True),
    "headroom": Axis("headroom", "headroom", more=True),
    "confidence": Axis("confidence", "confidence", more=True),
}
_LIMITS: dict[str, tuple[Axis, Objective, Callable[[Bought], float | None]]] = {
    "npus": (
        Axis("limits.npus", "NPUs", whole=True),
        "npus",
        lambda plan: float(plan.total_npus),
    ),
    "power": (Axis("limits.power", "power", WATT), "power", lambda plan: plan.power),
}
AXES = (*(name for name in _LATENCIES if "." not in name), *_FIELDS, *_LIMITS)
"""What may be asked for; a latency with a statistic, too (`ttft.p99`)."""


class Point(Record):
    """One point of a frontier.

    Parameters
    ----------
    at
        The value of the axis, in SI units.
    solved
        The answer there.
    dominated
        Whether another point is better along the axis, or as good, and as cheap.
    """

    at: float
    solved: Solved
    dominated: bool = False


@dataclass(frozen=True, slots=True)
class Frontier:
    """A question: a problem, and what its cost is set against.

    Parameters
    ----------
    problem, along
        The problem, and one of `AXES`.
    low, high
        Where it begins and ends, in SI units; None: where plans begin and end, which
        limits alone can tell.
    points
        How many at most; of a field, how many exactly. None: `POINTS` of a field, and
        all that there are of a limit.
    """

    problem: SizingProblem
    along: str
    low: float | None = None
    high: float | None = None
    points: int | None = None

    def __post_init__(self) -> None:
        axis, ends = axis_of(self.along), {"--from": self.low, "--to": self.high}
        known = {option: end for option, end in ends.items() if end is not None}
        if len(known) < len(ends) and self.along not in _LIMITS:
            raise ProblemError(f"--from and --to: needed along {self.along}")
        if len(known) == len(ends) and not known["--from"] < known["--to"]:
            low, high = (axis.text(end) for end in known.values())
            raise ProblemError(f"--from {low} must be below --to {high}")
        for option, value in known.items():
            try:
                changed(self.problem, [axis.change(value)])
            except ProblemError as error:
                raise ProblemError(f"{option}: {error}") from None

    @property
    def wanted(self) -> int:
        """Points to expect; of a limit's, only so many at most."""
        return self.points or (_MOST if self.along in _LIMITS else POINTS)

    def values(self) -> list[float]:
        """Return the values of a field that are tried, evenly spaced."""
        assert self.low is not None
        assert self.high is not None
        steps = max(self.wanted - 1, 1)
        each = (self.high - self.low) / steps
        found = [self.low + each * n for n in range(steps)] + [self.high]
        whole = axis_of(self.along).whole
        return list(dict.fromkeys(map(round, found))) if whole else found

    def found(self, answers: Answers) -> Iterator[Point]:
        """Yield the points as they are proved: from the left, limits from the right.

        Raises
        ------
        GenzSizeError
            If the problem names no usable hardware or price.
        """
        if self.along in _LIMITS:
            yield from self._stepped(answers)
            return
        axis, values = axis_of(self.along), self.values()
        every = (changed(self.problem, [axis.change(value)]) for value in values)
        for value, found in zip(values, answers.each(every), strict=True):
            yield Point(at=value, solved=found)

    def _stepped(self, answers: Answers) -> Iterator[Point]:
        """Yield the points of a limit, from the cheapest plan on."""
        axis, objective, value_of = _LIMITS[self.along]
        base = self.problem
        if self.along == "power":
            base = _known_power(base, answers.figures.offers(base))
        base = base.model_copy(update={"objective": "cost"})
        stated = getattr(base.limits, self.along)
        limit = min(v for v in (self.high, stated, math.inf) if v is not None)
        step = self._step(answers, base, limit)
        highest = None
        for number in range(1, self.wanted + 1):
            asked = _limited(base, self.along, limit)
            cheapest = answers.of(asked)
            if cheapest.plan is None:
                if highest is None or cheapest.status == "timed_out":
                    yield Point(at=limit, solved=cheapest)
                return
            frugal = answers.of(_frugal(asked, objective, cheapest.plan))
            found = _both(cheapest, frugal)
            assert found.plan is not None
            at = value_of(found.plan)
            assert at is not None
            if self.low is not None and at < self.low * (1 - _CLOSE):
                return
            yield Point(at=at, solved=found)
            highest = at if highest is None else highest
            below = at - 1 if axis.whole else at * _BELOW
            limit = min(below, highest - number * step)
            if limit < (1 if axis.whole else 0):
                return

    def _step(self, answers: Answers, base: SizingProblem, limit: float) -> float:
        """Return how far points are apart at least, for there to be no more of them."""
        if self.points is None or self.points < 2:
            return 0.0
        _, objective, value_of = _LIMITS[self.along]
        asked = _limited(base, self.along, limit)
        least = answers.of(asked.model_copy(update={"objective": objective}))
        cheapest = answers.of(asked)
        if least.plan is None or cheapest.plan is None:
            return 0.0
        low, high = value_of(least.plan) or 0.0, value_of(cheapest.plan) or 0.0
        low = max(low, self.low or 0.0)
        return max(high - low, 0.0) / (self.points - 1)


def axis_of(along: str) -> Axis:
    """Return the axis of a name.

    Raises
    ------
    ProblemError
        If there is none.
    """
    if along in _LIMITS:
        return _LIMITS[along][0]
    known = _LATENCIES | _FIELDS
    if along not in known:
        raise ProblemError(f"--along: no '{along:.40}'{nearest(along, AXES)}")
    return known[along]


def marked(points: Sequence[Point], axis: Axis) -> list[Point]:
    """Return points in the order of the axis, and which of them others beat."""
    sign = -1.0 if axis.more else 1.0
    ordered = sorted(points, key=lambda point: point.at)
    return [
        point.model_copy(
            update={"dominated": any(_beats(other, point, sign) for other in ordered)}
        )
        for point in ordered
    ]


def _beats(other: Point, point: Point, sign: float) -> bool:
    theirs, ours = other.solved.value, point.solved.value
    if theirs is None or ours is None:
        return False
    better = sign * (point.at - other.at)
    cheaper = ours - theirs
    close = _CLOSE * abs(ours)
    return better >= 0 and cheaper >= -close and (better > 0 or cheaper > close)


def _limited(problem: SizingProblem, along: str, limit: float) -> SizingProblem:
    """Return a problem with a limit on what its cost is set against."""
    if limit == math.inf:
        return problem
    value = math.floor(limit) if along == "npus" else limit
    limits = problem.limits.model_copy(update={along: value})
    return problem.model_copy(update={"limits": limits})


def _frugal(asked: SizingProblem, objective: Objective, plan: Bought) -> SizingProblem:
    """Return the problem of using least at the cost of a plan."""
    limits = asked.limits.model_copy(update={"usd_per_hour": plan.usd_per_hour})
    return asked.model_copy(update={"limits": limits, "objective": objective})


def _both(cheapest: Solved, frugal: Solved) -> Solved:
    """Return the plan that uses least, with the proof of its cost."""
    if frugal.plan is None:  # in the time given; another may use less
        return cheapest.model_copy(update={"status": "feasible"})
    proved = cheapest.status == frugal.status == "optimal"
    return frugal.model_copy(
        update={
            "status": "optimal" if proved else "feasible",
            "value": frugal.plan.usd_per_hour,
            "bound": cheapest.bound,
            "gap": cheapest.gap,
        }
    )


def _known_power(problem: SizingProblem, offers: Iterable[Offer]) -> SizingProblem:
    """Return a problem without the NPUs whose power nobody publishes."""
    unknown = {offer.npu.name for offer in offers if offer.npu.power is None}
    exclude = (*problem.hardware.exclude, *sorted(unknown))
    hardware = problem.hardware.model_copy(update={"exclude": exclude})
    return problem.model_copy(update={"hardware": hardware})
