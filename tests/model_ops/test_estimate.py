from dataclasses import replace

import numpy as np
import pytest

from model_ops.binding import bound_by, bounds, load_steps
from model_ops.dtypes import Dtype
from model_ops.estimate import (
    Estimate,
    Load,
    LoadMode,
    estimate,
    least_latencies,
    most_sequences,
)
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import ConstantEfficiency
from model_ops.platform.fabric import Fabric
from model_ops.platform.kernels import KernelEfficiency
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.held import Held
from model_ops.profiler.memory import (
    MemoryFootprint,
    Room,
    footprint,
    largest_batch,
    lockstep_footprint,
)
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape, Step, decode, prefill
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Profile
from model_ops.serving.lengths import fixed
from model_ops.serving.simulation import simulate
from model_ops.serving.speculative import Schedule
from model_ops.serving.steady_state import (
    DEFAULT_CHUNK_TOKENS,
    Mix,
    batch_cap,
    mean_batch,
    saturating_batch,
    steady_state,
)
from model_ops.serving.step import Replica, step_time, timed_operators
from problems.catalogue import load_model, load_npu

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None, max_examples=25)

STATIC, CLOSED = LoadMode.STATIC_BATCH, LoadMode.CLOSED_LOOP
OPEN, OFFLINE = LoadMode.OPEN_LOOP, LoadMode.OFFLINE
ENDLESS = 1e40
SHAPE = RequestShape(input_tokens=100, output_tokens=41)
CHUNK = 256  # a step of 2048 tokens alone would fill the toy NPU
SINGLE = RequestShape(input_tokens=100, output_tokens=1)
LONG = RequestShape(input_tokens=700, output_tokens=2)  # full below one sequence
WORDY = RequestShape(input_tokens=100, output_tokens=4)  # full below the memory


def load(mode: LoadMode, shape: RequestShape = SHAPE, **changes: object) -> Load:
    return Load(shape, mode, **({"chunk_tokens": CHUNK} | changes))


def split(replica: Replica, tp: int, pp: int, dp: int = 1) -> Replica:
    return replace(replica, parallelism=Parallelism(tp, pp, dp=dp))


def on(replica: Replica, **rates: object) -> Replica:
    (npu,) = replica.supply.npus
    return replace(replica, supply=Supply.of(replace(npu, **rates)))


def held(replica: Replica) -> tuple[Held, ...]:
    return (Held(replica.arch, replica.shard),)


def needed(
    replica: Replica,
    batch: object,
    shape: RequestShape = SHAPE,
    requests: float = np.inf,
) -> MemoryFootprint:
    return footprint(
        held(replica), shape, batch=batch, step_tokens=CHUNK, requests=requests
    )


# ---- what an estimate says ----


def test_derived_figures(toy_replica: Replica) -> None:
    found = estimate(toy_replica, load(CLOSED, concurrency=4))
    assert found.e2e == found.ttft + 40 * found.tpot
    assert found.output_tokens_per_s == 41 * found.rate
    assert found.room == Room(1e6, 0)


def test_it_fits_when_the_memory_suffices(toy_replica: Replica) -> None:
    task = load(STATIC, concurrency=4)
    most = estimate(toy_replica, task).memory.total
    for capacity, fits in ((most, True), (most - 1, False)):
        found = estimate(on(toy_replica, memory_capacity=capacity), task)
        assert found.fits == fits


def test_most_sequences_are_those_of_a_finished_request(toy_replica: Replica) -> None:
    expected = largest_batch(
        held(toy_replica), SHAPE, room=Room(1e6), step_tokens=CHUNK
    )
    assert most_sequences(toy_replica, load(OFFLINE)) == expected
    assert 10 < expected < 25


# ---- static batch ----


def test_static_batch_by_hand(toy_replica: Replica) -> None:
    batch = 8
    found = estimate(toy_replica, load(STATIC, concurrency=batch, chunk_tokens=800))
    first = step_time(toy_replica, Step((prefill(batch, 100),))).latency
    each = step_time(toy_replica, Step((decode(batch, 100 + 41 / 2),))).latency
    assert found.ttft == pytest.approx(first)
    assert found.tpot == pytest.approx(each)
    assert found.rate == pytest.approx(batch / (first + 40 * each))
    assert found.batch == batch
    assert not found.overloaded
    assert found.memory == lockstep_footprint(held(toy_replica), SHAPE, batch)


