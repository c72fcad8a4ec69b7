"""Latencies in closed form: limits by hand, invariants, and frozen simulations."""

from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_ops.serving.batch_distribution import Ladder, batch_distribution
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.highest_rate import Target, highest_rate
from model_ops.serving.lengths import fixed, lognormal
from model_ops.serving.load import Load, mixed
from model_ops.serving.pools import DecodeLaws
from model_ops.serving.prompt_queue import followers
from model_ops.serving.quantile import gamma_cdf, normal_cdf, quantile
from model_ops.serving.queueing import latencies, split_variation
from model_ops.serving.saturation import closed_loop, saturation_rate
from model_ops.serving.server import Server
from model_ops.serving.step_curve import StepCurve

METRICS = ("ttft", "tpot", "e2e")
LEVELS = ("p50", "p90", "p95", "p99")


def line(**changed):
    """Return a curve of six numbers, 8 B parameters on an H100 unless changed."""
    numbers = {
        "overhead": 1e-3,
        "weights": 6.007e-3,
        "per_token": 2.941e-5,
        "per_sequence": 5e-6,
        "per_cached": 4.891e-8,
        "per_pair": 1.377e-9,
        "most_tokens": 8192,
    }
    return StepCurve.line(**(numbers | changed))


DENSE = Engine(line(), 8192, 256, 400_000)
LARGE = Engine(
    line(
        overhead=3e-3,
        weights=13.15e-3,
        per_token=7.078e-5,
        per_cached=3.057e-8,
        per_pair=1.893e-9,
        most_tokens=2048,
    ),
    2048,
    256,
    425_000,
)
SPARSE = Engine(
    line(
        overhead=2e-3,
        weights=11.38e-3,
        per_token=9.529e-6,
        per_cached=3.668e-8,
        per_pair=1.622e-9,
    ),
    8192,
    256,
    390_000,
)
CHAT = Profile(lognormal(512, 1.0, 8), lognormal(256, 1.0, 2))
CONVERSATION = Profile(lognormal(1155, 0.96, 8), lognormal(211, 0.77, 2))
RETRIEVAL = Profile(fixed(6000), fixed(300))
REASONING = Profile(lognormal(200, 1.0, 8), lognormal(2000, 0.8, 2))
REGIMES = [
    (DENSE, CHAT),
    (LARGE, CONVERSATION),
    (LARGE, RETRIEVAL),
    (SPARSE, REASONING),
]


def figure(found, metric, statistic):
    return getattr(getattr(found, metric), statistic)


# Limits by hand.


def test_at_no_load_the_times_are_those_of_the_steps():
    profile = Profile(fixed(1000), fixed(101))
    found = latencies(DENSE, profile, 1e-9)
    prefill = 1e-3 + 2.941e-5 * 1000 + 1.377e-9 * 1000**2 / 2
    # A decoding request holds its prompt and, on average, half of its answer.
    step = 1e-3 + 6.007e-3 + 5e-6 + 4.891e-8 * (1000 + 101 / 2)
    assert found.ttft.mean == pytest.approx(prefill, rel=1e-4)
    assert found.tpot.mean == pytest.approx(step, rel=1e-4)
    assert found.e2e.mean == pytest.approx(prefill + 100 * step, rel=1e-4)
    for level in LEVELS:
        assert figure(found, "ttft", level) == pytest.approx(prefill, rel=0.02)
        assert figure(found, "tpot", level) == pytest.approx(step, rel=0.02)


