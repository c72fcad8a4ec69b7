"""The steady state of continuous batching with chunked prefill, in the mean.

A replica keeps a batch of N decoding sequences. Every step gives each of them
one token; a finished sequence is replaced, and the newcomer's prompt is processed
in chunks that ride along in the same steps ("mixed" steps). Per output length,
``O - 1`` steps pass, of which M carry prompt tokens, so

    cycle = M * t_mixed + (O - 1 - M) * t_decode,   rate = N / cycle,
    TPOT = cycle / (O - 1).

The prompts take the share rho = M / (O - 1) of the steps; they form a queue that
is served at random arrivals and constant service (M/D/1: L. Kleinrock, Queueing
Systems I, 1975, eq. 5.77), and a newcomer first waits for the running step:

    TTFT = residual step + rho * X / (2 (1 - rho)) + own chunks.

Everything broadcasts, so one call evaluates one deployment or a million.
"""

from dataclasses import dataclass

import numpy as np

from model_ops.opcost import Number
from model_ops.profiler.work import Step, decode, prefill
from model_ops.serving.step import Replica, step_time
from model_ops.units import RequestsPerSecond, Seconds

DEFAULT_CHUNK_TOKENS = 2048
"""Tokens of one step, prompt chunks and decodes together (vLLM
``max_num_batched_tokens``, whose smallest default it is)."""


@dataclass(frozen=True, slots=True)
class RequestShape:
    """Tokens of a request: prompt in, answer out; numbers or arrays."""

    input_tokens: Number
    output_tokens: Number

    @property
    def decode_steps(self) -> Number:
        """Steps after the first token."""
        return np.maximum(self.output_tokens - 1, 0)

    @property
    def mean_context(self) -> Number:
        """Tokens in the KV cache of a decoding sequence, on average."""
        return self.input_tokens + self.output_tokens / 2


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Means of a replica that keeps its batch full; numbers or arrays.

    Parameters
    ----------
    ttft, tpot
        Mean time to first token and mean time per further token.
    rate
        Requests per second of the replica.
    prefill_share
        Share of steps that carry prompt tokens; the queue explodes towards one.
    """

    ttft: Seconds | Number
    tpot: Seconds | Number
    rate: RequestsPerSecond | Number
    prefill_share: Number


def pipeline_slots(pp: Number, batch: Number) -> Number:
    """Return the micro-batches that a pipeline keeps in flight."""
    return np.clip(batch, 1, pp)


def sequences_per_step(batch: Number, slots: Number) -> Number:
    """Return the decoding sequences of a step that decodes at all.

    A mean batch below one means idle time, not steps with less than a sequence.
    """
    return np.maximum(batch / slots, 1.0)


def mixed_step(
    shape: RequestShape, batch: Number, slots: Number, chunk_tokens: Number
) -> tuple[Step, Number, Number]:
    """Return the step that carries prompt tokens, their number, and their prompts.

    A prompt shorter than the room left by the decodes takes a step of its own
    until there are more prompts than steps; then several share one.
    """
    decoding = sequences_per_step(batch, slots)
    room = np.maximum(chunk_tokens - decoding, 1.0)
    steps = np.maximum(shape.decode_steps, 1) * slots
    needed = batch * shape.input_tokens / steps
    carried = np.minimum(np.maximum(shape.input_tokens, needed), room)
    of_each = np.minimum(shape.input_tokens, carried)
    prompts = carried / of_each
    step = Step(
        (
            prefill(prompts, of_each, (shape.input_tokens - of_each) / 2),
            decode(decoding, shape.mean_context),
        )
    )
    return step, carried, of_each


def decode_step(shape: RequestShape, batch: Number, slots: Number) -> Step:
    """Return the step that carries no prompt tokens."""
    return Step((decode(sequences_per_step(batch, slots), shape.mean_context),))


def steady_state(
    replica: Replica,
    shape: RequestShape,
    batch: Number,
    chunk_tokens: Number = DEFAULT_CHUNK_TOKENS,
) -> SteadyState:
    """Return the means of a replica that keeps `batch` sequences decoding.

    Parameters
    ----------
    replica
        The model on its NPUs.
    shape
        Tokens of a request.
    batch
        Decoding sequences over all pipeline stages.
    chunk_tokens
        Tokens that one step may process.

    Returns
    -------
    SteadyState
        With an infinite TTFT where prompts arrive faster than they are processed.
    """
    slots = pipeline_slots(replica.parallelism.pp, batch)
    step, carried, of_each = mixed_step(shape, batch, slots, chunk_tokens)
    mixed = step_time(replica, step)
    plain = step_time(replica, decode_step(shape, batch, slots))
    mixed_period, plain_period = mixed.period(slots), plain.period(slots)

    mixed_steps = batch * shape.input_tokens / (carried * slots)
    plain_steps = np.maximum(shape.decode_steps - mixed_steps, 0.0)
    cycle = mixed_steps * mixed_period + plain_steps * plain_period
    steps = mixed_steps + plain_steps

    share = mixed_steps / steps
    chunks = np.ceil(shape.input_tokens / of_each)
    service = shape.input_tokens / carried * mixed_period / slots
    with np.errstate(divide="ignore"):
        queue = share * service / (2.0 * np.maximum(1.0 - share, 0.0))
    squares = mixed_steps * mixed_period**2 + plain_steps * plain_period**2
    residual = squares / (2.0 * cycle * slots)
    own = mixed.latency + (chunks - 1) * mixed_period / slots
    return SteadyState(
        ttft=residual + queue + own,
        tpot=cycle / np.maximum(steps, 1.0) * (shape.decode_steps > 0),
        rate=batch / cycle,
        prefill_share=share,
    )
