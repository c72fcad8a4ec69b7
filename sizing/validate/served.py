"""Answers to measured serving results, each by what its load needs."""

from collections.abc import Callable, Sequence

from model_ops.errors import GenzSizeError
from problems.measured.served import Arrival, Served, served
from problems.measured.tables import Row
from problems.measured.workloads import mlperf_result
from sizing.validate import finite, mlperf, pools, steady
from sizing.validate.answers import Answer, refused


def answers(rows: Sequence[Row]) -> list[Answer]:
    """Return the answer to each row."""
    found: dict[int, Answer] = {}
    waiting: dict[int, steady.Question] = {}
    for number, row in enumerate(rows):
        try:
            read = served(row)
            if (other := _of_its_own(read)) is not None:
                found[number] = other(read)
            else:
                waiting[number] = steady.question_of(read)
        except GenzSizeError as error:
            found[number] = refused(error)
    found.update(steady.answers(waiting))
    return [found[number] for number in range(len(rows))]


def _of_its_own(row: Served) -> Callable[[Served], Answer] | None:
    """Return what answers loads without a steady state; None for the others."""
    if row.disaggregated:
        return pools.answer
    if row.arrival is Arrival.MLPERF_SERVER or mlperf_result(row.notes):
        return mlperf.answer
    return finite.answer if row.arrival is Arrival.BURST else None


def metric(row: Row) -> str:
    """Return what a row measures; a percentile above the median apart."""
    name, statistic = row.get("metric", "").lower(), row.get("stat", "").lower()
    tail = statistic if statistic in ("p90", "p95", "p99") else ""
    return f"{name}_{tail}" if tail else name


def labels(row: Row) -> dict[str, str]:
    """Return what a row's tables are made by."""
    return {
        "device": row.get("hardware", ""),
        "family": row.get("model_family", ""),
        "architecture": row.get("arch_class", ""),
        "source": row.get("source_id", ""),
        "engine": " ".join(row.get("framework", "").lower().split()[:1]),
        "load": row.get("load_mode", ""),
    }
