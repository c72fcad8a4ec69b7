"""Reading a candidates table: replicas with figures that somebody measured or computed.

A row is one replica, be it one engine or a disaggregated group of them, and all its
figures are means at the rate that it takes.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar, get_args

from model_ops.errors import CatalogueError, ProblemError, nearest
from model_ops.units import RequestsPerSecond, Seconds, UsdPerHour
from problems import catalogue
from problems.fields import read_text, shown
from problems.problem import ServingMode

COLUMNS = (
    "name",
    "npu",
    "mode",
    "npus",
    "ttft_ms",
    "tpot_ms",
    "req_per_s",
    "tp",
    "pp",
    "dp",
    "batch",
)
"""Columns that a table has; `tp` and those behind it may be blank."""

PRICE = "usd_per_hour"
"""The one column that a table may have besides: what a replica costs, all its NPUs."""

FIELD = "--candidates"
LARGEST_TABLE = 50_000_000
"""Bytes; some five hundred thousand rows."""

_MOST_MESSAGES = 5


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
        columns = [column.strip() for column in header]
        _check_columns(path, columns)
        cells = [
            (reader.line_num, row) for row in reader if any(c.strip() for c in row)
        ]
    except csv.Error as error:
        raise ProblemError(
            f"{FIELD}: {path} line {reader.line_num} is no line of a table: {error}"
        ) from None
    if not cells:
        raise ProblemError(f"{FIELD}: {path} has a header and no rows")
    wrong: list[str] = []
    rows = [row for at, each in cells if (row := _row(at, columns, each, wrong))]
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
    unknown = [column for column in columns if column not in (*COLUMNS, PRICE)]
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        near = f"{nearest(missing[0], unknown)}" if unknown else ""
        near = near.replace("did you mean", "is it").replace("known:", "it has")
        raise ProblemError(
            f"{FIELD}: {path} lacks the column {_and(missing)}{near} (a table has "
            f"{','.join(COLUMNS)} and, if prices are known, {PRICE})"
        )
    if unknown:
        hint = nearest(unknown[0], (*COLUMNS, PRICE))
        raise ProblemError(f"{FIELD}: {path} unknown column {shown(unknown[0])}{hint}")


def _and(words: Sequence[str]) -> str:
    return " and ".join(f"'{word}'" for word in words)


def _row(
    line: int, columns: Sequence[str], cells: Sequence[str], wrong: list[str]
) -> Row | None:
    """Return a row; what is wrong with it is added to `wrong`."""
    if len(cells) != len(columns):
        cut = "; is the file cut short?" if len(cells) < len(columns) else ""
        wrong.append(f"line {line}: {len(cells)} of {len(columns)} columns{cut}")
        return None
    given = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
    read = _Cells(line, given, wrong)
    before = len(wrong)
    fields = {
        "name": read.needed("name", _text),
        "npu": read.needed("npu", _npu),
        "mode": read.needed("mode", _mode),
        "npus": read.needed("npus", _count),
        "ttft": read.needed("ttft_ms", _milliseconds),
        "tpot": read.needed("tpot_ms", _milliseconds),
        "rate": read.needed("req_per_s", _positive(1e7)),
        **{name: read.given(name, _count) for name in ("tp", "pp", "dp", "batch")},
        "usd_per_hour": read.given(PRICE, _positive(1e7)),
    }
    return None if len(wrong) > before else Row(line=line, **fields)  # type: ignore[arg-type]


_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of a line by column, and where to tell what is wrong with them."""

    line: int
    given_: Mapping[str, str]
    wrong: list[str]

    def needed(self, column: str, read: Callable[[str], _Value]) -> _Value | None:
        """Return a cell's value, which must not be blank."""
        if not self.given_[column]:
            self.wrong.append(f"line {self.line}, column {column}: is blank")
            return None
        return self.given(column, read)

    def given(self, column: str, read: Callable[[str], _Value]) -> _Value | None:
        """Return a cell's value; None where it is blank or there is no such column."""
        text = self.given_.get(column, "")
        try:
            return read(text) if text else None
        except ValueError as error:
            said = f"{shown(text)} {error}"
            self.wrong.append(f"line {self.line}, column {column}: {said}")
            return None


def _text(text: str) -> str:
    if len(text) > 200:
        raise ValueError("is longer than 200 characters")
    return text


@cache
def _npu(text: str) -> str:
    """Return the catalogue name, or an unknown name as it is written."""
    try:
        return catalogue.canonical("npus", text)
    except CatalogueError:
        return _text(text)


def _mode(text: str) -> str:
    known = get_args(ServingMode)
    if text.lower() not in known:
        raise ValueError(f"is no serving mode{nearest(text, known)}")
    return text.lower()


def _count(text: str) -> int:
    value = _number(text)
    if not 1 <= value <= 1e6 or value != round(value):
        raise ValueError("must be a whole number from 1 to 1,000,000")
    return round(value)


def _milliseconds(text: str) -> Seconds:
    return _positive(86_400_000.0)(text) / 1e3


def _positive(most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = _number(text)
        if not 0 < value <= most:
            raise ValueError(f"must be above 0 and at most {most:,.0f}")
        return value

    return read


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is no number") from None
    if not math.isfinite(value):
        raise ValueError("is no finite number")
    return value


def _doubles(rows: Sequence[Row]) -> Iterator[str]:
    first: dict[str, int] = {}
    for row in rows:
        if row.name in first:
            yield (
                f"line {row.line}, column name: {shown(row.name)} stands in line "
                f"{first[row.name]} already"
            )
        first.setdefault(row.name, row.line)
