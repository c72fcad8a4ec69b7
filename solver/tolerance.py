"""How far the traffic, the lengths and the step times may move before a plan changes.

That a plan still holds is asked of its own queues, without a search; that a cheaper
one wins, of the solver. In between the plan stays the best, since neither more traffic
nor slower steps ever make a plan cheaper; longer requests are taken to behave alike.

All times taking k times as long is the same as targets of a k-th part and k times the
rate at times as predicted: every second is then k seconds.
"""

from collections.abc import Callable, Iterator
from functools import partial

from model_ops.errors import ProblemError
from problems import catalogue
from problems.lengths import LengthTable, check_lengths
from problems.offers import offers
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import queues
from problems.stations import QueueStation
from problems.survival import survivors
from problems.traffic import TrafficClass
from solver.model import OutOfTimeError, SolveOptions
from solver.relaxing import in_time
from solver.sensitivity import TRAFFIC, scaled, traffic_text
from solver.solve import Optimal, Workspace, objective_value
from solver.switches import Switch, usd
from solver.table import MOST_LOAD

ALL_TIMES, LENGTHS = "all times", "output length"
"""What moves besides the traffic."""

_MOST, _LEAST = 2.0, 0.5
"""Factors beyond which nothing is tried."""

_HOLDING = 12
"""Halvings of what a plan bears: to a few hundredths of a per cent."""

_SEARCHING = 6
"""Halvings of where a cheaper plan wins: to less than a per cent."""

_LENGTHS = (0.9, 0.8, 0.65, 0.5)
"""Shares of the answers' lengths that are sized: each needs tables of its own."""

Changed = Callable[[SizingProblem, float], SizingProblem]
"""A problem, and by how much one thing in it is changed."""


def slower(problem: SizingProblem, factor: float) -> SizingProblem:
    """Return the problem that is the given one with all times so many times as long."""
    return problem.model_copy(
        update={"traffic": tuple(_slower(t, factor) for t in problem.traffic)}
    )


def _slower(traffic: TrafficClass, factor: float) -> TrafficClass:
    targets = tuple(
        target.model_copy(update={"at_most": target.at_most / factor})
        for target in traffic.targets
    )
    goodput = traffic.goodput
    if goodput is not None:
        limits = {str(name): most / factor for name, most in goodput.limits.items()}
        goodput = goodput.model_copy(update=limits)
    changed = traffic.model_copy(update={"targets": targets, "goodput": goodput})
    return changed if traffic.is_closed else changed.scaled(factor)


def longer(problem: SizingProblem, factor: float) -> SizingProblem:
    """Return a problem whose answers are so many times as long."""
    classes = tuple(
        traffic.model_copy(update={"output_tokens": _times(traffic, factor)})
        for traffic in problem.traffic
    )
    return problem.model_copy(update={"traffic": classes})


def _times(traffic: TrafficClass, factor: float) -> int | LengthTable:
    stated = traffic.output_tokens
    if isinstance(stated, int):
        return max(1, round(stated * factor))
    assert isinstance(stated, LengthTable)
    given = {n: v for n in stated.model_fields_set if (v := getattr(stated, n))}
    moved = {
        name: value * (1 if name == "cv" else factor) for name, value in given.items()
    }
    return stated.model_copy(update=moved)


def _lengths_stated(problem: SizingProblem) -> bool:
    return all(traffic.output_tokens is not None for traffic in problem.traffic)


# What a plan bears


def borne(problem: SizingProblem, plan: Plan) -> list[Switch]:
    """Return how much more of everything a plan bears within its targets.

    At its share of the traffic as stated, headroom not counted.
    """
    found = [
        _borne(problem, plan, TRAFFIC, scaled),
        _borne(problem, plan, ALL_TIMES, slower),
    ]
    if _lengths_stated(problem):
        found.append(_borne(problem, plan, LENGTHS, longer))
    return [switch for switch in found if switch is not None]


def _borne(
    problem: SizingProblem, plan: Plan, of: str, changed: Changed
) -> Switch | None:
    """Return how far one thing may move, also where the hosts that may fail have."""
    if not holds(problem, plan):
        return None
    low, high = 1.0, _MOST
    if holds(changed(problem, high), plan):
        return Switch(of, _said(problem, of, 1.0), _said(problem, of, high), high, "")
    for _ in range(_HOLDING):
        middle = (low + high) / 2
        held = holds(changed(problem, middle), plan)
        low, high = (middle, high) if held else (low, middle)
    then = _missed(changed(problem, high), plan)
    return Switch(of, _said(problem, of, 1.0), _said(problem, of, low), low, then)


