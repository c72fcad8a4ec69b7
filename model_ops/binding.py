"""What binds a deployment: the seconds of its steps by what they are spent on."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from model_ops.estimate import (
    Load,
    LoadMode,
    lockstep_requests,
    whole_prompts,
)
from model_ops.opcost import Number
from model_ops.profiler.work import Step
from model_ops.serving.steady_state import Mix, decoding_segment
from model_ops.serving.step import Replica, TimedOperator, timed_operators
from model_ops.units import Seconds


def bounds(
    operators: list[TimedOperator], overhead: Seconds | Number
) -> dict[str, Number]:
    """Return the seconds of a step by what binds them.

    Parameters
    ----------
    operators
        A step's operators, from `timed_operators`.
    overhead
        Seconds that the engine adds to them; see `Replica.overhead`.

    Returns
    -------
    dict
        Seconds bound by ``compute``, ``memory bandwidth``, ``network`` and
        ``launch`` (kernel starts and scheduling); they add up to the step.
    """
    compute: Number = 0.0
    memory: Number = 0.0
    network: Number = 0.0
    launch: Number = overhead
    for timed in operators:
        time, count = timed.time, timed.count
        busy = time.busy
        moved = np.maximum(time.memory, time.tiles)
        by_compute = np.asarray(time.compute >= moved)
        compute = compute + count * busy * by_compute
        memory = memory + count * busy * ~by_compute
        network = network + count * time.network
        launch = launch + count * time.launch
    return {
        "compute": compute,
        "memory bandwidth": memory,
        "network": network,
        "launch": launch,
    }


def load_steps(replica: Replica, load: Load, batch: Number) -> tuple[Step, Step]:
    """Return the steps that set TTFT and TPOT: one with prompt tokens, one without."""
    shape, split, schedule = load.shape, replica.parallelism, replica.schedule
    if load.mode is LoadMode.STATIC_BATCH:
        each, _ = lockstep_requests(split, batch)
        writing = decoding_segment(schedule, shape, each)
        return whole_prompts(shape, each), Step((writing,))
    mix = Mix.of(schedule, shape, batch, load.chunk_tokens)
    return mix.mixed_step(shape), mix.decode_step(shape)


Names: TypeAlias = npt.NDArray[np.str_]
"""Words, shaped as the points."""


def bound_by(replica: Replica, load: Load, batch: Number) -> tuple[Names, Names]:
    """Return what binds TTFT and TPOT at each point."""
    names = []
    for step in load_steps(replica, load, batch):
        seconds = bounds(timed_operators(replica, step), replica.overhead(step))
        kinds = np.array(list(seconds))
        parts = np.stack(np.broadcast_arrays(*seconds.values()))
        names.append(np.asarray(kinds[np.argmax(parts, axis=0)]))
    return names[0], names[1]
