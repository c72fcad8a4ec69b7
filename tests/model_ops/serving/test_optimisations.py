"""Prefix caching, beams, adapters and offloading, by hand and by their limits."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import Precision
from model_ops.estimate import Estimate, Load, LoadMode, estimate
from model_ops.opcost import RESIDENT, Placement
from model_ops.platform.memory import OuterMemory
from model_ops.platform.npu import Npu
from model_ops.platform.roofline import op_time
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.cache import cache_demand
from model_ops.profiler.held import Held
from model_ops.profiler.mamba import Mamba2
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.ops import AttentionCore, Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import (
    Lora,
    RequestShape,
    Shard,
    Step,
    decode,
    decode_beams,
    prefill,
)
from model_ops.serving.speculative import Schedule, Speculation
from model_ops.serving.steady_state import Mix, steady_state
from model_ops.serving.step import Replica, step_time, timed_operators

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None, max_examples=80)

SHAPE = RequestShape(160, 32)
OUTER = OuterMemory("toy host memory", capacity=1e8, bandwidth=1e10)
TOKEN = 6 * 2 * 2 * 8 * 2
"""Cache bytes of a token in the toy's six layers."""
LOADS = {
    LoadMode.STATIC_BATCH: Load(SHAPE, LoadMode.STATIC_BATCH, concurrency=6),
    LoadMode.CLOSED_LOOP: Load(SHAPE, LoadMode.CLOSED_LOOP, concurrency=6),
    LoadMode.OPEN_LOOP: Load(SHAPE, LoadMode.OPEN_LOOP, rate=300.0),
    LoadMode.OFFLINE: Load(SHAPE, LoadMode.OFFLINE),
}


@pytest.fixture(scope="module")
def replica(toy_arch: ModelArch, toy_npu: Npu) -> Replica:
    roomy = replace(toy_npu, memory_capacity=1e7, outer_memory=OUTER)
    return Replica(toy_arch, Parallelism(), Precision(), Supply.of(roomy))


def with_shape(load: Load, **fields: object) -> Load:
    return replace(load, shape=replace(load.shape, **fields))


def same(one: Estimate, other: Estimate) -> None:
    for name in ("ttft", "tpot", "rate", "batch"):
        found, wanted = getattr(one, name), getattr(other, name)
        assert found == pytest.approx(wanted, rel=1e-9), name
    assert one.memory.total == pytest.approx(other.memory.total, rel=1e-12)


# ---- attention data parallelism ----


def clockwork(replica: Replica, dp: int) -> Replica:
    """Return groups whose every step takes 10 ms, whatever it carries."""
    (npu,) = replica.supply.npus
    npu = replace(
        npu,
        flop_per_s=dict.fromkeys(npu.flop_per_s, 1e40),
        memory_bandwidth=1e40,
        step_overhead=0.01,
        memory_capacity=3e6,
    )
    split = Parallelism(dp=dp)
    return replace(replica, parallelism=split, supply=Supply.of(npu))


@pytest.mark.parametrize("mode", LOADS)
def test_groups_multiply_the_sequences(replica: Replica, mode: LoadMode) -> None:
    load = replace(LOADS[mode], rate=10.0)
    many = replace(load, concurrency=4 * load.concurrency, rate=40.0)
    one = estimate(clockwork(replica, 1), load)
    four = estimate(clockwork(replica, 4), many)
    for name in ("ttft", "tpot"):
        assert getattr(four, name) == pytest.approx(getattr(one, name), rel=1e-6)
    for name in ("rate", "batch"):
        assert getattr(four, name) == pytest.approx(4 * getattr(one, name), rel=1e-6)
    # Each holds its own sequences; a fraction of one more takes a whole place.
    assert abs(four.memory.total - one.memory.total) <= 200 * TOKEN
    if mode is LoadMode.OPEN_LOOP:  # places for each group's own deviations
        assert four.memory.total == pytest.approx(one.memory.total)
        full = estimate(clockwork(replica, 1), replace(load, rate=1e6))
        four = estimate(clockwork(replica, 4), replace(load, rate=1e6))
        assert four.overloaded
        assert four.batch == pytest.approx(4 * full.batch)
    one_most, four_most = (
        clockwork(replica, dp).largest_batch(SHAPE, 256) for dp in (1, 4)
    )
    assert four_most == 4 * one_most > 0