def test_overhead_is_added_to_the_first_token_and_the_last():
    slow = replace(DENSE, request_overhead=0.25)
    plain, added = (latencies(one, CHAT, 10.0) for one in (DENSE, slow))
    # The room left beside a longer stay is not taken by others.
    for statistic in ("mean", "p50", "p99"):
        for metric in ("ttft", "e2e"):
            more = figure(added, metric, statistic) - figure(plain, metric, statistic)
            assert more == pytest.approx(0.25, rel=0.02), (metric, statistic)
    assert added.tpot.p99 == plain.tpot.p99


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8])
def test_prompts_alone_wait_as_pollaczek_and_khinchine_say(load):
    # Each prompt fills a step, so that it is served by itself: M/D/1.
    service = 1e-5 * 2040
    work = {"per_token": 1e-5, "per_sequence": 0, "per_cached": 0, "per_pair": 0}
    curve = line(overhead=0, weights=0, most_tokens=2048, **work)
    only = Profile(fixed(2040), fixed(1))
    found = latencies(Engine(curve, 2048, 64, 1e9), only, load / service)
    expected = service * (1.0 + load / (2.0 * (1.0 - load)))
    assert found.ttft.mean == pytest.approx(expected, rel=0.01)
    assert found.tpot.mean == 0.0
    assert found.tpot.p99 == 0.0
    assert found.e2e.mean == pytest.approx(found.ttft.mean)


def batch(engine, profile, rate):
    server = Server.of(engine, profile)
    zero, one = np.zeros(1), np.ones(1)
    ladder = Ladder.of(server, reads=False)
    return batch_distribution(server, ladder, np.array([rate]), one, zero, zero)


def test_without_contention_the_batch_is_poisson():
    # M/G/infinity: every step takes 10 ms whatever is in it.
    flat = line(overhead=0.01, weights=0, per_token=0, per_sequence=0, per_cached=0)
    found = batch(Engine(flat, 8192, 1000, 1e9), CHAT, 4.0)
    mean = 4.0 * (CHAT.output.mean - 1.0) * 0.01
    assert found.mean == pytest.approx(mean, rel=0.01)
    assert found.variance == pytest.approx(mean, rel=0.02)
    assert found.empty == pytest.approx(np.exp(-mean), rel=0.05)


def test_a_step_in_proportion_to_the_batch_is_processor_sharing():
    # M/M/1: a geometric batch, however long the answers.
    shared = line(overhead=0, weights=0, per_token=1e-4, per_sequence=0, per_cached=0)
    rate, load = 0.6 / (1e-4 * 255), 0.6
    found = batch(Engine(shared, 8192, 64, 1e9), Profile(fixed(9), fixed(256)), rate)
    assert found.empty == pytest.approx(1.0 - load, rel=0.01)
    assert found.mean == pytest.approx(load / (1.0 - load), rel=0.01)


def test_one_slot_blocks_as_long_as_it_is_busy():
    flat = line(overhead=0.01, weights=0, per_token=0, per_sequence=0, per_cached=0)
    found = batch(Engine(flat, 8192, 1, 1e9), Profile(fixed(9), fixed(101)), 0.5)
    # M/M/1 with load 0.5 x 100 steps x 10 ms.
    assert found.blocked == pytest.approx(0.5, rel=1e-6)
    assert found.slot_wait == pytest.approx(2.0, rel=1e-6)


def test_decode_pool_does_not_feel_the_law_of_the_answers():
    free = replace(DENSE, curve=line(per_cached=0), cache_tokens=1e9)
    laws = [fixed(256), lognormal(256, 0.5, 1.0), lognormal(256, 1.5, 1.0)]
    found = [DecodeLaws.of(free, Profile(fixed(64), law), 20.0) for law in laws]
    means = [
        float(pool.batch.mean[0]) / (law.mean - 1)
        for pool, law in zip(found, laws, strict=True)
    ]
    np.testing.assert_allclose(means, means[0], rtol=0.01)


def test_saturation_by_slots():
    # 64 slots of 100 steps of 10 ms each; prompts cost nothing beside them.
    flat = line(overhead=0.01, weights=0, per_token=0, per_sequence=0, per_cached=0)
    flat = replace(flat, per_pair=0.0)
    engine = Engine(flat, 8192, 64, 1e9)
    rate = saturation_rate(engine, Profile(fixed(16), fixed(101)))
    assert rate == pytest.approx(64 / (100 * 0.01), rel=1e-3)


def test_saturation_by_full_steps():
    curve = line(overhead=0, weights=0, per_token=1e-5, per_sequence=0, per_cached=0)
    curve = replace(curve, per_pair=0.0)
    rate = saturation_rate(
        Engine(curve, 2048, 4096, 1e9), Profile(fixed(900), fixed(101))
    )
    # Every token costs 10 us: 900 of the prompt, 100 more of the answer.
    assert rate == pytest.approx(1.0 / (1000 * 1e-5), rel=0.02)


