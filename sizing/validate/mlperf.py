"""What MLPerf submitters reach: rates within limits, the most offline, one at a time.

The result of a Server run is by the rules the highest rate whose 99th percentiles keep
the limits. Submitters tune the tokens of a step, what holds the KV cache, and the
tensor parallel degree where the table does not tell it; so does the prediction. Latencies are
those at the highest rate that is predicted: that a limit binds is what the run is for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from model_ops.dtypes import Dtype, Precision
from model_ops.errors import GenzSizeError, ProblemError
from model_ops.estimate import Estimate, Load, LoadMode, estimate
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.highest_rate import Target, highest_rate
from model_ops.serving.queueing import (
    LEVELS,
    Latencies,
    latencies,
    split_variation,
)
from model_ops.serving.step import Replica
from problems import catalogue
from problems.measured.mlperf import Sustained, sustained, sustained_of
from problems.measured.served import Arrival, Layout, Served
from problems.measured.tables import Row
from sizing.validate.answers import Answer, refused, with_interval
from sizing.validate.layouts import degrees, holds, legal, stored

_CHUNKS = (1024, 2048, 8192)
_MOST_SEQUENCES = 2048
_SMALL = (Dtype.NVFP4, Dtype.FP8)
"""Formats of weights, the smallest first."""

_INSIDE = 0.999
"""Share of the highest rate at which latencies are still finite."""


@dataclass(frozen=True)
class Tuned:
    """A deployment as its owner would tune it for the limits.

    Parameters
    ----------
    engine, profile
        Of one replica.
    replicas
        How many there are.
    rate
        Requests per second of each, at most.
    """

    engine: Engine
    profile: Profile
    replicas: int
    rate: float

    @property
    def total(self) -> float:
        """Requests per second of all replicas."""
        return self.replicas * self.rate

    def latencies(self) -> Latencies:
        """Return the latencies at the highest rate."""
        return latencies(
            self.engine,
            self.profile,
            _INSIDE * self.rate,
            arrival_variation=split_variation(self.replicas),
        )


def answers(rows: Sequence[Row]) -> list[Answer]:
    """Return the highest rate for each row of a table of MLPerf results."""
    return [_highest(row) for row in rows]


def _highest(row: Row) -> Answer:
    try:
        result = sustained(row)
        found = tuned(result).total
    except GenzSizeError as error:
        return refused(error)
    return with_interval("rate", found, LoadMode.OPEN_LOOP, result.npu)


def answer(row: Served) -> Answer:
    """Return the figure of one serving result of MLPerf."""
    try:
        result = sustained_of(row)
        if row.arrival is Arrival.MLPERF_SERVER:
            return _server(row, result)
        return _offline(row, result) if row.metric in _RATES else _alone(row, result)
    except GenzSizeError as error:
        return refused(error)


_RATES = ("req_s", "output_tok_s")


def _server(row: Served, result: Sustained) -> Answer:
    """Return a rate within limits, or a latency there."""
    if row.metric in _RATES:
        return _rate(row, result, tuned(result).total, LoadMode.OPEN_LOOP)
    if row.metric not in ("ttft", "tpot", "e2e"):
        raise ProblemError(f"metric: {row.metric} of arrivals is not predicted")
    figures = getattr(_latencies(result), row.metric)
    value = 1e3 * float(np.ravel(getattr(figures, row.statistic, figures.mean))[0])
    return with_interval(row.metric, value, LoadMode.OPEN_LOOP, row.npu)


def _offline(row: Served, result: Sustained) -> Answer:
    """Return the most that is reached with all requests there from the start."""
    shape = _shape(result, result.requests.output_tokens)
    rates = [
        replicas * float(np.max(found.rate))
        for replica, replicas in _tunings(result)
        for chunk in _CHUNKS
        if np.all((found := _all_at_once(replica, shape, chunk)).memory.total > 0)
    ]
    return _rate(row, result, max(rates), LoadMode.OFFLINE)


def _all_at_once(replica: Replica, shape: RequestShape, chunk: int) -> Estimate:
    return estimate(replica, Load(shape, LoadMode.OFFLINE, chunk_tokens=chunk))


def _alone(row: Served, result: Sustained) -> Answer:
    """Return a latency of requests one after another, long answers apart from short."""
    level = LEVELS.get(row.statistic)  # type: ignore[call-overload]
    answer = result.requests.output_tokens
    if level is not None:
        answer = float(result.requests.profile.output.quantile(np.array(level)))
    load = Load(_shape(result, answer), LoadMode.STATIC_BATCH, 1.0)
    found = [estimate(replica, load) for replica, _ in _tunings(result)]
    best = min(found, key=lambda one: float(np.max(one.e2e)))
    value = 1e3 * float(np.max(getattr(best, row.metric)))
    return with_interval(row.metric, value, LoadMode.STATIC_BATCH, row.npu)


def _shape(result: Sustained, answer: float) -> RequestShape:
    requests = result.requests
    return RequestShape(requests.input_tokens, answer, beams=requests.beams)


def _rate(row: Served, result: Sustained, rate: float, mode: LoadMode) -> Answer:
    """Return a rate in the row's unit."""
    each = result.requests.output_tokens if row.metric == "output_tok_s" else 1.0
    return with_interval("rate", rate * each, mode, row.npu)


