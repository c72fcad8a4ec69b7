"""From a replica to the engine that queueing and simulation know."""

import numpy as np

from model_ops.opcost import Number
from model_ops.profiler.memory import cache_tokens
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.load import Load
from model_ops.serving.step import Replica
from model_ops.serving.step_curve import StepCurve


def engine_of(
    replica: Replica,
    profile: Profile,
    *,
    chunk_tokens: int,
    max_sequences: int,
    beams: int = 1,
    curve: StepCurve | None = None,
) -> Engine:
    """Return the engine of one data-parallel group of a replica, alike in all groups.

    Parameters
    ----------
    replica
        One deployment; or an array of them whose figures have a last axis of length
        one, which the token grid takes.
    profile
        The lengths of the requests: long ones need less cache per token where layers
        have windows or states.
    chunk_tokens
        Tokens that a step of one micro-batch may process.
    max_sequences
        Requests that the group may run at once.
    beams
        Answers that each request writes side by side: rows of a step, and answers in
        the cache.
    curve
        Its step times, if they are known for as many tokens already.

    Returns
    -------
    Engine
        Shaped as the options. Its cache holds no token where the model does not fit.
    """
    slots = replica.schedule.slots
    rows_each = beams * (1.0 + replica.schedule.guessed)
    curve = curve or curve_of(replica, chunk_tokens, beams)
    load = Load.of(profile)
    tokens = cache_tokens(
        replica.held,
        replica.room,
        length=load.cached,
        step_tokens=chunk_tokens,
        sampled=max_sequences / slots * rows_each,
        placement=replica.placement,
    )
    # Beams share the prompt's cache and have one for each answer.
    answer = load.cached - load.moments[1]
    tokens = tokens * load.cached / (load.moments[1] + beams * answer)
    return Engine(
        curve=curve,
        chunk_tokens=_options(chunk_tokens * slots, curve),
        max_sequences=float(max_sequences),
        cache_tokens=_options(tokens, curve),
        request_overhead=_options(replica.supply.request_overhead, curve),
        tokens_per_step=replica.schedule.tokens_per_step,
        groups=_options(replica.schedule.groups, curve),
    )


def curve_of(replica: Replica, chunk_tokens: int, beams: int = 1) -> StepCurve:
    """Return the step times of a replica, for micro-batches of up to so many tokens.

    See `engine_of` for `beams`; engines whose chunks are smaller may share the curve.
    """
    schedule = replica.schedule
    most = int(chunk_tokens * np.max(schedule.slots))
    return StepCurve.of(replica, most, beams)


def _options(value: Number, curve: StepCurve) -> Number:
    """Return a figure without the axis that the token grid has taken."""
    if curve.base.ndim == 1 or np.ndim(value) == 0:
        return value
    return np.asarray(value)[..., 0]