def test_a_step_waits_for_the_group_that_reads_a_prompt(replica: Replica) -> None:
    schedule = Schedule(groups=4)
    mix = Mix.of(schedule, SHAPE, 8, 2048)
    # Two decode in each group for 31 steps: 2 / 31 prompts arrive per step.
    share = 1 - np.exp(-2 / 31)
    assert mix.share == pytest.approx(share)
    assert mix.any_share == pytest.approx(1 - (1 - share) ** 4)
    alone = Mix.of(Schedule(), SHAPE, 2, 2048)
    assert alone.any_share == alone.share == pytest.approx(share)
    step = mix.mixed_step(SHAPE)
    # Meanwhile each other group has its two tokens, and a prompt at times.
    assert step.elsewhere == pytest.approx(2 + 2 / 31 * 160)
    assert mix.decode_step(SHAPE).elsewhere is None
    found = Mix.of(Schedule(groups=np.array([1, 4])), SHAPE, np.array([2, 8]), 2048)
    assert found.any_share == pytest.approx([alone.any_share, mix.any_share])


# ---- prefix caching ----


@pytest.mark.parametrize("mode", LOADS)
def test_nothing_cached_is_plain(replica: Replica, mode: LoadMode) -> None:
    load = LOADS[mode]
    same(
        estimate(replica, with_shape(load, cached_tokens=0.0)), estimate(replica, load)
    )


@pytest.mark.parametrize("mode", [LoadMode.STATIC_BATCH, LoadMode.CLOSED_LOOP])
def test_hits_shorten_ttft_and_save_no_memory(replica: Replica, mode: LoadMode) -> None:
    load = LOADS[mode]
    cached = np.array([0.0, 40.0, 80.0, 120.0, 159.0])
    found = estimate(replica, with_shape(load, cached_tokens=cached))
    assert np.all(np.diff(found.ttft) < 0)
    assert np.all(np.diff(found.rate) > 0)
    plain = estimate(replica, load).memory.kv_cache
    assert found.memory.kv_cache == pytest.approx(plain)


def test_only_new_tokens_are_processed(replica: Replica) -> None:
    hit = with_shape(LOADS[LoadMode.STATIC_BATCH], cached_tokens=120.0)
    found = estimate(replica, hit)
    # Six prompts of 40 new tokens behind 120.
    first = step_time(replica, Step((prefill(6, 40, 120),))).latency
    assert found.ttft == pytest.approx(first, rel=1e-12)
    plain = estimate(replica, LOADS[LoadMode.STATIC_BATCH])
    assert found.tpot == plain.tpot


def test_the_last_prompt_token_is_always_processed() -> None:
    assert RequestShape(100, 10, 100).new_tokens == 1
    assert RequestShape(100, 10, 40).new_tokens == 60


def test_the_pairs_that_a_hit_saves_by_hand(replica: Replica) -> None:
    # 160 tokens see 1 + ... + 160; the last 40 of them 121 + ... + 160.
    def pairs(step: Step) -> float:
        found = [t.operator for t in timed_operators(replica, step)]
        (core,) = [each for each in found if isinstance(each, AttentionCore)]
        return core.pairs()

    assert pairs(Step((prefill(1, 160),))) == 160 * 161 / 2
    assert pairs(Step((prefill(1, 40, 120),))) == 160 * 161 / 2 - 120 * 121 / 2


# ---- chunked prefill ----


