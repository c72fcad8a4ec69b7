"""Power and energy of a replica under a load, in the mean.

Apart from `estimate`: it looks at every operator of a step, which is too slow for
tables of many deployments that nobody reads.
"""

from dataclasses import dataclass

import numpy as np

from model_ops.binding import load_steps
from model_ops.estimate import Estimate, Load, LoadMode, lockstep_requests
from model_ops.opcost import Number
from model_ops.platform.energy import PowerRange, full_power_seconds
from model_ops.profiler.work import Step
from model_ops.serving.steady_state import Mix
from model_ops.serving.step import Replica, step_time, timed_operators
from model_ops.units import Joules, Seconds, Watts


@dataclass(frozen=True, slots=True)
class Consumption:
    """What the NPUs of a replica draw, without host, network and cooling.

    Parameters
    ----------
    watts_per_npu
        Mean over time and NPUs, from the least power to the TDP.
    joules_per_request, joules_per_output_token
        Of all NPUs of the replica, prompts and idle time included.
    """

    watts_per_npu: Watts | Number
    joules_per_request: Joules | Number
    joules_per_output_token: Joules | Number


def consumption(replica: Replica, load: Load, estimate: Estimate) -> Consumption | None:
    """Return the power and energy of a replica; None if an NPU's TDP is unknown.

    Every NPU is taken to be as busy as the fullest. Broadcasts like the estimate.

    Parameters
    ----------
    replica, load, estimate
        A deployment, its load, and what `estimate` says of both.
    """
    power = PowerRange.of(replica.supply)
    if power is None:
        return None
    static = load.mode is LoadMode.STATIC_BATCH
    seconds, active = (_static if static else _steady)(replica, load, estimate)
    watts = power.joules(seconds, active) / seconds
    each = watts * replica.parallelism.npus / estimate.rate
    return Consumption(watts, each, each / estimate.shape.output_tokens)


def _active(replica: Replica, step: Step) -> Seconds | Number:
    """Return the seconds at full power of one step, summed over its stages."""
    return sum(
        (
            timed.count * full_power_seconds(timed.time)
            for timed in timed_operators(replica, step)
        ),
        start=0.0,
    )


_Span = tuple[Seconds | Number, Seconds | Number]
"""Seconds, and how many of them an NPU is at full power."""


def _static(replica: Replica, load: Load, estimate: Estimate) -> _Span:
    """Return what a batch's prompts and then all further steps take."""
    shape, split = load.shape, replica.parallelism
    steps = shape.decode_steps / replica.schedule.tokens_per_step
    first, further = load_steps(replica, load, estimate.batch)
    active = _active(replica, first) + steps * _active(replica, further)
    _, slots = lockstep_requests(split, estimate.batch)
    seconds = estimate.ttft + shape.decode_steps * estimate.tpot
    return seconds, active * slots / split.pp


def _steady(replica: Replica, load: Load, estimate: Estimate) -> _Span:
    """Return what a step takes in the mean: with prompt tokens, without, or none.

    A group without prompt tokens waits where another has some. A mean batch below
    one means that there is nothing to decode most of the time.
    """
    schedule, batch = replica.schedule, estimate.batch
    mix = Mix.of(schedule, load.shape, batch, load.chunk_tokens)
    mixed, plain = load_steps(replica, load, batch)
    decoding = np.minimum(batch / schedule.lanes, 1.0)
    active = mix.share * _active(replica, mixed)
    active = active + (1.0 - mix.share) * decoding * _active(replica, plain)
    waiting = mix.any_share
    periods = [step_time(replica, s).period(schedule.slots) for s in (mixed, plain)]
    seconds = waiting * periods[0] + (1.0 - waiting) * periods[1]
    return seconds, active * schedule.slots / replica.parallelism.pp