def test_prompts_of_a_static_batch_pass_in_steps(toy_replica: Replica) -> None:
    # Eight prompts of 100 tokens, 200 a step: four steps of two whole prompts.
    found = estimate(toy_replica, load(STATIC, concurrency=8, chunk_tokens=200))
    step = step_time(toy_replica, Step((prefill(2, 100),)))
    assert found.ttft == pytest.approx(4 * step.latency)


def test_a_long_prompt_follows_itself_through_a_pipeline(toy_replica: Replica) -> None:
    # One prompt of 100 tokens, 25 a step, which see 37.5 before them in the mean.
    replica = split(toy_replica, 1, 3)
    found = estimate(replica, load(STATIC, concurrency=1, chunk_tokens=25))
    step = step_time(replica, Step((prefill(1, 25, 37.5),)))
    assert found.ttft == pytest.approx(step.latency + 3 * step.bottleneck)


def test_static_batch_on_a_pipeline_by_hand(toy_replica: Replica) -> None:
    batch, pp = 6, 3
    replica = split(toy_replica, 1, pp)
    found = estimate(replica, load(STATIC, concurrency=batch))
    each = batch / pp
    first = step_time(replica, Step((prefill(each, 100),)))
    steady = step_time(replica, Step((decode(each, 100 + 41 / 2),)))
    # The last micro-batch starts two bottlenecks after the first.
    assert found.ttft == pytest.approx(first.latency + 2 * first.bottleneck)
    assert found.tpot == pytest.approx(max(steady.latency, 3 * steady.bottleneck))


def test_a_static_batch_over_groups_by_hand(toy_replica: Replica) -> None:
    groups = 2  # of two NPUs each, on a switch of four
    replica = split(toy_replica, 1, 2, groups)
    found = estimate(replica, load(STATIC, concurrency=12))
    alone = estimate(split(toy_replica, 1, 2), load(STATIC, concurrency=6))
    for name in ("ttft", "tpot", "memory"):
        assert getattr(found, name) == getattr(alone, name)
    assert found.rate == pytest.approx(groups * alone.rate)


def test_less_than_a_request_is_a_request_at_times(toy_replica: Replica) -> None:
    one = estimate(toy_replica, load(STATIC, concurrency=1))
    half = estimate(toy_replica, load(STATIC, concurrency=0.5))
    idle = estimate(split(toy_replica, 1, 1, 2), load(STATIC, concurrency=1))
    assert (half.ttft, half.tpot, half.memory) == (one.ttft, one.tpot, one.memory)
    assert half.rate == pytest.approx(one.rate / 2)
    assert (idle.ttft, idle.tpot, idle.memory) == (one.ttft, one.tpot, one.memory)
    assert idle.rate == pytest.approx(one.rate)  # the other group has nothing to do


def test_static_batch_of_one_token_answers(toy_replica: Replica) -> None:
    found = estimate(toy_replica, load(STATIC, RequestShape(100, 1), concurrency=4))
    assert found.tpot == 0
    assert found.rate == pytest.approx(4 / found.ttft)


# ---- open loop ----


def capacity(replica: Replica, shape: RequestShape = SHAPE) -> float:
    return float(estimate(replica, load(OFFLINE, shape)).rate)


def saturating(replica: Replica, shape: RequestShape) -> float:
    degrees = replica.parallelism
    return float(saturating_batch(Schedule(degrees.pp, degrees.dp), shape, CHUNK))


def sustained(replica: Replica, shape: RequestShape = SHAPE) -> float:
    """Return the rate at the largest mean batch that memory and prompts allow."""
    places = max(1.0, float(most_sequences(replica, load(OPEN, shape))))
    mean = mean_batch(places, replica.parallelism.dp)
    batch = min(mean, saturating(replica, shape) * (1 - 1e-6))
    return float(steady_state(replica, shape, batch, CHUNK).rate)


