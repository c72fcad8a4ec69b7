"""Results for programs: JSON and CSV, whose numbers are rounded in one place."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

DIGITS = 12
"""Significant digits of a number: fewer than a float has, so that sums of decimal
fractions are written as decimals; more than anything here is known to."""


def json_text(content: Any) -> str:
    """Return plain dictionaries and lists as JSON."""
    return json.dumps(rounded(content), indent=2, allow_nan=False) + "\n"


def csv_text(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, only: bool = False
) -> str:
    """Return rows as CSV; what a row lacks is blank.

    Parameters
    ----------
    columns, rows
        In the order in which they are written.
    only
        Whether what has no column is left out; else it is a mistake.
    """
    text = io.StringIO(newline="")
    extras: Literal["ignore", "raise"] = "ignore" if only else "raise"
    writer = csv.DictWriter(
        text, columns, restval="", extrasaction=extras, lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rounded(row) for row in rows)
    return text.getvalue()


def rounded(content: Any) -> Any:
    """Return plain data with its floats rounded to `DIGITS` significant digits."""
    if isinstance(content, float):
        return float(f"{content:.{DIGITS}g}")
    if isinstance(content, Mapping):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(each) for each in content]
    return content
