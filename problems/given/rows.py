"""Reading a candidates table: replicas with figures that somebody measured or computed.

A row is one replica, be it one engine or a disaggregated group of them, and all its
figures are means at the rate that it takes.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_ops.errors import ProblemError, nearest
from model_ops.units import (
    REQUEST_PER_SECOND,
    SECOND,
    USD_PER_HOUR,
    RequestsPerSecond,
    Seconds,
    UsdPerHour,
)
from problems.fields import read_text, shown
from problems.given import cells
from problems.problem import ServingMode

FIELD = "--candidates"
LARGEST_TABLE = 50_000_000
"""Bytes; some five hundred thousand rows."""

PRICE = "usd_per_hour"

_MOST_MESSAGES = 5


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    field
        Of a row.
    read
        Returns what a cell says; raises `ValueError` with what is wrong with it.
    means
        What it holds, in words.
    needed
        Whether a table has it, and each row a cell in it.
    alike
        What others call such a column, though perhaps in another unit.
    """

    field: str
    read: Callable[[str], Any]
    means: str
    needed: bool = True
    alike: tuple[str, ...] = ()


_MILLISECONDS = cells.figure(SECOND, 1e3, 86_400_000.0)

SCHEMA: Mapping[str, Column] = {
    "name": Column("name", cells.text, "a name of its own for each row", alike=("id",)),
    "npu": Column(
        "npu", cells.npu, "the NPU type", alike=("gpu", "device", "hardware", "system")
    ),
    "mode": Column("mode", cells.mode, "aggregated or disaggregated"),
    "npus": Column(
        "npus",
        cells.count,
        "NPUs of one replica",
        alike=("gpus", "num_gpus", "num_npus", "num_total_gpus"),
    ),
    "ttft_ms": Column(
        "ttft",
        _MILLISECONDS,
        "mean time to first token in milliseconds",
        alike=("ttft", "ttft_s", "ttft_us", "ttft (ms)", "ttft (s)", "mean_ttft_ms"),
    ),
    "tpot_ms": Column(
        "tpot",
        _MILLISECONDS,
        "mean time per output token in milliseconds",
        alike=("tpot", "tpot_s", "tpot_us", "tpot (ms)", "itl_ms", "mean_tpot_ms"),
    ),
    "req_per_s": Column(
        "rate",
        cells.figure(REQUEST_PER_SECOND, 1.0, 1e7),
        "requests per second that one replica takes",
        alike=("rps", "qps", "req/s", "rate", "request_rate", "seq/s", "throughput"),
    ),
    **{
        name: Column(name, cells.count, "how a replica is split or run", needed=False)
        for name in ("tp", "pp", "dp", "batch")
    },
    PRICE: Column(
        "usd_per_hour",
        cells.figure(USD_PER_HOUR, 1.0, 1e7),
        "what one replica costs, all its NPUs together",
        needed=False,
        alike=("price", "cost", "usd", "price_per_hour"),
    ),
}
"""The columns that a table may have."""

COLUMNS = tuple(name for name in SCHEMA if name != PRICE)


@dataclass(frozen=True, slots=True)
class Row:
    """One replica of a candidates table.

    Parameters
    ----------
    line
        Where it stands in the file.
    name
        What it is called there.
    npu
        Catalogue name, or as the file says where the catalogue knows none such.
    mode
        One engine, or a disaggregated group.
    npus
        NPUs of the replica.
    ttft, tpot
        Means at `rate`.
    rate
        Requests per second that it takes.
    tp, pp, dp, batch
        How it is split and run; None where the file does not say.
    usd_per_hour
        What it costs with all its NPUs; None where the file does not say.
    """

    line: int
    name: str
    npu: str
    mode: ServingMode
    npus: int
    ttft: Seconds
    tpot: Seconds
    rate: RequestsPerSecond
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    batch: int | None = None
    usd_per_hour: UsdPerHour | None = None

    @property
    def latencies(self) -> dict[str, Seconds]:
        """The means that targets may bound, by metric."""
        return {"ttft": self.ttft, "tpot": self.tpot}

    @property
    def text(self) -> str:
        """What it is, for reports."""
        degrees = {"tp": self.tp, "pp": self.pp, "dp": self.dp}
        known = [f"{name}={value}" for name, value in degrees.items() if value]
        return " ".join([f"{self.npus} x {self.npu}", *known])