@settings
@hypothesis.given(
    st.floats(0.001, 0.99),
    st.sampled_from([(1, 1), (2, 1), (1, 3), (4, 6), (1, 1, 2), (2, 3, 4)]),
    st.sampled_from([SHAPE, SINGLE, LONG, WORDY]),
)
def test_open_loop_finishes_what_arrives(
    toy_replica: Replica, share: float, layout: tuple[int, ...], shape: RequestShape
) -> None:
    replica = split(toy_replica, *layout)
    asked = share * sustained(replica, shape)
    found = estimate(replica, load(OPEN, shape, rate=asked))
    assert not found.overloaded
    assert found.rate == pytest.approx(asked, rel=1e-4)
    # The batch holds what arrives for as long as it decodes.
    if shape is not SINGLE:
        decoding = found.rate * shape.decode_steps * found.tpot
        assert found.batch == pytest.approx(decoding, rel=1e-4)
    assert 0 < found.ttft < np.inf
    assert found.batch < saturating(replica, shape)
    most = most_sequences(replica, load(OPEN, shape))
    assert batch_cap(found.batch, replica.parallelism.dp) <= most
    assert found.fits


@pytest.mark.parametrize("shape", [SHAPE, SINGLE, LONG, WORDY])
def test_open_loop_says_when_more_arrives_than_can_be_finished(
    toy_replica: Replica, shape: RequestShape
) -> None:
    limit = sustained(toy_replica, shape)
    asked = np.array([0.98, 0.9999, 1.0001, 1.02, 100]) * limit
    found = estimate(toy_replica, load(OPEN, shape, rate=asked))
    assert found.overloaded.tolist() == [False, False, True, True, True]
    assert found.rate[-1] == pytest.approx(limit, rel=1e-6)


def test_random_arrivals_need_memory_for_more_than_their_mean_batch(
    toy_replica: Replica,
) -> None:
    for share in (1e-4, 0.1, 0.5, 0.9):
        asked = share * sustained(toy_replica)
        found = estimate(toy_replica, load(OPEN, rate=asked))
        assert found.memory == needed(toy_replica, batch_cap(found.batch))
        assert found.memory.kv_cache > needed(toy_replica, found.batch).kv_cache
    # Users are as many as they are.
    for users in (1, 4, 7):
        found = estimate(toy_replica, load(CLOSED, concurrency=users))
        batch = np.ceil(found.batch)
        assert found.memory == needed(toy_replica, batch, requests=users)
        found = estimate(toy_replica, load(OFFLINE, concurrency=users))
        assert found.memory == needed(toy_replica, users, requests=users)


def test_an_overloaded_replica_keeps_the_mean_batch_that_its_places_allow(
    toy_replica: Replica,
) -> None:
    loaded, places = [], range(1, 41)
    for count in places:
        memory = needed(toy_replica, count).total
        replica = on(toy_replica, memory_capacity=memory * (1 + 1e-6))
        assert most_sequences(replica, load(OPEN)) == count
        loaded.append(estimate(replica, load(OPEN, rate=1e9)))
    assert all(found.overloaded for found in loaded)
    allowed = [mean_batch(count) for count in places]
    assert [found.batch for found in loaded] == pytest.approx(allowed, rel=1e-6)
    # What it holds fits: that there is too much to do is not for lack of memory.
    misfits = [n for n, found in zip(places, loaded, strict=True) if not found.fits]
    assert misfits == []


@hypothesis.settings(settings, max_examples=8)
@hypothesis.given(st.floats(0.01, 0.9), st.floats(1.01, 10))
def test_open_loop_is_slower_at_higher_rates_and_faster_on_faster_hardware(
    toy_replica: Replica, toy_npu: Npu, share: float, factor: float
) -> None:
    asked = share * sustained(toy_replica)
    usual = estimate(toy_replica, load(OPEN, rate=asked))
    busier = estimate(toy_replica, load(OPEN, rate=1.05 * asked))
    assert busier.ttft > usual.ttft
    assert busier.tpot >= usual.tpot * (1 - 1e-6)
    tiers = toy_npu.fabric.tiers
    faster = on(
        toy_replica,
        flop_per_s={d: rate * factor for d, rate in toy_npu.flop_per_s.items()},
        memory_bandwidth=toy_npu.memory_bandwidth * factor,
        step_overhead=toy_npu.step_overhead / factor,
        fabric=Fabric(
            tuple(
                replace(t, bandwidth=t.bandwidth * factor, latency=t.latency / factor)
                for t in tiers
            )
        ),
    )
    quick = estimate(faster, load(OPEN, rate=asked))
    assert quick.ttft < usual.ttft
    assert quick.tpot < usual.tpot
    assert quick.batch < usual.batch