def test_one_chunk_is_a_plain_prefill(replica: Replica) -> None:
    # Hardly anything decodes: the step carries one whole prompt.
    mix = Mix.of(replica.schedule, SHAPE, 1e-9, 2048)
    chunk, _ = mix.mixed_step(SHAPE).segments
    assert chunk.sequences == pytest.approx(1)
    assert (chunk.queries, chunk.context) == (160, 0)
    static = estimate(replica, replace(LOADS[LoadMode.STATIC_BATCH], concurrency=1))
    alone = step_time(replica, Step((chunk,))).latency
    assert alone == pytest.approx(static.ttft, rel=1e-6)
    # With a lone decode beside it, it takes no longer than both one after another.
    first = steady_state(replica, SHAPE, 1e-9).ttft
    one = step_time(replica, Step((decode(1, SHAPE.mean_context),))).latency
    assert static.ttft <= first <= static.ttft + one


def test_chunks_together_do_the_work_of_the_prompt(replica: Replica) -> None:
    def flop(step: Step) -> float:
        found = [
            t.count * t.operator.cost().total_flop
            for t in timed_operators(replica, step)
        ]
        return sum(found) - 2 * 32 * 128  # the head, on one row of each step

    whole = flop(Step((prefill(1, 160),)))
    parts = [flop(Step((prefill(1, 40, done),))) for done in (0, 40, 80, 120)]
    assert sum(parts) == pytest.approx(whole)


# ---- beams ----


@pytest.mark.parametrize("mode", LOADS)
def test_one_beam_is_plain(replica: Replica, mode: LoadMode) -> None:
    load = LOADS[mode]
    plain = estimate(replica, load)
    same(estimate(replica, with_shape(load, beams=1)), plain)
    found = estimate(replica, with_shape(load, beams=np.array([1, 4])))
    assert found.tpot[0] == pytest.approx(plain.tpot)
    assert found.memory.total[0] == pytest.approx(plain.memory.total)


def test_beams_share_the_prompt(replica: Replica) -> None:
    # Per request: 160 prompt tokens once, 32 of each of four answers.
    found = replica.lockstep_footprint(replace(SHAPE, beams=4), 6)
    assert found.kv_cache == 6 * (160 + 4 * 32) * TOKEN
    half = cache_demand(replica.held, replace(SHAPE, beams=4))
    assert half.mean == (160 + 4 * 16) * TOKEN
    assert half.prompt == 160 * TOKEN
    assert half.deviation == pytest.approx(4 * 32 * TOKEN / 12**0.5)


def test_attention_reads_the_prompt_once(replica: Replica) -> None:
    step = Step((decode_beams(6, 160, 15, 4),))
    found = {t.name: t.operator for t in timed_operators(replica, step)}
    core = found["attention_decode"].cost()
    layer = TOKEN / 6
    assert core.cache == 6 * (160 + 4 * 16) * layer  # 15 written and the new one
    assert core.total_flop == 6 * 4 * (160 + 16) * 4 * 4 * 8
    assert (found["lm_head"].m, found["qkv_proj"].m) == (24, 24)


def test_beams_step_as_so_many_requests_and_their_prompt_is_read_in_once(
    replica: Replica,
) -> None:
    load = replace(LOADS[LoadMode.STATIC_BATCH], concurrency=2)
    one = estimate(replica, load)
    four = estimate(replica, with_shape(load, beams=4))
    eight = estimate(replica, replace(load, concurrency=8))
    assert one.tpot < four.tpot == pytest.approx(eight.tpot)
    assert one.ttft == four.ttft < eight.ttft


def test_beams_have_states_and_windows_of_their_own(toy_layer: Layer) -> None:
    mamba = Mamba2(num_heads=8, head_dim=4, state_size=3, n_groups=1, conv_kernel=4)
    window = replace(toy_layer.mixer, sliding_window=64)
    arch = ModelArch(
        name="toy hybrid",
        model_type="toy",
        hidden_size=32,
        vocab_size=128,
        layers=(replace(toy_layer, mixer=mamba), replace(toy_layer, mixer=window)),
    )
    shard = Shard(32)
    demand = cache_demand((Held(arch, shard),), replace(SHAPE, beams=4))
    state = mamba.cache_bytes(shard, 160, 16)
    # Of the window 64 tokens in common at most, and 32 of each answer besides.
    assert demand.full == 4 * state + (64 + 3 * 32) * TOKEN / 6
    assert demand.deviation == pytest.approx(3 * 32 * TOKEN / 6 / 12**0.5)