# Invariants.


@pytest.mark.parametrize(("engine", "profile"), REGIMES)
def test_figures_rise_with_the_rate(engine, profile):
    rates = np.linspace(0.05, 0.85, 17) * saturation_rate(engine, profile)
    found = latencies(engine, profile, rates)
    for metric in METRICS:
        assert np.all(np.diff(figure(found, metric, "mean")) > 0), metric
        for level in LEVELS:
            ratio = figure(found, metric, level)[1:] / figure(found, metric, level)[:-1]
            assert ratio.min() > 0.975, (metric, level)


@pytest.mark.slow
@given(share=st.floats(0.05, 0.85), variation=st.floats(0.25, 4.0))
@pytest.mark.parametrize(("engine", "profile"), REGIMES)
def test_percentiles_are_ordered(engine, profile, share, variation):
    rate = share * saturation_rate(engine, profile)
    found = latencies(engine, profile, rate, arrival_variation=variation)
    for metric in METRICS:
        values = [figure(found, metric, level) for level in LEVELS]
        assert all(a <= b * (1 + 1e-9) for a, b in pairwise(values)), metric
        # Beyond, waits for a slot may be rarer than 1 % and still decide the mean.
        assert share > 0.6 or figure(found, metric, "mean") < values[-1] * 1.01
        assert np.all(np.isfinite(values))


def stacked(engines):
    """Return engines as one with arrays over options."""
    curves = [engine.curve for engine in engines]
    names = ("chunk_tokens", "max_sequences", "cache_tokens")
    limits = {
        name: np.array([float(getattr(engine, name)) for engine in engines])
        for name in names
    }
    most = max(curve.base.shape[-1] for curve in curves)

    def rows(name):
        tables = [getattr(curve, name) for curve in curves]
        return np.stack(
            [np.pad(table, (0, most - len(table)), mode="edge") for table in tables]
        )

    curve = StepCurve(
        rows("base"),
        rows("decoding"),
        np.array([curve.per_cached for curve in curves]),
        np.array([curve.per_pair for curve in curves]),
    )
    return Engine(curve, **limits)


def test_arrays_over_options_and_rates_equal_numbers():
    engines, rates = [DENSE, LARGE, SPARSE], np.array([1.0, 3.0, 5.0, 8.0])
    every = stacked(engines)
    curve = every.curve
    against = Engine(
        StepCurve(
            curve.base[:, None],
            curve.decoding[:, None],
            curve.per_cached[:, None],
            curve.per_pair[:, None],
        ),
        every.chunk_tokens[:, None],
        every.max_sequences[:, None],
        every.cache_tokens[:, None],
    )
    found = latencies(against, CONVERSATION, rates)
    assert found.ttft.p99.shape == found.weak["near_saturation"].shape == (3, 4)
    for row, engine in enumerate(engines):
        for place, rate in enumerate(rates):
            one = latencies(engine, CONVERSATION, rate)
            for metric in METRICS:
                for statistic in ("mean", *LEVELS):
                    whole = figure(found, metric, statistic)[row, place]
                    alone = figure(one, metric, statistic)
                    assert whole == pytest.approx(float(alone), rel=1e-9)


def test_unstable_and_oversized_requests_never_end():
    over = latencies(DENSE, CHAT, 100.0)
    assert not over.stable
    assert np.isinf([figure(over, metric, "p50") for metric in METRICS]).all()
    small = latencies(replace(DENSE, cache_tokens=500), CHAT, 0.01)
    assert not small.stable


@pytest.mark.parametrize(("engine", "profile"), REGIMES)
def test_a_closed_loop_obeys_littles_law(engine, profile):
    users = np.unique(np.geomspace(1, 3000, 60).round())
    found = closed_loop(engine, profile, users)
    stay = found.ttft + (profile.output.mean - 1.0) * found.tpot
    np.testing.assert_allclose(found.rate * stay, users, rtol=1e-6)
    assert found.ttft.min() > 0
    assert np.all(np.diff(found.rate) > -1e-3 * found.rate[1:])
    assert found.rate.max() < 1.1 * saturation_rate(engine, profile)