def test_a_long_prompt_with_a_short_answer_is_served_by_less_than_a_sequence(
    toy_replica: Replica,
) -> None:
    full = saturating(toy_replica, LONG)
    assert full == pytest.approx(255 / 700)
    for share in (0.1, 0.5, 0.95):
        asked = share * sustained(toy_replica, LONG)
        found = estimate(toy_replica, load(OPEN, LONG, rate=asked))
        assert not found.overloaded
        assert found.rate == pytest.approx(asked, rel=1e-4)
        assert 0 < found.batch < full
        assert found.fits
        # At times the sequence is there, or even two.
        places = 1 if found.batch + 2 * found.batch**0.5 <= 1 else 2
        assert found.memory == needed(toy_replica, places, LONG)
    users = estimate(toy_replica, load(CLOSED, LONG, concurrency=1))
    assert 0 < users.batch < full
    # Alone, the user waits for no other's prompt longer than for its own.
    chunks = steady_state(toy_replica, LONG, 1e-9, CHUNK).ttft
    assert chunks < users.ttft < 2 * chunks


# ---- closed loop ----


@settings
@hypothesis.given(
    st.integers(1, 60),
    st.integers(1, 700),
    st.integers(1, 200),
    st.sampled_from([(1, 1), (2, 1), (1, 3), (4, 6), (1, 1, 2), (2, 3, 4)]),
)
def test_closed_loop_obeys_littles_law(
    toy_replica: Replica,
    users: int,
    prompt: int,
    answer: int,
    layout: tuple[int, ...],
) -> None:
    replica = split(toy_replica, *layout)
    task = load(CLOSED, RequestShape(prompt, answer), concurrency=users)
    found = estimate(replica, task)
    assert users == pytest.approx(found.rate * found.e2e, rel=1e-3)
    if answer > 1:  # one that is not is in the batch for the step that samples
        assert found.batch + found.rate * found.ttft == pytest.approx(users, rel=1e-3)
    assert 0 < found.batch <= max(1, most_sequences(replica, task))
    assert found.batch < saturating(replica, task.shape)


def test_more_users_are_served_no_slower_until_the_batch_is_full_then_wait(
    toy_replica: Replica,
) -> None:
    users = np.array([1, 2, 4, 8, 16, 32, 64, 128])
    found = estimate(toy_replica, load(CLOSED, concurrency=users))
    assert np.all(np.diff(found.rate) >= -1e-6 * found.rate[1:])
    assert np.all(np.diff(found.ttft) > 0)
    assert np.all(np.diff(found.tpot) >= -1e-6 * found.tpot[1:])
    full = most_sequences(toy_replica, load(CLOSED))
    assert found.batch[-1] == pytest.approx(full)
    assert found.rate[-1] == pytest.approx(found.rate[-2])
    # The users beyond the full batch wait for as long as it takes to serve them.
    more = 128 - 64
    assert found.ttft[-1] - found.ttft[-2] == pytest.approx(more / found.rate[-1])


def test_more_users_than_prompts_have_room_for_wait(toy_replica: Replica) -> None:
    users = np.array([1, 10, 1e3, 1e6, 2e6])
    found = estimate(toy_replica, load(CLOSED, LONG, concurrency=users))
    assert np.all(np.diff(found.rate) >= -1e-6 * found.rate[1:])
    assert np.all(np.diff(found.ttft) > 0)
    assert np.all(found.batch < saturating(toy_replica, LONG))
    limit = capacity(toy_replica, LONG)
    assert found.rate[-2:] == pytest.approx(limit, rel=1e-5)
    assert found.ttft[-2:] == pytest.approx(users[-2:] / limit, rel=1e-3)


# ---- offline ----


def test_one_user_needs_the_cache_of_one_request(toy_replica: Replica) -> None:
    """However many prompts as short would fill a step."""
    shape = RequestShape(1, 128)
    alone, crowd = (
        estimate(
            toy_replica, load(CLOSED, shape, concurrency=users, chunk_tokens=8192)
        ).memory.kv_cache
        for users in (1, 100_000)
    )
    # 65 tokens on average and a spread, at most 129; and the prompt's own block.
    assert alone <= toy_replica.footprint(shape, 1, 1).kv_cache
    assert crowd > 100 * alone


