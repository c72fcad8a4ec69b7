"""Errors summed up: medians within groups, means over groups, so that no source rules.

A group is one source, model, device and tensor parallel degree, or what a table calls
so. The error of a row is ln(predicted / measured).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sizing.validate.scored import UNTRUSTED, Comparison, Scored


@dataclass(frozen=True, slots=True)
class Score:
    """How far predictions are from measurements.

    Parameters
    ----------
    n, answered, groups
        Rows, rows with a prediction, and groups of the latter.
    median_abs_ln_error, bias, p90
        Medians of the absolute and of the signed error and the absolute one's 90th
        percentile within a group, each averaged over the groups; None without any.
    ratio_p5, ratio_p95
        What nine of ten measurements lie between, as multiples of the predictions; a
        group's rows weigh as much as another's.
    coverage
        Share of the measurements within the predicted interval, averaged alike; of
        answers that are yes or no, the share that is right; None without intervals.
    """

    n: int
    answered: int
    groups: int
    median_abs_ln_error: float | None = None
    bias: float | None = None
    p90: float | None = None
    ratio_p5: float | None = None
    ratio_p95: float | None = None
    coverage: float | None = None

    @property
    def answered_share(self) -> float:
        """Share of the rows with a prediction."""
        return self.answered / self.n if self.n else 1.0


Metrics = Mapping[str, Score]
"""Scores by metric."""


@dataclass(frozen=True)
class Scores:
    """The scores of one kind of table.

    Parameters
    ----------
    kind
        Of the table.
    rows, untrusted
        All its rows, and those that are answered but not scored.
    metrics
        Scores by metric.
    by
        Scores by dimension, by value of it, by family of metrics; tails left out.
    reasons
        How often a row has no prediction, by the reason.
    """

    kind: str
    rows: int
    untrusted: int
    metrics: Metrics
    by: Mapping[str, Mapping[str, Metrics]]
    reasons: Mapping[str, int]


def score(rows: Iterable[Scored]) -> Score:
    """Return the errors of rows, every group weighing the same."""
    asked = list(rows)
    groups: dict[str, list[Scored]] = defaultdict(list)
    for row in asked:
        if row.answered:
            groups[row.group].append(row)
    answered = sum(map(len, groups.values()))
    if not answered:
        return Score(len(asked), 0, 0)
    errors = [np.array([row.error for row in group]) for group in groups.values()]
    covered = [np.mean([row.covered for row in group]) for group in groups.values()]
    covered = [share for share in covered if not np.isnan(share)]
    low, high = _ratios(errors)
    return Score(
        n=len(asked),
        answered=answered,
        groups=len(groups),
        median_abs_ln_error=_mean(np.median(np.abs(each)) for each in errors),
        bias=_mean(np.median(each) for each in errors),
        p90=_mean(np.quantile(np.abs(each), 0.9) for each in errors),
        ratio_p5=low,
        ratio_p95=high,
        coverage=_mean(covered) if covered else None,
    )


def _ratios(errors: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """Return the 5 % and 95 % quantiles of measured over predicted."""
    every = -np.concatenate(errors)
    weights = np.concatenate([np.full(each.size, 1 / each.size) for each in errors])
    order = np.argsort(every)
    share = np.cumsum(weights[order]) / weights.sum()
    low, high = np.exp(np.interp([0.05, 0.95], share, every[order]))
    return float(low), float(high)


def _mean(values: Iterable[float | np.floating]) -> float:
    return float(np.mean(list(values)))


def scores(compared: Sequence[Comparison]) -> list[Scores]:
    """Return the scores of each kind of table that was compared."""
    kinds: dict[str, list[Scored]] = defaultdict(list)
    for comparison in compared:
        kinds[comparison.table.kind] += (*comparison.rows, *comparison.more)
    return [_scores(kind, rows) for kind, rows in kinds.items()]


def _scores(kind: str, rows: Sequence[Scored]) -> Scores:
    trusted = [row for row in rows if row.trust != UNTRUSTED]
    dimensions = list(dict.fromkeys(name for row in trusted for name in row.labels))
    return Scores(
        kind=kind,
        rows=len(rows),
        untrusted=len(rows) - len(trusted),
        metrics=_by_metric(trusted),
        by={name: _by_value(trusted, name) for name in dimensions},
        reasons=dict(
            Counter(
                row.answer.reason for row in rows if row.answer.reason
            ).most_common()
        ),
    )


def _by_metric(rows: Iterable[Scored]) -> Metrics:
    return _split(rows, lambda row: row.metric)


def _by_value(rows: Iterable[Scored], dimension: str) -> dict[str, Metrics]:
    values: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        if not is_tail(row):
            values[row.labels.get(dimension, "")].append(row)
    families = ((value, _split(some, family)) for value, some in values.items())
    return dict(sorted(families))


def _split(rows: Iterable[Scored], name: Callable[[Scored], str]) -> Metrics:
    metrics: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        metrics[name(row)].append(row)
    return {each: score(some) for each, some in sorted(metrics.items())}


_TAIL = re.compile(r"_p\d+$")
_FAMILIES = (
    ("ttft", re.compile("ttft")),
    ("tpot", re.compile("tpot|itl")),
    ("e2e", re.compile("e2e|latency_ms")),
    ("throughput", re.compile("_tok_s|req_s")),
)


def is_tail(row: Scored) -> bool:
    """Return whether a row's figure is a high percentile."""
    return _TAIL.search(row.metric) is not None


def family(row: Scored) -> str:
    """Return what kind of figure a row measures: a latency, throughput, or its own."""
    found = (name for name, pattern in _FAMILIES if pattern.search(row.metric))
    return next(found, row.metric)
