"""The scheduler of a replica, step by step: the kernel of the simulation.

The rules are those of vLLM V1 (``vllm/v1/core/sched/scheduler.py``):

1. Every decoding sequence gets one token.
2. The one partially processed prompt goes on in what is left of the token budget.
3. Waiting requests are admitted first come, first served, while the token budget, the
   number of sequences and the KV cache, which must take the whole prompt, allow.

Before that, where the cache cannot take a token of each decoding sequence, the request
that was admitted last is preempted: it returns to the head of the queue and is computed
anew from its start. A request that finishes frees its cache.

While nothing but decoding happens, N sequences decode and their K cached tokens grow by
N a step, so that m steps take ``m t + k N m (m - 1) / 2``, t being the first of them.
They are advanced in one move, which is exact: it ends where a request finishes, the
cache is full, or a request comes.

The functions keep to what numba compiles: as they stand they run on lists, and
`compiled` returns the same source compiled for arrays.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import astuple, fields
from functools import cache
from typing import Any

import numpy as np

from model_ops.serving.queues import dequeue, enqueue, enqueue_first, push, remove
from model_ops.serving.scheduler_state import NOBODY, ReplicaState, Requests, Rules

_RECORD = np.dtype([(field.name, field.type) for field in fields(ReplicaState)])


def serve(
    rules: Rules,
    requests: Requests,
    states: Any,
    heaps: Any,
    prompts_done: Any,
) -> None:
    """Run replicas until all requests have finished, each sent to the least loaded.

    Parameters
    ----------
    rules, requests
        Of the replicas, and what is sent to them.
    states
        A `ReplicaState` per replica.
    heaps
        Per replica the decoding requests by the step that finishes them, as
        ``step x requests + request``; shaped [replica, sequence].
    prompts_done
        Room for the requests whose prompts a step completes.
    """
    for request in range(len(requests.entered)):
        shortest = 0
        for x in range(len(states)):
            advance(
                rules, requests, states[x], heaps[x], prompts_done,
                requests.entered[request],
            )  # fmt: skip
            load = states[x].running + states[x].waiting
            if load < states[shortest].running + states[shortest].waiting:
                shortest = x
        enqueue(requests, states[shortest], request)
    for x in range(len(states)):
        advance(rules, requests, states[x], heaps[x], prompts_done, math.inf)


def advance(
    rules: Rules,
    requests: Requests,
    state: ReplicaState,
    heap: Any,
    prompts_done: Any,
    stop: float,
) -> None:
    """Run a replica up to the first end of a step from `stop` on, or until idle.

    In a closed loop it also ends where the next request of a user comes earlier.
    """
    state.stop = stop
    while state.clock < state.stop:
        if state.running == 0 and state.head == NOBODY:
            if state.stop < math.inf:
                state.clock = state.stop
            return
        plan(rules, requests, state, heap, prompts_done)
        if state.tokens > 0:
            mixed_step(rules, state)
        else:
            decode_steps(rules, state, heap[0] // len(requests.output))
        state.peak_cached = max(state.peak_cached, state.cached)
        finish_decoding(rules, requests, state, heap)
        for i in range(state.completed):
            start_decoding(rules, requests, state, heap, prompts_done[i])


def plan(
    rules: Rules, requests: Requests, state: ReplicaState, heap: Any, prompts_done: Any
) -> None:
    """Choose what the next step processes."""
    state.tokens, state.pairs, state.completed = 0, 0.0, 0
    short = state.cached + state.decoding > rules.cache_tokens and state.running > 1
    if short:
        preempt(rules, requests, state, heap)
    if state.partial != NOBODY:
        process(rules, requests, state, prompts_done, state.partial)
    if state.head != NOBODY and not short:
        admit(rules, requests, state, heap, prompts_done)


def preempt(rules: Rules, requests: Requests, state: ReplicaState, heap: Any) -> None:
    """Take the last admitted back to the queue until the others' tokens fit."""
    count = len(requests.output)
    while state.cached + state.decoding > rules.cache_tokens and state.running > 1:
        if state.partial != NOBODY:
            victim = state.partial
            state.partial = NOBODY
            state.cached -= requests.prompt[victim] + requests.made[victim]
        else:
            last = 0
            for i in range(1, state.decoding):
                if (
                    requests.admission[heap[i] % count]
                    > requests.admission[heap[last] % count]
                ):
                    last = i
            victim = heap[last] % count
            left = heap[last] // count - state.steps
            requests.made[victim] = requests.output[victim] - left
            held = requests.prompt[victim] + requests.made[victim] - 1
            remove(heap, state.decoding, last)
            state.decoding -= 1
            state.cached -= held
            state.context -= held
        state.running -= 1
        state.preemptions += 1
        enqueue_first(requests, state, victim)