def test_users_who_start_at_once_wait_for_each_others_prompts(
    toy_replica: Replica,
) -> None:
    task = load(CLOSED, concurrency=4, requests_per_user=1.0, chunk_tokens=250)
    room = 250 - 2  # while prompts are read, half of the users decode
    step = Step((prefill(room / 100, 100.0), decode(2.0, 100)))
    full = step_time(toy_replica, step)
    expected = full.latency + (4 * 100 / room - 1) / 2 * full.bottleneck
    assert estimate(toy_replica, task).ttft == pytest.approx(expected)


def test_the_start_weighs_as_one_request_of_each_user(toy_replica: Replica) -> None:
    tasks = [load(CLOSED, concurrency=4, requests_per_user=r) for r in (np.inf, 1.0, 4)]
    steady, start, mixed = (estimate(toy_replica, task) for task in tasks)
    assert start.ttft > steady.ttft
    assert mixed.ttft == pytest.approx(0.25 * start.ttft + 0.75 * steady.ttft)
    assert mixed.tpot == steady.tpot


@pytest.mark.parametrize("users", [4, 16, 64])
@pytest.mark.parametrize(("prompt", "answer"), [(900, 900), (7000, 900)])
def test_ttft_of_ten_requests_per_user_is_that_of_a_simulation(
    users: int, prompt: int, answer: int
) -> None:
    replica = Replica(
        load_model("llama-3.1-70b"),
        Parallelism(tp=8),
        load_model("llama-3.1-70b").precision,
        # The simulator knows no host on which users wait for each other.
        Supply.of(replace(load_npu("h200"), host_time=0.0)),
    )
    rng = np.random.default_rng(0)
    inputs, outputs = (
        rng.integers(int(0.9 * mean), int(1.1 * mean) + 1, 10 * users)
        for mean in (prompt, answer)
    )
    engine = engine_of(
        replica,
        Profile(fixed(prompt), fixed(answer)),
        chunk_tokens=8192,
        max_sequences=1024,
    )
    trace = simulate(engine, 0.0, inputs, outputs, users=users)
    waited = np.mean(trace.first_token - trace.arrival)
    found = estimate(
        replica,
        Load(
            RequestShape(float(prompt), float(answer)),
            CLOSED,
            concurrency=users,
            chunk_tokens=8192,
            requests_per_user=10,
        ),
    )
    assert found.ttft == pytest.approx(waited, rel=0.08)


def test_offline_fills_the_memory(toy_replica: Replica) -> None:
    found = estimate(toy_replica, load(OFFLINE))
    full = most_sequences(toy_replica, load(OFFLINE))
    assert found.batch == pytest.approx(full)
    state = steady_state(toy_replica, SHAPE, full, CHUNK)
    assert found.rate == pytest.approx(state.rate)
    assert found.tpot == pytest.approx(state.tpot)
    alone = step_time(toy_replica, Step((prefill(1, 100),))).latency
    assert found.ttft == pytest.approx(alone)
    assert found.fits


def test_offline_can_be_capped(toy_replica: Replica) -> None:
    found = estimate(toy_replica, load(OFFLINE, concurrency=3))
    assert found.batch == 3
    assert found.rate == pytest.approx(
        steady_state(toy_replica, SHAPE, 3, CHUNK).rate, rel=1e-6
    )


@pytest.mark.parametrize("layout", [(1, 1), (2, 1), (1, 1, 2)])
@pytest.mark.parametrize("shape", [SINGLE, LONG, WORDY])
def test_offline_fills_the_room_for_prompts(
    toy_replica: Replica, shape: RequestShape, layout: tuple[int, ...]
) -> None:
    replica = split(toy_replica, *layout)
    task = load(OFFLINE, shape)
    full = saturating(replica, shape)
    assert full < most_sequences(replica, task)
    found = estimate(replica, task)
    assert found.batch == pytest.approx(full, rel=1e-5)
    assert found.batch < full
    groups = replica.parallelism.dp
    decoding = max(full / groups, 1)  # of each group
    room = CHUNK - decoding
    each = min(shape.input_tokens, room)
    step = Step(
        (
            prefill(room / each, each, (shape.input_tokens - each) / 2),
            decode(decoding, shape.mean_context),
        )
    )
    every = step_time(replica, step).latency
    rate = groups * room / shape.input_tokens / every
    assert found.rate == pytest.approx(rate, rel=1e-4)
    assert np.isfinite(found.ttft)
    assert found.fits