def holds(problem: SizingProblem, plan: Plan) -> bool:
    """Return whether a plan's replicas keep a problem's targets at their shares."""
    return not _missed(problem, plan)


def _missed(problem: SizingProblem, plan: Plan) -> str:
    """Return what fails first in a problem with a plan; empty if nothing does."""
    for traffic in problem.traffic:
        arch = catalogue.load_model(problem.model_of(traffic))
        try:
            check_lengths(traffic.name, arch, traffic.profile)
        except ProblemError:
            return "requests are too long for the model"
        for station, rate in _queues(problem, plan, traffic):
            if station.cache_tokens <= traffic.profile.longest:
                return "a long request does not fit in memory"
            if not traffic.is_closed and rate > MOST_LOAD * station.saturation:
                return "more requests come than can be finished"
            over = {t: station.excess(t, rate) for t in traffic.sized_targets}
            worst = max(over, key=lambda t: over[t], default=None)
            if worst is not None and over[worst] > 0:
                several = len(problem.traffic) > 1
                label = f"{traffic.name} {worst.label}" if several else worst.label
                return f"{label} no longer holds"
    return ""


def _queues(
    problem: SizingProblem, plan: Plan, traffic: TrafficClass
) -> Iterator[tuple[QueueStation, float]]:
    """Yield a class's queues and rates, at last those when hosts have failed."""
    yield from queues(plan, traffic)
    if problem.redundancy.domains:
        available = {offer.key: offer for offer in offers(problem)}
        yield from survivors(problem, plan, traffic, available)


def _said(problem: SizingProblem, of: str, factor: float) -> str:
    """Return a changed thing as people read it."""
    if of == ALL_TIMES:
        return "as predicted" if factor == 1.0 else f"x {factor:.4g}"
    if of == TRAFFIC:
        return traffic_text(problem, factor)
    if len(problem.traffic) > 1:
        return f"{factor:.1%}"
    tokens = longer(problem, factor).traffic[0].shape.output_tokens
    return f"{float(tokens):,.0f} tokens"


# Where a cheaper plan wins


def cheaper(workspace: Workspace, plan: Plan, options: SolveOptions) -> list[Switch]:
    """Return where less traffic, faster steps or shorter answers make a better plan.

    Each is sized again and again: this takes many times as long as the sizing.
    """
    problem = workspace.problem
    value = objective_value(problem, plan)
    again = partial(_plan_of, workspace, options=options)
    found = [
        in_time(partial(_cheaper, problem, value, TRAFFIC, scaled, again)),
        in_time(partial(_cheaper, problem, value, ALL_TIMES, slower, again)),
    ]
    if _lengths_stated(problem):
        found.append(in_time(partial(_cheaper_lengths, problem, value, options)))
    return [switch for switch in found if switch is not None]


def _plan_of(
    workspace: Workspace, problem: SizingProblem, options: SolveOptions
) -> Plan:
    outcome = workspace.solve(options, problem) if options.remaining else None
    if not isinstance(outcome, Optimal):
        raise OutOfTimeError
    return outcome.plan


def _cheaper(
    problem: SizingProblem,
    value: float,
    of: str,
    changed: Changed,
    plan_of: Callable[[SizingProblem], Plan],
) -> Switch:
    now, low, high = _said(problem, of, 1.0), _LEAST, 1.0
    best = plan_of(changed(problem, low))
    if not _is_better(problem, best, value):
        return Switch(of, now, _said(problem, of, low), low, "")
    for _ in range(_SEARCHING):
        middle = (low + high) / 2
        other = plan_of(changed(problem, middle))
        if _is_better(problem, other, value):
            best, low = other, middle
        else:
            high = middle
    return Switch(of, now, _said(problem, of, low), low, _offer(best))


def _cheaper_lengths(
    problem: SizingProblem, value: float, options: SolveOptions
) -> Switch:
    now = _said(problem, LENGTHS, 1.0)
    for factor in _LENGTHS:
        shorter = longer(problem, factor)
        best = _plan_of(Workspace.of(shorter), shorter, options)
        if _is_better(problem, best, value):
            break
    else:
        return Switch(LENGTHS, now, _said(problem, LENGTHS, factor), factor, "")
    to = _said(problem, LENGTHS, factor)
    return Switch(LENGTHS, now, to, factor, _offer(best))


def _offer(plan: Plan) -> str:
    return f"{plan.hardware} for {usd(plan.usd_per_hour)}"


def _is_better(problem: SizingProblem, plan: Plan, value: float) -> bool:
    return objective_value(problem, plan) < value * (1 - 1e-9)
