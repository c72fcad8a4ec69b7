"""Steps of two kinds, with prompts and without, and the batch they let build up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.serving.batch_distribution import Batch, Ladder, batch_distribution
from model_ops.serving.lengths import Floats
from model_ops.serving.load import Load
from model_ops.serving.server import Server

_MOST_LOAD = 0.995
_PASSES = 2
_ROUNDS = 8
_LARGEST = 0.8


@dataclass(frozen=True)
class StepMix:
    """The steps of an engine at a rate; every field shaped [..., 1].

    Parameters
    ----------
    batch
        The decoding requests.
    plain, mixed, full
        Seconds of a step without prompts, with prompts, and filled with them.
    mixed_variance
        Variance of the seconds of mixed steps.
    period
        Seconds per step, on average.
    mixed_steps, mixed_time
        Share of the steps, and of the time, with prompts.
    memory
        Correlation of the kinds of two steps in a row.
    start
        By how much the first step of a request is more often mixed than others.
    chunks
        Steps over which a prompt is read, on average.
    extra
        Seconds that a prompt adds to the steps.
    felt
        Prompts of all groups that lengthen a step, over those of its own.
    prompt_load
        Share of the time that prompts add.
    prompt_spread
        Squared coefficient of variation of a prompt's work.
    per_token
        Seconds per prompt token where steps are full.
    """

    batch: Batch
    plain: Floats
    mixed: Floats
    full: Floats
    mixed_variance: Floats
    period: Floats
    mixed_steps: Floats
    mixed_time: Floats
    memory: Floats
    start: Floats
    chunks: Floats
    extra: Floats
    felt: Floats
    prompt_load: Floats
    prompt_spread: Floats
    per_token: Floats


def step_mix(
    server: Server, ladder: Ladder, rate: Floats, arrival_variation: Floats
) -> StepMix:
    """Return steps and batch at a rate, each from the other, in two passes."""
    zero = np.zeros_like(rate)
    lag, stretch, felt = zero, zero + 1.0, zero + 1.0
    dispersion = zero + (1.0 + arrival_variation) / 2.0
    for _ in range(_PASSES):
        arrivals = rate * ladder.step * stretch
        cost = felt * ladder.prompt_cost(ladder.middle, arrivals)
        batch = batch_distribution(server, ladder, rate, dispersion, lag, cost)
        mix = _two_states(server, ladder, rate, batch, stretch)
        lag = mix.start * (mix.mixed - mix.plain) / (1.0 - mix.memory)
        dispersion = _dispersion(server, mix, rate, arrival_variation)
        stretch, felt = _met(mix) / mix.plain, mix.felt
    return mix


def _met(mix: StepMix) -> Floats:
    """Return the seconds of the step that an arrival meets: long ones are met more."""
    mixed = mix.mixed + mix.mixed_variance / mix.mixed
    return mix.plain + mix.mixed_time * (mixed - mix.plain)


def _two_states(
    server: Server, ladder: Ladder, rate: Floats, batch: Batch, stretch: Floats
) -> StepMix:
    """Return the steps beside a mean batch, as a chain of two states.

    A plain step is followed by a mixed one if a prompt arrives during it; a mixed one
    also if a prompt has chunks left. `stretch` is the step that an arrival meets over
    a plain one: it decides how many prompts share a step.
    """
    load = server.load
    plain = server.decode_step(np.maximum(batch.mean, 1.0))
    extra = ladder.prompt_cost(batch.mean, rate * plain * stretch)
    room = server.room(batch.mean)
    per_token = server.full_step(batch.mean) / room
    full = room * (per_token + server.pairs_per_token)
    full = np.maximum(full, plain * (1.0 + 1e-9))
    chunks = (np.ceil(load.prompts / room) @ load.prompt_weights)[..., None]
    work_moments = load.cost_moments(per_token, server.per_pair)
    spread = np.maximum(work_moments[2] / work_moments[1] ** 2 - 1.0, 0.0)
    variance = np.minimum(spread * extra**2, (full - plain) ** 2 / 3.0)

    everywhere = server.groups * rate
    arriving = -np.expm1(-everywhere * plain)
    mixed = np.minimum(plain + extra / chunks, full)
    for _ in range(_ROUNDS):
        again = 1.0 - _quiet(everywhere, plain, mixed - plain, variance) / chunks
        share = np.clip(arriving / (1.0 - again + arriving), 1e-12, _MOST_LOAD)
        felt = _felt(server, share, spread)
        longest = plain + share * (full - plain)
        most = (1.0 - plain / longest) / np.maximum(rate * extra, 1e-300)
        felt = np.clip(felt, 1.0, np.maximum(most, 1.0))
        busy = np.minimum(rate * extra * felt, _MOST_LOAD)
        work = busy * plain / (1.0 - busy)
        mixed = np.minimum(plain + work / share, full)
    period = plain / (1.0 - busy)
    share = np.clip(work / np.maximum(mixed - plain, 1e-12), 1e-12, 0.999)
    again = np.clip(1.0 - arriving * (1.0 - share) / share, 0.0, 0.999)
    mixed_time = np.minimum(share * mixed / period, 1.0)

    elsewhere = np.power(1.0 - share, 1.0 - 1.0 / server.groups)
    behind = 1.0 - elsewhere * (1.0 - _behind(load, rate, room, mixed, work_moments))
    return StepMix(
        batch=batch,
        plain=plain,
        mixed=mixed,
        full=full,
        mixed_variance=variance,
        period=period,
        mixed_steps=share,
        mixed_time=mixed_time,
        memory=np.clip(again - arriving, 0.0, 0.999),
        start=np.minimum(behind, mixed_time) - share,
        chunks=chunks,
        extra=extra,
        felt=felt,
        prompt_load=busy,
        prompt_spread=spread,
        per_token=per_token,
    )


def _felt(server: Server, share: Floats, spread: Floats) -> Floats:
    """Return by how much more prompts lengthen steps for those of other groups.

    Of the groups whose prompts share a step the longest counts: the mean of the largest
    of exponential times grows with the logarithm of their number.
    """
    own = -np.expm1(np.log1p(-share) / server.groups)
    together = np.log(np.maximum(server.groups * own / share, 1.0))
    return np.asarray(share / own * (1.0 + _LARGEST * np.sqrt(spread) * together))


def _behind(
    load: Load, rate: Floats, room: Floats, mixed: Floats, work: Sequence[Floats]
) -> Floats:
    """Return the probability that prompts are left when a request begins to decode.

    They arrived while it was read, or while it waited and found no room beside it.
    """
    wait = rate * work[2] / (2.0 * (1.0 - np.minimum(rate * work[1], _MOST_LOAD)))
    unlike = (np.minimum(load.prompts / room, 1.0) @ load.prompt_weights)[..., None]
    seconds = mixed * np.ceil(load.prompts / room) + unlike * wait
    nobody = (np.exp(-rate * seconds) @ load.prompt_weights)[..., None]
    return np.asarray(1.0 - nobody)


def _quiet(rate: Floats, plain: Floats, gap: Floats, variance: Floats) -> Floats:
    """Return the probability that nobody arrives in a step of plain + gamma(gap)."""
    gap = np.maximum(gap, 1e-12)
    spread = np.maximum(variance / gap**2, 1e-6)
    power = np.log1p(rate * gap * spread) / spread
    return np.asarray(np.exp(-rate * plain - power))


def slope(server: Server, batch: Floats) -> Floats:
    """Return the seconds that a step lengthens per decoding request around a batch."""
    reach = 0.1 * batch + 1e-3
    low, high = np.maximum(batch - reach, 1.0), np.maximum(batch, 1.0) + reach
    rise = server.decode_step(high) - server.decode_step(low)
    return np.asarray(rise / (high - low))


def _dispersion(
    server: Server, mix: StepMix, rate: Floats, arrival_variation: Floats
) -> Floats:
    """Return by how much the batch varies more than with Poisson arrivals one by one.

    The prompts of a busy period start to decode together: K of them, with the mean and
    the variance of a busy period of M/G/1. A busy cluster grows further while its
    chunks are read; that factor is measured against simulation. Where the cache is the
    limit, the chance of the requests' lengths takes slots as more requests would.
    """
    load, busy = server.load, mix.prompt_load
    together = 1.0 / (1.0 - busy)
    work = (rate * mix.extra) ** 2 * (1.0 + mix.prompt_spread)
    variance = (busy * (1.0 - busy) + work) * together**3
    cluster = (variance + arrival_variation * together**2) / together
    spaced = 1.0 + mix.chunks * cluster / server.steps
    grown = 1.0 + busy / mix.chunks
    bound = server.slot_cap() < server.max_sequences
    lengths = bound * (load.cached_deviation / load.cached) ** 2
    clusters = load.alike * (cluster - 1.0) / spaced / 2.0 * grown
    return np.asarray(np.maximum(1.0 + clusters, 0.05) + lengths)
