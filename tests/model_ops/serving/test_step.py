from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import PRESETS, Dtype, Precision
from model_ops.opcost import Placement
from model_ops.platform.fabric import Fabric
from model_ops.platform.memory import OuterMemory
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Lora, Shard, Step, decode, prefill
from model_ops.serving.speculative import Speculation
from model_ops.serving.step import (
    Replica,
    StepTime,
    layer_seconds,
    step_time,
    timed_operators,
)

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None, max_examples=50)

# The toy model: 6 layers, 4 heads and 2 KV heads of 8, a feed-forward of 64.
H, Q, KV, WIDE, VOCAB, LAYERS = 32, 4 * 8, 2 * 8, 64, 128, 6
LINEAR = H * (Q + 2 * KV) + Q * H + 3 * H * WIDE
STEP = Step((prefill(2, 5, 3), decode(4, 10)))
TOKENS, SAMPLED = 2 * 5 + 4, 2 + 4
PAIRS = 2 * sum(3 + i for i in range(1, 6)) + 4 * (10 + 1)
LAYER_FLOP = 2 * TOKENS * LINEAR + 4 * PAIRS * Q
HEAD_FLOP = 2 * SAMPLED * H * VOCAB
RATE, BANDWIDTH, LINK, HOP, OVERHEAD = 1e12, 1e11, 1e10, 1e-6, 1e-6
ENDLESS = 1e40


def at(replica: Replica, tp: int = 1, pp: int = 1, **rates: object) -> Replica:
    (npu,) = replica.supply.npus
    npu = replace(npu, **rates)
    return replace(replica, parallelism=Parallelism(tp, pp), supply=Supply.of(npu))


def free_links(npu: Npu) -> Fabric:
    tiers = npu.fabric.tiers
    return Fabric(tuple(replace(t, bandwidth=ENDLESS, latency=0.0) for t in tiers))


def test_a_compute_bound_step_by_hand(toy_replica: Replica) -> None:
    time = step_time(at(toy_replica, memory_bandwidth=ENDLESS), STEP)
    expected = (LAYERS * LAYER_FLOP + HEAD_FLOP) / RATE + OVERHEAD
    assert time.latency == pytest.approx(expected, rel=1e-12)
    assert time.bottleneck == time.latency


def test_a_memory_bound_step_by_hand(toy_replica: Replica) -> None:
    endless = dict.fromkeys(Dtype, ENDLESS)
    time = step_time(at(toy_replica, flop_per_s=endless), STEP)
    size = 2  # every element in 16 bits
    # Both norms: residual and half in, sum and normed out.
    norms = 2 * TOKENS * H * 4
    qkv = TOKENS * H + H * (Q + 2 * KV) + TOKENS * (Q + 2 * KV)
    rotary = 2 * TOKENS * (Q + KV)
    cache_write = 2 * TOKENS * 2 * KV
    cached = 2 * (3 + 5) + 4 * (10 + 1)
    core = 2 * TOKENS * Q + cached * 2 * KV
    output = TOKENS * Q + Q * H + TOKENS * H
    gate_up = TOKENS * H + H * 2 * WIDE + TOKENS * 2 * WIDE
    activation = TOKENS * (2 * WIDE + WIDE)
    down = TOKENS * WIDE + WIDE * H + TOKENS * H
    layer = norms + qkv + rotary + cache_write + core + output
    layer += gate_up + activation + down
    embedding, final_norm = 2 * TOKENS * H, 3 * TOKENS * H
    head = SAMPLED * H + H * VOCAB + SAMPLED * VOCAB
    elements = LAYERS * layer + embedding + final_norm + head
    expected = size * elements / BANDWIDTH + OVERHEAD
    assert time.latency == pytest.approx(expected, rel=1e-12)