@cache
def _latencies(result: Sustained) -> Latencies:
    return tuned(result).latencies()


@cache
def tuned(result: Sustained) -> Tuned:
    """Return the tuning with the highest rate within the limits.

    Raises
    ------
    GenzSizeError
        If no tuning keeps them.
    """
    profile, beams = result.requests.profile, result.requests.beams
    targets = [Target(name, "p99", most) for name, most in result.limits]  # type: ignore[arg-type]
    best: Tuned | None = None
    for replica, replicas in _tunings(result):
        for chunk in _CHUNKS:
            engine = engine_of(
                replica,
                profile,
                chunk_tokens=chunk,
                max_sequences=_MOST_SEQUENCES,
                beams=beams,
            )
            if np.max(engine.cache_tokens) < profile.longest:
                continue
            rate = highest_rate(engine, profile, targets, replicas=replicas)
            found = Tuned(engine, profile, replicas, float(np.ravel(rate)[0]))
            if best is None or found.total > best.total:
                best = found
    if best is None:
        raise ProblemError("memory: the model and one request do not fit")
    if best.rate <= 0:
        raise ProblemError("limits: a request alone takes longer by prediction")
    return best


def _tunings(result: Sustained) -> Iterator[tuple[Replica, int]]:
    """Yield the replicas that fill the accelerators, and how many of each.

    Raises
    ------
    ProblemError
        If the model fits in none.
    """
    arch = catalogue.load_model(result.model)
    npu = catalogue.load_npu_under(result.npu, result.framework)
    precision = _precision(arch, result, npu)
    found = [
        (Replica(arch, split, precision, Supply.of(npu)), replicas)
        for split, replicas in _splits(arch, result.layout)
        if holds(arch, split, precision, npu)
    ]
    if not found:
        raise ProblemError("memory: the model does not fit")
    yield from found


def _precision(arch: ModelArch, result: Sustained, npu: Npu) -> Precision:
    """Return the formats, of those unpublished the least that is computed in.

    Accuracy is checked by the rules, and what keeps it is the fastest: weights of four
    or eight bits, and keys and values of eight, as every published configuration has.
    """
    weights, kept = result.weights, result.kv_cache
    rates = npu.flop_per_s
    if weights is None:
        weights = next((form for form in _SMALL if form.engine in rates), None)
    if kept is None and Dtype.FP8 in rates:
        kept = Dtype.FP8
    return stored(arch, weights, kept, npu)


def _splits(arch: ModelArch, layout: Layout) -> list[tuple[Parallelism, int]]:
    """Return how each replica may be split, and how many replicas there are then.

    Where experts are shared, engines count the same NPUs as tensor parallel whether
    attention is split over heads or over requests: the owner takes what is faster.
    """
    pp, named = layout.pp or 1, layout.tp
    ranks = [legal(arch, named, pp)] if named else degrees(arch, layout.npus)
    splits = []
    for tp in ranks:
        experts = layout.ep or 1 if arch.num_experts else 1
        groups = max(1, experts // tp)
        ways = [Parallelism(tp, pp, experts, groups)]
        if arch.num_experts and tp > 1 and groups == 1:
            ways += [Parallelism(tp, pp, tp), Parallelism(1, pp, tp, tp)]
        for split in ways:
            if arch.rule_broken_by(split) is None:
                splits.append((split, max(1, layout.npus // int(split.npus))))
    return splits


def labels(row: Row) -> dict[str, str]:
    """Return what a row's tables are made by."""
    return {
        "device": row.get("hardware", ""),
        "model": row.get("model", ""),
        "scenario": row.get("scenario", "").capitalize(),
        "submitter": row.get("submitter", ""),
    }
