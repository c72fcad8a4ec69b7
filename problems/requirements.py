"""The requirements of a problem one by one: each can be read, moved or dropped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from model_ops.units import SECOND, USD_PER_HOUR, WATT, Unit
from problems.problem import LatencyTarget, Limits, SizingProblem


@dataclass(frozen=True, slots=True)
class Requirement:
    """A number that a plan must not exceed.

    Parameters
    ----------
    label
        Its name in reports, e.g. ``chat mean TTFT``.
    value
        What it may be at most.
    unit
        Of the value; None where it counts things.
    moved
        Returns a problem with the value changed, or the requirement dropped (None).
    target
        Index of the traffic class and the target, where it is a latency's.
    """

    label: str
    value: float
    unit: Unit | None
    moved: Callable[[SizingProblem, float | None], SizingProblem]
    target: tuple[int, LatencyTarget] | None = None

    def text(self, value: float) -> str:
        """Return a value as people read it."""
        if self.unit is None:
            return f"{value:,.0f}"
        if self.unit is USD_PER_HOUR:
            return f"{value:,.2f} {USD_PER_HOUR.base}"
        return self.unit.format(value)


def requirements(problem: SizingProblem) -> list[Requirement]:
    """Return the problem's latency targets and limits."""
    return [*_targets(problem), *_limits(problem.limits)]


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
        changed = traffic.model_copy(update={"targets": tuple(targets)})
        classes = (*problem.traffic[:number], changed, *problem.traffic[number + 1 :])
        return problem.model_copy(update={"traffic": classes})

    return moved


def _limits(limits: Limits) -> Iterator[Requirement]:
    units = {"npus": None, "nodes": None, "usd_per_hour": USD_PER_HOUR, "power": WATT}
    labels = {
        "npus": "NPU limit",
        "nodes": "node limit",
        "usd_per_hour": "budget",
        "power": "power limit",
    }
    for name, unit in units.items():
        value = getattr(limits, name)
        if value is not None:
            yield Requirement(labels[name], float(value), unit, _limit_mover(name))
    for npu, most in limits.npus_per_type.items():
        yield Requirement(f"{npu} limit", float(most), None, _type_mover(npu))


def _limit_mover(name: str) -> Callable[[SizingProblem, float | None], SizingProblem]:
    def moved(problem: SizingProblem, value: float | None) -> SizingProblem:
        counts = name in ("npus", "nodes")
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