def test_a_network_bound_step_by_hand(toy_replica: Replica) -> None:
    endless = dict.fromkeys(Dtype, ENDLESS)
    replica = at(toy_replica, tp=2, flop_per_s=endless, memory_bandwidth=ENDLESS)
    stream, logits = TOKENS * H * 2, SAMPLED * VOCAB * 2
    # Two ranks on a switch reduce in one hop, the whole payload each way.
    reduce = HOP + stream / LINK
    gather = HOP + logits / 2 / LINK
    expected = (1 + 2 * LAYERS) * reduce + gather + OVERHEAD
    assert step_time(replica, STEP).latency == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("pp", "before", "last"),
    [
        (2, 3, 3),
        (3, 2, 2),
        (4, 2, 1),  # 1, 2, 2, 1 layers
        (5, 2, 1),  # 1, 1, 1, 2, 1
        (6, 1, 1),
    ],
)
def test_a_pipeline_of_compute_by_hand(
    toy_replica: Replica, toy_npu: Npu, pp: int, before: int, last: int
) -> None:
    # A head of 49152 FLOP, a layer of more.
    assert LAYER_FLOP > HEAD_FLOP == 2 * 6 * 32 * 128
    links = free_links(toy_npu)
    replica = at(toy_replica, pp=pp, memory_bandwidth=ENDLESS, fabric=links)
    time = step_time(replica, STEP)
    whole = (LAYERS * LAYER_FLOP + HEAD_FLOP) / RATE + OVERHEAD
    slowest = max(before * LAYER_FLOP, last * LAYER_FLOP + HEAD_FLOP)
    assert time.latency == pytest.approx(whole, rel=1e-12)
    assert time.bottleneck == pytest.approx(slowest / RATE + OVERHEAD, rel=1e-12)


def test_a_large_head_makes_the_last_stage_the_slowest(
    toy_replica: Replica, toy_npu: Npu
) -> None:
    links = free_links(toy_npu)
    replica = at(toy_replica, pp=4, memory_bandwidth=ENDLESS, fabric=links)
    wide = replace(toy_replica.arch, vocab_size=1000 * VOCAB)
    head = 1000 * HEAD_FLOP
    # Of 1, 2, 2 and 1 layers, the last has fewer, and the head.
    expected = (1 * LAYER_FLOP + head) / RATE + OVERHEAD
    found = step_time(replace(replica, arch=wide), STEP).bottleneck
    assert found == pytest.approx(expected, rel=1e-12)


def test_each_end_of_the_model_is_on_a_stage_of_its_own(
    toy_replica: Replica, toy_npu: Npu
) -> None:
    endless, links = dict.fromkeys(Dtype, ENDLESS), free_links(toy_npu)
    replica = at(toy_replica, pp=2, flop_per_s=endless, fabric=links)
    embedding = 2 * TOKENS * H * 2 / BANDWIDTH
    logits = SAMPLED * H + H * VOCAB + SAMPLED * VOCAB
    head = (3 * TOKENS * H + logits) * 2 / BANDWIDTH
    time = step_time(replica, STEP)
    layers = time.latency - embedding - head - OVERHEAD
    expected = layers / 2 + max(embedding, head) + OVERHEAD
    assert time.bottleneck == pytest.approx(expected, rel=1e-9)


def test_stage_boundaries_by_hand(toy_replica: Replica) -> None:
    endless = dict.fromkeys(Dtype, ENDLESS)
    pp = 3
    replica = at(toy_replica, pp=pp, flop_per_s=endless, memory_bandwidth=ENDLESS)
    boundary = HOP + TOKENS * H * 2 / LINK
    time = step_time(replica, STEP)
    assert time.latency == pytest.approx((pp - 1) * boundary + OVERHEAD, rel=1e-12)
    assert time.bottleneck == pytest.approx(boundary + OVERHEAD, rel=1e-12)


@pytest.mark.parametrize(
    ("slots", "period"),
    [(1, 10.0), (2, 10.0), (3, 12.0), (5, 20.0)],  # the slowest stage paces
)
def test_period(slots: int, period: float) -> None:
    assert StepTime(latency=10.0, bottleneck=4.0).period(slots) == period


