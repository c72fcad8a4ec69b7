"""Prefill and decode pools, and the caches between them: by hand, laws, simulation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import fixed, lognormal
from model_ops.serving.pair import Pair, Pool
from model_ops.serving.pools import (
    DecodeLaws,
    decode_saturation_rate,
    first_token_only,
)
from model_ops.serving.queueing import Laws, latencies
from model_ops.serving.saturation import saturation_rate
from model_ops.serving.simulation import Router, arrivals, simulate_disaggregated
from model_ops.serving.step import Replica
from model_ops.serving.step_curve import StepCurve
from model_ops.serving.transfer import Link

CURVE = StepCurve.line(
    overhead=1e-3,
    weights=6.007e-3,
    per_token=2.941e-5,
    per_sequence=5e-6,
    per_cached=4.891e-8,
    per_pair=1.377e-9,
    most_tokens=8192,
)
DENSE = Engine(CURVE, 8192, 256, 400_000)
CHAT = Profile(lognormal(512, 1.0, 8), lognormal(256, 1.0, 2))
FAST = Link("wire", send=1e12, receive=1e12, latency=0.0)


@pytest.fixture
def pair(toy_replica: Replica) -> Pair:
    """Two prefill and three decode replicas of one NPU; the engine is another's."""
    pools = (Pool(toy_replica, DENSE, count, 8192) for count in (2, 3))
    return Pair(*pools, CHAT, FAST)


# Each pool alone


def test_a_prefill_pool_reads() -> None:
    reading = first_token_only(Profile(fixed(1000), fixed(101)))
    found = Laws.of(DENSE, reading, 1e-9)
    expected = 1e-3 + 2.941e-5 * 1000 + 1.377e-9 * 1000**2 / 2
    assert found.figure("ttft", "mean") == pytest.approx(expected, rel=1e-3)


def test_a_decode_pool_writes() -> None:
    profile = Profile(fixed(1000), fixed(101))
    found = DecodeLaws.of(DENSE, profile, 1e-9, per_token=1e-6, latency=2e-3)
    step = 1e-3 + 6.007e-3 + 5e-6 + 4.891e-8 * (1000 + 101 / 2)
    # The cache arrives after 3 ms and, on average, in the middle of a step.
    expected = step + (2e-3 + 1e-6 * 1000 + step / 2) / 100
    assert found.per_step.mean == pytest.approx(expected, rel=1e-4)


def test_a_decode_pool_saturates_with_all_slots_decoding() -> None:
    profile = Profile(fixed(1000), fixed(101))
    few = replace(DENSE, max_sequences=10)
    step = 1e-3 + 6.007e-3 + 10 * (5e-6 + 4.891e-8 * (1000 + 101 / 2))
    most = 10 / (100 * step)
    assert decode_saturation_rate(few, profile) == pytest.approx(most, rel=1e-6)
    rates = np.array([0.99, 1.01]) * most
    assert DecodeLaws.of(few, profile, rates).stable[:, 0].tolist() == [True, False]


def test_decoding_may_take_less_than_prompts_of_as_many_tokens() -> None:
    """As where steps are timed by prompts, which engines read at a slower pace."""
    curve = StepCurve.line(
        overhead=1e-3,
        weights=6.007e-3,
        per_token=5e-5,
        per_sequence=-4.2e-5,
        per_cached=4.891e-8,
        per_pair=1.377e-9,
        most_tokens=8192,
    )
    engine = replace(DENSE, curve=curve)
    rates = np.array([1.0, 10.0, 20.0])
    laws = DecodeLaws.of(replace(engine, cache_tokens=4_000_000), CHAT, rates)
    assert laws.server.attention(np.full((3, 1), 256.0)).max() < 0
    mean = laws.per_step.mean[:, 0]
    (late,) = laws.per_step.quantile(np.array(0.95)).T
    assert np.all(mean < 0.02)
    assert np.all((mean < late) & (late < 1.5 * mean))


def test_a_request_that_no_cache_holds_is_not_served() -> None:
    small = replace(DENSE, cache_tokens=1100)
    long, longer = (Profile(fixed(1000), fixed(n)) for n in (101, 102))
    assert decode_saturation_rate(small, long) > 0
    assert decode_saturation_rate(small, longer) == 0
    assert not DecodeLaws.of(small, longer, 1e-9).stable