def test_short_prompts_of_an_8b_model_share_steps() -> None:
    arch = load_model("llama-3.1-8b")
    npu = load_npu("h100-sxm")
    replica = Replica(arch, Parallelism(1, 1), arch.precision, Supply.of(npu))
    prompt, answer = 100, 10
    shape = RequestShape(prompt, answer)
    found = estimate(replica, Load(shape, OFFLINE))

    def seconds(prompts: float, decoding: float) -> float:
        segments = prefill(prompts, prompt), decode(decoding, shape.mean_context)
        return float(step_time(replica, Step(segments)).latency)

    # Were each prompt to take a step of its own, no more would finish than steps.
    one_a_step = 1 / seconds(1, answer - 1)
    assert found.rate > 2 * one_a_step
    # Only the room for prompts limits it, not the memory.
    assert found.batch < 0.5 * most_sequences(replica, Load(shape, OFFLINE))
    decoding = DEFAULT_CHUNK_TOKENS / (1 + prompt / (answer - 1))
    prompts = (DEFAULT_CHUNK_TOKENS - decoding) / prompt
    bound = prompts / seconds(prompts, decoding)
    assert found.rate == pytest.approx(bound, rel=1e-4)
    # And no faster than the multiply-adds of its tokens.
    flop = 2 * (prompt + answer - 1) * arch.layer_parameters
    assert found.rate < npu.flop_per_s[Dtype.BF16] / flop


# ---- the roofline ----


def lossy(replica: Replica, share: float) -> Replica:
    kernels = dict.fromkeys(KernelFamily, KernelEfficiency(share, share, 1e-6))
    return on(
        replica,
        efficiency=ConstantEfficiency(kernels, {}),
        link_efficiency=share,
        memory_usable=0.9,
        runtime_reserve=10.0,
        step_overhead=1e-5,
    )


@pytest.mark.parametrize("layout", [(1, 1), (2, 1), (2, 3), (2, 3, 2)])
def test_least_latencies_are_of_a_request_alone_without_losses(
    toy_replica: Replica, layout: tuple[int, ...]
) -> None:
    replica = split(toy_replica, *layout)
    ideal = on(replica, step_overhead=0.0)
    # A prompt in chunks may keep all stages of a pipeline busy.
    first = step_time(ideal, Step((prefill(1, 100),))).latency / layout[1]
    further = step_time(ideal, Step((decode(1, 100 + 41 / 2),))).latency
    for share in (1.0, 0.5, 0.1):
        least = least_latencies(lossy(replica, share), SHAPE)
        assert least == pytest.approx((first, further), rel=1e-12)


def assert_no_faster_than_the_roofline(replica: Replica, shape: RequestShape) -> None:
    ttft, tpot = least_latencies(replica, shape)
    rate = 0.2 * sustained(replica, shape)
    for mode in LoadMode:
        for users in (1, 3, 20):
            found = estimate(replica, load(mode, shape, concurrency=users, rate=rate))
            assert found.ttft >= ttft * (1 - 1e-9), (mode, users)
            if shape is not SINGLE:
                assert found.tpot >= tpot * (1 - 1e-9), (mode, users)


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("layout", [(1, 1), (4, 1), (2, 3), (1, 6), (2, 3, 2)])
@pytest.mark.parametrize("shape", [SHAPE, SINGLE, WORDY])
def test_no_estimate_is_faster_than_the_roofline(
    toy_replica: Replica, share: float, layout: tuple[int, ...], shape: RequestShape
) -> None:
    assert_no_faster_than_the_roofline(lossy(split(toy_replica, *layout), share), shape)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [(1, 1), (4, 1), (2, 3), (1, 6), (2, 3, 2)])
def test_chunks_of_a_long_prompt_are_no_faster_than_the_roofline(
    toy_replica: Replica, layout: tuple[int, ...]
) -> None:
    # Chunks of one prompt follow each other through the stages of a pipeline.
    long = RequestShape(2500, 3)
    assert_no_faster_than_the_roofline(split(toy_replica, *layout), long)


