"""Measured operators: rows of a table as operators of the model, and their seconds.

One file per family of tables; `READERS` lists what is known.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from model_ops.errors import GenzSizeError, ProblemError
from problems.measured.names import framework_name, npu_name
from problems.measured.operators.attention import ATTENTION
from problems.measured.operators.collectives import (
    CUSTOM_ALL_REDUCE,
    EXPERTS_EXCHANGE,
    NCCL,
)
from problems.measured.operators.elementwise import ELEMENTWISE
from problems.measured.operators.latent import MLA, MLA_MODULE, MLA_PRODUCT
from problems.measured.operators.linear import GEMM, MOE
from problems.measured.operators.recurrent import GATED_DELTA, MAMBA2
from problems.measured.operators.rows import (
    Columns,
    Floats,
    Ints,
    OperatorRows,
    Reader,
    WeightCache,
)
from problems.measured.tables import Row

READERS: tuple[Reader, ...] = (
    GEMM,
    MOE,
    ATTENTION,
    ELEMENTWISE,
    NCCL,
    CUSTOM_ALL_REDUCE,
    EXPERTS_EXCHANGE,
    MLA_MODULE,
    MLA,
    MLA_PRODUCT,
    GATED_DELTA,
    MAMBA2,
)
"""Every kind of operator table; the first whose columns are all there reads it."""

__all__ = [
    "READERS",
    "OperatorRows",
    "Reader",
    "WeightCache",
    "operator_rows",
    "reader_of",
]


def reader_of(columns: Sequence[str]) -> Reader | None:
    """Return how a table with such columns is read; None if it is none of operators."""
    return next((r for r in READERS if set(r.needs) <= set(columns)), None)


def operator_rows(
    reader: Reader, rows: Sequence[Row], refused: dict[int, str] | None = None
) -> Iterator[OperatorRows]:
    """Yield the rows of a table that go through the model together.

    Parameters
    ----------
    reader, rows
        How the table is read, and its rows.
    refused
        Takes why rows cannot be read, by their position.

    Raises
    ------
    GenzSizeError
        If a row cannot be read, and `refused` is not given.
    """
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for line, row in enumerate(rows):
        same = tuple(row.get(name, "") for name in _shared(reader))
        alike[(reader.table_of(row), *same)].append(line)
    shapes = _numbers(rows, reader.shape)
    for lines in alike.values():
        try:
            yield _rows(reader, rows, shapes, lines)
        except (GenzSizeError, KeyError, ValueError) as error:
            if refused is None:
                raise ProblemError(f"{reader.table}: {error}") from None
            refused.update(dict.fromkeys(lines, str(error)))


def _shared(reader: Reader) -> tuple[str, ...]:
    return ("system", "framework", "library", "version", *reader.alike)


def _numbers(rows: Sequence[Row], columns: Sequence[str]) -> Ints:
    """Return a number for each row; the same where the columns are."""
    known: dict[tuple[str, ...], int] = {}
    cells = (tuple(row.get(name, "") for name in columns) for row in rows)
    return np.array([known.setdefault(cell, len(known)) for cell in cells], dtype=int)


def _rows(
    reader: Reader, rows: Sequence[Row], shapes: Ints, lines: list[int]
) -> OperatorRows:
    columns = Columns([rows[line] for line in lines])
    first = columns.rows[0]
    stack = first.get("framework") or first.get("library") or ""
    measured: Floats = columns[reader.measured] * reader.seconds_per
    if not np.all(measured > 0):
        raise ProblemError(f"{reader.measured}: must be above zero")
    return OperatorRows(
        table=reader.table_of(first),
        npu=npu_name(first["system"]),
        stack=framework_name(stack) or stack,
        version=first.get("version", ""),
        label=" ".join(dict.fromkeys(first[name] for name in reader.label)),
        operators=tuple(reader.build(columns)),
        seconds=measured,
        shapes=shapes[lines],
        lines=np.array(lines),
        repeated=reader.repeats,
        about=reader.about,
    )
