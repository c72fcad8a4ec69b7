"""Scores of predictions against measurements, as text, JSON and rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from problems.catalogue.fitted import fitted
from sizing.report.console import new_console, plain_table, section, text_of
from sizing.report.data import csv_text, json_text
from sizing.validate.score import Metrics, Score, Scores
from sizing.validate.scored import Comparison, Scored

HEADER = ("n", "groups", "answered", "median |ln|", "bias", "p90", "5 %", "95 %", "in")
_MOST_REASONS = 8


def as_json(found: Sequence[Scores]) -> str:
    """Return the scores as one JSON object."""
    tables = {scores.kind: _as_dict(scores) for scores in found}
    result = {"tables": tables, "fitted": [asdict(each) for each in fitted()]}
    return json_text(result)


def _as_dict(scores: Scores) -> dict[str, Any]:
    return {
        "rows": scores.rows,
        "untrusted": scores.untrusted,
        "metrics": _metrics(scores.metrics),
        "by": {
            dimension: {value: _metrics(metrics) for value, metrics in values.items()}
            for dimension, values in scores.by.items()
        },
        "reasons": dict(scores.reasons),
    }


def _metrics(metrics: Metrics) -> dict[str, Any]:
    return {
        name: asdict(score) | {"answered_share": score.answered_share}
        for name, score in metrics.items()
    }


def as_text(found: Sequence[Scores]) -> str:
    """Return the scores as tables of plain text."""
    console = new_console()
    for scores in found:
        console.print(title_of(scores))
        for title, columns, lines in tables_of(scores):
            table = plain_table(columns[0], *(f">{name}" for name in columns[1:]))
            for line in lines:
                table.add_row(*line)
            section(console, title, table)
        if scores.reasons:
            section(console, "without a prediction", _reasons(scores.reasons))
        console.print()
    console.print(f"Fitted: {fitted_text()}.")
    return text_of(console)


def fitted_text() -> str:
    """Return how many parameters the model's figures have, kind by kind."""
    return "; ".join(
        f"{each.what} {each.parameters:,} parameters to "
        + (
            "the serving results themselves"
            if each.measurements is None
            else f"{each.measurements:,} measurements"
        )
        for each in fitted()
    )


def _reasons(reasons: Mapping[str, int]) -> Any:
    table = plain_table(">rows", "why")
    for reason, count in list(reasons.items())[:_MOST_REASONS]:
        table.add_row(str(count), reason)
    if (rest := sum(list(reasons.values())[_MOST_REASONS:])) > 0:
        table.add_row(str(rest), "other reasons")
    return table


def title_of(scores: Scores) -> str:
    """Return the heading of a kind of table."""
    left_out = f", {scores.untrusted} of them not scored" if scores.untrusted else ""
    return f"{scores.kind}: {scores.rows} measurements{left_out}"


_Lines = Iterator[Sequence[str]]

_MOST_COLUMNS = 5


def tables_of(scores: Scores) -> Iterator[tuple[str, Sequence[str], _Lines]]:
    """Yield title, columns and lines of every table."""
    yield "by metric", ("metric", *HEADER), _by_metric(scores.metrics)
    for dimension, values in scores.by.items():
        families = sorted({name for metrics in values.values() for name in metrics})
        if len(values) < 2:
            continue
        if len(families) > _MOST_COLUMNS:
            long = (dimension, "metric", *HEADER)
            yield f"by {dimension}", long, _by_value(values)
        else:
            wide = (dimension, "n", "answered", *families)
            title = f"by {dimension}: median |ln| (bias)"
            yield title, wide, _across(values, families)


def _across(values: Mapping[str, Metrics], families: Sequence[str]) -> _Lines:
    """Yield a line per value, with a column per family of metrics."""
    for value, metrics in values.items():
        asked = sum(score.n for score in metrics.values())
        answered = sum(score.answered for score in metrics.values())
        if not answered:
            continue
        errors = (_error(metrics.get(family)) for family in families)
        yield value or "not stated", f"{asked:,}", f"{answered / asked:.0%}", *errors


def _error(score: Score | None) -> str:
    if score is None or score.median_abs_ln_error is None:
        return ""
    return f"{score.median_abs_ln_error:.2f} ({score.bias:+.2f})"


def _by_metric(metrics: Metrics) -> _Lines:
    for name, score in metrics.items():
        yield name, *cells_of(score)


def _by_value(values: Mapping[str, Metrics]) -> _Lines:
    for value, metrics in values.items():
        for name, score in metrics.items():
            if score.answered:
                yield value or "not stated", name, *cells_of(score)


def cells_of(score: Score) -> Iterator[str]:
    """Yield a score as the cells under `HEADER`."""
    yield f"{score.n:,}"
    yield f"{score.groups:,}"
    yield f"{score.answered_share:.0%}"
    yield _number(score.median_abs_ln_error, ".2f")
    yield _number(score.bias, "+.2f")
    yield _number(score.p90, ".2f")
    yield _number(score.ratio_p5, ".2f")
    yield _number(score.ratio_p95, ".2f")
    yield _number(score.coverage, ".0%")


def _number(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)


ADDED = ("predicted", "low", "high", "error", "reason")


def as_rows(compared: Sequence[Comparison]) -> str:
    """Return every measured row as CSV, with what is predicted for it."""
    given = dict.fromkeys(name for each in compared for name in each.table.columns)
    columns = [name for name in given if name not in ADDED]
    rows = (
        {**row.row, **_added(row)} for comparison in compared for row in comparison.rows
    )
    return csv_text((*columns, *ADDED), rows, only=True)


def _added(row: Scored) -> dict[str, str]:
    answer = row.answer
    figures = {
        "predicted": answer.predicted,
        "low": answer.low,
        "high": answer.high,
        "error": row.error if row.answered else float("nan"),
    }
    known = {name: f"{v:.6g}" for name, v in figures.items() if v == v}
    return {**dict.fromkeys(ADDED, ""), **known, "reason": answer.reason}