def test_least_latencies_of_arrays_equal_scalars(
    toy_arch: ModelArch, toy_replica: Replica, toy_npu: Npu
) -> None:
    npus = (toy_npu, replace(toy_npu, memory_bandwidth=3e10, step_overhead=1.0))
    tp, pp, prompts = np.array([1, 2, 4]), np.array([1, 3, 6]), np.array([1, 100, 700])
    together = least_latencies(
        Replica(
            toy_arch,
            Parallelism(tp[:, None], pp[:, None]),
            toy_replica.precision,
            Supply.stack(npus, 2),
        ),
        RequestShape(prompts, 41),
    )
    for at in np.ndindex(2, 3, 3):
        replica = replace(
            split(toy_replica, int(tp[at[1]]), int(pp[at[1]])),
            supply=Supply.of(npus[at[0]]),
        )
        alone = least_latencies(replica, RequestShape(int(prompts[at[2]]), 41))
        found = [np.broadcast_to(values, (2, 3, 3))[at] for values in together]
        assert found == pytest.approx(list(alone), rel=1e-12)


# ---- every mode ----


@pytest.mark.parametrize("shape", [SINGLE, LONG, WORDY])
@pytest.mark.parametrize("mode", list(LoadMode))
@pytest.mark.parametrize("layout", [(1, 1), (4, 1), (2, 3), (2, 3, 2)])
def test_every_mode_serves_short_answers(
    toy_replica: Replica, mode: LoadMode, shape: RequestShape, layout: tuple[int, ...]
) -> None:
    replica = split(toy_replica, *layout)
    small = 0.01 * capacity(replica, shape)
    found = estimate(replica, load(mode, shape, concurrency=2, rate=small))
    assert not found.overloaded
    assert 0 < found.ttft < np.inf
    assert found.rate > 0.99 * small
    assert 0 < found.batch <= 2
    assert (found.tpot > 0) == (shape is not SINGLE)
    assert found.e2e == found.ttft + shape.decode_steps * found.tpot
    if mode is OPEN:
        assert found.rate == pytest.approx(small, rel=1e-4)
    if mode is CLOSED:
        assert found.rate * found.e2e == pytest.approx(2, rel=1e-3)


def test_a_model_that_does_not_fit_is_said_not_raised(toy_replica: Replica) -> None:
    tiny = on(toy_replica, memory_capacity=1e3)
    for mode in LoadMode:
        found = estimate(tiny, load(mode, concurrency=4, rate=1.0))
        assert not found.fits
        assert found.memory.total > 1e3


# ---- arrays ----

FIELDS = ("ttft", "tpot", "rate", "batch", "overloaded", "fits", "e2e")


def assert_equal_at(
    together: Estimate, shape: tuple[int, ...], at: tuple[int, ...], one: Estimate
) -> None:
    for name in FIELDS:
        found = np.broadcast_to(getattr(together, name), shape)[at]
        assert found == pytest.approx(getattr(one, name), rel=1e-9), name
    for name in ("own", "outer"):
        found = np.broadcast_to(getattr(together.room, name), shape)[at]
        assert found == getattr(one.room, name), name
    for name in ("weights", "kv_cache", "activations", "outer", "total"):
        found = np.broadcast_to(getattr(together.memory, name), shape)[at]
        assert found == pytest.approx(getattr(one.memory, name), rel=1e-9), name


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(LoadMode))
def test_arrays_and_stacked_supplies_equal_scalars(
    toy_arch: ModelArch, toy_replica: Replica, toy_npu: Npu, mode: LoadMode
) -> None:
    npus = (
        toy_npu,
        replace(toy_npu, memory_bandwidth=3e10, memory_capacity=2e6, node_npus=2),
    )
    tp, pp = np.array([1, 2, 4]), np.array([1, 3, 6])
    users = np.array([1.0, 5.0, 200.0])
    together = estimate(
        Replica(
            toy_arch,
            Parallelism(tp[:, None], pp[:, None]),
            toy_replica.precision,
            Supply.stack(npus, 2),
        ),
        load(mode, concurrency=users, rate=users * 100),
    )
    shape = (len(npus), len(tp), len(users))
    for chip, layout, point in np.ndindex(shape):
        replica = replace(
            split(toy_replica, int(tp[layout]), int(pp[layout])),
            supply=Supply.of(npus[chip]),
        )
        count = float(users[point])
        one = estimate(replica, load(mode, concurrency=count, rate=count * 100))
        assert_equal_at(together, shape, (chip, layout, point), one)