def test_the_cache_may_run_full_only_where_it_ends_before_the_slots() -> None:
    profile = Profile(fixed(1000), lognormal(100, 1.0, 2))
    tight = replace(DENSE, cache_tokens=20_000)
    rate = 0.95 * decode_saturation_rate(tight, profile)
    assert DecodeLaws.of(tight, profile, rate).near_preemption
    assert not DecodeLaws.of(DENSE, profile, rate).near_preemption


# Links


@pytest.mark.parametrize(("npus", "tier"), [(4, "toy switch"), (5, "toy ring")])
def test_pools_meet_on_the_innermost_tier_that_holds_both(
    toy_npu: Npu, npus: int, tier: str
) -> None:
    half = Supply.of(replace(toy_npu, link_efficiency=0.5))
    link = Link.between(half, half, npus)
    bandwidth, latency = {"toy switch": (1e10, 1e-6), "toy ring": (1e9, 1e-5)}[tier]
    assert link == Link(tier, 0.5 * bandwidth, 0.5 * bandwidth, latency)


def test_npus_of_two_types_meet_outside(toy_npu: Npu) -> None:
    inner, outer = toy_npu.fabric.tiers
    other = replace(
        toy_npu,
        name="other",
        fabric=replace(
            toy_npu.fabric,
            tiers=(
                inner,
                replace(
                    outer,
                    technology="rails",
                    bandwidth=4e9,
                    latency=3e-5,
                    oversubscription=2.0,
                ),
            ),
        ),
    )
    link = Link.between(Supply.of(toy_npu), Supply.of(other), 2)
    assert link == Link("toy ring and rails", 1e9, 2e9, 3e-5)
    given_ = Link.between(Supply.of(toy_npu), Supply.of(other), 2, 7e9)
    assert (given_.send, given_.receive, given_.latency) == (7e9, 7e9, 3e-5)


def test_a_send_uses_one_link_of_a_mesh(toy_npu: Npu) -> None:
    inner, outer = toy_npu.fabric.tiers
    mesh = replace(toy_npu.fabric, tiers=(replace(inner, links=5), outer))
    supply = Supply.of(replace(toy_npu, fabric=mesh))
    assert Link.between(supply, supply, 4).send == 2e9


# Transfers


def test_bytes_of_a_cache_by_hand(toy_replica: Replica) -> None:
    # Keys and values of 2 heads of 8 in 2 bytes, in 6 layers: 384 bytes a token.
    profile = Profile(fixed(160), fixed(10))
    whole = Pool(toy_replica, DENSE, 1, 8192)
    halves = Pool(replace(toy_replica, parallelism=Parallelism(2, 1)), DENSE, 1, 8192)
    wire = Link("wire", send=1e6, receive=1e6, latency=1e-3)
    for prefill, decode, sent, received in (
        (whole, whole, 384, 384),
        (whole, halves, 384, 192),
        (halves, whole, 192, 384),
        (halves, halves, 192, 192),
    ):
        made = Pair(prefill, decode, profile, wire)
        assert made.bytes_per_token == received
        assert made.bytes_per_request == pytest.approx(160 * 384)
        found = made.transfer(0.5)
        assert found.sent == pytest.approx(0.5 * 160 * sent)
        assert found.received == pytest.approx(0.5 * 160 * received)
        busy = max(sent, received) * 80 / 1e6
        assert found.utilisation == pytest.approx(busy)
        alone = max(sent, received) / 1e6
        assert found.seconds(100) == pytest.approx(1e-3 + 100 * alone / (1 - busy))
        assert made.rates["transfer"] == pytest.approx(0.5 / busy)


def test_the_slower_end_sets_the_pace(toy_replica: Replica) -> None:
    profile, pool = Profile(fixed(160), fixed(10)), Pool(toy_replica, DENSE, 1, 8192)
    three = replace(pool, replicas=3)
    wire = Link("wire", send=1e6, receive=5e5, latency=0.0)
    # One end is three times as wide and half as fast.
    found = Pair(pool, three, profile, wire).transfer(1.0)
    assert found.utilisation == pytest.approx(160 * 384 / 1e6)
    assert found.per_token == pytest.approx(384 / 5e5 / (1 - 160 * 384 / 1e6))


