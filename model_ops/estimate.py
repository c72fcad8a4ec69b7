"""One deployment, or an array of them, under a load: the door to the model.

Four kinds of load, as benchmarks run them: a static batch (all start together,
none joins), a closed loop (so many users, each with one request in flight), an
open loop (requests arrive at a rate), and offline (as many as fit, no arrivals).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from model_ops.opcost import Mask, Number
from model_ops.platform.supply import Supply
from model_ops.profiler.memory import MemoryFootprint, Room
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape, Step, decode, prefill
from model_ops.serving.steady_state import (
    DEFAULT_CHUNK_TOKENS,
    batch_cap,
    decoding_segment,
    mean_batch,
    requests_per_step,
    saturating_batch,
    steady_state,
)
from model_ops.serving.step import Replica, step_time
from model_ops.units import RequestsPerSecond, Seconds

_BISECTIONS = 30
"""Halvings of the batch interval: finer than any prediction by far."""

REQUESTS_PER_USER = 10
"""Of a closed loop whose users start together (InferenceX: prompts = 10 x users)."""

_BELOW_SATURATION = 1e-6
"""A batch short of saturation by this share has a finite queue of prompts."""


class LoadMode(StrEnum):
    """How requests come."""

    STATIC_BATCH = "static_batch"
    CLOSED_LOOP = "closed_loop"
    OPEN_LOOP = "open_loop"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Load:
    """What one replica has to serve; numbers or arrays.

    Parameters
    ----------
    shape
        Tokens of a request.
    mode
        How requests come.
    concurrency
        Requests in flight on the replica (static batch, closed loop; for offline
        a cap).
    rate
        Requests per second that arrive at the replica (open loop).
    chunk_tokens
        Tokens that one step may process.
    requests_per_user
        Requests that each user of a closed loop makes, all users starting at once; the
        mean TTFT includes that start. Infinite for the steady state alone.
    in_step
        Whether the users of a closed loop stay in step, as they do where requests are
        all of one length and the engine reads what waits before it decodes on.
    """

    shape: RequestShape
    mode: LoadMode
    concurrency: Number = np.inf
    rate: RequestsPerSecond | Number = 0.0
    chunk_tokens: Number = DEFAULT_CHUNK_TOKENS
    requests_per_user: Number = np.inf
    in_step: bool = False

    @property
    def most_requests(self) -> Number:
        """Requests that the replica has at most, decoding or waiting."""
        return np.inf if self.mode is LoadMode.OPEN_LOOP else self.concurrency


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a replica does under a load, in the mean; numbers or arrays.

    Parameters
    ----------
    shape
        Tokens of a request.
    ttft, tpot
        Mean time to first token, mean time per further token.
    rate
        Requests finished per second.
    batch
        Sequences decoding, on average.
    memory, room
        Bytes needed on the fullest NPU, and bytes there.
    overloaded
        Whether more requests arrive than the replica can finish.
    """

    shape: RequestShape
    ttft: Seconds | Number
    tpot: Seconds | Number
    rate: RequestsPerSecond | Number
    batch: Number
    memory: MemoryFootprint
    room: Room
    overloaded: Mask = False

    @property
    def e2e(self) -> Seconds | Number:
        """Mean time from arrival to the last token."""
        return self.ttft + self.shape.decode_steps * self.tpot

    @property
    def output_tokens_per_s(self) -> Number:
        """Tokens generated per second."""
        return self.rate * self.shape.output_tokens

    @property
    def fits(self) -> Mask:
        """Whether the memory suffices."""
        return (self.memory.total <= self.room.own) & (
            self.memory.outer <= self.room.outer
        )


def estimate(replica: Replica, load: Load) -> Estimate:
    """Return what a replica does under a load.

    Broadcasts over the arrays in `replica` and `load`. Never raises for a replica
    that is too small or too slow: see `Estimate.fits` and `Estimate.overloaded`.
    """
    return _MODES[load.mode](replica, load)


def least_latencies(replica: Replica, shape: RequestShape) -> tuple[Number, Number]:
    """Return the TTFT and TPOT of a request alone on ideal kernels and links.

    No measurement can be below: the roofline itself, a prompt's chunks following
    each other through the stages of a pipeline without a gap.
    """
    npus = tuple(npu.ideal() for npu in replica.supply.npus)
    ideal = replace(replica, supply=Supply(npus, replica.supply.axes))
    # Alone: the other data-parallel groups have nothing to do.
    first = step_time(ideal, replace(whole_prompts(shape, 1.0), elsewhere=0.0))
    schedule = replica.schedule
    alone = Step((decoding_segment(schedule, shape, 1.0),), elsewhere=0.0)
    further = step_time(ideal, alone)
    ttft = first.latency / replica.parallelism.pp
    return ttft, further.latency / schedule.tokens_per_step


