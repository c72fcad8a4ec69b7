"""Measured rows beside their answers, whatever kind of table they come from."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_ops.errors import ProblemError
from problems.measured import cells
from problems.measured.tables import Row, Table, read_table
from sizing.validate import mlperf, served
from sizing.validate.answers import Answer

UNTRUSTED = "C"
"""Rows that their collector calls a loose check: answered, but not scored."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A measured row and what is answered to it.

    Parameters
    ----------
    row
        As the file has it.
    metric
        What was measured, a high percentile apart from the mean.
    measured
        The figure; NaN where the cell holds none.
    trust
        ``A``, ``B`` or ``C``; ``A`` where the table does not say.
    group
        Rows that are not independent of each other share it.
    labels
        What the row can be grouped by: device, family, engine and so on.
    answer
        In the row's unit.
    """

    row: Row
    metric: str
    measured: float
    trust: str
    group: str
    labels: Mapping[str, str]
    answer: Answer

    @property
    def error(self) -> float:
        """Log of predicted over measured; NaN where there is no prediction."""
        return math.log(self.answer.predicted / self.measured)

    @property
    def answered(self) -> bool:
        """Whether there is a prediction to compare."""
        return self.answer.given and math.isfinite(self.measured)

    @property
    def covered(self) -> bool:
        """Whether the measurement lies in the interval that was predicted."""
        return self.answer.low <= self.measured <= self.answer.high


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of table is scored.

    Parameters
    ----------
    answers
        The answers to all its rows.
    labels
        What a row can be grouped by.
    metric
        What a row measures.
    value
        The column of the measured figure.
    """

    answers: Callable[[Sequence[Row]], list[Answer]]
    labels: Callable[[Row], Mapping[str, str]]
    metric: Callable[[Row], str]
    value: str


KINDS: Mapping[str, Kind] = {
    "e2e": Kind(served.answers, served.labels, served.metric, "value"),
    "mlperf_slo": Kind(
        mlperf.answers, mlperf.labels, lambda _: "achieved_req_s", "achieved_req_s"
    ),
}
"""How each kind of table is scored."""


@dataclass(frozen=True)
class Comparison:
    """A table, scored row by row."""

    table: Table
    rows: tuple[Scored, ...]


def compare(paths: Iterable[Path]) -> list[Comparison]:
    """Return measured tables beside what is predicted for their rows.

    Raises
    ------
    ProblemError
        If a file cannot be read, or is no table of measurements.
    """
    tables = [read_table(path) for path in paths]
    if not tables:
        raise ProblemError("--data: no file is given")
    return [Comparison(table, tuple(_scored(table))) for table in tables]


def _scored(table: Table) -> Iterable[Scored]:
    kind = KINDS[table.kind]
    for row, answer in zip(table.rows, kind.answers(table.rows), strict=True):
        labels = kind.labels(row)
        try:
            measured = cells.measured(row, kind.value)
        except ProblemError as error:
            measured, answer = math.nan, Answer(reason=str(error))
        yield Scored(
            row=row,
            metric=kind.metric(row),
            measured=measured,
            trust=cells.text(row, "trust").upper() or "A",
            group=cells.text(row, "group_id") or "/".join(labels.values()),
            labels=labels,
            answer=answer,
        )