def test_one_rank_has_no_network_time_nor_link_bytes(toy_replica: Replica) -> None:
    for timed in timed_operators(toy_replica, STEP):
        assert timed.time.network == 0
        assert timed.operator.cost().link_bytes == 0
    busy = [t for t in timed_operators(at(toy_replica, tp=2), STEP) if t.time.network]
    assert sum(t.count for t in busy) == 1 + 2 * LAYERS + 1


# ---- drafters, adapters, a second memory ----


def test_expected_tokens_by_hand() -> None:
    # The first guess, the first two, all three; and the model's own token always.
    assert Speculation(3, 0.5).tokens_per_step == 1 + 0.5 + 0.25 + 0.125
    assert Speculation(3, 0.0).tokens_per_step == 1
    assert Speculation(3, 1.0).tokens_per_step == 4


@pytest.mark.parametrize("pp", [1, 3])
def test_a_drafter_reads_prompts_and_guesses_token_by_token(
    toy_replica: Replica, toy_npu: Npu, pp: int
) -> None:
    small = replace(toy_replica.arch, layers=toy_replica.arch.layers[:1])
    plain = at(toy_replica, pp=pp, fabric=free_links(toy_npu))
    drafted = replace(plain, speculation=Speculation(4, 0.7, small))
    drafter = replace(plain, arch=small, parallelism=Parallelism())
    reading = step_time(drafter, Step((prefill(2, 5, 3),))).latency - OVERHEAD
    guessing = step_time(drafter, Step((decode(4, 10),))).latency - OVERHEAD
    drafting = reading + 4 * guessing
    step = Step((prefill(2, 5, 3), decode(4, 10, guessed=4)))
    alone, both = step_time(plain, step), step_time(drafted, step)
    assert both.latency - alone.latency == pytest.approx(drafting, rel=1e-9)
    # It runs on the last stage, whose layers are as many as those of any other.
    assert both.bottleneck - alone.bottleneck <= drafting * (1 + 1e-9)
    timed = timed_operators(drafted, step)
    parts = sum(t.count * t.time.total for t in timed)
    assert parts + OVERHEAD == pytest.approx(both.latency, rel=1e-12)
    assert any(t.name.startswith("draft_") for t in timed)
    # Guesses that cost nothing, as n-grams do, only add rows to the step.
    free = replace(plain, speculation=Speculation(4, 0.7))
    assert step_time(free, step) == alone


def test_what_is_offloaded_is_read_at_the_second_memorys_rate(
    toy_replica: Replica,
) -> None:
    outer = OuterMemory("host", capacity=1e9, bandwidth=BANDWIDTH / 10)
    endless = dict.fromkeys(Dtype, ENDLESS)
    replica = at(toy_replica, flop_per_s=endless, outer_memory=outer)
    step = Step((decode(4, 10),))
    here = step_time(replica, step).latency
    # The embedding is a gather; all matrices are read whole.
    weights = 2 * (LAYERS * LINEAR + H * VOCAB)
    cache = 2 * LAYERS * 4 * (10 + 1) * 2 * KV
    slower = 10 / BANDWIDTH - 1 / BANDWIDTH
    for placement, moved in (
        (Placement(weights=0.5), 0.5 * weights),
        (Placement(cache=1.0), cache),
        (Placement(weights=0.25, cache=0.5), 0.25 * weights + 0.5 * cache),
    ):
        there = step_time(replace(replica, placement=placement), step).latency
        assert there - here == pytest.approx(moved * slower, rel=1e-9)


def test_adapters_are_two_narrow_products_per_linear_layer(
    toy_replica: Replica,
) -> None:
    rank, adapters = 2, 3
    replica = at(toy_replica, memory_bandwidth=ENDLESS)
    with_them = replace(replica, lora=Lora(rank, adapters))
    widths = H + (Q + 2 * KV) + Q + H + H + 2 * WIDE + WIDE + H
    more = step_time(with_them, STEP).latency - step_time(replica, STEP).latency
    assert more == pytest.approx(LAYERS * 2 * TOKENS * rank * widths / RATE, rel=1e-6)
    # A step of six sequences reads all three; one of two, two.
    for sequences, used in ((6, 3), (2, 2)):
        step = Step((decode(sequences, 10),))
        read = sum(
            float(t.count * t.operator.cost().weights)
            for t in timed_operators(with_them, step)
            if "_lora_" in t.name
        )
        assert read == LAYERS * used * rank * widths * 2


