"""A replica under random arrivals: the steady state's means, and percentiles.

`estimate` predicts means for any array of deployments and requests; here, for requests
of one kind, queueing adds what waiting does to them.
"""

from dataclasses import dataclass, replace

import numpy as np

from model_ops.estimate import Estimate, Load
from model_ops.opcost import Number
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Profile
from model_ops.serving.lengths import fixed
from model_ops.serving.queueing import Latencies, latencies, split_variation
from model_ops.serving.step import Replica

MAX_SEQUENCES = 1024
"""Requests that a replica runs at once (vLLM ``max_num_seqs`` on large NPUs)."""


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
    )
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
