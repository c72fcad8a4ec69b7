"""What one cell of a candidates table says, or why it cannot be read."""

import math
import re
from collections.abc import Callable
from functools import cache
from typing import get_args

from model_ops.errors import CatalogueError, UnitError, nearest
from model_ops.units import Unit
from problems import catalogue
from problems.problem import ServingMode

_WITH_COMMAS = re.compile(r"[-+]?\d+(,\d+)+(\.\d*)?")
"""Whether they part thousands or decimals, nobody can tell."""


def text(cell: str) -> str:
    """Return a name."""
    if len(cell) > 200:
        raise ValueError("is longer than 200 characters")
    return cell


@cache
def npu(cell: str) -> str:
    """Return the catalogue name, or an unknown name as it is written."""
    try:
        return catalogue.canonical("npus", cell)
    except CatalogueError:
        return text(cell)


def mode(cell: str) -> str:
    """Return a serving mode."""
    known = get_args(ServingMode)
    if cell.lower() not in known:
        raise ValueError(f"is no serving mode{nearest(cell, known)}")
    return cell.lower()


def count(cell: str) -> int:
    """Return how many there are of something."""
    value = _number(cell)
    if not 1 <= value <= 1e6 or value != round(value):
        raise ValueError("must be a whole number from 1 to 1,000,000")
    return round(value)


def figure(unit: Unit, parts: float, most: float) -> Callable[[str], float]:
    """Return the reader of a bare number that stands for a quantity, in SI units.

    Parameters
    ----------
    unit, parts
        What it is a quantity of, and how many of it make one of the base unit.
    most
        What it may be at most, as it is written.
    """

    def read(cell: str) -> float:
        value = _number(cell, unit, parts)
        if not 0 < value <= most:
            raise ValueError(f"must be above 0 and at most {most:,.0f}")
        return value / parts

    return read


def _number(cell: str, unit: Unit | None = None, parts: float = 1.0) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(_no_number(cell, unit, parts)) from None
    if not math.isfinite(value):
        raise ValueError("is no finite number")
    return value


def _no_number(cell: str, unit: Unit | None, parts: float) -> str:
    """Return why a cell is no number, and how it would be one."""
    if _WITH_COMMAS.fullmatch(cell):
        return "has a comma; write decimals with a point, and thousands without a mark"
    if unit is not None:
        try:
            return f"has a unit; write {unit.parse(cell) * parts:.10g}"
        except UnitError:
            pass
    return "is no number"