# ---- properties ----

work = st.builds(
    lambda prompts, queries, context, decoding: Step(
        (prefill(prompts, queries, context), decode(decoding, context))
    ),
    st.integers(0, 4),
    st.integers(1, 500),
    st.integers(0, 500),
    st.integers(1, 100),
)
degrees = st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 6))
factors = st.floats(1, 100)


@settings
@hypothesis.given(work, degrees)
def test_timed_operators_add_up_to_the_step(
    toy_replica: Replica, step: Step, split: tuple[int, int]
) -> None:
    replica = at(toy_replica, *split)
    parts = sum(t.count * t.time.total for t in timed_operators(replica, step))
    expected = step_time(replica, step).latency
    assert parts + OVERHEAD == pytest.approx(expected, rel=1e-12)


@settings
@hypothesis.given(work, degrees, factors, factors, factors)
def test_more_of_any_rate_is_never_slower(
    toy_replica: Replica,
    toy_npu: Npu,
    step: Step,
    split: tuple[int, int],
    compute: float,
    memory: float,
    link: float,
) -> None:
    tiers = toy_npu.fabric.tiers
    wider = Fabric(tuple(replace(t, bandwidth=t.bandwidth * link) for t in tiers))
    flop_per_s = {d: rate * compute for d, rate in toy_npu.flop_per_s.items()}
    slow = step_time(at(toy_replica, *split), step)
    for faster in (
        {"flop_per_s": flop_per_s},
        {"memory_bandwidth": toy_npu.memory_bandwidth * memory},
        {"fabric": wider},
    ):
        fast = step_time(at(toy_replica, *split, **faster), step)
        assert fast.latency <= slow.latency * (1 + 1e-12)
        assert fast.bottleneck <= slow.bottleneck * (1 + 1e-12)


@settings
@hypothesis.given(work, degrees)
def test_twice_the_bytes_over_twice_the_bandwidths_take_as_long(
    toy_replica: Replica, toy_npu: Npu, step: Step, split: tuple[int, int]
) -> None:
    tiers = toy_npu.fabric.tiers
    wider = Fabric(tuple(replace(t, bandwidth=2 * t.bandwidth) for t in tiers))
    narrow = at(toy_replica, *split)
    wide = at(
        replace(toy_replica, precision=PRESETS["fp32"]),
        *split,
        memory_bandwidth=2 * toy_npu.memory_bandwidth,
        fabric=wider,
    )
    before, after = step_time(narrow, step), step_time(wide, step)
    assert after.latency == pytest.approx(before.latency, rel=1e-12)
    assert after.bottleneck == pytest.approx(before.bottleneck, rel=1e-12)


@settings
@hypothesis.given(work, degrees, st.floats(0.01, 100))
def test_times_scale_as_the_clock(
    toy_replica: Replica, toy_npu: Npu, step: Step, split: tuple[int, int], k: float
) -> None:
    slower = {
        "flop_per_s": {d: rate / k for d, rate in toy_npu.flop_per_s.items()},
        "memory_bandwidth": toy_npu.memory_bandwidth / k,
        "step_overhead": toy_npu.step_overhead * k,
        "fabric": Fabric(
            tuple(
                replace(t, bandwidth=t.bandwidth / k, latency=t.latency * k)
                for t in toy_npu.fabric.tiers
            )
        ),
    }
    before = step_time(at(toy_replica, *split), step)
    after = step_time(at(toy_replica, *split, **slower), step)
    assert after.latency == pytest.approx(k * before.latency, rel=1e-9)
    assert after.bottleneck == pytest.approx(k * before.bottleneck, rel=1e-9)


