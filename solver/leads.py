"""A plan that keeps the limits, found among the candidates that promise most.

What it costs lets the bound drop candidates where limits would forbid it.
"""

import math
from collections.abc import Hashable
from dataclasses import replace

from solver.counted import Counted
from solver.instance import Instance
from solver.model import SolveOptions, choose

MANY = 300
"""Candidates from which on it is worth while."""

_KINDS = 40
"""Deployments that serve all classes, the cheapest ones alone."""

_USUAL = SolveOptions(time_limit=5.0)

_SHARE = 0.2
"""Of the time left, in which such a plan is looked for."""


def kept_cost(instance: Instance, options: SolveOptions = _USUAL) -> float:
    """Return what a plan costs that keeps the instance's limits; infinite if none."""
    if {c.traffic for c in instance.candidates} < set(range(len(instance.demand))):
        return math.inf
    choice = choose(instance, options, ties=False)
    found = choice.status in ("optimal", "feasible")
    return choice.value if found else math.inf


def with_known(full: Instance, options: SolveOptions) -> Instance:
    """Return an instance with what a plan costs, where that is soon known."""
    if not full.limited or math.isfinite(full.known) or len(full.candidates) < MANY:
        return full
    few = replace(full, candidates=_promising(full))
    if 2 * len(few.candidates) > len(full.candidates):
        return full
    return replace(full, known=kept_cost(few, options.at_most(_SHARE)))


def _promising(instance: Instance) -> tuple[Counted, ...]:
    """Return those that cover more than smaller ones, and kinds that serve all well."""
    kinds = _serving_all(instance)
    most: dict[tuple[int, int], float] = {}
    leading = set()
    smallest_first = sorted(
        enumerate(instance.candidates),
        key=lambda each: (each[1].npus, -each[1].capacity, each[1].least),
    )
    for i, c in smallest_first:
        place = (c.traffic, c.offer)
        if c.mode == "aggregated" and c.capacity > most.get(place, 0.0):
            most[place] = c.capacity
            leading.add(i)
    return tuple(
        c
        for i, c in enumerate(instance.candidates)
        if i in leading or c.kind in kinds or c.mode != "aggregated"
    )


def _serving_all(instance: Instance) -> set[Hashable]:
    """Return the deployments that cost least where they alone serve every class."""
    alone: dict[Hashable, dict[int, float]] = {}
    for c in instance.candidates:
        costs = alone.setdefault(c.kind, {})
        price = c.npus * instance.unit_cost(instance.offers[c.offer])
        count = max(math.ceil(instance.demand[c.traffic] / c.capacity), c.least)
        costs[c.traffic] = min(price * count, costs.get(c.traffic, math.inf))
    every = len(instance.demand)
    total = {k: sum(own.values()) for k, own in alone.items() if len(own) == every}
    return set(sorted(total, key=lambda kind: total[kind])[:_KINDS])
