"""What an NPU costs, and its limits, as CP-SAT constraints.

All is a sum of tables by level but the dies, whose price rises with their area:
straight pieces above it, for each number of memory stacks.
"""

from dataclasses import dataclass

import numpy as np
from ortools.sat.python import cp_model

from solver.design.platform import Platform
from solver.scaling import ceiling, floor

USD_PER = 1e7
"""Integers per USD/h of one NPU."""

AREA_PER = 100.0
"""Integers per square millimetre."""

SLOPE_PER = 1 << 20
"""Integers per one of a slope."""

PIECES = 24
"""Pieces of the price of dies as a function of their area."""

_POINTS = 17
"""Areas at which a piece is compared with the price itself."""


@dataclass(frozen=True, slots=True)
class Price:
    """The price of an NPU.

    Parameters
    ----------
    usd
        In `USD_PER` per USD/h, rounded up.
    low, high
        What it is at least and at most.
    loss
        Relative loss by the straight pieces.
    """

    usd: cp_model.IntVar
    low: int
    high: int
    loss: float


def price_of(platform: Platform) -> Price:
    """Return the price of an NPU."""
    space, model, boxes = platform.space, platform.model, platform.boxes
    cheapest = float(np.min(space.npu_usd(boxes.low)))
    dearest = float(np.max(space.npu_usd(boxes.high)))
    low, high = floor(cheapest * USD_PER), ceiling(dearest * USD_PER * 1.01) + 100
    flat = platform.total(space.usd, USD_PER) + ceiling(space.usd_fixed * USD_PER)
    package, loss = _package(platform)
    usd = model.new_int_var(low, high, "npu_usd")
    model.add(usd >= flat + package)
    return Price(usd, low, high, loss / cheapest)


def _package(platform: Platform) -> tuple[cp_model.IntVar, float]:
    """Return the price of dies and stacks' places, and how far it is above the true."""
    space, model, boxes = platform.space, platform.model, platform.boxes
    low = float(np.min(space.area_of(boxes.low))) - 0.02
    high = float(np.max(space.area_of(boxes.high))) + 1.0
    area = model.new_int_var(floor(low * AREA_PER), ceiling(high * AREA_PER) + 1, "mm2")
    model.add(area >= platform.area(AREA_PER))
    knots = np.linspace(low, high + 0.02, PIECES + 1)
    pieces = [model.new_bool_var(f"area{i}") for i in range(PIECES)]
    model.add_exactly_one(pieces)
    most = space.package(np.array([float(max(platform.stacks))]), knots[-1:])
    usd = model.new_int_var(0, ceiling(float(most[0]) * USD_PER * 1.1) + 1, "package")
    loss = 0.0
    for piece, start, end in zip(pieces, knots[:-1], knots[1:], strict=True):
        model.add(area <= floor(float(end) * AREA_PER)).only_enforce_if(piece)
        for count, literal in platform.stacks.items():
            slope, at_zero, over = _chord(platform, float(count), start, end)
            loss = max(loss, over)
            rising = ceiling(slope * USD_PER / AREA_PER * SLOPE_PER) * area
            model.add(
                SLOPE_PER * usd >= rising + ceiling(at_zero * USD_PER * SLOPE_PER)
            ).only_enforce_if(piece, literal)
    return usd, loss


def _chord(
    platform: Platform, stacks: float, start: float, end: float
) -> tuple[float, float, float]:
    """Return a line above the price between two areas, and by how much it is above."""
    areas = np.linspace(start, end, _POINTS)
    prices = platform.space.package(np.full(_POINTS, stacks), areas)
    slope = float((prices[-1] - prices[0]) / (end - start))
    line = prices[0] + slope * (areas - start)
    line = line + max(float(np.max(prices - line)), 0.0)
    return slope, float(line[0] - slope * start), float(np.max(line - prices))


def add_limits(platform: Platform) -> None:
    """Add what one NPU may be at most."""
    space, model, per = platform.space, platform.model, 1000.0
    limits = space.problem.limits
    if limits.watts is not None:
        fixed = space.problem.cost_model.fixed_watts()
        watts = platform.total(space.watts, per) + ceiling(fixed * per)
        model.add(watts <= floor(limits.watts * per * (1 + 1e-9)))
    for count, literal in platform.stacks.items():
        enough = space.capacities * (1 + 1e-9) >= space.problem.stack_least * count
        levels = [int(n) for n in np.flatnonzero(enough)]
        platform.require(space.capacity, levels, literal)
    if np.all(space.allowed(platform.boxes.high)):
        return
    model.add(platform.area(per) <= floor(limits.die_mm2 * per * (1 + 1e-9)))
    for count, literal in platform.stacks.items():
        if count > limits.stacks:
            model.add(literal == 0)