# ---- offloading ----


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_memory_moves(replica: Replica, share: float) -> None:
    plain = replica.lockstep_footprint(SHAPE, 6)
    away = replace(replica, placement=Placement(weights=share))
    found = away.lockstep_footprint(SHAPE, 6)
    assert found.weights == plain.weights * (1 - share)
    assert found.outer == plain.weights * share
    assert (found.kv_cache, found.activations) == (plain.kv_cache, plain.activations)
    away = replace(replica, placement=Placement(cache=share))
    found = away.lockstep_footprint(SHAPE, 6)
    assert found.kv_cache == plain.kv_cache * (1 - share)
    assert found.outer == plain.kv_cache * share
    assert found.total + found.outer == pytest.approx(plain.total)


@pytest.mark.parametrize(
    "step", [Step((prefill(2, 40, 120),)), Step((decode(6, 170),))]
)
@pytest.mark.parametrize("place", [Placement(0.5), Placement(0, 0.3), Placement(1, 1)])
def test_time_grows_by_the_bytes_that_come_over_the_link(
    replica: Replica, step: Step, place: Placement
) -> None:
    for timed in timed_operators(replica, step):
        away = op_time(timed.operator, replica.supply, place)
        cost = timed.operator.cost()
        moved = place.weights * cost.weights + place.cache * cost.cache
        longer = moved * (1 / 1e10 - 1 / 1e11)
        assert away.memory == pytest.approx(timed.time.memory + longer)
        assert away.compute == timed.time.compute
    whole = {t.name: t.operator.cost() for t in timed_operators(replica, step)}
    assert whole["qkv_proj"].weights == 32 * 64 * 2
    assert whole["qkv_proj"].cache == 0


def test_step_by_hand_where_only_memory_counts(replica: Replica) -> None:
    (npu,) = replica.supply.npus
    slow = replace(npu, flop_per_s=dict.fromkeys(npu.flop_per_s, 1e30))
    plain = replace(replica, supply=Supply.of(slow))
    away = replace(plain, placement=Placement(0.5, 0.25))
    step = Step((decode(6, 170),))
    grown = step_time(away, step).latency - step_time(plain, step).latency
    # Six layers of 32 x (64 + 32 + 128 + 64) and the head; 171 cached tokens of six.
    weights = (6 * 32 * (64 + 32 + 128 + 64) + 32 * 128) * 2
    moved = 0.5 * weights + 0.25 * 6 * 171 * TOKEN
    assert grown == pytest.approx(moved * (1 / 1e10 - 1 / 1e11))


@pytest.mark.parametrize("mode", LOADS)
def test_nothing_away_is_plain(replica: Replica, mode: LoadMode) -> None:
    load = LOADS[mode]
    none = replace(replica, placement=Placement(0.0, 0.0))
    assert none.placement is not RESIDENT
    same(estimate(none, load), estimate(replica, load))


@pytest.mark.parametrize("place", [Placement(0.01), Placement(0, 0.01)])
@pytest.mark.parametrize("mode", LOADS)
def test_without_a_second_memory_nothing_fits(
    replica: Replica, place: Placement, mode: LoadMode
) -> None:
    (npu,) = replica.supply.npus
    bare = Supply.of(replace(npu, outer_memory=None))
    found = estimate(replace(replica, supply=bare, placement=place), LOADS[mode])
    assert not found.fits
    assert estimate(replace(replica, placement=place), LOADS[mode]).fits