def process(
    rules: Rules,
    requests: Requests,
    state: ReplicaState,
    prompts_done: Any,
    request: int,
) -> None:
    """Process what the token budget leaves of a request's tokens."""
    chunk = min(state.left, rules.chunk_tokens - state.decoding - state.tokens)
    before = requests.prompt[request] + requests.made[request] - state.left
    state.pairs += chunk * (before + 0.5 * chunk)
    state.tokens += chunk
    state.left -= chunk
    if state.left > 0:
        state.partial = request
    else:
        state.partial = NOBODY
        prompts_done[state.completed] = request
        state.completed += 1


def admit(
    rules: Rules,
    requests: Requests,
    state: ReplicaState,
    heap: Any,
    prompts_done: Any,
) -> None:
    """Admit waiting requests while none is left partial and the limits allow."""
    while (
        state.head != NOBODY
        and state.partial == NOBODY
        and state.running < rules.max_sequences
        and state.decoding + state.tokens < rules.chunk_tokens
    ):
        request = state.head
        need = requests.prompt[request] + requests.made[request]
        if state.cached + state.decoding + need > rules.cache_tokens:
            return
        dequeue(requests, state)
        state.running += 1
        state.admissions += 1
        if requests.admission[request] == 0:
            requests.scheduled[request] = state.clock
        requests.admission[request] = state.admissions
        if rules.cache_arrives and requests.made[request] == 0:
            state.cached += need - 1
            decode_from_next(requests, state, heap, request, requests.output[request])
        else:
            state.cached += need
            state.left = need - requests.reused[request]
            process(rules, requests, state, prompts_done, request)


def mixed_step(rules: Rules, state: ReplicaState) -> None:
    """Take a step that carries prompt tokens."""
    decoding = state.decoding
    seconds = (
        rules.base[state.tokens + decoding]
        + rules.decoding[decoding]
        + rules.per_cached * state.context
        + rules.per_pair * state.pairs
    )
    state.steps += 1
    state.mixed_steps += 1
    state.clock += seconds
    state.cached += decoding
    state.context += decoding
    state.running_seconds += state.running * seconds
    state.cached_seconds += state.cached * seconds


def decode_steps(rules: Rules, state: ReplicaState, next_finish: int) -> None:
    """Take decode-only steps until a request finishes, the cache is full, or `stop`.

    The cached tokens integrate to the sum over i < m of (c + n i) (t + g i).
    """
    decoding = state.decoding
    growth = rules.per_cached * decoding
    first = (
        rules.base[decoding]
        + rules.decoding[decoding]
        + rules.per_cached * state.context
    )
    steps = next_finish - state.steps
    free = (rules.cache_tokens - state.cached) // decoding
    if free < steps:
        steps = max(1, free)
    linear, square = first - 0.5 * growth, 0.5 * growth
    seconds = steps * (linear + square * steps)
    left = state.stop - state.clock
    if seconds > left:
        root = math.sqrt(linear * linear + 4.0 * square * left)
        # Rounding must not add a step; one too few is made up for by the next move.
        steps = min(steps, max(1, math.ceil(2.0 * left / (linear + root) - 1e-9)))
        seconds = steps * (linear + square * steps)
    cached = state.cached + decoding
    ramp = 0.5 * steps * (steps - 1)
    state.cached_seconds += (
        steps * cached * first
        + ramp * (cached * growth + decoding * first)
        + ramp * (2 * steps - 1) / 3.0 * decoding * growth
    )
    state.running_seconds += state.running * seconds
    state.steps += steps
    state.clock += seconds
    state.cached += steps * decoding
    state.context += steps * decoding


