"""The requirements of a problem one by one: each can be read, moved or dropped."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from model_ops.units import SECOND, USD_PER_HOUR, WATT, Unit
from problems.fleet import Redundancy
from problems.problem import Limits, SizingProblem
from problems.traffic import Goodput, LatencyTarget, TrafficClass

SHARE = Unit("%", {"%": 0.01}, "5 %", ("%",))
"""A share of the requests."""

MISSES = "goodput misses"
"""Requests that exceed a limit of the goodput."""


Mover: TypeAlias = Callable[[SizingProblem, float | None], SizingProblem]


@dataclass(frozen=True, slots=True)
class Requirement:
    """A number that a plan must not exceed.

    Parameters
    ----------
    label
        Its name in reports, e.g. ``chat p99 TTFT``.
    value
        What it may be at most.
    unit
        Of the value; None where it counts things.
    moved
        Returns a problem with the value changed, or the requirement dropped (None).
    target
        Index of the traffic class and the target, where it is a latency's.
    goodput
        The same where it is the share of requests that may miss a goodput's limits.
    indivisible
        Whether it can only be dropped, not moved.
    """

    label: str
    value: float
    unit: Unit | None
    moved: Mover
    target: tuple[int, LatencyTarget] | None = None
    goodput: tuple[int, Goodput] | None = None
    indivisible: bool = False

    def text(self, value: float) -> str:
        """Return a value as people read it."""
        if self.unit is None:
            return f"{value:,.0f}"
        if self.unit is USD_PER_HOUR:
            return f"{value:,.2f} {USD_PER_HOUR.base}"
        return self.unit.format(value)

    def said(self, value: float) -> float:
        """Return the value that its text states: what is typed back is the same."""
        return round(value) if self.unit is None else self.unit.parse(self.text(value))


def requirements(problem: SizingProblem) -> list[Requirement]:
    """Return the problem's latency targets, goodputs and limits."""
    return [
        *_targets(problem),
        *_goodputs(problem),
        *_limits(problem.limits),
        *_fleet(problem),
    ]


def _targets(problem: SizingProblem) -> Iterator[Requirement]:
    several = len(problem.traffic) > 1
    for number, traffic in enumerate(problem.traffic):
        for target in traffic.targets:
            yield Requirement(
                label=f"{traffic.name} {target.label}" if several else target.label,
                value=target.at_most,
                unit=SECOND,
                moved=_target_mover(number, target),
                target=(number, target),
            )


def _target_mover(
    number: int, target: LatencyTarget
) -> Callable[[SizingProblem, float | None], SizingProblem]:
    def moved(problem: SizingProblem, value: float | None) -> SizingProblem:
        traffic = problem.traffic[number]
        targets = []
        for other in traffic.targets:
            if (other.metric, other.statistic) != (target.metric, target.statistic):
                targets.append(other)
            elif value is not None:
                targets.append(other.model_copy(update={"at_most": value}))
        return _with_class(problem, number, {"targets": tuple(targets)})

    return moved


def _goodputs(problem: SizingProblem) -> Iterator[Requirement]:
    several = len(problem.traffic) > 1
    for number, traffic in enumerate(problem.traffic):
        if traffic.goodput is not None:
            yield Requirement(
                label=f"{traffic.name} {MISSES}" if several else MISSES,
                value=1.0 - traffic.goodput.share,
                unit=SHARE,
                moved=_goodput_mover(number, traffic.goodput),
                goodput=(number, traffic.goodput),
            )


def _goodput_mover(
    number: int, goodput: Goodput
) -> Callable[[SizingProblem, float | None], SizingProblem]:
    def moved(problem: SizingProblem, value: float | None) -> SizingProblem:
        share = None if value is None else 1.0 - value
        # A share of nothing asks for nothing.
        kept = share is not None and share > 0.0
        changed = goodput.model_copy(update={"share": share}) if kept else None
        return _with_class(problem, number, {"goodput": changed})

    return moved


