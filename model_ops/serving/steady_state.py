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
from model_ops.profiler.work import (
    RequestShape,
    Segment,
    Step,
    decode,
    prefill,
)
from model_ops.serving.speculative import Schedule
from model_ops.serving.step import Replica, step_time
from model_ops.units import RequestsPerSecond, Seconds

DEFAULT_CHUNK_TOKENS = 2048
"""Tokens of one step, prompt chunks and decodes together (vLLM
``max_num_batched_tokens``, whose smallest default it is)."""


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


def batch_cap(mean: Number, groups: Number = 1.0) -> Number:
    """Return the sequences that a replica must be able to decode at once.

    The batch of each of its data-parallel groups is Poisson around its mean; two
    standard deviations more are exceeded one time in fifty, so that few requests
    wait for a place.
    """
    own = mean / groups
    # A hair less, so that the inverse is not rounded up to one more.
    return groups * np.ceil((own + 2.0 * np.sqrt(own)) * (1.0 - 1e-12))


def mean_batch(cap: Number, groups: Number = 1.0) -> Number:
    """Return the largest mean batch whose `batch_cap` is `cap`."""
    own = np.maximum(cap, 0.0) / groups
    return groups * (np.sqrt(1.0 + own) - 1.0) ** 2


@dataclass(frozen=True, slots=True)
class Mix:
    """How prompts ride along in the steps of a batch; numbers or arrays.

    Parameters
    ----------
    schedule
        What a step takes from the batch; where fewer sequences decode than there
        are micro-batches, prompts fill the others.
    decoding
        Decoding requests of a step that decodes at all.
    room
        Prompt tokens that a step can carry.
    prompt_load
        Prompt tokens that arrive per step over the room.
    share
        Share of a group's steps that carry prompt tokens.
    carried
        Prompt tokens that such a step carries.
    """

    schedule: Schedule
    decoding: Number
    room: Number
    prompt_load: Number
    share: Number
    carried: Number

    @classmethod
    def of(
        cls,
        schedule: Schedule,
        shape: RequestShape,
        batch: Number,
        chunk_tokens: Number,
    ) -> "Mix":
        """Return how the prompts of a batch's newcomers ride along."""
        decoding = requests_per_step(batch, schedule.lanes)
        rows = decoding * schedule.rows_of_each(shape)
        room = np.maximum(chunk_tokens - rows, 1.0)
        held_steps = shape.held_steps / schedule.tokens_per_step
        arriving = batch / (held_steps * schedule.lanes)
        needed = arriving * shape.new_tokens
        load = needed / room
        share = np.minimum(np.maximum(load, -np.expm1(-arriving)), 1.0)
        return cls(
            schedule=schedule,
            decoding=decoding,
            room=room,
            prompt_load=load,
            share=share,
            carried=np.minimum(needed / share, room),
        )

    @property
    def any_share(self) -> Number:
        """Share of the steps in which some group carries prompt tokens."""
        groups = self.schedule.groups
        if np.ndim(groups) == 0 and groups == 1:
            return self.share
        none = np.log1p(-np.minimum(self.share, 1.0 - 1e-15))
        return -np.expm1(groups * none)

    def mixed_step(self, shape: RequestShape) -> Step:
        """Return a group's step that carries prompt tokens beside the decodes."""
        new = shape.new_tokens
        of_each = np.minimum(new, self.carried)
        context = shape.input_tokens - new + (new - of_each) / 2
        chunk = prefill(self.carried / of_each, of_each, context)
        decodes = decoding_segment(self.schedule, shape, self.decoding)
        rows = decodes.sequences * decodes.queries
        return Step((chunk, decodes), rows + self.share * self.carried)

    def decode_step(self, shape: RequestShape) -> Step:
        """Return a step in which no group carries prompt tokens."""
        return Step((decoding_segment(self.schedule, shape, self.decoding),))


