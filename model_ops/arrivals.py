"""A replica under random arrivals: the steady state's means, and percentiles.

`estimate` predicts means for any array of deployments and requests; here, for requests
of one kind, queueing adds what waiting does to them.
"""

from dataclasses import dataclass, replace

import numpy as np

from model_ops.estimate import Estimate, Load
from model_ops.opcost import Number
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import fixed
from model_ops.serving.queueing import (
    Latencies,
    Laws,
    Metric,
    latencies,
    split_variation,
)
from model_ops.serving.saturation import saturation
from model_ops.serving.server import column
from model_ops.serving.step import Replica
from model_ops.serving.step_curve import StepCurve
from model_ops.units import RequestsPerSecond, Seconds

MAX_SEQUENCES = 1024
"""Requests that a replica runs at once (vLLM ``max_num_seqs`` on large NPUs)."""

_MOST_OPEN = 0.8
"""Share of saturation up to which the laws of an open loop stand for a closed one."""


@dataclass(frozen=True)
class Arriving:
    """What replicas do under random arrivals; numbers or arrays.

    Parameters
    ----------
    estimate
        The means.
    latencies
        The same with percentiles, and where the formulas are weak.
    """

    estimate: Estimate
    latencies: Latencies


def under_arrivals(
    replica: Replica, load: Load, means: Estimate, *, replicas: Number = 1
) -> Arriving:
    """Return what a replica does when requests arrive at random.

    Parameters
    ----------
    replica
        One deployment; or an array of them whose degrees have a last axis of length
        one, shaped [point, 1].
    load
        An open loop of requests of one kind: their lengths are numbers. Its rate may
        be an array, shaped [point].
    means
        The steady state's, for what queueing does not change.
    replicas
        Replicas behind one router.
    """
    shape, groups = load.shape, replica.parallelism.dp
    if np.ndim(groups):
        groups = np.asarray(groups)[..., 0]
    engine, profile = alike_engine(replica, load)
    found = latencies(
        engine,
        profile,
        load.rate / groups,
        arrival_variation=split_variation(replicas * groups),
    )
    queued = replace(
        means,
        ttft=found.ttft.mean,
        tpot=found.tpot.mean * (shape.decode_steps > 0),
        batch=found.batch_mean * groups,
        rate=load.rate / np.maximum(found.utilisation, 1.0),
        overloaded=~np.asarray(found.stable),
    )
    return Arriving(queued, found)


def under_users(
    engine: Engine,
    profile: Profile,
    rate: RequestsPerSecond | Number,
    ttft: Seconds | Number,
    tpot: Seconds | Number,
) -> tuple[Number, Number]:
    """Return the 99th percentiles of TTFT and TPOT in a closed loop.

    Its means are those of the steady state; about them, requests are spread as they
    are in an open loop at the rate at which users get their answers. An open loop's
    queue grows without end near saturation, where users who wait do not ask: there the
    spread is that of `_MOST_OPEN` of saturation.

    Parameters
    ----------
    engine, profile
        As for `latencies`.
    rate
        Requests per second of a data-parallel group.
    ttft, tpot
        The steady state's, in seconds.
    """
    laws = Laws.of(engine, profile, 1.0)
    most = _MOST_OPEN * saturation(laws.server, laws.ladder)
    at_rate = replace(laws, rate=np.minimum(column(rate), most))

    def late(mean: Number, metric: Metric) -> Number:
        spread = at_rate.figure(metric, "p99") - at_rate.figure(metric, "mean")
        return mean + np.maximum(spread[..., 0], 0.0)

    with np.errstate(invalid="ignore"):
        return late(ttft, "ttft"), late(tpot, "tpot")


def alike_engine(
    replica: Replica, load: Load, curve: StepCurve | None = None
) -> tuple[Engine, Profile]:
    """Return a replica's engine for requests that are all alike, and these.

    See `engine_of` for `curve`, and `under_arrivals` for the others.
    """
    shape = load.shape
    hit = float(shape.cached_tokens) / float(shape.input_tokens)
    profile = Profile(
        fixed(float(shape.input_tokens)), fixed(float(shape.output_tokens)), hit
    )
    engine = engine_of(
        replica,
        profile,
        chunk_tokens=int(load.chunk_tokens),
        max_sequences=MAX_SEQUENCES,
        beams=int(shape.beams),
        curve=curve,
    )
    return engine, profile
