"""Prefill and decode on replicas of their own: each pool has one latency to keep.

A prefill replica is one whose requests end with the first token; a decode replica is
exact processor sharing with a speed that depends on the batch. Requests reach it about
as they reach the first pool.
"""

from dataclasses import dataclass, replace

import numpy as np

from model_ops.opcost import Number
from model_ops.serving.batch_distribution import Flags, Ladder, batch_distribution
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import Floats, fixed
from model_ops.serving.queueing import LEVELS, Figures, latencies
from model_ops.serving.server import Server, column
from model_ops.serving.step_mix import slope
from model_ops.serving.token_times import GammaMixture, drift_kept, steps_of
from model_ops.units import RequestsPerSecond, Seconds


@dataclass(frozen=True)
class Pool:
    """The latency of one pool; arrays over options and rates.

    Parameters
    ----------
    times
        Time to first token of a prefill replica, time per output token after the
        first of a decode replica; infinite where not stable.
    batch_mean
        Requests that it decodes; 0 of prefill.
    utilisation
        Share of the saturation rate, or of the slots, that is in use.
    slot_wait_probability
        Share of the requests that find no free slot.
    stable
        Whether the queue does not grow without end.
    """

    times: Figures
    batch_mean: Floats
    utilisation: Floats
    slot_wait_probability: Floats
    stable: Flags


def prefill_pool(
    engine: Engine,
    profile: Profile,
    rate: RequestsPerSecond | Number,
    *,
    arrival_variation: Number = 1.0,
) -> Pool:
    """Return the times to first token of replicas that only read prompts.

    Against simulation the mean is within 20 %, the 99th percentile within 30 %; the
    largest errors are above 0.6 of saturation.

    Parameters
    ----------
    engine, profile, rate, arrival_variation
        As for `latencies`.
    """
    first_only = replace(profile, output=fixed(1.0))
    found = latencies(engine, first_only, rate, arrival_variation=arrival_variation)
    return Pool(
        times=found.ttft,
        batch_mean=found.batch_mean,
        utilisation=found.utilisation,
        slot_wait_probability=found.slot_wait_probability,
        stable=found.stable,
    )


def decode_pool(
    engine: Engine,
    profile: Profile,
    rate: RequestsPerSecond | Number,
    transfer: Seconds | Number = 0.0,
    *,
    arrival_variation: Number = 1.0,
) -> Pool:
    """Return the times per output token of replicas that only decode.

    The time runs from the first token to the last over the tokens in between, so that
    the transfer and the wait for a step and a slot are in it.

    Parameters
    ----------
    engine, profile, rate, arrival_variation
        As for `latencies`.
    transfer
        Seconds per prompt token that its cache takes to arrive.
    """
    server = Server.of(engine, profile)
    rates, variation = np.broadcast_arrays(column(rate), column(arrival_variation))
    load, moved = server.load, column(transfer)
    ladder = Ladder.of(server, reads=False)
    none, one = np.zeros_like(rates), np.ones_like(rates)
    spread = _dispersion(server, variation)
    exact = batch_distribution(server, ladder, rates, one, none, none)
    wide = batch_distribution(server, ladder, rates, spread * one, none, none)
    plain = server.decode_step(np.maximum(exact.mean, 1.0))
    period = exact.mean / (rates * server.steps)
    steps = steps_of(server)
    kept = drift_kept(server, exact.mean, slope(server, exact.mean), period)
    drift = kept * np.sqrt(exact.variance * spread)
    wait = moved * load.moments[1] + plain / 2.0 + wide.blocked * wide.slot_wait
    lengths = moved**2 * (load.moments[2] - load.moments[1] ** 2)
    blocked = 2.0 * wide.blocked * wide.slot_wait**2
    means = period + wait / steps
    some = load.output_weights * (load.outputs > 0.0)
    law = GammaMixture(
        means=means,
        variances=drift**2 + (lengths + plain**2 / 12.0 + blocked) / steps**2,
        least=np.maximum(np.minimum(period, 0.999 * means) - 4.0 * drift, 0.0),
        weights=some / max(some.sum(), 1e-12),
        most=np.full_like(period, np.inf),
    )
    return Pool(
        times=_figures(law, wide.stable, server.tokens_per_step),
        batch_mean=exact.mean[..., 0],
        utilisation=(exact.mean / server.slot_cap())[..., 0],
        slot_wait_probability=np.minimum(wide.blocked, 1.0)[..., 0],
        stable=wide.stable[..., 0],
    )


def _dispersion(server: Server, variation: Floats) -> Floats:
    """Return what bursts, and the chance of lengths where they fill it, add."""
    load = server.load
    slots = server.slot_cap()
    reading = server.per_cached * load.cached * slots
    share = reading / np.maximum(server.attention(slots), 1e-300)
    share = np.where(slots < server.max_sequences, 1.0, share)
    bursts = load.alike * (variation - 1.0) / 2.0
    lengths = share * (load.cached_deviation / load.cached) ** 2
    return np.asarray(np.maximum(1.0 + bursts, 0.05) + lengths)


def _figures(law: GammaMixture, stable: Flags, tokens_per_step: Floats) -> Figures:
    def shown(value: Floats) -> Floats:
        return np.where(stable, value / tokens_per_step, np.inf)[..., 0]

    levels = {name: shown(law.quantile(level)) for name, level in LEVELS.items()}
    return Figures(mean=shown(law.mean), **levels)
