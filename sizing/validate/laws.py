"""Laws of the error of predictions, from measured rows: the data of every interval.

Every group of measurements weighs the same. Quantiles of the errors at hand are too
narrow for what comes next, so each law is widened around its median until nine of ten
measurements of groups that took no part in it lie in its interval, on average.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from model_ops.estimate import LoadMode
from model_ops.platform.efficiency import Evidence
from problems import catalogue
from problems.accuracy import HIGH, LEVELS, LOW
from problems.measured.served import Arrival, served
from sizing.validate.score import family, is_tail
from sizing.validate.scored import UNTRUSTED, Comparison

Floats = npt.NDArray[np.float64]

METRICS = ("ttft", "tpot", "e2e", "rate")
"""Figures that have a law."""

FEWEST = 6
"""Groups that a law rests on; with fewer it is that of all kernels, or of all loads."""

FOLDS = 5
"""Parts that groups are dealt to, each left out once."""

_WIDEST = 3.0
_ASIDE: Mapping[Evidence, float] = {
    Evidence.MEASURED: 1.0,
    Evidence.RELATIVE: 1.15,
    Evidence.ASSUMED: 1.5,
}
"""How much wider a law is that was borrowed from other kinds of kernels."""


@dataclass(frozen=True, slots=True)
class Error:
    """What a measurement says of a prediction.

    Parameters
    ----------
    mode, metric, evidence
        The kind of law it belongs to.
    group, source
        Measurements alike, and who made them.
    log
        ``ln(measured / predicted)``.
    """

    mode: LoadMode
    metric: str
    evidence: Evidence
    group: str
    source: str
    log: float


@dataclass(frozen=True, slots=True)
class Law:
    """A law's kind, what it rests on, and measured / predicted at `LEVELS`."""

    mode: LoadMode
    metric: str
    evidence: Evidence
    rows: int
    groups: int
    quantiles: tuple[float, ...]


_MODES: Mapping[Arrival, LoadMode] = {
    Arrival.STATIC_BATCH: LoadMode.STATIC_BATCH,
    Arrival.CLOSED_LOOP: LoadMode.CLOSED_LOOP,
    Arrival.OFFLINE: LoadMode.OFFLINE,
    Arrival.OPEN_LOOP: LoadMode.OPEN_LOOP,
    Arrival.BURST: LoadMode.OFFLINE,
    Arrival.MLPERF_SERVER: LoadMode.OPEN_LOOP,
}


def errors_of(compared: Sequence[Comparison]) -> Iterator[Error]:
    """Yield the errors of serving results that are trusted and answered.

    Disaggregated deployments and high percentiles have no law.
    """
    for row in (row for each in compared for row in each.rows if "load" in row.labels):
        if row.trust == UNTRUSTED or not row.answered or is_tail(row):
            continue
        read = served(row.row)
        metric = family(row)
        if not read.disaggregated:
            yield Error(
                mode=_MODES[read.arrival],
                metric="rate" if metric == "throughput" else metric,
                evidence=catalogue.load_npu(read.npu).evidence,
                group=row.group,
                source=row.labels["source"],
                log=-row.error,
            )


def laws(errors: Sequence[Error]) -> Iterator[Law]:
    """Yield the law of every kind; those nobody measured are borrowed, and wider."""
    for mode, metric, evidence in product(LoadMode, METRICS, Evidence):
        own = [e for e in errors if e.metric == metric and e.mode is mode]
        alike = [e for e in own if e.evidence is evidence]
        wider = 1.0
        if _groups(alike) < FEWEST:
            alike, wider = own, _ASIDE[evidence]
        if _groups(alike) < FEWEST:
            alike = [e for e in errors if e.metric == metric]
        if not alike:
            continue
        logs = _quantiles(alike)
        middle = logs[LEVELS.index(0.5)]
        stretched = middle + (logs - middle) * (_stretch(alike) * wider)
        yield Law(
            mode,
            metric,
            evidence,
            rows=len(alike),
            groups=_groups(alike),
            quantiles=tuple(np.exp(stretched).tolist()),
        )


def _groups(errors: Sequence[Error]) -> int:
    return len({error.group for error in errors})


def _weights(errors: Sequence[Error]) -> Floats:
    sizes: dict[str, int] = {}
    for error in errors:
        sizes[error.group] = sizes.get(error.group, 0) + 1
    return np.array([1.0 / sizes[error.group] for error in errors])


def _quantiles(errors: Sequence[Error]) -> Floats:
    """Return the errors' logs at `LEVELS`, groups alike."""
    logs = np.array([error.log for error in errors])
    order = np.argsort(logs)
    share = np.cumsum(_weights(errors)[order])
    middle = (share - 0.5 * _weights(errors)[order]) / share[-1]
    return np.asarray(np.interp(LEVELS, middle, logs[order]))


def _stretch(errors: Sequence[Error]) -> float:
    """Return how much wider a law must be to hold groups that it did not see."""
    groups = sorted({error.group for error in errors})
    dealt = np.random.default_rng(0).permutation(len(groups)) % FOLDS
    fold = dict(zip(groups, dealt.tolist(), strict=True))
    needed, weights = [], []
    for number in range(FOLDS):
        seen = [e for e in errors if fold[e.group] != number]
        new = [e for e in errors if fold[e.group] == number]
        logs = _quantiles(seen)
        low, middle, high = np.interp((LOW, 0.5, HIGH), LEVELS, logs)
        off = np.array([e.log for e in new]) - middle
        reach = np.where(off > 0, high - middle, middle - low)
        needed.append(np.abs(off) / np.maximum(reach, 1e-3))
        weights.append(_weights(new))
    ratio, weight = np.concatenate(needed), np.concatenate(weights)
    order = np.argsort(ratio)
    share = np.cumsum(weight[order]) / weight.sum()
    held = ratio[order][np.searchsorted(share, HIGH - LOW)]
    return float(np.clip(held, 1.0, _WIDEST))


def laws_toml(found: Sequence[Law]) -> str:
    """Return the catalogue's file of laws."""
    lines = []
    for law in found:
        numbers = ", ".join(f"{value:.4g}" for value in law.quantiles)
        lines += [
            "[[laws]]",
            f'mode = "{law.mode.value}"',
            f'metric = "{law.metric}"',
            f'evidence = "{law.evidence}"',
            f"rows = {law.rows}",
            f"groups = {law.groups}",
            f"quantiles = [{numbers}]",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"