def _with_class(
    problem: SizingProblem, number: int, changes: Mapping[str, Any]
) -> SizingProblem:
    changed: TrafficClass = problem.traffic[number].model_copy(update=changes)
    classes = (*problem.traffic[:number], changed, *problem.traffic[number + 1 :])
    return problem.model_copy(update={"traffic": classes})


def _limits(limits: Limits) -> Iterator[Requirement]:
    units = {"usd_per_hour": USD_PER_HOUR, "power": WATT}
    labels = {
        "npus": "NPU limit",
        "nodes": "node limit",
        "usd_per_hour": "budget",
        "power": "power limit",
        "deployment_types": "limit of deployment types",
        "npu_types": "limit of NPU types",
        "changed_npus": "limit of changed NPUs",
    }
    for name, label in labels.items():
        value, unit = getattr(limits, name), units.get(name)
        if value is not None:
            mover = _limit_mover(name, counts=unit is None)
            yield Requirement(label, float(value), unit, mover)
    for npu, most in limits.npus_per_type.items():
        yield Requirement(f"{npu} limit", float(most), None, _type_mover(npu))


def _limit_mover(name: str, *, counts: bool) -> Mover:
    def moved(problem: SizingProblem, value: float | None) -> SizingProblem:
        kept = int(value) if counts and value is not None else value
        limits = problem.limits.model_copy(update={name: kept})
        return problem.model_copy(update={"limits": limits})

    return moved


def _type_mover(npu: str) -> Callable[[SizingProblem, float | None], SizingProblem]:
    def moved(problem: SizingProblem, value: float | None) -> SizingProblem:
        rest = {k: v for k, v in problem.limits.npus_per_type.items() if k != npu}
        if value is not None:
            rest[npu] = int(value)
        limits = problem.limits.model_copy(update={"npus_per_type": rest})
        return problem.model_copy(update={"limits": limits})

    return moved


def _fleet(problem: SizingProblem) -> Iterator[Requirement]:
    """Yield quotas, what racks hold, and what may fail."""
    for number, quota in enumerate(problem.limits.quota):
        yield Requirement(quota.label, float(quota.npus), None, _quota_mover(number))
    racks = problem.limits.racks
    for name, label, unit in (
        ("count", "rack limit", None),
        ("nodes", "nodes per rack", None),
        ("power", "power per rack", WATT),
    ):
        value = None if racks is None else getattr(racks, name)
        if value is not None:
            mover = _rack_mover(name, counts=unit is None)
            yield Requirement(label, float(value), unit, mover)
    redundancy = problem.redundancy
    if redundancy.domains:
        yield Requirement(
            f"redundancy of {redundancy.text}",
            float(redundancy.domains),
            None,
            _redundancy_mover(redundancy),
            indivisible=True,
        )


def _quota_mover(number: int) -> Mover:
    def moved(problem: SizingProblem, value: float | None) -> SizingProblem:
        quotas = list(problem.limits.quota)
        # It is kept without effect, so that the offers stay those that it tells apart.
        most = NO_LIMIT if value is None else int(value)
        quotas[number] = quotas[number].model_copy(update={"npus": most})
        limits = problem.limits.model_copy(update={"quota": tuple(quotas)})
        return problem.model_copy(update={"limits": limits})

    return moved


NO_LIMIT = 10_000_000
"""A count that no plan reaches."""


def _rack_mover(name: str, *, counts: bool) -> Mover:
    def moved(problem: SizingProblem, value: float | None) -> SizingProblem:
        if problem.limits.racks is None:
            return problem
        kept = int(value) if counts and value is not None else value
        racks = problem.limits.racks.model_copy(update={name: kept})
        limits = problem.limits.model_copy(update={"racks": racks})
        return problem.model_copy(update={"limits": limits})

    return moved


def _redundancy_mover(asked: Redundancy) -> Mover:
    def moved(problem: SizingProblem, value: float | None) -> SizingProblem:
        kept = Redundancy() if value is None else asked
        return problem.model_copy(update={"redundancy": kept})

    return moved