@dataclass(frozen=True, slots=True)
class Waits:
    """How many periods of its steps a request's first token waits; numbers or arrays.

    Parameters
    ----------
    share
        Share of the steps in which some group carries prompt tokens.
    running
        Of the mean step that a newcomer finds running (mean square over mean): half of
        it, where one runs.
    queued
        Of mixed steps, behind the prompts that came before; infinite where they come
        faster than they are processed.
    chunks
        Of mixed steps, for all chunks of its own prompt but the last, whose step it
        sees through.
    """

    share: Number
    running: Number
    queued: Number
    chunks: Number

    @classmethod
    def of(cls, mix: Mix, shape: RequestShape, batch: Number) -> "Waits":
        """Return the waits of a mix's newcomers."""
        schedule, load = mix.schedule, mix.prompt_load
        slots = schedule.slots
        with np.errstate(divide="ignore"):
            ahead = load / (2.0 * np.maximum(1.0 - load, 0.0))
        return cls(
            share=mix.any_share,
            # The batch is Poisson: with probability exp(-batch) no step is running.
            running=-np.expm1(-batch / schedule.groups) / (2.0 * slots),
            queued=ahead * (shape.new_tokens / mix.room) / slots,
            chunks=(np.ceil(shape.new_tokens / mix.room) - 1) / slots,
        )


def decoding_segment(
    schedule: Schedule, shape: RequestShape, requests: Number
) -> Segment:
    """Return so many requests that write their answers, half done on average.

    Beams share the prompt's place in the cache, but not its reading: to the attention
    kernels of TensorRT-LLM and vLLM each is a sequence of its own.
    """
    return decode(requests * shape.beams, shape.mean_context, schedule.guessed)


def requests_per_step(batch: Number, lanes: Number) -> Number:
    """Return the decoding requests of a step that decodes at all.

    A mean batch below one means idle time, not steps with less than a request.
    """
    return np.maximum(batch / lanes, 1.0)


def saturating_batch(
    schedule: Schedule,
    shape: RequestShape,
    chunk_tokens: Number = DEFAULT_CHUNK_TOKENS,
) -> Number:
    """Return the batch whose newcomers' prompts fill the room of every step.

    The batch at which `SteadyState.prompt_load` is one; below one request per stage
    where prompts are long and answers short. Where prompts are so short that the
    decodes alone fill the steps first, the batch that does.
    """
    per_step = shape.new_tokens * schedule.tokens_per_step / shape.held_steps
    each = schedule.rows_of_each(shape)
    many = chunk_tokens / (each + per_step)
    few = (chunk_tokens - each) / per_step
    return schedule.lanes * np.where(many >= 1.0, many, few)


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
        Decoding sequences over all pipeline stages and data-parallel groups, on
        average; may be a fraction.
    chunk_tokens
        Tokens that one step may process.

    Returns
    -------
    SteadyState
        With an infinite TTFT where prompts arrive faster than they are processed.
    """
    schedule = replica.schedule
    mix = Mix.of(schedule, shape, batch, chunk_tokens)
    waits = Waits.of(mix, shape, batch)
    share = waits.share
    mixed = step_time(replica, mix.mixed_step(shape))
    mixed_period = mixed.period(schedule.slots)
    plain_period = step_time(replica, mix.decode_step(shape)).period(schedule.slots)
    mean = share * mixed_period + (1.0 - share) * plain_period
    squares = share * mixed_period**2 + (1.0 - share) * plain_period**2
    tpot = mean / schedule.tokens_per_step
    residual = waits.running * squares / mean
    behind = (waits.queued + waits.chunks) * mixed_period
    return SteadyState(
        batch=batch,
        ttft=residual + behind + mixed.latency,
        tpot=tpot * (shape.decode_steps > 0),
        rate=batch / (shape.held_steps * tpot * np.maximum(mix.prompt_load, 1.0)),
        prompt_load=mix.prompt_load,
    )
