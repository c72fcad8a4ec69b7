"""How far the model's predictions have been from measurements, as laws of their error.

A law says how measured / predicted is spread over published results: one per kind of
load, figure, and how well the NPU's kernels are known. ``genz-size validate --laws``
derives them, widened until nine of ten results of groups that it had not seen lie in
the interval; ``catalogue/accuracy.toml`` holds them.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from model_ops.estimate import Estimate, LoadMode, least_latencies
from model_ops.opcost import Number
from model_ops.platform.efficiency import Evidence
from model_ops.platform.npu import Npu
from model_ops.profiler.arch import ModelArch
from model_ops.serving.step import Replica
from problems import catalogue
from problems.catalogue import DEFAULT_FRAMEWORK
from problems.catalogue.schema import FOLDER

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Shares of the measurements at which a law is tabulated."""

LOW, HIGH = 0.05, 0.95
"""Ends of an interval: nine measurements of ten lie between them."""


class LawFile(BaseModel):
    """A law as the catalogue holds it, and the measurements behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: LoadMode
    metric: str
    evidence: Evidence
    rows: int
    groups: int
    quantiles: tuple[float, ...] = Field(min_length=len(LEVELS), max_length=len(LEVELS))


@dataclass(frozen=True, slots=True)
class ErrorLaw:
    """How measured / predicted is spread.

    Parameters
    ----------
    logs
        Its logarithm at `LEVELS`; rising.
    """

    logs: tuple[float, ...]

    def quantile(self, level: float) -> float:
        """Return measured / predicted that a share `level` does not exceed."""
        return float(np.exp(np.interp(level, LEVELS, self.logs)))

    def chance(self, ratio: Number) -> npt.NDArray[np.float64]:
        """Return the share of measurements up to `ratio` times their prediction.

        From 1 to 99 %: further out nobody measured enough.
        """
        with np.errstate(divide="ignore"):
            logs = np.log(np.asarray(ratio, dtype=float))
        return np.asarray(np.interp(logs, self.logs, LEVELS))


@cache
def _laws() -> Mapping[tuple[LoadMode, str, Evidence], ErrorLaw]:
    text = (FOLDER / "accuracy.toml").read_text(encoding="utf-8")
    files = [LawFile.model_validate(law) for law in tomllib.loads(text)["laws"]]
    return {
        (law.mode, law.metric, law.evidence): ErrorLaw(
            tuple(np.maximum.accumulate(np.log(law.quantiles)).tolist())
        )
        for law in files
    }


def error_law(metric: str, mode: LoadMode, evidence: Evidence) -> ErrorLaw:
    """Return the law of a figure's error.

    Parameters
    ----------
    metric
        ``ttft``, ``tpot``, ``e2e`` or ``rate`` (of requests or tokens).
    mode
        How requests come.
    evidence
        How well the NPU's kernels are known.
    """
    return _laws()[mode, metric, evidence]


def interval(
    metric: str, value: Number, mode: LoadMode, evidence: Evidence
) -> tuple[Number, Number]:
    """Return what nine measurements of ten lie between, given a prediction.

    It always holds the prediction itself.

    Parameters
    ----------
    metric, mode, evidence
        As `error_law` takes them.
    value
        The prediction, in any unit.
    """
    law = error_law(metric, mode, evidence)
    low, high = law.quantile(LOW), law.quantile(HIGH)
    return value * min(low, 1.0), value * max(high, 1.0)


@cache
def assumed_npu(
    name: str, confidence: float | None, framework: str = DEFAULT_FRAMEWORK
) -> Npu:
    """Return an NPU as slow as a share `confidence` of measurements at most is.

    Everything that it does takes longer by that quantile of the error of time per
    token, the one figure that is a step's and no queue's; never less than predicted.
    None: as the model predicts.

    Raises
    ------
    CatalogueError
        If the catalogue lacks it.
    """
    npu = catalogue.load_npu_under(name, framework)
    if confidence is None:
        return npu
    law = error_law("tpot", LoadMode.CLOSED_LOOP, npu.evidence)
    return npu.slower(max(law.quantile(confidence), 1.0))


def evidence_of(replica: Replica) -> Evidence:
    """Return how well the kernels of a replica's NPU are known."""
    return replica.supply.npus[0].evidence


def latency_intervals(
    replica: Replica,
    estimate: Estimate,
    mode: LoadMode,
    *,
    answering: Replica | None = None,
    wider: Mapping[str, Number] | None = None,
) -> dict[str, tuple[Number, Number]]:
    """Return the intervals of the three latencies of an estimate, each by its own law.

    Nothing is faster than the roofline, so no interval starts below it.

    Parameters
    ----------
    replica, estimate, mode
        What is predicted to do what, and how requests come.
    answering
        The replica that writes the further tokens of a pair; None: the same. TTFT is
        as uncertain as the kernels of the one that reads, TPOT as those of the one
        that answers, E2E as those that are less known.
    wider
        How much wider each interval is for other reasons, by metric.
    """
    steps = estimate.shape.decode_steps
    last = replica if answering is None else answering
    first, _ = least_latencies(replica, estimate.shape)
    _, further = least_latencies(last, estimate.shape)
    known = {"ttft": evidence_of(replica), "tpot": evidence_of(last)}
    known["e2e"] = max(known.values(), key=list(Evidence).index)
    floors = {"ttft": first, "tpot": further, "e2e": first + steps * further}
    found: dict[str, tuple[Number, Number]] = {}
    for metric, floor in floors.items():
        mean = getattr(estimate, metric)
        more = 1.0 if wider is None else wider[metric]
        low, high = interval(metric, mean, mode, known[metric])
        found[metric] = (np.minimum(np.maximum(low / more, floor), mean), high * more)
    # No answer ends before it begins.
    first_token, whole = found["ttft"], found["e2e"]
    found["e2e"] = (
        np.maximum(whole[0], np.minimum(first_token[0], estimate.e2e)),
        np.maximum(whole[1], first_token[1]),
    )
    return found


def untested(arch: ModelArch, npu: Npu) -> Iterator[str]:
    """Yield which kernels of a model nobody measured on such an NPU."""
    taken = {
        family: family.relative
        for family in arch.kernel_families
        if family.relative is not family and not npu.efficiency.covers(family)
    }
    if taken:
        pairs = "; ".join(
            f"{family.label} that of {relative.label} kernels"
            for family, relative in sorted(taken.items())
        )
        yield (
            f"Kernels that nobody measured on {npu.name} or its like take another's "
            f"efficiency: {pairs}."
        )