def whole_prompts(shape: RequestShape, requests: Number) -> Step:
    """Return the step that processes the prompts of so many requests at once."""
    new = shape.new_tokens
    return Step((prefill(requests, new, shape.input_tokens - new),))


def prompt_steps(
    shape: RequestShape, requests: Number, chunk_tokens: Number
) -> tuple[Step, Number]:
    """Return the mean step of so many prompts that start together, and the steps.

    A step holds whole prompts, or as much of one as it may process; the stages of a
    pipeline take the steps in turn.
    """
    new = shape.new_tokens
    carried = np.minimum(requests * new, chunk_tokens)
    of_each = np.minimum(new, carried)
    seen = shape.input_tokens - new + (new - of_each) / 2.0
    step = Step((prefill(carried / of_each, of_each, seen),))
    return step, requests * new / carried


def most_sequences(replica: Replica, load: Load) -> Number:
    """Return the decoding sequences that fit in the replica's memory."""
    return replica.largest_batch(load.shape, load.chunk_tokens, load.most_requests)


def _memory(replica: Replica, load: Load, batch: Number) -> MemoryFootprint:
    """Return what is needed at a mean batch; only an open loop goes beyond it."""
    groups = replica.parallelism.dp
    most: Number = groups * np.ceil(batch / groups)
    if load.mode is LoadMode.OPEN_LOOP:
        most = batch_cap(batch, groups)
    return replica.footprint(load.shape, most, load.chunk_tokens, load.most_requests)


def pipeline_slots(pp: Number, batch: Number) -> Number:
    """Return the micro-batches that a pipeline keeps in flight."""
    return np.clip(batch, 1, pp)


def lockstep_requests(split: Parallelism, batch: Number) -> tuple[Number, Number]:
    """Return the requests of a micro-batch of a static batch, and the micro-batches.

    A data-parallel group has a request or idles: less than one is rare, not short.
    """
    own = np.maximum(batch / split.dp, 1.0)
    slots = pipeline_slots(split.pp, own)
    return own / slots, slots


def _static_batch(replica: Replica, load: Load) -> Estimate:
    shape, batch = load.shape, load.concurrency
    each, slots = lockstep_requests(replica.parallelism, batch)
    step, many = prompt_steps(shape, each, load.chunk_tokens)
    first = step_time(replica, step)
    ttft = first.latency + (slots * many - 1) * first.bottleneck
    schedule = replica.schedule
    further = Step((decoding_segment(schedule, shape, each),))
    tpot = step_time(replica, further).period(slots) / schedule.tokens_per_step
    return Estimate(
        shape=shape,
        ttft=ttft,
        tpot=tpot * (shape.decode_steps > 0),
        rate=batch / (ttft + shape.decode_steps * tpot),
        batch=batch,
        memory=replica.lockstep_footprint(shape, batch),
        room=replica.room,
    )


def _at_batch(replica: Replica, load: Load, batch: Number) -> Estimate:
    state = steady_state(replica, load.shape, batch, load.chunk_tokens)
    return Estimate(
        shape=load.shape,
        ttft=state.ttft,
        tpot=state.tpot,
        rate=state.rate,
        batch=batch,
        memory=_memory(replica, load, batch),
        room=replica.room,
    )


def _bisect(enough: Callable[[Number], Mask], most: Number) -> Number:
    """Return the least batch up to `most` that is enough; `most` if none is."""
    low = np.zeros_like(np.asarray(most, dtype=float))
    high = np.asarray(most, dtype=float)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        reached = enough(middle)
        low = np.where(reached, low, middle)
        high = np.where(reached, middle, high)
    return high


def _most_decoding(replica: Replica, load: Load) -> Number:
    """Return the batch at which memory, or the room for prompts, is full."""
    in_memory = np.maximum(most_sequences(replica, load), 1.0)
    if load.mode is LoadMode.OPEN_LOOP:
        in_memory = mean_batch(in_memory, replica.parallelism.dp)
    full = saturating_batch(replica.schedule, load.shape, load.chunk_tokens)
    return np.minimum(in_memory, full * (1.0 - _BELOW_SATURATION))


def _open_loop(replica: Replica, load: Load) -> Estimate:
    def fast_enough(batch: Number) -> Mask:
        state = steady_state(replica, load.shape, batch, load.chunk_tokens)
        return state.rate >= load.rate

    batch = _bisect(fast_enough, _most_decoding(replica, load))
    result = _at_batch(replica, load, batch)
    slow = (result.rate < load.rate * (1 - 1e-6)) | ~np.isfinite(result.ttft)
    # Below a batch's resolution a replica would finish more than arrives.
    return replace(result, rate=np.minimum(result.rate, load.rate), overloaded=slow)


