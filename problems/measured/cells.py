"""Cells of a table: text to numbers, blanks kept apart from zeros."""

import math

from model_ops.errors import ProblemError
from problems.measured.tables import Row


def text(row: Row, column: str) -> str:
    """Return a cell without the blanks around it; blank where it is not there."""
    return row.get(column, "").strip()


def number(row: Row, column: str) -> float | None:
    """Return a cell's number; None where it is blank.

    Raises
    ------
    ProblemError
        If it is something else, or NaN.
    """
    cell = text(row, column)
    if not cell or cell.lower() in ("nan", "none", "null", "n/a", "-"):
        return None
    try:
        value = float(cell)
    except ValueError:
        raise ProblemError(f"{column}: '{cell}' is not a number") from None
    if math.isnan(value):
        raise ProblemError(f"{column}: '{cell}' is not a number")
    return value


def finite(row: Row, column: str) -> float | None:
    """Return a cell's number; None where it is blank or infinite.

    Raises
    ------
    ProblemError
        If it is below zero, or no number.
    """
    value = number(row, column)
    if value is not None and value < 0:
        raise ProblemError(f"{column}: {value:g} is below zero")
    return None if value == math.inf else value


def count(row: Row, column: str) -> int | None:
    """Return a cell's whole number of at least one; None where it is blank or zero.

    Raises
    ------
    ProblemError
        If it is a fraction.
    """
    value = finite(row, column)
    if not value:
        return None
    if value != int(value):
        raise ProblemError(f"{column}: {value:g} must be a whole number")
    return int(value)


def degree(row: Row, column: str) -> int | None:
    """Return a whole degree of parallelism; None where it is blank, zero or a part."""
    value = finite(row, column)
    return int(value) if value and value == int(value) else None


def measured(row: Row, column: str) -> float:
    """Return a measured value.

    Raises
    ------
    ProblemError
        If it is blank, or not above zero and finite.
    """
    value = number(row, column)
    if value is None or not 0 < value < math.inf:
        raise ProblemError(f"{column}: '{text(row, column)}' is no measured value")
    return value