def test_a_single_user_sees_an_empty_engine():
    found = closed_loop(DENSE, CHAT, 1)
    alone = latencies(DENSE, CHAT, 1e-9)
    assert found.tpot == pytest.approx(alone.tpot.mean, rel=0.01)
    assert found.ttft == pytest.approx(alone.ttft.mean, rel=0.05)


# The highest rate.


def targets_at(engine, profile, share, statistic):
    rate = share * saturation_rate(engine, profile)
    found = latencies(engine, profile, rate)
    return [
        Target(metric, statistic, float(figure(found, metric, statistic)))
        for metric in ("ttft", "tpot")
    ]


@pytest.mark.parametrize("statistic", ["mean", "p90", "p99"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
@pytest.mark.parametrize(("engine", "profile"), REGIMES)
def test_the_highest_rate_is_where_targets_begin_to_fail(
    engine, profile, share, statistic
):
    targets = targets_at(engine, profile, share, statistic)
    rate = highest_rate(engine, profile, targets)
    assert rate.shape == ()

    def worst(at):
        found = latencies(engine, profile, at)
        return max(figure(found, t.metric, statistic) / t.limit for t in targets)

    # Percentiles are interpolated, the search is not.
    assert worst(rate) <= 1.001
    assert worst(1.02 * rate) > 1.0


def test_limits_and_replicas_may_be_arrays():
    limits = np.array([0.05, 0.1, 0.2])
    targets = [Target("ttft", "p95", limits), Target("tpot", "mean", 0.05)]
    rates = highest_rate(DENSE, CHAT, targets, replicas=np.array([1, 1, 4]))
    assert np.all(np.diff(rates) > 0)
    for limit, replicas, rate in zip(limits, [1, 1, 4], rates, strict=True):
        single = [Target("ttft", "p95", limit), targets[1]]
        alone = highest_rate(DENSE, CHAT, single, replicas=replicas)
        assert alone == pytest.approx(rate, rel=1e-9)


def test_a_target_nobody_meets_leaves_no_rate():
    assert highest_rate(DENSE, CHAT, [Target("tpot", "mean", 1e-3)]) == 0.0


def test_without_targets_saturation_is_the_limit():
    rate = highest_rate(DENSE, CHAT, [])
    assert 0.97 < rate / saturation_rate(DENSE, CHAT) <= 1.0


@pytest.mark.parametrize(("engine", "profile"), REGIMES)
def test_pooled_replicas_and_faster_steps_are_never_worse(engine, profile):
    targets = targets_at(engine, profile, 0.7, "p95")
    pooled = highest_rate(engine, profile, targets, replicas=np.array([1, 2, 4, 16]))
    assert np.all(np.diff(pooled) > -0.003 * pooled[0])
    curve = engine.curve
    faster = StepCurve(
        curve.base * 0.95,
        curve.decoding * 0.95,
        curve.per_cached * 0.95,
        curve.per_pair * 0.95,
    )
    sooner = highest_rate(replace(engine, curve=faster), profile, targets)
    assert sooner > pooled[0] * 1.04


# Profiles.


def test_a_cached_prefix_saves_compute_but_no_cache():
    half = replace(CONVERSATION, cached_share=0.5)
    plain, saved = (latencies(DENSE, one, 8.0) for one in (CONVERSATION, half))
    assert saved.ttft.mean < 0.7 * plain.ttft.mean
    assert saved.batch_mean < plain.batch_mean
    caps = [Server.of(DENSE, one).slot_cap() for one in (CONVERSATION, half)]
    assert caps[0] == caps[1]
    # 500 new tokens attend to 500 cached ones and to half of themselves.
    assert Load.of(replace(RETRIEVAL, cached_share=0.5)).pairs == pytest.approx(
        3000 * 3000 + 3000**2 / 2
    )


def test_speculation_divides_the_steps_of_an_answer():
    twice = replace(DENSE, tokens_per_step=2.0)
    plain, fast = (latencies(one, CHAT, 1e-9) for one in (DENSE, twice))
    assert fast.tpot.mean == pytest.approx(plain.tpot.mean / 2, rel=1e-6)
    assert fast.ttft.mean == pytest.approx(plain.ttft.mean, rel=1e-6)
    assert saturation_rate(twice, CHAT) > 1.3 * saturation_rate(DENSE, CHAT)


def test_mixed_classes_keep_their_means():
    both = mixed([CHAT, replace(CONVERSATION, cached_share=0.4)], [3, 1])
    assert both.prompt.mean == pytest.approx((3 * 512 + 1155) / 4, rel=0.005)
    assert both.output.mean == pytest.approx((3 * 256 + 211) / 4, rel=0.005)
    tokens = 0.4 * 1155 / (3 * 512 + 1155)
    assert both.cached_share == pytest.approx(tokens, rel=0.005)
    alone = mixed([CHAT], [7.0])
    one, same = (latencies(DENSE, profile, 15.0) for profile in (CHAT, alone))
    assert same.ttft.p99 == pytest.approx(float(one.ttft.p99), rel=0.01)


def test_half_long_half_short_has_the_variance_of_both():
    both = mixed(
        [Profile(fixed(100), fixed(10)), Profile(fixed(900), fixed(30))], [1, 1]
    )
    assert both.prompt.mean == pytest.approx(500, rel=0.01)
    assert both.prompt.variation == pytest.approx(400 / 500, rel=0.01)
    assert both.output.mean == pytest.approx(20, rel=0.01)


def test_routers_even_out_arrivals():
    assert split_variation(4) == 0.25
    assert split_variation(4, random=True) == 1.0
    assert split_variation(2, random=True, variation=5.0) == 3.0
    assert split_variation(2, variation=4.0) == 2.0


@pytest.mark.parametrize(("engine", "profile"), REGIMES)
def test_bursts_make_everything_slower(engine, profile):
    rate = 0.6 * saturation_rate(engine, profile)
    found = latencies(
        engine, profile, rate, arrival_variation=np.array([0.25, 1.0, 2.0, 4.0])
    )
    for metric in METRICS:
        values = figure(found, metric, "p99")
        assert np.all(np.diff(values) > -0.002 * values[1:]), metric
        assert values[-1] > values[0], metric


def test_weak_places_are_named():
    near = latencies(DENSE, CHAT, 0.95 * saturation_rate(DENSE, CHAT))
    assert near.weak["near_saturation"]
    calm = latencies(DENSE, CHAT, 0.5 * saturation_rate(DENSE, CHAT))
    assert not any(flag for flag in calm.weak.values())
    code = Profile(lognormal(4096, 1.4, 8), lognormal(28, 1.0, 2))
    busy = latencies(replace(DENSE, chunk_tokens=2048), code, 2.0)
    assert busy.weak["prompts_dominate"]
    assert busy.weak["heavy_tail"]
    tight = replace(DENSE, cache_tokens=20_000)
    full = latencies(tight, CHAT, 0.9 * saturation_rate(tight, CHAT))
    assert full.weak["near_preemption"]


def test_followers_are_those_of_the_renewal_law():
    counts = np.array([0.1, 1.0, 5.0])
    np.testing.assert_allclose(followers(counts, np.ones(1)), counts)
    # Erlang of two stages: m(t) = t - 1/4 + exp(-4 t) / 4 at rate 1.
    erlang = counts - 0.25 + np.exp(-4.0 * counts) / 4.0
    np.testing.assert_allclose(followers(counts, np.array([0.5])), erlang)


# Simulated by a loop over steps that are as long as their longest group's: 40 000
# requests per group, conversation on DENSE.
COLLIDING = [(2, 5.0, 0.0642, 0.01162, 0.14), (8, 2.0, 0.0720, 0.01381, 0.23)]


@pytest.mark.parametrize(("groups", "rate", "ttft", "tpot", "within"), COLLIDING)
def test_prompts_of_other_groups_lengthen_the_steps(groups, rate, ttft, tpot, within):
    several = latencies(replace(DENSE, groups=groups), CONVERSATION, rate)
    alone = latencies(DENSE, CONVERSATION, rate)
    assert several.tpot.mean == pytest.approx(tpot, rel=0.04)
    assert several.ttft.mean == pytest.approx(ttft, rel=within)
    assert several.tpot.mean > 1.1 * alone.tpot.mean
    assert not alone.weak["groups_collide"]


# Simulated figures of two seeds of 120 000 requests each.

SIMULATED = [
    (0, 11.5051, [0.02803, 0.06927, 0.1212], [0.009439, 0.01091, 0.01213], 0.04),
    (0, 20.134, [0.03957, 0.1001, 0.1683], [0.01332, 0.01652, 0.01893], 0.06),
    (1, 3.6021, [0.15, 0.4483, 0.7532], [0.02326, 0.0305, 0.03733], 0.09),
    (1, 6.3037, [0.2487, 0.7397, 1.174], [0.03648, 0.05585, 0.07292], 0.14),
    (2, 0.7163, [0.6051, 1.089, 1.51], [0.02598, 0.03631, 0.04275], 0.04),
    (2, 1.2535, [0.8809, 1.957, 2.91], [0.04586, 0.07545, 0.0954], 0.10),
    (3, 1.3822, [0.02525, 0.03315, 0.03513], [0.01681, 0.01804, 0.01872], 0.06),
    (3, 2.4189, [0.03113, 0.04122, 0.04425], [0.02073, 0.0228, 0.02397], 0.08),
]


@pytest.mark.parametrize(("regime", "rate", "ttft", "tpot", "within"), SIMULATED)
def test_simulation_agrees(regime, rate, ttft, tpot, within):
    found = latencies(*REGIMES[regime], rate)
    for metric, truth in (("ttft", ttft), ("tpot", tpot)):
        values = [figure(found, metric, name) for name in ("mean", "p95", "p99")]
        np.testing.assert_allclose(values, truth, rtol=within, err_msg=metric)


# Distributions.


def test_the_normal_law_is_exact():
    scores = np.linspace(-6.0, 6.0, 997)
    exact = [NormalDist().cdf(float(score)) for score in scores]
    np.testing.assert_allclose(normal_cdf(scores), exact, atol=1e-6)
    assert normal_cdf(np.array([-40.0, 40.0])) == pytest.approx([0.0, 1.0], abs=1e-9)


def test_the_gamma_law_is_close():
    x = np.array([0.1, 0.5, 1.0, 2.0, 4.6])
    one = np.ones(1)
    np.testing.assert_allclose(gamma_cdf(x, one, one), 1 - np.exp(-x), atol=0.007)
    # Erlang of two stages, mean 2.
    erlang = 1 - np.exp(-x) * (1 + x)
    np.testing.assert_allclose(gamma_cdf(x, 2 * one, 2 * one), erlang, atol=0.004)
    assert gamma_cdf(np.array([-1.0, 0.0]), one, one).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_quantiles_of_an_exponential_law(level):
    means = np.array([[1.0], [30.0]])
    found = quantile(lambda t: np.exp(-t / means), level, 0.01 * means, 20 * means)
    np.testing.assert_allclose(found, -np.log(1 - level) * means, rtol=1e-6)


@pytest.mark.parametrize(("replicas", "arrivals"), [(1, 1.0), (4, 1.0), (6, 9.0)])
def test_gaps_dealt_in_turn_vary_as_said(replicas: int, arrivals: float) -> None:
    expected = split_variation(replicas, variation=arrivals)
    shape = 1 / arrivals
    gaps = np.random.default_rng(0).gamma(shape, 1 / shape, size=400_000)
    every = np.diff(np.cumsum(gaps)[::replicas])
    assert every.var() / every.mean() ** 2 == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("engine", "profile"), REGIMES)
def test_a_step_decodes_no_more_than_its_tokens(engine, profile):
    """However many may run at once."""
    short = replace(engine, chunk_tokens=64)
    few, many = (replace(short, max_sequences=most) for most in (64, 1024))
    rate = saturation_rate(many, profile)
    assert rate > 0
    assert rate == saturation_rate(few, profile)