@pytest.mark.parametrize("mode", list(LoadMode))
def test_arrays_of_shapes_equal_scalars(toy_replica: Replica, mode: LoadMode) -> None:
    prompts, answers = np.array([[10], [100], [700]]), np.array([1, 2, 50])
    task = {"concurrency": 6.0, "rate": 900.0}
    together = estimate(toy_replica, load(mode, RequestShape(prompts, answers), **task))
    for row, column in np.ndindex(3, 3):
        shape = RequestShape(int(prompts[row, 0]), int(answers[column]))
        one = estimate(toy_replica, load(mode, shape, **task))
        assert_equal_at(together, (3, 3), (row, column), one)


# ---- what binds ----


@settings
@hypothesis.given(
    st.integers(1, 300),
    st.integers(1, 60),
    st.sampled_from([(1, 1), (2, 1), (4, 3), (1, 6)]),
)
def test_bounds_add_up_to_the_step(
    toy_replica: Replica, prompt: int, batch: int, layout: tuple[int, ...]
) -> None:
    replica = split(toy_replica, *layout)
    step = Step((prefill(1, prompt), decode(batch, prompt)))
    seconds = bounds(timed_operators(replica, step), replica.overhead(step))
    expected = step_time(replica, step).latency
    assert sum(seconds.values()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("scarce", "layout"),
    [
        ("compute", (1, 1)),
        ("memory bandwidth", (1, 1)),
        ("network", (2, 1)),
        ("launch", (1, 1)),
    ],
)
def test_what_is_scarce_binds(
    toy_replica: Replica, toy_npu: Npu, scarce: str, layout: tuple[int, ...]
) -> None:
    rates = {
        "compute": {"flop_per_s": dict.fromkeys(Dtype, 1e6)},
        "memory bandwidth": {"memory_bandwidth": 1e6},
        "network": {
            "fabric": Fabric(
                tuple(replace(t, bandwidth=1e3) for t in toy_npu.fabric.tiers)
            )
        },
        "launch": {"step_overhead": 1e3},
    }[scarce]
    replica = split(on(toy_replica, **rates), *layout)
    for mode in LoadMode:
        ttft, tpot = bound_by(replica, load(mode), 4.0)
        assert str(ttft) == str(tpot) == scarce


def test_bounds_of_arrays_name_each_point(toy_replica: Replica) -> None:
    slow = replace(toy_replica.supply.npus[0], flop_per_s={Dtype.BF16: 1e6})
    supply = Supply.stack([toy_replica.supply.npus[0], slow], 1)
    replica = replace(toy_replica, supply=supply)
    ttft, tpot = bound_by(replica, load(CLOSED), np.array([1.0, 8.0]))
    assert ttft.shape == tpot.shape == (2, 2)
    assert set(ttft[1]) == set(tpot[1]) == {"compute"}
    assert "compute" not in set(tpot[0])


def test_steps_behind_ttft_and_tpot(toy_replica: Replica) -> None:
    context = 100 + 41 / 2
    first, rest = load_steps(toy_replica, load(STATIC), 4)
    assert first == Step((prefill(4, 100),))
    assert rest == Step((decode(4, context),))
    for mode in (OPEN, CLOSED, OFFLINE):
        mixed, rest = load_steps(toy_replica, load(mode), 4)
        assert rest == Step((decode(4, context),))
        prompts, decoding = mixed.segments
        assert decoding == decode(4, context)
        # Four in forty steps: where any arrive, now and then two at once.
        assert prompts.sequences == pytest.approx(0.1 / (1 - np.exp(-0.1)))
        assert (prompts.queries, prompts.context) == (100, 0)


def test_steps_behind_ttft_and_tpot_of_a_pipeline(toy_replica: Replica) -> None:
    replica = split(toy_replica, 1, 3)
    first, rest = load_steps(replica, load(STATIC), 6)
    assert first == Step((prefill(2, 100),))
    for mode in (OPEN, CLOSED, OFFLINE):
        mix = Mix.of(Schedule(3), SHAPE, 6, CHUNK)
        assert mix.decoding == 2
        expected = mix.mixed_step(SHAPE), mix.decode_step(SHAPE)
        assert load_steps(replica, load(mode), 6) == expected
        assert rest == expected[1]