def finish_decoding(
    rules: Rules, requests: Requests, state: ReplicaState, heap: Any
) -> None:
    """Finish the decoding requests whose last step this was."""
    count = len(requests.output)
    while state.decoding > 0 and heap[0] // count == state.steps:
        request = heap[0] % count
        remove(heap, state.decoding, 0)
        state.decoding -= 1
        held = requests.prompt[request] + requests.output[request] - 1
        state.context -= held
        finish(rules, requests, state, request, held)


def start_decoding(
    rules: Rules,
    requests: Requests,
    state: ReplicaState,
    heap: Any,
    request: int,
) -> None:
    """Count the token of a request whose prompt is complete; it decodes from now on."""
    if requests.made[request] == 0:
        requests.first_token[request] = state.clock
    held = requests.prompt[request] + requests.made[request]
    requests.made[request] += 1
    left = requests.output[request] - requests.made[request]
    if left == 0:
        finish(rules, requests, state, request, held)
    else:
        decode_from_next(requests, state, heap, request, left)


def decode_from_next(
    requests: Requests, state: ReplicaState, heap: Any, request: int, left: int
) -> None:
    """Let a request decode in the next steps."""
    count = len(requests.output)
    made = requests.output[request] - left
    state.context += requests.prompt[request] + made - 1
    push(heap, state.decoding, (state.steps + left) * count + request)
    state.decoding += 1


def finish(
    rules: Rules, requests: Requests, state: ReplicaState, request: int, held: int
) -> None:
    """Let a request go; in a closed loop its user sends the next one."""
    requests.finish[request] = state.clock
    state.running -= 1
    state.cached -= held
    if state.unsent < len(requests.entered):
        entered = state.clock + rules.delay
        requests.entered[state.unsent] = entered
        state.unsent += 1
        state.stop = min(state.stop, entered)


Serve = Callable[[Rules, Requests, Any, Any, Any], None]


@cache
def compiled() -> Serve:
    """Return `serve` compiled by numba.

    Raises
    ------
    ImportError
        If numba is not installed.
    """
    from numba import njit
    from numba.extending import register_jitable

    for function in (
        *(advance, plan, preempt, process, admit, mixed_step, decode_steps),
        *(finish_decoding, start_decoding, decode_from_next, finish),
        *(enqueue, enqueue_first, dequeue, push, remove),
    ):
        register_jitable(function)
    found: Serve = njit(cache=True)(serve)
    return found


def run(
    rules: Rules,
    requests: Requests,
    replicas: int,
    users: int = 0,
    *,
    fast: bool,
) -> Any:
    """Serve the requests, whose arrays are filled in; return the states of replicas.

    Parameters
    ----------
    users
        Of a closed loop, on one replica; none in an open one.
    fast
        Whether compiled.

    Returns
    -------
    Array of records with the fields of `ReplicaState`, shaped [replica].
    """
    count = len(requests.output)
    room = min(rules.max_sequences, rules.chunk_tokens, count) + 1
    start = ReplicaState(unsent=users or count)
    if fast:
        records = np.array([astuple(start)] * replicas, _RECORD)
        keys = np.zeros((replicas, room), np.int64)
        compiled()(rules, requests, records, keys, np.zeros(room, np.int64))
        return records
    lists = rules._replace(base=rules.base.tolist(), decoding=rules.decoding.tolist())
    plain = Requests(*(values.tolist() for values in requests))
    states = [dataclasses.replace(start) for _ in range(replicas)]
    heaps = [[0] * room for _ in range(replicas)]
    serve(lists, plain, states, heaps, [0] * room)
    for values, served in zip(requests, plain, strict=True):
        values[:] = served
    return np.array([astuple(state) for state in states], _RECORD)