def test_links_that_are_too_slow_make_the_pair_unstable(pair: Pair) -> None:
    slow = replace(pair, link=replace(FAST, receive=3e5))
    most = slow.rates["transfer"]
    assert slow.binding == "transfer"
    assert most == pytest.approx(3 * 3e5 / (384 * CHAT.prompt.mean), rel=0.02)
    assert slow.latencies(0.98 * most).stable
    over = slow.latencies(1.02 * most)
    assert not over.stable
    assert np.isinf(over.tpot.mean)
    assert pair.latencies(1.02 * most).stable


# The pair


def test_a_pool_takes_what_its_replicas_take(pair: Pair) -> None:
    first = float(saturation_rate(DENSE, first_token_only(CHAT)))
    further = float(decode_saturation_rate(DENSE, CHAT))
    assert pair.rates["prefill"] == pytest.approx(2 * first)
    assert pair.rates["decode"] == pytest.approx(3 * further)
    assert pair.binding == ("prefill" if 2 * first < 3 * further else "decode")
    many = replace(pair, prefill=replace(pair.prefill, replicas=20))
    assert many.binding == "decode"


def test_latencies_decouple(pair: Pair) -> None:
    # TTFT does not know of the decode pool, TPOT not of the prefill pool.
    one = pair.latencies(20.0)
    fewer = replace(pair, decode=replace(pair.decode, replicas=2))
    more = replace(pair, prefill=replace(pair.prefill, replicas=4))
    assert fewer.latencies(20.0).ttft == one.ttft
    assert more.latencies(20.0).tpot.p99 == pytest.approx(one.tpot.p99, rel=1e-6)
    assert fewer.latencies(20.0).tpot.mean > one.tpot.mean
    assert more.latencies(20.0).ttft.mean < one.ttft.mean


def test_end_to_end_is_the_sum(pair: Pair) -> None:
    profile = Profile(fixed(500), fixed(101))
    found = replace(pair, profile=profile).latencies(20.0)
    expected = found.ttft.mean + 100 * found.tpot.mean
    assert found.e2e.mean == pytest.approx(expected)


def test_prompts_do_not_lengthen_the_steps_of_a_pair(pair: Pair) -> None:
    together = latencies(DENSE, CHAT, 20 / 5, arrival_variation=1 / 5)
    apart = pair.latencies(20.0)
    busier = latencies(DENSE, CHAT, 20 / 3, arrival_variation=1 / 3)
    assert apart.tpot.p99 < busier.tpot.p99
    alone = DecodeLaws.of(DENSE, CHAT, 20 / 5, 1 / 5).per_step.quantile(0.99)
    assert together.tpot.p99 > alone


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(0.1, 40.0),
    more=st.floats(1.01, 2.0),
    counts=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_more_requests_never_help(
    toy_replica: Replica, rate: float, more: float, counts: tuple[int, int]
) -> None:
    pools = (Pool(toy_replica, DENSE, count, 8192) for count in counts)
    made = Pair(*pools, CHAT, replace(FAST, send=1e8))
    few, many = made.latencies(rate), made.latencies(rate * more)
    for metric in ("ttft", "tpot", "e2e"):
        assert getattr(few, metric).mean <= getattr(many, metric).mean * (1 + 1e-6)
    assert few.utilisation < many.utilisation
    assert few.stable or not many.stable


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_simulation_agrees(pair: Pair, share: float) -> None:
    link = Link("wire", send=5e7, receive=5e7, latency=5e-3)
    made = replace(pair, link=link)
    rate = share * min(made.rates.values())
    rng, count = np.random.default_rng(0), 15_000
    transfer = made.transfer(rate)
    trace = simulate_disaggregated(
        DENSE,
        DENSE,
        arrivals(rng, count, rate),
        CHAT.prompt.sample(rng, count),
        CHAT.output.sample(rng, count),
        prefill_replicas=2,
        decode_replicas=3,
        transfer_per_token=transfer.per_token,
        transfer_latency=transfer.latency,
        router=Router.ROUND_ROBIN,
    )
    seen, found = trace.summary().flat(), made.latencies(rate)
    for metric, within in (("ttft", 0.3), ("tpot", 0.04), ("e2e", 0.04)):
        for statistic in ("mean", "p95"):
            value = float(getattr(getattr(found, metric), statistic))
            truth = seen[f"{metric}_{statistic}"]
            assert value == pytest.approx(truth, rel=within), (metric, statistic)
