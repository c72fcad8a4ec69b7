"""Prefill and decode on replicas of their own: each pool has one latency to keep.

A prefill replica is one whose requests end with the first token; a decode replica is
exact processor sharing with a speed that depends on the batch. Requests reach it about
as they reach the first pool.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from model_ops.opcost import Number
from model_ops.serving.batch_distribution import (
    Batch,
    Flags,
    Ladder,
    batch_distribution,
)
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import Floats, fixed
from model_ops.serving.prompt_queue import FirstToken
from model_ops.serving.queueing import Laws, Metric, RequestLaws, Statistic
from model_ops.serving.server import RARE_PREEMPTION, Server, column
from model_ops.serving.step_mix import slope
from model_ops.serving.token_times import GammaMixture, drift_kept, steps_of
from model_ops.units import Seconds


def first_token_only(profile: Profile) -> Profile:
    """Return the requests as a prefill replica sees them: it answers one token."""
    return replace(profile, output=fixed(1.0))


@dataclass(frozen=True)
class DecodeLaws:
    """The law of the time per output token of replicas that only decode.

    The time runs from the first token to the last over the tokens in between, so that
    the transfer and the wait for a step and a slot are in it.

    Parameters
    ----------
    server, ladder
        The engines under a load, and their costs at rising batch sizes.
    rate, arrival_variation
        Requests per second, and the squared variation of their gaps; shaped [..., 1].
    per_token, latency
        Seconds that a cache takes to arrive: per prompt token, and once; [..., 1].
    """

    server: Server
    ladder: Ladder
    rate: Floats
    arrival_variation: Floats
    per_token: Floats
    latency: Floats

    @classmethod
    def of(
        cls,
        engine: Engine,
        profile: Profile,
        rate: Number,
        arrival_variation: Number = 1.0,
        *,
        per_token: Seconds | Number = 0.0,
        latency: Seconds | Number = 0.0,
    ) -> Self:
        """Return the laws of engines that broadcast against the rates."""
        server = Server.of(engine, profile)
        rates, variation = np.broadcast_arrays(column(rate), column(arrival_variation))
        ladder = Ladder.of(server, reads=False)
        travel = (column(per_token), column(latency))
        return cls(server, ladder, rates, variation, *travel)

    @cached_property
    def batch(self) -> Batch:
        """The decoding requests; their mean is exact."""
        return self._batch(np.ones_like(self.rate))

    @cached_property
    def crowd(self) -> Batch:
        """The same, spread by bursts and by the chance of lengths."""
        return self._batch(self._dispersion * np.ones_like(self.rate))

    def _batch(self, dispersion: Floats) -> Batch:
        none = np.zeros_like(self.rate)
        return batch_distribution(
            self.server, self.ladder, self.rate, dispersion, none, none
        )

    @property
    def _dispersion(self) -> Floats:
        """What bursts, and the chance of lengths where they fill the cache, add."""
        server, load = self.server, self.server.load
        slots = server.slot_cap()
        reading = server.per_cached * load.cached * slots
        # Decoding can take less beside its tokens than prompts of as many would.
        added = np.maximum(server.attention(slots), reading)
        share = reading / np.maximum(added, 1e-300)
        share = np.where(slots < server.max_sequences, 1.0, share)
        bursts = load.alike * (self.arrival_variation - 1.0) / 2.0
        lengths = share * (load.cached_deviation / load.cached) ** 2
        return np.asarray(np.maximum(1.0 + bursts, 0.05) + lengths)

    @cached_property
    def per_step(self) -> GammaMixture:
        """The time from the first token to the last, over the steps in between."""
        server, load, crowd = self.server, self.server.load, self.crowd
        mean = self.batch.mean
        plain = server.decode_step(np.maximum(mean, 1.0))
        period = mean / (self.rate * server.steps)
        kept = drift_kept(server, mean, slope(server, mean), period)
        drift = kept * np.sqrt(self.batch.variance * self._dispersion)
        travel = self.latency + self.per_token * load.moments[1]
        wait = travel + plain / 2.0 + crowd.blocked * crowd.slot_wait
        lengths = self.per_token**2 * (load.moments[2] - load.moments[1] ** 2)
        blocked = 2.0 * crowd.blocked * crowd.slot_wait**2
        steps = steps_of(server)
        means = period + wait / steps
        some = load.output_weights * (load.outputs > 0.0)
        return GammaMixture(
            means=means,
            variances=drift**2 + (lengths + plain**2 / 12.0 + blocked) / steps**2,
            least=np.maximum(np.minimum(period, 0.999 * means) - 4.0 * drift, 0.0),
            weights=some / max(some.sum(), 1e-12),
            most=np.full_like(period, np.inf),
        )

    @property
    def stable(self) -> Flags:
        """Whether a request fits, and requests do not outrun the slots."""
        return np.asarray(self.crowd.stable & self.server.fits)

    @property
    def near_preemption(self) -> Flags:
        """Whether the cache, and not the slots, may run full."""
        most = self.crowd.mean + 3.0 * np.sqrt(self.crowd.variance)
        bound = self.server.slot_cap() < self.server.max_sequences
        return np.asarray(bound & (most > self.server.slot_cap(RARE_PREEMPTION)))


def decode_saturation_rate(engine: Engine, profile: Profile) -> Floats:
    """Return the requests per second at which a decode replica's queue never ends.

    All slots decode, as far as the cache holds them with rare preemption.

    Parameters
    ----------
    engine, profile
        As for `saturation_rate`.
    """
    return _decode_saturation(Server.of(engine, profile))[..., 0]


def _decode_saturation(server: Server) -> Floats:
    slots = server.slot_cap(RARE_PREEMPTION)
    rate = slots / (server.steps * server.decode_step(slots))
    return np.asarray(np.where(server.fits, rate, 0.0))


@dataclass(frozen=True)
class AnswerLaws(RequestLaws):
    """The laws of a decode pool alone, whatever reads its prompts within a budget.

    Parameters
    ----------
    decode
        The replicas that answer.
    mean, deviation
        Seconds of the time to first token, on average and as a standard deviation;
        of the latter, the most that it may be.
    """

    decode: DecodeLaws
    mean: Seconds = 0.0
    deviation: Seconds = 0.0

    @property
    def answering(self) -> Server:
        """The engines that decode."""
        return self.decode.server

    @property
    def ttft(self) -> FirstToken:
        """The time to first token, as much as is known of it."""
        return FirstToken.known(self.mean, self.deviation**2)

    @property
    def per_step(self) -> GammaMixture:
        """The time from the first token to the last, over the steps in between."""
        return self.decode.per_step

    @property
    def stable(self) -> Flags:
        """Whether no queue of the decode replicas grows without end."""
        return self.decode.stable

    @property
    def most(self) -> Floats:
        """The saturation rate, shaped [..., 1]."""
        return _decode_saturation(self.answering)

    def at(self, rate: Floats, arrival_variation: Floats) -> Self:
        """Return the laws at other rates and variations, shaped [..., 1]."""
        decode = replace(self.decode, rate=rate, arrival_variation=arrival_variation)
        return replace(self, decode=decode)

    def excess(self, metric: Metric, statistic: Statistic, limit: Floats) -> Floats:
        """Return a number above 0 where a figure exceeds its limit, shaped [..., 1].

        Of the time to the last token the larger one of the least and the most that
        the first one may vary: a spread lifts high percentiles and lowers a median.
        """
        over = super().excess(metric, statistic, limit)
        if metric != "e2e" or not self.deviation:
            return over
        even = replace(self, deviation=0.0)
        return np.maximum(over, even.excess(metric, statistic, limit))


@dataclass(frozen=True)
class PairLaws(RequestLaws):
    """The laws of requests that one replica reads and another one answers.

    Parameters
    ----------
    prefill
        Of the former, at its rate; see `first_token_only`.
    decode
        Of the latter.
    carried
        Whether the links between them carry the caches.
    """

    prefill: Laws
    decode: DecodeLaws
    carried: Flags

    @property
    def answering(self) -> Server:
        """The engines that decode."""
        return self.decode.server

    @property
    def ttft(self) -> FirstToken:
        """The time to first token: it is the prefill replica's."""
        return self.prefill.ttft

    @property
    def per_step(self) -> GammaMixture:
        """The time from the first token to the last, over the steps in between."""
        return self.decode.per_step

    @property
    def stable(self) -> Flags:
        """Whether no queue grows without end, not even that of the links."""
        return np.asarray(self.prefill.stable & self.decode.stable & self.carried)