def test_offloading_makes_room(replica: Replica) -> None:
    (npu,) = replica.supply.npus
    tight = replace(replica, supply=Supply.of(replace(npu, memory_capacity=1e6)))
    counts = [
        replace(tight, placement=Placement(cache=share)).largest_batch(SHAPE, 256)
        for share in (0.0, 0.5, 0.9)
    ]
    assert counts == sorted(counts)
    assert counts[-1] > 5 * counts[0] > 0


def test_the_second_memory_bounds_the_batch_too(replica: Replica) -> None:
    (npu,) = replica.supply.npus
    small = replace(npu, outer_memory=replace(OUTER, capacity=50 * TOKEN * 192))
    away = replace(replica, supply=Supply.of(small), placement=Placement(cache=1.0))
    most = away.largest_batch(SHAPE, 256)
    # Each keeps 176 tokens in the mean, and 192 at most.
    assert 30 < most <= 50 * 192 / 176
    assert away.footprint(SHAPE, most, 256).outer <= small.outer_memory.capacity


# ---- all of them: the largest batch is what fits ----


@st.composite
def deployments(draw: st.DrawFn) -> tuple[dict, dict, RequestShape, float]:
    tp, dp, cp = (draw(st.sampled_from([1, 2, 4])) for _ in range(3))
    ranks = tp * dp * cp
    ep = draw(st.sampled_from([n for n in (1, 2, 4, 8) if n <= ranks]))
    split = {"tp": tp, "pp": draw(st.sampled_from([1, 2, 3])), "ep": ep}
    split |= {"dp": dp, "cp": cp}
    share = st.sampled_from([0.0, 0.0, 0.3, 1.0])
    features = {
        "placement": Placement(draw(share), draw(share)),
        "lora": draw(st.sampled_from([None, Lora(2, 3)])),
    }
    beams = draw(st.sampled_from([1, 1, 4]))
    if beams == 1 and draw(st.booleans()):
        features["speculation"] = Speculation(draw(st.integers(1, 5)), 0.5)
    prompt = draw(st.integers(1, 400))
    cached = draw(st.sampled_from([0.0, 0.5])) * prompt
    shape = RequestShape(prompt, draw(st.integers(1, 300)), cached, beams)
    return split, features, shape, draw(st.floats(1.0, 20.0))


@settings
@hypothesis.given(found=deployments(), capacity=st.floats(5e5, 1e8))
def test_the_largest_batch_fits_and_one_more_does_not(
    found: tuple[dict, dict, RequestShape, float],
    capacity: float,
    toy_arch: ModelArch,
    toy_npu: Npu,
) -> None:
    split, features, shape, outer = found
    moe = MoeFfn(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64)
    layers = tuple(replace(layer, ffn=moe) for layer in toy_arch.layers[:3])
    arch = replace(toy_arch, layers=layers + toy_arch.layers[3:])
    if "speculation" in features:
        guess = replace(features["speculation"], drafter=arch.guessing_with(layers[0]))
        features = features | {"speculation": guess}
    npu = replace(
        toy_npu,
        memory_capacity=capacity,
        outer_memory=replace(OUTER, capacity=outer * capacity),
    )
    parallelism = Parallelism(**split)
    replica = Replica(arch, parallelism, Precision(), Supply.of(npu), **features)

    def fits(batch: float) -> bool:
        memory = replica.footprint(shape, batch, 128)
        room = replica.room
        return bool(memory.total <= room.own and memory.outer <= room.outer)

    most, groups = replica.largest_batch(shape, 128), split["dp"]
    assert most % groups == 0
    hypothesis.assume(most < 1e12)
    assert most == 0 or fits(most * (1 - 1e-9))
    assert not fits(most + groups)


def test_rows_of_a_request() -> None:
    assert Schedule(guessed=3).rows_of_each(SHAPE) == 4
    assert Schedule().rows_of_each(replace(SHAPE, beams=4)) == 4


def test_every_gemm_names_its_weights(replica: Replica) -> None:
    step = Step((prefill(1, 10), decode(6, 170)))
    for timed in timed_operators(replica, step):
        if isinstance(timed.operator, Gemm):
            assert timed.operator.cost().weights > 0