def _closed_loop(replica: Replica, load: Load) -> Estimate:
    """Little's law: users = (decoding) + rate x (time to first token)."""
    users = load.concurrency
    most = np.minimum(_most_decoding(replica, load), users)

    def all_users(batch: Number) -> Mask:
        state = steady_state(replica, load.shape, batch, load.chunk_tokens)
        return state.in_flight >= users

    batch = _bisect(all_users, most)
    result = _at_batch(replica, load, batch)
    # Users beyond the full batch wait for a slot; Little's law says how long.
    waited = users / result.rate - load.shape.decode_steps * result.tpot
    finite = np.where(np.isfinite(result.ttft), result.ttft, 0.0)
    outside = replica.supply.request_overhead
    steady = replace(result, ttft=np.maximum(waited, finite + outside))
    if np.ndim(load.requests_per_user) == 0 and np.isinf(load.requests_per_user):
        return steady
    start = start_of_users(replica, load, steady)
    if load.in_step:
        return _in_step(replica, load, steady, start)
    first = 1.0 / load.requests_per_user
    return replace(steady, ttft=first * start + (1.0 - first) * steady.ttft)


def _in_step(
    replica: Replica, load: Load, steady: Estimate, start: Seconds | Number
) -> Estimate:
    """Return users who start together again and again, and decode together.

    Those whose prompts are read first wait for the others before they decode: as long
    on average as their own first token took, which is seen in their time per token.
    """
    shape, schedule = load.shape, replica.schedule
    batch = np.minimum(load.concurrency, np.maximum(most_sequences(replica, load), 1.0))
    each = requests_per_step(batch, schedule.lanes)
    writing = Step((decoding_segment(schedule, shape, each),))
    period = step_time(replica, writing).period(schedule.slots)
    waited = start / np.maximum(shape.decode_steps, 1.0)
    tpot = (period / schedule.tokens_per_step + waited) * (shape.decode_steps > 0)
    rate = load.concurrency / (start + shape.decode_steps * tpot)
    return replace(steady, ttft=start, tpot=tpot, rate=rate, batch=batch)


def start_of_users(
    replica: Replica, load: Load, steady: Estimate, level: float = 0.5
) -> Seconds | Number:
    """Return the TTFT that a share of users keeps who all ask at once.

    Half of them keep the mean. Their prompts fill one step after another, while those
    read before decode: of n prompts that k steps read, the mean one ends with step
    (k + 1) / 2. Users beyond the slots wait for whole requests first.
    """
    shape, split = load.shape, replica.parallelism
    lanes = replica.schedule.lanes
    slots = np.minimum(_most_decoding(replica, load), load.concurrency)
    users = np.maximum(np.minimum(load.concurrency, slots) / lanes, 1.0)
    room = np.maximum(load.chunk_tokens - users / 2.0, 1.0)
    carried = np.minimum(users * shape.new_tokens, room)
    of_each = np.minimum(shape.new_tokens, carried)
    context = (shape.new_tokens - of_each) / 2.0
    reading = prefill(
        carried / of_each, of_each, shape.input_tokens - shape.new_tokens + context
    )
    many = users * shape.new_tokens / room
    writing = decode(np.where(many > 1.0, users / 2.0, 0.0), shape.input_tokens)
    full = step_time(replica, Step((reading, writing)))
    passed = level * np.maximum(many - 1.0, 0.0) * split.pp
    beyond = level * np.maximum(load.concurrency / np.maximum(slots, 1.0) - 1.0, 0.0)
    whole = shape.decode_steps * steady.tpot
    outside = replica.supply.request_overhead + replica.supply.host_time * (
        load.concurrency / 2.0
    )
    return full.latency + passed * full.bottleneck + beyond * whole + outside


def _offline(replica: Replica, load: Load) -> Estimate:
    """As many as fit, all waiting from the start: TTFT is a prompt's own time."""
    most = np.minimum(_most_decoding(replica, load), load.concurrency)
    first = step_time(replica, whole_prompts(load.shape, 1.0))
    return replace(_at_batch(replica, load, most), ttft=first.latency)


_MODES: dict[LoadMode, Callable[[Replica, Load], Estimate]] = {
    LoadMode.STATIC_BATCH: _static_batch,
    LoadMode.CLOSED_LOOP: _closed_loop,
    LoadMode.OPEN_LOOP: _open_loop,
    LoadMode.OFFLINE: _offline,
}
