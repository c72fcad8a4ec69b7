"""Answers as text, JSON and CSV."""

from collections.abc import Callable

from sizing.api import Answer
from sizing.report.json import as_json
from sizing.report.table import as_csv
from sizing.report.text import as_text

FORMATS: dict[str, Callable[[Answer], str]] = {
    "text": as_text,
    "json": as_json,
    "csv": as_csv,
}
"""Every format of a report; adding one is adding a function here."""