@settings
@hypothesis.given(work, degrees)
def test_more_work_is_never_faster_and_stages_never_slower_than_the_whole(
    toy_replica: Replica, step: Step, split: tuple[int, int]
) -> None:
    replica = at(toy_replica, *split)
    prompts, decodes = step.segments
    base = step_time(replica, step)
    assert base.bottleneck <= base.latency * (1 + 1e-12)
    for more in (
        (replace(prompts, sequences=prompts.sequences + 1), decodes),
        (replace(prompts, queries=prompts.queries + 1), decodes),
        (replace(prompts, context=prompts.context + 1), decodes),
        (prompts, replace(decodes, sequences=decodes.sequences + 1)),
        (prompts, replace(decodes, context=decodes.context + 1)),
    ):
        assert step_time(replica, Step(more)).latency >= base.latency * (1 - 1e-12)


# ---- arrays ----


@pytest.mark.parametrize("preset", ["bf16", "fp8-kv8"])
def test_arrays_and_stacked_supplies_equal_scalars(
    toy_arch: ModelArch, toy_npu: Npu, preset: str
) -> None:
    npus = (toy_npu, replace(toy_npu, memory_bandwidth=3e10, link_efficiency=0.5))
    tp, pp = np.array([1, 2, 4, 4]), np.array([1, 3, 1, 6])
    decoding = np.array([1.0, 7.5, 64.0])
    precision = PRESETS[preset]
    together = step_time(
        Replica(
            toy_arch,
            Parallelism(tp[:, None], pp[:, None]),
            precision,
            Supply.stack(npus, 2),
        ),
        Step((prefill(1.0, 20.0), decode(decoding, 100.0))),
    )
    shape = (len(npus), len(tp), len(decoding))
    for index in np.ndindex(shape):
        chip, split, point = index
        alone = step_time(
            Replica(
                toy_arch,
                Parallelism(int(tp[split]), int(pp[split])),
                precision,
                Supply.of(npus[chip]),
            ),
            Step((prefill(1.0, 20.0), decode(float(decoding[point]), 100.0))),
        )
        for part in ("latency", "bottleneck"):
            grid = np.broadcast_to(getattr(together, part), shape)
            assert grid[index] == pytest.approx(getattr(alone, part), rel=1e-12)


def test_shard_is_one_rank_of_the_replica(toy_replica: Replica) -> None:
    shard = at(toy_replica, tp=2, pp=3).shard
    assert shard == Shard(H, Parallelism(2, 3), Precision())
    assert shard.tp == 2


def test_a_host_that_starts_kernels_one_by_one_is_a_floor(toy_replica: Replica) -> None:
    quick = step_time(toy_replica, STEP).latency
    slower = at(toy_replica, layer_time=1.0)
    # Both layers wait for the host; embedding and head take what they took.
    outside = quick - sum(
        run.count * layer
        for run, layer in zip(
            toy_replica.arch.runs, layer_seconds(toy_replica, STEP), strict=True
        )
    )
    assert step_time(slower, STEP).latency == pytest.approx(LAYERS * 1.0 + outside)
    assert step_time(at(toy_replica, layer_time=1e-12), STEP).latency == quick


def test_a_step_is_its_operators_and_what_it_waits_for_the_host(
    toy_replica: Replica,
) -> None:
    replica = at(toy_replica, layer_time=1.0)
    operators = timed_operators(replica, STEP)
    busy = sum(timed.count * timed.time.total for timed in operators)
    whole = step_time(replica, STEP).latency
    assert whole == pytest.approx(busy + replica.overhead(STEP), rel=1e-12)
    assert replica.overhead(STEP) > LAYERS * 0.9


def test_a_pipelines_stages_wait_for_their_own_layers(toy_replica: Replica) -> None:
    alone = step_time(at(toy_replica, layer_time=1.0), STEP)
    two = step_time(at(toy_replica, pp=2, layer_time=1.0), STEP)
    assert two.bottleneck == pytest.approx(alone.latency / 2, rel=0.01)
