"""Seconds of measured operators: what `problems.measured.operators` reads, timed."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from model_ops.errors import GenzSizeError
from model_ops.platform.supply import Supply
from problems import catalogue
from problems.measured.operators import Reader, operator_rows, reader_of
from problems.measured.operators.rows import OperatorRows
from problems.measured.tables import Row
from sizing.validate.answers import Answer, figure, refused

_UNREAD = "no reader of such a table of operators"
_TIMES = ("latency_ms", "latency_us", "time_us", "median_ms")
_DEVICES = ("system", "hardware")
_STACKS = ("framework", "library", "source")


def answers(rows: Sequence[Row]) -> list[Answer]:
    """Return the predicted time of each row, in the row's own unit."""
    reader = _reader(tuple(rows[0])) if rows else None
    if reader is None:
        return [refused(_UNREAD)] * len(rows)
    reasons: dict[int, str] = {}
    found: dict[int, Answer] = {}
    for some in operator_rows(reader, rows, reasons):
        try:
            times = some.predicted(_supply(some)) / reader.seconds_per
        except GenzSizeError as error:
            reasons.update(dict.fromkeys(some.lines.tolist(), str(error)))
            continue
        for line, seconds in zip(some.lines.tolist(), np.ravel(times), strict=True):
            found[line] = figure(float(seconds))
    return [
        found.get(line) or refused(reasons.get(line, _UNREAD))
        for line in range(len(rows))
    ]


def _supply(rows: OperatorRows) -> Supply:
    return Supply.of(catalogue.load_npu_as(rows.npu, rows.stack))


@cache
def _reader(columns: tuple[str, ...]) -> Reader | None:
    return reader_of(columns)


def value(row: Row) -> str:
    """Return the column that holds the measured time."""
    reader = _reader(tuple(row))
    named = (reader.measured,) if reader else ()
    return next((name for name in (*named, *_TIMES) if name in row), _TIMES[0])


def name(row: Row) -> str:
    """Return which operator a row is about."""
    reader = _reader(tuple(row))
    return reader.table_of(row) if reader is not None else "not read"


def labels(row: Row) -> dict[str, str]:
    """Return what a row's tables are made by."""
    reader = _reader(tuple(row))
    formats = reader.label if reader else ()
    found = {
        "format": " ".join(dict.fromkeys(row.get(column, "") for column in formats)),
        "device": next((row[column] for column in _DEVICES if column in row), ""),
        "stack": next((row[column] for column in _STACKS if column in row), ""),
    }
    return {**found, "kernel": " ".join((name(row), *found.values()))}
