"""Tables of measurements as files, plain or compressed; the header tells the kind."""

import csv
import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model_ops.errors import ProblemError

Row = Mapping[str, str]
"""One line of a table: column to cell."""

LARGEST_TABLE = 500_000_000
"""Bytes of a table, decompressed."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "e2e": (
        "source_id",
        "model",
        "hardware",
        "load_mode",
        "isl",
        "osl",
        "metric",
        "stat",
        "value",
    ),
    "mlperf_slo": ("benchmark", "scenario", "model", "hardware", "achieved_req_s"),
    "memory_truths": ("model", "hardware", "kind", "value", "unit"),
    "vllm_requests": ("run", "queued_s", "first_token_s", "last_token_s"),
}
"""The columns by which each kind of table is told."""

OPERATORS = "operators"
"""The kind of every table of operators: `problems.measured.operators` reads them."""

_TIMES = {"latency_ms", "latency_us", "time_us", "median_ms"}
_DEVICES = {"system", "hardware"}


@dataclass(frozen=True)
class Table:
    """A file of measurements, as it stands.

    Parameters
    ----------
    name
        The file's, without its folder.
    kind
        One of `KINDS`, or `OPERATORS`.
    columns
        In the file's order.
    rows
        Cells as text; a blank one is not published, never zero.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path) -> Table:
    """Return a table of measurements.

    Raises
    ------
    ProblemError
        If the file cannot be read, is damaged, or is of no known kind.
    """
    columns, rows = read_rows(path)
    return Table(path.name, kind_of(columns, path), columns, rows)


def read_rows(
    path: Path, field: str = "--data"
) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """Return the columns and rows of a table of any kind.

    Raises
    ------
    ProblemError
        If the file cannot be read, or is damaged.
    """
    reader = csv.DictReader(io.StringIO(_text(path, field), newline=""))
    try:
        columns = tuple(reader.fieldnames or ())
        rows = tuple({k: v or "" for k, v in row.items() if k} for row in reader)
    except csv.Error as error:
        raise ProblemError(f"{field}: {path} is not a table: {error}") from None
    if not columns:
        raise ProblemError(f"{field}: {path} is empty")
    return columns, rows


def kind_of(columns: tuple[str, ...], path: Path) -> str:
    """Return the kind of table that has such columns.

    Raises
    ------
    ProblemError
        If there is none, or a column is there twice; the message names what the
        most similar kind has besides.
    """
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise ProblemError(f"--data: {path} has the column '{twice}' twice")
    for kind, needed in KINDS.items():
        if set(needed) <= set(columns):
            return kind
    if _TIMES & set(columns) and _DEVICES & set(columns):
        return OPERATORS
    lacking = {kind: sorted(set(KINDS[kind]) - set(columns)) for kind in KINDS}
    closest = min(lacking, key=lambda kind: len(lacking[kind]) / len(KINDS[kind]))
    raise ProblemError(
        f"--data: {path} is no table of measurements; for '{closest}' it lacks "
        f"{', '.join(lacking[closest])}; its first line has {', '.join(columns)}"
    )


def _text(path: Path, field: str) -> str:
    """Return a file's text, decompressed where its first bytes say that it is."""
    try:
        if not path.exists():
            raise ProblemError(f"{field}: there is no file {path}")
        if not path.is_file():
            raise ProblemError(f"{field}: {path} is not a file")
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            content = stream.read(LARGEST_TABLE + 1)
        if len(content) > LARGEST_TABLE:
            raise ProblemError(
                f"{field}: {path} holds more than {LARGEST_TABLE / 1e6:.0f} MB"
            )
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ProblemError(f"{field}: {path} is not UTF-8 text") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ProblemError(f"{field}: {path} is damaged: {error}") from None
    except OSError as error:
        raise ProblemError(f"{field}: cannot read {path}: {error.strerror}") from None
