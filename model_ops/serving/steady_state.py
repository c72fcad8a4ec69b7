"""The steady state of continuous batching with chunked prefill, in the mean.

A replica keeps N sequences decoding on average. Every step gives each of them one
token; a finished sequence is replaced, and the newcomer's prompt is processed in
chunks that ride along in the same steps ("mixed" steps). While a sequence decodes,
``O - 1`` steps pass, a share s of which carries prompt tokens, so

    cycle = (O - 1) (s t_mixed + (1 - s) t_decode),   rate = N / cycle,
    TPOT = cycle / (O - 1).

With a prompts of S tokens arriving per step at random and room for R prompt tokens in
a step, a step carries some with probability 1 - exp(-a), or a S / R where prompts are
longer than the room. The prompts form a queue of utilisation rho = a S / R, served at
random arrivals and constant service X (M/D/1: L. Kleinrock, Queueing Systems I, 1975,
eq. 5.77), and a newcomer first waits for the running step:

    TTFT = residual step + rho X / (2 (1 - rho)) + own chunks.

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
    def held_steps(self) -> Number:
        """Steps that a sequence stays in the batch: at least the one that samples."""
        return np.maximum(self.output_tokens - 1, 1)

    @property
    def mean_context(self) -> Number:
        """Tokens in the KV cache of a decoding sequence, on average."""
        return self.input_tokens + self.output_tokens / 2


@dataclass(frozen=True, slots=True)
class SteadyState:
    """Means of a replica under a steady load; numbers or arrays.

    Parameters
    ----------
    batch
        Decoding sequences.
    ttft, tpot
        Mean time to first token and mean time per further token; TPOT is zero
        where there is no further token.
    rate
        Requests per second of the replica.
    prompt_load
        Prompt tokens that arrive per step over the room for them; the queue of
        prompts grows without bound towards one.
    """

    batch: Number
    ttft: Seconds | Number
    tpot: Seconds | Number
    rate: RequestsPerSecond | Number
    prompt_load: Number

    @property
    def in_flight(self) -> Number:
        """Requests that decode or wait for their first token (Little's law)."""
        return self.batch + self.rate * self.ttft


def batch_cap(mean: Number) -> Number:
    """Return the sequences that a replica must be able to decode at once.

    The batch is Poisson around its mean; two standard deviations more are exceeded
    one time in fifty, so that few requests wait for a place.
    """
    # A hair less, so that the inverse is not rounded up to one more.
    return np.ceil((mean + 2.0 * np.sqrt(mean)) * (1.0 - 1e-12))


def mean_batch(cap: Number) -> Number:
    """Return the largest mean batch whose `batch_cap` is `cap`."""
    return (np.sqrt(1.0 + np.maximum(cap, 0.0)) - 1.0) ** 2


@dataclass(frozen=True, slots=True)
class Mix:
    """How prompts ride along in the steps of a batch; numbers or arrays.

    Parameters
    ----------
    slots
        Micro-batches in flight: one per pipeline stage; where fewer sequences
        decode, prompts fill the others.
    decoding
        Decoding sequences of a step that decodes at all.
    room
        Prompt tokens that a step can carry.
    prompt_load
        Prompt tokens that arrive per step over the room.
    share
        Share of the steps that carry prompt tokens.
    carried
        Prompt tokens that such a step carries.
    """

    slots: Number
    decoding: Number
    room: Number
    prompt_load: Number
    share: Number
    carried: Number

    @classmethod
    def of(
        cls, pp: Number, shape: RequestShape, batch: Number, chunk_tokens: Number
    ) -> "Mix":
        """Return how the prompts of a batch's newcomers ride along."""
        slots = pp
        decoding = sequences_per_step(batch, slots)
        room = np.maximum(chunk_tokens - decoding, 1.0)
        arriving = batch / (shape.held_steps * slots)
        needed = arriving * shape.input_tokens
        load = needed / room
        share = np.minimum(np.maximum(load, -np.expm1(-arriving)), 1.0)
        return cls(
            slots=slots,
            decoding=decoding,
            room=room,
            prompt_load=load,
            share=share,
            carried=np.minimum(needed / share, room),
        )

    def mixed_step(self, shape: RequestShape) -> Step:
        """Return a step that carries prompt tokens beside the decodes."""
        of_each = np.minimum(shape.input_tokens, self.carried)
        chunk = prefill(
            self.carried / of_each, of_each, (shape.input_tokens - of_each) / 2
        )
        return Step((chunk, decode(self.decoding, shape.mean_context)))

    def decode_step(self, shape: RequestShape) -> Step:
        """Return a step that carries no prompt tokens."""
        return Step((decode(self.decoding, shape.mean_context),))


def sequences_per_step(batch: Number, slots: Number) -> Number:
    """Return the decoding sequences of a step that decodes at all.

    A mean batch below one means idle time, not steps with less than a sequence.
    """
    return np.maximum(batch / slots, 1.0)


def saturating_batch(
    pp: Number, shape: RequestShape, chunk_tokens: Number = DEFAULT_CHUNK_TOKENS
) -> Number:
    """Return the batch whose newcomers' prompts fill the room of every step.

    The batch at which `SteadyState.prompt_load` is one; below one sequence per stage
    where prompts are long and answers short. Where prompts are so short that the
    decodes alone fill the steps first, the batch that does.
    """
    per_step = shape.input_tokens / shape.held_steps
    many = chunk_tokens / (1.0 + per_step)
    few = (chunk_tokens - 1.0) / per_step
    return pp * np.where(many >= 1.0, many, few)


def steady_state(
    replica: Replica,
    shape: RequestShape,
    batch: Number,
    chunk_tokens: Number = DEFAULT_CHUNK_TOKENS,
) -> SteadyState:
    """Return the means of a replica with `batch` sequences decoding on average.

    Parameters
    ----------
    replica
        The model on its NPUs.
    shape
        Tokens of a request.
    batch
        Decoding sequences over all pipeline stages, on average; may be a fraction.
    chunk_tokens
        Tokens that one step may process.

    Returns
    -------
    SteadyState
        With an infinite TTFT where prompts arrive faster than they are processed.
    """
    mix = Mix.of(replica.parallelism.pp, shape, batch, chunk_tokens)
    slots, share = mix.slots, mix.share
    mixed = step_time(replica, mix.mixed_step(shape))
    mixed_period = mixed.period(slots)
    plain_period = step_time(replica, mix.decode_step(shape)).period(slots)
    mean = share * mixed_period + (1.0 - share) * plain_period
    squares = share * mixed_period**2 + (1.0 - share) * plain_period**2

    load = mix.prompt_load
    service = shape.input_tokens / mix.room * mixed_period / slots
    with np.errstate(divide="ignore"):
        queue = load * service / (2.0 * np.maximum(1.0 - load, 0.0))
    # The batch is Poisson: with probability exp(-batch) no step is running.
    residual = -np.expm1(-batch) * squares / (2.0 * mean * slots)
    chunks = np.ceil(shape.input_tokens / mix.room)
    own = mixed.latency + (chunks - 1) * mixed_period / slots
    return SteadyState(
        batch=batch,
        ttft=residual + queue + own,
        tpot=mean * (shape.decode_steps > 0),
        rate=batch / (shape.held_steps * mean * np.maximum(load, 1.0)),
        prompt_load=load,
    )
