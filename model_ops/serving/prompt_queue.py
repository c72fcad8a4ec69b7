"""Time to first token: waiting for the step, for other prompts, for a slot, then read.

A prompt finds the engine idle, or one plain step that nobody else waits behind, or is
late: behind other prompts. Steps full of prompts are the server of an M/G/1 queue.
Sources: Pollaczek-Khinchine for its mean, L. Takacs, "A single-server queue with
Poisson input", Operations Research 10 (1962), for its second moment; bursts by batches
of geometric size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.serving.lengths import Floats
from model_ops.serving.quantile import gamma_cdf, quantile
from model_ops.serving.server import Server
from model_ops.serving.step_mix import StepMix
from model_ops.units import Seconds

_MOST_LOAD = 0.9995
_LEAST_SPREAD = 0.05

_LONG_WAIT = np.log(100.0)
"""Waits over their mean at the 99th percentile of an exponential law."""


@dataclass(frozen=True)
class FirstToken:
    """The law of the time to first token, a mixture over prompts and ways to arrive.

    Parameters
    ----------
    own
        Seconds in which a prompt is read once its turn has come; shaped [..., node].
    weights
        Of the nodes.
    idle, alone, late
        Probabilities to find the engine idle, a plain step with nobody else behind
        it, and other prompts; shaped [..., 1] as all that follows.
    plain
        Seconds of a plain step.
    wait, wait_variance
        Of a late prompt, before its turn.
    blocked, slot_wait
        Probability that no slot is free, and the mean seconds until one is.
    load
        Share of the time that full steps need for the prompts.
    """

    own: Floats
    weights: Floats
    idle: Floats
    alone: Floats
    late: Floats
    plain: Floats
    wait: Floats
    wait_variance: Floats
    blocked: Floats
    slot_wait: Floats
    load: Floats

    @classmethod
    def known(cls, mean: Seconds, variance: float) -> "FirstToken":
        """Return a time of which the mean and the variance alone are known."""
        none, one = np.zeros(1), np.ones(1)
        return cls(
            own=none,
            weights=one,
            idle=none,
            alone=none,
            late=one,
            plain=none,
            wait=mean * one,
            wait_variance=variance * one,
            blocked=none,
            slot_wait=none,
            load=none,
        )

    @property
    def mean(self) -> Floats:
        """Mean seconds."""
        queued = self.late * self.wait + self.alone * self.plain / 2.0
        served = ((self.own + queued) @ self.weights)[..., None]
        return np.asarray(served + self.blocked * self.slot_wait)

    @property
    def variance(self) -> Floats:
        """Variance, in seconds squared."""
        queued = self.late * self.wait + self.alone * self.plain / 2.0
        late = self.late * (self.wait_variance + self.wait**2)
        queued2 = late + self.alone * self.plain**2 / 3.0
        square = self.own**2 + 2.0 * self.own * queued + queued2
        served = ((self.own + queued) @ self.weights)[..., None]
        spread = (square @ self.weights)[..., None] - served**2
        slot = 2.0 * self.blocked * self.slot_wait**2
        return np.maximum(spread, 0.0) + slot

    def survival(self, seconds: Floats) -> Floats:
        """Return the share of requests above seconds shaped [..., point]."""
        left = seconds[..., None] - self.own[..., None, :]

        def over(value: Floats) -> Floats:
            return value[..., None, :]

        in_step = np.clip(left / over(self.plain), 0.0, 1.0)
        queued = gamma_cdf(left, over(self.wait), over(self.wait_variance))
        done = over(self.idle) * (left >= 0.0) + over(self.alone) * in_step
        done = done + over(self.late) * queued
        freed = -np.expm1(-np.maximum(left, 0.0) / over(self.slot_wait))
        done = done + over(self.blocked) * (np.minimum(done, freed) - done)
        return np.asarray(1.0 - done @ self.weights)

    def quantile(self, level: float) -> Floats:
        """Return the seconds that a share `level` of the requests does not exceed."""
        slot = 7.0 * self.slot_wait * (self.blocked > 1e-3)
        latest = self.own + 8.0 * (self.wait + np.sqrt(self.wait_variance))
        high = latest.max(axis=-1, keepdims=True) + slot
        low = 0.9 * self.own.min(axis=-1, keepdims=True)
        return quantile(self.survival, level, low, high)


def first_token(
    server: Server, mix: StepMix, rate: Floats, arrival_variation: Floats
) -> FirstToken:
    """Return the law of the time to first token at a rate."""
    load, batch = server.load, mix.batch
    work = load.cost_moments(mix.per_token, server.per_pair)
    busy = np.minimum(rate * work[1], _MOST_LOAD)
    burst = np.maximum((arrival_variation + 1.0) / 2.0, 1.0)
    queue, queue2 = _moments_of_wait(rate, busy, work, burst, arrival_variation)

    idle = batch.empty * (1.0 - mix.mixed_time) / burst
    between = np.maximum(1.0 - mix.mixed_time - idle, 0.0)
    alone = between * np.exp(-rate / burst * mix.plain) / burst
    late = np.maximum(1.0 - idle - alone, 1e-12)
    foreign = 1.0 - (1.0 - mix.mixed_steps) ** (1.0 - 1.0 / server.groups)
    foreign_time = foreign * mix.mixed_time / mix.mixed_steps
    rest = mix.plain + foreign_time * (mix.mixed - mix.plain)
    wait = rest / 2.0 + queue / late
    square = rest**2 / 3.0 + (queue2 + queue * rest) / late
    variance = np.maximum(square - wait**2, _LEAST_SPREAD * wait**2)

    longer = foreign * (mix.mixed - mix.plain)
    own, chunks, last = _own(server, mix)
    own = own + chunks * longer
    before = own * (1.0 - 1.0 / chunks)
    waited = late * wait + alone * mix.plain / 2.0
    others = followers(rate * (waited + before), arrival_variation)
    riders = _riders(server, mix, last, waited + before, others)
    return FirstToken(
        own=own + riders.share * before + server.overhead,
        weights=load.prompt_weights,
        idle=idle,
        alone=alone,
        late=late,
        plain=mix.plain * (1.0 + riders.share),
        wait=wait * (1.0 + riders.share),
        wait_variance=variance * (1.0 + riders.growth) ** 2 + riders.variance / late,
        blocked=batch.blocked,
        slot_wait=batch.slot_wait,
        load=rate * work[1],
    )


@dataclass(frozen=True)
class _Riders:
    """What prompts that come later add to a prompt's last step; [..., node].

    Parameters
    ----------
    share
        Seconds added per second that the prompt waited or was read.
    growth
        The same of a wait longer than the mean, when less room is left.
    variance
        Of the seconds added, for a given wait.
    """

    share: Floats
    growth: Floats
    variance: Floats


def followers(count: Floats, arrival_variation: Floats) -> Floats:
    """Return the mean arrivals after an arrival, in the time that sees `count` of them.

    Even gaps keep others away for a while: the renewal function of an Erlang law of two
    stages, and its like of any variation below 1. What bursts bring is in the queue.
    """
    even = np.clip(1.0 - arrival_variation, 1e-9, 1.0)
    return np.asarray(count + even / 2.0 * np.expm1(-2.0 * count / even))


def _riders(
    server: Server, mix: StepMix, last: Floats, sojourn: Floats, others: Floats
) -> _Riders:
    """Return what `others` add to the last step, of `last` tokens, after a sojourn."""
    load, batch, base = server.load, mix.batch.mean, server.curve.base_at
    sojourn = np.maximum(sojourn, 1e-12)
    space = np.maximum(server.room(batch) - last, 1.0)
    arrived = np.maximum(others * load.prompt_tokens / space, 1e-12)
    carried = space * -np.expm1(-arrived)
    added = base(batch + last + carried) - base(batch + last)
    added = added + server.pairs_per_token * carried
    each = added / carried
    often = np.exp(-arrived) - np.exp(-_LONG_WAIT * arrived)
    biased = load.computed * load.moments[2] / load.moments[1]
    spread = added * (each * np.minimum(space, biased) - added)
    return _Riders(
        share=added / sojourn,
        growth=each * space * often / ((_LONG_WAIT - 1.0) * sojourn),
        variance=np.maximum(spread, 0.0),
    )


def _moments_of_wait(
    rate: Floats,
    busy: Floats,
    work: Sequence[Floats],
    burst: Floats,
    arrival_variation: Floats,
) -> tuple[Floats, Floats]:
    """Return mean and second moment of the wait behind the work of other prompts."""
    x1, x2, x3 = work[1:]
    free = 1.0 - busy
    gaps = rate * (x2 + (arrival_variation - 1.0) * x1**2) / (2.0 * free)
    mean = gaps + (burst - 1.0) * x1
    third = x3 + np.minimum(arrival_variation - 1.0, 0.0) * x1 * x2
    square = 2.0 * mean**2 + rate * third / (3.0 * free) + (burst - 1.0) * x2
    return mean, square


def _own(server: Server, mix: StepMix) -> tuple[Floats, Floats, Floats]:
    """Return of each prompt node its seconds, its chunks, and the last one's tokens."""
    load, curve, batch = server.load, server.curve, mix.batch.mean
    room = server.room(batch)
    chunks = np.ceil(load.prompts / room)
    rest = load.prompts - (chunks - 1.0) * room
    beside = server.attention(batch)
    steps = (chunks - 1.0) * curve.base_at(server.chunk) + curve.base_at(batch + rest)
    pairs = server.per_pair * load.pairs
    return steps + chunks * beside + pairs, chunks, rest
