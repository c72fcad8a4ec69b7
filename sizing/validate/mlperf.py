"""Highest rates within MLPerf's limits, and the latencies there.

The result of a Server run is by the rules the highest rate whose 99th percentiles keep
the limits. Submitters tune the tokens of a step, and the tensor parallel degree where
the table does not tell it; so does the prediction. Latencies are those at the highest
rate that is predicted: that a limit binds is what the run is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from model_ops.errors import GenzSizeError, ProblemError
from model_ops.estimate import LoadMode
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.highest_rate import Target, highest_rate
from model_ops.serving.lengths import lognormal
from model_ops.serving.queueing import Latencies, latencies, split_variation
from model_ops.serving.step import Replica
from problems import catalogue
from problems.measured.mlperf import Sustained, sustained, sustained_of
from problems.measured.served import Layout, Served
from problems.measured.tables import Row
from sizing.validate.answers import Answer, refused, with_interval
from sizing.validate.layouts import degrees, legal, stored

_CHUNKS = (1024, 8192)
_MOST_SEQUENCES = 2048
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
    """Return the figure of one serving result of MLPerf's Server scenarios."""
    try:
        result = sustained_of(row)
        found = tuned(result)
    except GenzSizeError as error:
        return refused(error)
    tokens = {"req_s": 1.0, "output_tok_s": result.requests.output_tokens}
    if row.metric in tokens:
        rate = found.total * tokens[row.metric]
        return with_interval("rate", rate, LoadMode.OPEN_LOOP, row.npu)
    if row.metric not in ("ttft", "tpot", "e2e"):
        return refused(f"metric: {row.metric} of arriving requests is not predicted")
    figures = getattr(_latencies(result), row.metric)
    value = 1e3 * float(np.ravel(getattr(figures, row.statistic, figures.mean))[0])
    return with_interval(row.metric, value, LoadMode.OPEN_LOOP, row.npu)


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
    arch, npu = catalogue.load_model(result.model), catalogue.load_npu(result.npu)
    precision = stored(arch, result.weights, result.kv_cache, npu)
    lengths = result.requests
    profile = Profile(
        lognormal(lengths.input_tokens, lengths.input_variation),
        lognormal(lengths.output_tokens, lengths.output_variation),
    )
    targets = [Target(name, "p99", most) for name, most in result.limits]  # type: ignore[arg-type]
    best: Tuned | None = None
    for split, replicas in _splits(arch, result.layout):
        replica = Replica(arch, split, precision, Supply.of(npu))
        for chunk in _CHUNKS:
            engine = engine_of(
                replica, profile, chunk_tokens=chunk, max_sequences=_MOST_SEQUENCES
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


def _splits(arch: ModelArch, layout: Layout) -> list[tuple[Parallelism, int]]:
    """Return how each replica may be split, and how many replicas there are then."""
    pp, ep = layout.pp or 1, layout.ep or 1
    named = layout.tp
    ranks = [legal(arch, named, pp)] if named else degrees(arch, layout.npus)
    splits = []
    for tp in ranks:
        groups = max(1, ep // tp) if arch.num_experts else 1
        split = Parallelism(tp, pp, ep if arch.num_experts else 1, groups)
        if arch.rule_broken_by(split) is None:
            replicas = max(1, layout.npus // (tp * pp * groups))
            splits.append((split, replicas))
    return splits


def labels(row: Row) -> dict[str, str]:
    """Return what a row's tables are made by."""
    return {
        "device": row.get("hardware", ""),
        "model": row.get("model", ""),
        "scenario": row.get("scenario", "").capitalize(),
        "submitter": row.get("submitter", ""),
    }
