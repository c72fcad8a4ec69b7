"""Measured rows beside their answers, whatever kind of table they come from."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from model_ops.errors import ProblemError
from problems.measured import cells
from problems.measured.requests import measured as measured_requests
from problems.measured.tables import OPERATORS, Row, Table, read_table
from sizing.validate import memory, mlperf, operators, requests, served
from sizing.validate.answers import Answer, refused

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
        """Log of predicted over measured; of yes or no, 1 and 0, the difference."""
        predicted, measured = self.answer.predicted, self.measured
        if not predicted or not measured:
            return predicted - measured
        return math.log(predicted / measured)

    @property
    def answered(self) -> bool:
        """Whether there is a prediction to compare."""
        return self.answer.given and math.isfinite(self.measured)

    @property
    def covered(self) -> float:
        """1 if the measurement lies in the predicted interval, 0 if not; NaN: none."""
        answer = self.answer
        if math.isnan(answer.low):
            return math.nan
        return float(answer.low <= self.measured <= answer.high)


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of table is scored.

    Parameters
    ----------
    answers
        The answers to all its rows, by what is asked of a row: what a file of rows
        shows comes first.
    labels
        What a row can be grouped by.
    metric
        The name of a row's figure, given what is asked.
    measured
        The figure itself, in the unit of the answer.
    """

    answers: Callable[[Sequence[Row]], Mapping[str, list[Answer]]]
    labels: Callable[[Row], Mapping[str, str]]
    metric: Callable[[Row, str], str]
    measured: Callable[[Row, str], float]


def _column(name: str) -> Callable[[Row, str], float]:
    return lambda row, _: cells.measured(row, name)


KINDS: Mapping[str, Kind] = {
    "e2e": Kind(
        lambda rows: {"": served.answers(rows)},
        served.labels,
        lambda row, _: served.metric(row),
        _column("value"),
    ),
    "mlperf_slo": Kind(
        lambda rows: {"achieved_req_s": mlperf.answers(rows)},
        mlperf.labels,
        lambda _, asked: asked,
        _column("achieved_req_s"),
    ),
    "memory_truths": Kind(
        lambda rows: {"": memory.answers(rows)},
        memory.labels,
        lambda row, _: row["kind"],
        lambda row, _: memory.measured(row),
    ),
    "vllm_requests": Kind(
        requests.answers,
        requests.labels,
        lambda _, asked: f"{asked}_s",
        measured_requests,
    ),
    OPERATORS: Kind(
        lambda rows: {"": operators.answers(rows)},
        operators.labels,
        lambda row, _: operators.name(row),
        lambda row, _: cells.measured(row, operators.value(row)),
    ),
}
"""How each kind of table is scored."""


@dataclass(frozen=True)
class Comparison:
    """A table, scored row by row.

    Parameters
    ----------
    table
        As it was read.
    rows
        All its rows.
    more
        Further figures of the same rows.
    """

    table: Table
    rows: tuple[Scored, ...]
    more: tuple[Scored, ...] = ()


def compare(path: Path) -> Comparison:
    """Return a measured table beside what is predicted for its rows.

    Raises
    ------
    ProblemError
        If the file cannot be read, or is no table of measurements.
    """
    table = read_table(path)
    kind = KINDS[table.kind]
    found = [
        tuple(
            _scored(kind, row, asked, answer)
            for row, answer in zip(table.rows, answers, strict=True)
        )
        for asked, answers in kind.answers(table.rows).items()
    ]
    return Comparison(table, found[0], tuple(chain.from_iterable(found[1:])))


def _scored(kind: Kind, row: Row, asked: str, answer: Answer) -> Scored:
    labels = kind.labels(row)
    try:
        measured = kind.measured(row, asked)
    except ProblemError as error:
        measured, answer = math.nan, refused(error)
    return Scored(
        row=row,
        metric=kind.metric(row, asked),
        measured=measured,
        trust=cells.text(row, "trust").upper() or "A",
        group=cells.text(row, "group_id") or "/".join(labels.values()),
        labels=labels,
        answer=answer,
    )