def read_rows(path: Path) -> tuple[Row, ...]:
    """Return the rows of a candidates table.

    Raises
    ------
    ProblemError
        One message that names each wrong line and column.
    """
    reader = csv.reader(io.StringIO(read_text(path, FIELD, LARGEST_TABLE)), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise ProblemError(
                f"{FIELD}: {path} is empty; its first line names columns"
            )
        columns = [column.strip().lower() for column in header]
        _check_columns(path, columns)
        lines = [
            (reader.line_num, row) for row in reader if any(c.strip() for c in row)
        ]
    except csv.Error as error:
        raise ProblemError(
            f"{FIELD}: {path} line {reader.line_num} is no line of a table: {error}"
        ) from None
    if not lines:
        raise ProblemError(f"{FIELD}: {path} has a header and no rows")
    wrong: list[str] = []
    rows = [row for at, each in lines if (row := _row(at, columns, each, wrong))]
    wrong += _doubles(rows)
    if wrong:
        more = len(wrong) - _MOST_MESSAGES
        told = "; ".join(wrong[:_MOST_MESSAGES]) + (f"; and {more} more" * (more > 0))
        raise ProblemError(f"{FIELD}: {path} {told}")
    return tuple(rows)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for column in columns:
        if columns.count(column) > 1:
            raise ProblemError(f"{FIELD}: {path} has the column '{column}' twice")
    unknown = [column for column in columns if column not in SCHEMA]
    missing = [name for name, c in SCHEMA.items() if c.needed and name not in columns]
    if missing:
        raise ProblemError(f"{FIELD}: {path} {_lacks(missing, unknown)}")
    if unknown:
        meant = _meant(unknown[0])
        hint = f"; is it '{meant}'?" if meant else nearest(unknown[0], SCHEMA)
        raise ProblemError(f"{FIELD}: {path} unknown column {shown(unknown[0])}{hint}")


def _lacks(missing: Sequence[str], unknown: Sequence[str]) -> str:
    """Return which columns are missing, and which may be there by other names."""
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(unknown) == 1 and mark in unknown[0]:
            return f"has {name} between its columns; separate them by commas"
    told = " and ".join(f"'{name}' ({SCHEMA[name].means})" for name in missing)
    meant = [f"'{name}'" for name in unknown if _meant(name) in missing]
    hint = f"; is it {' and '.join(meant)}?" if meant else _near(missing[0], unknown)
    needed, others = (
        ",".join(name for name, column in SCHEMA.items() if column.needed is each)
        for each in (True, False)
    )
    return f"lacks the column {told}{hint} (a table has {needed} and may have {others})"


def _meant(unknown: str) -> str | None:
    """Return the column that somebody calls otherwise."""
    found = (name for name, column in SCHEMA.items() if unknown in column.alike)
    return next(found, None)


def _near(missing: str, unknown: Sequence[str]) -> str:
    """Return the unknown column that is spelled most like a missing one."""
    near = nearest(missing, unknown) if unknown else ""
    return near.replace("did you mean", "is it").replace("known:", "it has")


def _row(
    line: int, columns: Sequence[str], texts: Sequence[str], wrong: list[str]
) -> Row | None:
    """Return a row; what is wrong with it is added to `wrong`."""
    if len(texts) != len(columns):
        cut = "; is the file cut short?" if len(texts) < len(columns) else ""
        wrong.append(f"line {line}: {len(texts)} of {len(columns)} columns{cut}")
        return None
    before = len(wrong)
    given = dict(zip(columns, (text.strip() for text in texts), strict=True))
    fields: dict[str, Any] = {}
    for name, column in SCHEMA.items():
        text = given.get(name, "")
        try:
            if text:
                fields[column.field] = column.read(text)
            elif column.needed:
                wrong.append(f"line {line}, column {name}: is blank")
        except ValueError as error:
            wrong.append(f"line {line}, column {name}: {shown(text)} {error}")
    return None if len(wrong) > before else Row(line=line, **fields)


def _doubles(rows: Sequence[Row]) -> Iterator[str]:
    first: dict[str, int] = {}
    for row in rows:
        if row.name in first:
            yield (
                f"line {row.line}, column name: {shown(row.name)} stands in line "
                f"{first[row.name]} already"
            )
        first.setdefault(row.name, row.line)
