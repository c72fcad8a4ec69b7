"""Time per output token and end-to-end time: laws given the length of the answer.

A short answer sees few steps, some of them lengthened by prompts; a long one averages
over these, but meets the slow drift of the batch. Both come from the same arrivals, so
that their deviations add.
"""

from dataclasses import dataclass

import numpy as np

from model_ops.serving.lengths import Floats
from model_ops.serving.prompt_queue import FirstToken
from model_ops.serving.quantile import gamma_cdf, quantile
from model_ops.serving.server import Server
from model_ops.serving.step_mix import StepMix, slope


@dataclass(frozen=True)
class GammaMixture:
    """A mixture of shifted gamma laws over the nodes of the answer's length.

    Parameters
    ----------
    means, variances, least
        Of each node, and where its law starts; shaped [..., node].
    weights
        Of the nodes.
    most
        Where the laws are cut off; shaped [..., 1].
    """

    means: Floats
    variances: Floats
    least: Floats
    weights: Floats
    most: Floats

    @property
    def mean(self) -> Floats:
        """Mean seconds."""
        return np.asarray((self.means @ self.weights)[..., None])

    def survival(self, seconds: Floats) -> Floats:
        """Return the share of requests above seconds shaped [..., point]."""
        above = seconds[..., None] - self.least[..., None, :]
        means = (self.means - self.least)[..., None, :]
        done = gamma_cdf(above, means, self.variances[..., None, :])
        return np.where(seconds < self.most, 1.0 - done @ self.weights, 0.0)

    def quantile(self, level: float) -> Floats:
        """Return the seconds that a share `level` of the requests does not exceed."""
        if not self.weights.any():
            return np.zeros_like(self.mean)
        deviation = np.sqrt(self.variances)
        high = np.max(self.means + 8.0 * deviation, axis=-1, keepdims=True)
        low = np.min(self.means - 4.0 * deviation, axis=-1, keepdims=True)
        low = np.maximum(low, 0.05 * self.mean)
        return np.minimum(quantile(self.survival, level, low, high), self.most)


def steps_of(server: Server) -> Floats:
    """Return the decode steps of each node of the answer, shaped [..., node]."""
    return np.maximum(server.load.outputs / server.tokens_per_step, 1.0)


def token_times(
    server: Server, mix: StepMix, rate: Floats, arrival_variation: Floats
) -> GammaMixture:
    """Return the law of the time per step of a request at a rate."""
    steps, load = steps_of(server), server.load
    memory = 1.0 - mix.memory
    early = (1.0 - mix.memory**steps) / (memory * steps)
    means = mix.period + mix.start * (mix.mixed - mix.plain) * early
    drift = _drift(server, mix)
    burst = np.sqrt(_burst(server, mix, rate, arrival_variation, early))
    least = np.minimum(mix.plain, 0.999 * means) - 4.0 * drift
    some = load.output_weights * (load.outputs > 0.0)
    return GammaMixture(
        means=means,
        variances=(drift + burst) ** 2,
        least=np.maximum(least, 0.0),
        weights=some / max(some.sum(), 1e-12),
        most=np.maximum(mix.full, mix.period),
    )


def drift_kept(server: Server, batch: Floats, steep: Floats, period: Floats) -> Floats:
    """Return a request's deviation per step over that of the batch, [..., node].

    The longer it decodes, the more of the batch's slow changes it averages over; they
    follow the speed of the batch itself.
    """
    feedback = np.maximum(1.0 - batch * steep / period, 0.05)
    life = steps_of(server) / server.steps * feedback
    return np.asarray(steep * np.sqrt(2.0 * (life + np.expm1(-life))) / life)


def _drift(server: Server, mix: StepMix) -> Floats:
    """Return the deviation from the batch's slow changes.

    The tokens in the cache vary more than the requests, by the chance of their lengths.
    """
    batch, load = mix.batch, server.load
    rise = slope(server, batch.mean)
    reading = server.per_cached * load.cached
    reading = np.minimum(reading / np.maximum(rise, 1e-300), 1.0)
    lengths = batch.mean * (reading * load.cached_deviation / load.cached) ** 2
    steep = rise / (1.0 - mix.prompt_load)
    kept = drift_kept(server, batch.mean, steep, mix.period)
    return np.asarray(kept * np.sqrt(batch.variance + lengths))


def _burst(
    server: Server,
    mix: StepMix,
    rate: Floats,
    arrival_variation: Floats,
    early: Floats,
) -> Floats:
    """Return the variance of the mean step from the prompts met on the way.

    Over many steps it must become that of the prompts' work: a slow request meets
    more prompts. One step has less; the memory that leads from one to the other is
    that of an autoregressive sequence.
    """
    steps = steps_of(server)
    gap, extra = mix.mixed - mix.plain, mix.extra
    often = np.clip(mix.mixed_steps + mix.start * early, 0.0, 1.0)
    single = often * (1.0 - often) * gap**2 + often * mix.mixed_variance
    usual = mix.mixed_steps * ((1.0 - mix.mixed_steps) * gap**2 + mix.mixed_variance)
    work = rate * mix.felt * extra**2 * (mix.prompt_spread + arrival_variation)
    lasting = work * mix.period / (1.0 - mix.prompt_load) ** 2
    ratio = np.maximum(lasting / np.maximum(usual, 1e-300), 1.0)
    memory = np.minimum((ratio - 1.0) / (ratio + 1.0), 0.9999)
    transient = 2.0 * memory * (1.0 - memory**steps) / (steps * (1.0 - memory) ** 2)
    return np.asarray(single * np.maximum(ratio - transient, 1.0) / steps)


def end_to_end(
    server: Server, first: FirstToken, per_step: GammaMixture
) -> GammaMixture:
    """Return the law of the time from arrival to the last token."""
    load = server.load
    steps = steps_of(server) * (load.outputs > 0.0)
    means = first.mean + steps * per_step.means
    return GammaMixture(
        means=means,
        variances=first.variance + steps**2 * per_step.variances,
        least=np.zeros_like(means),
        weights=load.output_weights,
        most=np.full_like(first.mean, np.inf),
    )
