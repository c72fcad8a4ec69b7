"""What the scheduler of a replica works on: rules, requests, and the replica's state.

The fields of `Rules` and `Requests` are lists, or arrays where the scheduler runs
compiled.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from model_ops.serving.engine import Engine
from model_ops.serving.lengths import Floats
from model_ops.serving.step_curve import token_grid
from model_ops.serving.trace import Tokens

NOBODY = -1
"""In place of a request, where there is none."""


class Rules(NamedTuple):
    """What a step may hold and how long it takes.

    Parameters
    ----------
    base
        Seconds by tokens of the step, attention apart; from none to a full chunk.
    decoding
        Seconds that so many decoding sequences add; the same counts.
    per_cached, per_pair
        Seconds per cached token read, and per query-key pair of prompts.
    chunk_tokens, max_sequences, cache_tokens
        Limits of a step, of the running requests, and of their cached tokens.
    delay
        Seconds until a user's next request enters after the last one has finished.
    cache_arrives
        Whether requests bring the cache of their prompt with them, so that they
        decode at once; what is preempted is computed anew even then.
    """

    base: Any
    decoding: Any
    per_cached: float
    per_pair: float
    chunk_tokens: int
    max_sequences: int
    cache_tokens: int
    delay: float
    cache_arrives: bool


def rules_of(engine: Engine, *, cache_arrives: bool = False) -> Rules:
    """Return the rules of an engine whose fields are numbers.

    Raises
    ------
    ValueError
        If a limit is below one, the chunk exceeds the largest tabulated step, or a
        sequence gains more than one token per step.
    """
    if engine.tokens_per_step != 1.0:
        raise ValueError("a simulated sequence gains one token per step")
    limits = (engine.chunk_tokens, engine.max_sequences, engine.cache_tokens)
    chunk, sequences, cached = (int(min(limit, 2.0**53)) for limit in limits)
    if min(chunk, sequences, cached) < 1:
        raise ValueError(f"an engine's limits are at least one, got {limits}")
    if engine.curve.base.shape[-1] < token_grid(chunk).size:
        raise ValueError(f"the step curve ends before a chunk of {chunk} tokens")
    tokens = np.arange(chunk + 1)
    decoding = engine.curve.decoding_at(tokens)
    decoding[0] = 0.0
    return Rules(
        base=engine.curve.base_at(tokens),
        decoding=decoding,
        per_cached=float(engine.curve.per_cached),
        per_pair=float(engine.curve.per_pair),
        chunk_tokens=chunk,
        max_sequences=sequences,
        cache_tokens=cached,
        delay=float(engine.request_overhead),
        cache_arrives=cache_arrives,
    )


class Requests(NamedTuple):
    """What a replica knows of its requests, in the order in which they enter.

    Parameters
    ----------
    entered, scheduled, first_token, finish
        Seconds; not a number until they are known, `entered` infinite.
    prompt, output
        Tokens.
    reused
        Prompt tokens whose cache is at hand, so that they need no compute.
    made
        Output tokens so far, up to date while the request does not decode.
    admission
        Which admission of the replica was the request's last; zero before any.
    following
        Who stands behind it in the queue.
    """

    entered: Any
    scheduled: Any
    first_token: Any
    finish: Any
    prompt: Any
    output: Any
    reused: Any
    made: Any
    admission: Any
    following: Any


def unserved(
    entered: Floats, prompt: Tokens, output: Tokens, reused: Tokens
) -> Requests:
    """Return requests that nothing has happened to; shaped [request], by `entered`."""
    scheduled, first_token, finish = np.full((3, entered.size), np.nan)
    made, admission, following = np.zeros((3, entered.size), np.int64)
    return Requests(
        *(entered.copy(), scheduled, first_token, finish),
        *(prompt, output, reused, made, admission, following),
    )


@dataclass(slots=True)
class ReplicaState:
    """Where a replica stands, and what it has counted.

    Parameters
    ----------
    clock
        End of its last step.
    stop
        Where it next waits for the outside.
    running, waiting, decoding
        Requests that hold cache, that queue, and that decode.
    cached, context
        Tokens in the cache, and those that decoding requests read in a step.
    partial, left
        The request whose prompt is processed in part, and its tokens that are left.
    head, tail
        The queue's.
    unsent
        In a closed loop the next request that a user sends.
    steps, mixed_steps, admissions, preemptions
        How many so far; a mixed step carries prompt tokens.
    peak_cached
        Most tokens in the cache.
    running_seconds, cached_seconds
        Running requests, and cached tokens, summed over time.
    tokens, pairs, completed
        Prompt tokens of the present step, their query-key pairs, and how many prompts
        they complete.
    """

    clock: float = 0.0
    stop: float = 0.0
    running: int = 0
    waiting: int = 0
    decoding: int = 0
    cached: int = 0
    context: int = 0
    partial: int = NOBODY
    left: int = 0
    head: int = NOBODY
    tail: int = NOBODY
    unsent: int = 0
    steps: int = 0
    mixed_steps: int = 0
    admissions: int = 0
    preemptions: int = 0
    peak_cached: int = 0
    running_seconds: float = 0.0
    cached_seconds: float = 0.0
    tokens: int = 0
    pairs: float = 0.0
    completed: int = 0
