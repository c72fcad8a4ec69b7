"""The chance that a plan meets its targets, given how far predictions have been off.

A target holds with the largest confidence at which the plan still meets it: its NPUs
are then as slow as that share of the measurements at most was
(`accuracy.assumed_npu`), and all queues with them.
"""

from collections.abc import Mapping, Sequence

from problems.plan import Plan
from problems.serve import Served
from problems.traffic import LatencyTarget, TrafficClass

LEAST, MOST = 0.01, 0.99
"""Chances beyond these are not told apart: nobody measured enough."""

_HALVINGS = 7
"""Of the chance: to less than a percentage point."""


def chances(
    plan: Plan, traffic: TrafficClass, served: Sequence[Served]
) -> Mapping[LatencyTarget, float]:
    """Return the chance that each target of a class holds at its traffic.

    Where a class has several deployments, the least sure one decides.

    Parameters
    ----------
    plan, traffic, served
        The plan, one of its classes, and that class's deployments at their share of
        the demand.
    """
    return {
        target: _largest(plan, traffic, served, target)
        for target in traffic.sized_targets
    }


def _largest(
    plan: Plan, traffic: TrafficClass, served: Sequence[Served], target: LatencyTarget
) -> float:
    """Return the largest confidence at which a target holds, from 1 to 99 %."""
    if _holds(plan.at(MOST), traffic, served, target):
        return MOST
    low, high = LEAST, MOST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _holds(plan.at(middle), traffic, served, target):
            low = middle
        else:
            high = middle
    return low


def _holds(
    plan: Plan, traffic: TrafficClass, served: Sequence[Served], target: LatencyTarget
) -> bool:
    return all(
        each.station(plan, traffic).excess(target, float(each.load.rate)) <= 0.0
        for each in served
    )
