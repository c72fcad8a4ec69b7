from dataclasses import replace
from math import ceil, exp, inf

import numpy as np
import pytest

from model_ops.dtypes import Dtype
from model_ops.platform.fabric import Fabric
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape, Step, decode, prefill
from model_ops.serving.speculative import Schedule, Speculation
from model_ops.serving.steady_state import (
    DEFAULT_CHUNK_TOKENS,
    Mix,
    batch_cap,
    mean_batch,
    requests_per_step,
    saturating_batch,
    steady_state,
)
from model_ops.serving.step import Replica, step_time

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None, max_examples=60)

SECOND = 1.0
ENDLESS = 1e40


@pytest.fixture(scope="module")
def clockwork(toy_replica: Replica) -> Replica:
    """A replica whose every step takes one second, whatever it carries."""
    (npu,) = toy_replica.supply.npus
    tiers = npu.fabric.tiers
    npu = replace(
        npu,
        flop_per_s=dict.fromkeys(Dtype, ENDLESS),
        memory_bandwidth=ENDLESS,
        step_overhead=SECOND,
        fabric=Fabric(tuple(replace(t, bandwidth=ENDLESS, latency=0.0) for t in tiers)),
    )
    return replace(toy_replica, supply=Supply.of(npu))


def test_shape_of_a_request() -> None:
    shape = RequestShape(input_tokens=100, output_tokens=21)
    assert shape.decode_steps == shape.held_steps == 20
    assert shape.mean_context == 100 + 21 / 2
    single = RequestShape(100, 1)
    assert single.decode_steps == 0
    assert single.held_steps == 1  # the one that samples


def test_a_step_that_decodes_decodes_at_least_one_sequence() -> None:
    assert requests_per_step(64, 4) == 16
    assert requests_per_step(3, 4) == requests_per_step(0.5, 1) == 1


# ---- places for a mean batch ----


@pytest.mark.parametrize(
    ("mean", "cap"),
    [(0, 0), (1e-6, 1), (0.25, 2), (1, 3), (4, 8), (4.5, 9), (16, 24), (100, 120)],
)
def test_places_are_the_mean_and_two_deviations(mean: float, cap: int) -> None:
    assert batch_cap(mean) == cap  # of a Poisson variable


@pytest.mark.parametrize(
    ("cap", "mean"), [(-1, 0), (0, 0), (3, 1), (8, 4), (24, 16), (120, 100)]
)
def test_largest_mean_batch_by_hand(cap: int, mean: float) -> None:
    assert mean_batch(cap) == pytest.approx(mean)


@settings
@hypothesis.given(st.floats(0, 1e6))
def test_places_for_a_mean_batch_allow_that_batch(mean: float) -> None:
    cap = batch_cap(mean)
    assert mean_batch(cap) >= mean * (1 - 1e-9)
    # And are no more than it takes.
    assert mean_batch(cap - 1) <= mean * (1 + 1e-9)


def test_the_largest_mean_batch_needs_no_more_places_than_there_are() -> None:
    caps = np.append(np.arange(100_000), 2 ** np.arange(17, 40))
    needed = batch_cap(mean_batch(caps))
    assert caps[needed > caps].tolist() == []
    assert np.array_equal(needed, caps)


@settings
@hypothesis.given(st.integers(1, 10**6), st.floats(1e-6, 1))
def test_a_larger_mean_batch_needs_no_fewer_places(cap: int, more: float) -> None:
    mean = mean_batch(cap)
    assert batch_cap(mean * (1 + more)) > cap
    assert batch_cap(mean / (1 + more)) <= cap


# ---- how prompts ride along ----

SHAPE = RequestShape(100, 11)  # ten steps a cycle
LONG = RequestShape(1000, 3)  # two
SINGLE = RequestShape(100, 1)  # one


@pytest.mark.parametrize(
    ("shape", "pp", "batch", "chunk", "decoding", "arriving", "room"),
    [
        (SHAPE, 1, 4, 2048, 4, 0.4, 2044),  # short prompts: some share a step
        (SHAPE, 1, 30, 2048, 30, 3, 2018),  # three and more in each
        (SHAPE, 1, 4, 84, 4, 0.4, 80),  # longer than the room: half the steps
        (SHAPE, 1, 4, 44, 4, 0.4, 40),  # every step
        (SHAPE, 1, 4, 24, 4, 0.4, 20),  # twice what every step can carry
        (SHAPE, 4, 40, 60, 10, 1, 50),  # ten decode in each of four micro-batches
        (SHAPE, 4, 3, 2048, 1, 0.075, 2047),  # fewer sequences than stages
        (SHAPE, 1, 100, 60, 100, 10, 1),  # decodes take it all; prompts crawl
        (SHAPE, 1, 0.5, 2048, 1, 0.05, 2047),  # at times nothing decodes
        (LONG, 1, 0.5, 251, 1, 0.25, 250),
        (SINGLE, 1, 4, 2048, 4, 4, 2044),
    ],
)
def test_mix_by_hand(
    shape: RequestShape,
    pp: int,
    batch: float,
    chunk: int,
    decoding: float,
    arriving: float,
    room: float,
) -> None:
    mix = Mix.of(Schedule(pp), shape, batch, chunk)
    needed = arriving * shape.input_tokens
    load = needed / room
    share = min(max(load, 1 - exp(-arriving)), 1)
    carried = min(needed / share, room)
    assert (mix.schedule.slots, mix.decoding, mix.room) == (pp, decoding, room)
    assert mix.prompt_load == pytest.approx(load)
    assert mix.share == pytest.approx(share)
    assert mix.carried == pytest.approx(carried)

    each = min(shape.input_tokens, carried)
    before = (shape.input_tokens - each) / 2  # of a prompt's chunks, on average
    chunk_of, rest = mix.mixed_step(shape).segments
    assert chunk_of.sequences == pytest.approx(carried / each)
    assert chunk_of.queries == pytest.approx(each)
    assert chunk_of.context == pytest.approx(before)
    assert chunk_of.phase == prefill(1, 1).phase
    assert rest == decode(decoding, shape.mean_context)
    assert mix.decode_step(shape) == Step((rest,))


def test_prompts_longer_than_the_room_come_in_chunks_of_the_room() -> None:
    mix = Mix.of(Schedule(), SHAPE, 4, chunk_tokens=84)
    assert mix.share == mix.prompt_load == 0.5
    assert mix.mixed_step(SHAPE).segments[0] == prefill(1, 80, 10)


def test_short_prompts_share_a_step() -> None:
    mix = Mix.of(Schedule(), SHAPE, 30, DEFAULT_CHUNK_TOKENS)
    assert mix.prompt_load < 0.15 < 0.95 < mix.share
    prompts = mix.mixed_step(SHAPE).segments[0]
    assert prompts.sequences == pytest.approx(3 / (1 - exp(-3)))
    assert (prompts.queries, prompts.context) == (100, 0)


def test_a_lonely_prompt_has_a_step_for_itself() -> None:
    mix = Mix.of(Schedule(), SHAPE, 1e-6, DEFAULT_CHUNK_TOKENS)
    prompt = mix.mixed_step(SHAPE).segments[0]
    assert prompt.sequences == pytest.approx(1)
    assert prompt.queries == 100


@pytest.mark.parametrize(
    ("pp", "shape", "chunk", "batch"),
    [
        (1, SHAPE, 2048, 2048 / 11),  # per sequence, ten prompt tokens and a decode
        (4, SHAPE, 2048, 4 * 2048 / 11),
        (1, SINGLE, 2048, 2048 / 101),
        (1, RequestShape(1023, 2), 1024, 1),
        (1, RequestShape(8000, 3), 2048, 2047 / 4000),  # one decodes beside the chunk
        (1, RequestShape(100_000, 1), 2048, 0.02047),
    ],
)
def test_saturating_batch_by_hand(
    pp: int, shape: RequestShape, chunk: int, batch: float
) -> None:
    assert saturating_batch(Schedule(pp), shape, chunk) == pytest.approx(batch)


# ---- what a schedule takes from the batch ----


def test_groups_are_replicas_that_step_together() -> None:
    # Ten decode in each of two micro-batches of three groups.
    one, all_ = (
        Mix.of(Schedule(2, groups), SHAPE, 20 * groups, 60) for groups in (1, 3)
    )
    assert (one.decoding, all_.decoding) == (10, 10)
    assert (one.room, all_.room) == (50, 50)
    assert all_.share == one.share == 1 * one.any_share
    rare = Mix.of(Schedule(1, 3), SHAPE, 3, DEFAULT_CHUNK_TOKENS)
    # Each group has a newcomer every ten steps: one of the three, more often.
    assert rare.share == pytest.approx(1 - exp(-0.1))
    assert rare.any_share == pytest.approx(1 - (1 - rare.share) ** 3)
    # Meanwhile another group decodes one, and has prompts as often as any.
    mixed = rare.mixed_step(SHAPE)
    assert mixed.elsewhere == pytest.approx(1 + rare.share * rare.carried)
    assert rare.decode_step(SHAPE).elsewhere is None
    for schedule in (Schedule(2), Schedule(2, 3)):
        full = saturating_batch(schedule, SHAPE)
        assert full == pytest.approx(schedule.lanes * 2048 / 11)


@pytest.mark.parametrize("groups", [2, 5])
def test_groups_of_clockwork_serve_as_many_times_more(
    clockwork: Replica, groups: int
) -> None:
    alone = steady_state(clockwork, SHAPE, 4)
    together = steady_state(
        replace(clockwork, parallelism=Parallelism(dp=groups)), SHAPE, 4 * groups
    )
    assert together.rate == pytest.approx(groups * alone.rate)
    for name in ("ttft", "tpot", "prompt_load"):
        assert getattr(together, name) == pytest.approx(getattr(alone, name)), name


def test_guessed_tokens_shorten_the_cycle_and_fill_the_steps(
    clockwork: Replica,
) -> None:
    # Of two guesses the first is right in half, the second in a quarter of the steps.
    gained = 1 + 0.5 + 0.25
    replica = replace(clockwork, speculation=Speculation(guessed=2, acceptance=0.5))
    batch, prompt, answer = 4, 100, 36
    state = steady_state(replica, RequestShape(prompt, answer), batch)
    assert state.tpot == pytest.approx(SECOND / gained)
    steps = 35 / gained
    assert steps == 20
    assert state.rate == pytest.approx(batch / (steps * SECOND))
    # Each request takes a row for its last token and one for each guess.
    room = DEFAULT_CHUNK_TOKENS - batch * 3
    assert state.prompt_load == pytest.approx(batch / steps * prompt / room)
    # Per request, five prompt tokens and three rows.
    full = saturating_batch(replica.schedule, RequestShape(prompt, answer))
    assert full == pytest.approx(2048 / (100 / 20 + 3))


def test_cached_prompts_take_less_room_and_have_a_context(clockwork: Replica) -> None:
    shape = RequestShape(100, 11, cached_tokens=60)
    mix = Mix.of(Schedule(), shape, 4, chunk_tokens=24)
    # 0.4 prompts of 40 new tokens arrive per step, where there is room for 20.
    assert mix.prompt_load == pytest.approx(0.8)
    prompt = mix.mixed_step(shape).segments[0]
    # Two chunks, after 60 and after 80 tokens.
    assert (prompt.sequences, prompt.queries, prompt.context) == (1, 20, 70)
    state = steady_state(clockwork, shape, 4, 24)
    queue = 0.8 * 2 * SECOND / (2 * (1 - 0.8))
    residual = (1 - exp(-4)) * SECOND / 2
    assert state.ttft == pytest.approx(residual + queue + 2 * SECOND)
    # The last token of a prompt is always processed.
    assert RequestShape(100, 11, cached_tokens=100).new_tokens == 1


def test_beams_take_a_row_each_and_read_the_prompt_each() -> None:
    shape = RequestShape(100, 20, beams=4)
    mix = Mix.of(Schedule(), shape, 5, DEFAULT_CHUNK_TOKENS)
    assert mix.room == DEFAULT_CHUNK_TOKENS - 5 * 4
    (segment,) = mix.decode_step(shape).segments
    assert (segment.sequences, segment.queries) == (5 * 4, 1)
    assert (segment.context, segment.branches) == (shape.mean_context, None)
    assert mix.decode_step(shape).sampled == 20


# ---- cycles by hand ----


def test_cycle_of_whole_prompts_by_hand(clockwork: Replica) -> None:
    batch, prompt, answer = 4, 100, 11
    state = steady_state(clockwork, RequestShape(prompt, answer), batch)
    # Ten steps a cycle; each of the four newcomers' prompts rides in one.
    steps, room = answer - 1, DEFAULT_CHUNK_TOKENS - batch
    load = batch * prompt / steps / room
    assert state.prompt_load == pytest.approx(load)
    assert state.rate == pytest.approx(batch / (steps * SECOND))
    assert state.tpot == pytest.approx(SECOND)
    residual = (1 - exp(-batch)) * SECOND / 2  # where a step runs at all
    service = prompt / room * SECOND
    queue = load * service / (2 * (1 - load))  # M/D/1
    assert state.ttft == pytest.approx(residual + queue + SECOND)


def test_cycle_of_chunked_prompts_by_hand(clockwork: Replica) -> None:
    batch, prompt, answer, chunk = 4, 100, 101, 20
    room = chunk - batch
    state = steady_state(clockwork, RequestShape(prompt, answer), batch, chunk)
    steps, mixed = answer - 1, batch * prompt / room
    load = mixed / steps
    assert state.prompt_load == pytest.approx(load)
    assert state.rate == pytest.approx(batch / (steps * SECOND))
    service = prompt / room * SECOND
    queue = load * service / (2 * (1 - load))
    own = ceil(prompt / room) * SECOND
    residual = (1 - exp(-batch)) * SECOND / 2
    assert state.ttft == pytest.approx(residual + queue + own)


@pytest.mark.parametrize(("answer", "chunk", "chunks"), [(11, 2048, 1), (101, 20, 7)])
def test_cycle_of_a_pipeline_by_hand(
    clockwork: Replica, answer: int, chunk: int, chunks: int
) -> None:
    pp, batch, prompt = 2, 8, 100
    replica = replace(clockwork, parallelism=Parallelism(1, pp))
    state = steady_state(replica, RequestShape(prompt, answer), batch, chunk)
    # Two micro-batches share the stages, so each steps every other second; a
    # micro-batch of four takes up four prompts in its cycle.
    period, room = 2 * SECOND, chunk - batch / pp
    load = batch / pp * prompt / (answer - 1) / room
    assert state.tpot == pytest.approx(period)
    assert state.rate == pytest.approx(batch / ((answer - 1) * period))
    assert state.prompt_load == pytest.approx(load)
    residual = (1 - exp(-batch)) * SECOND / 2  # a step starts every second
    service = prompt / room * SECOND
    queue = load * service / (2 * (1 - load))
    assert state.ttft == pytest.approx(residual + queue + chunks * SECOND)


@pytest.mark.parametrize(
    ("batch", "chunk", "prompts"),
    [
        (4, 2048, 0.4 / (1 - exp(-0.4))),  # some steps carry two prompts
        (0.25, 2048, 0.025 / (1 - exp(-0.025))),  # nearly none does
        (4, 84, 0.8),  # prompts longer than the room
    ],
)
def test_unequal_steps_by_hand(
    toy_replica: Replica, batch: float, chunk: int, prompts: float
) -> None:
    prompt, answer = 100, 11
    context, decoding = prompt + answer / 2, max(batch, 1)
    each = min(prompts, 1) * prompt
    ride = prefill(max(prompts, 1), each, (prompt - each) / 2)
    step = Step((ride, decode(decoding, context)))
    mixed = step_time(toy_replica, step).latency
    plain = step_time(toy_replica, Step((decode(decoding, context),))).latency
    assert mixed > 1.2 * plain

    arriving, room = batch / 10, chunk - decoding
    load = arriving * prompt / room
    share = max(load, 1 - exp(-arriving))
    assert share * prompts == pytest.approx(arriving)  # all prompts are carried
    cycle = 10 * (share * mixed + (1 - share) * plain)
    state = steady_state(toy_replica, RequestShape(prompt, answer), batch, chunk)
    assert state.prompt_load == pytest.approx(load)
    assert state.rate == pytest.approx(batch / cycle)
    assert state.tpot == pytest.approx(cycle / 10)
    # An arrival falls into a step in proportion to its length, and waits half.
    halves = share * mixed * mixed / 2 + (1 - share) * plain * plain / 2
    residual = (1 - exp(-batch)) * halves / (cycle / 10)
    service = prompt / room * mixed
    queue = load * service / (2 * (1 - load))
    own = ceil(prompt / room) * mixed
    assert state.ttft == pytest.approx(residual + queue + own)


def test_a_long_prompt_with_a_short_answer_by_hand(clockwork: Replica) -> None:
    prompt, steps, batch = 100_000, 2, 0.02
    state = steady_state(clockwork, RequestShape(prompt, steps + 1), batch)
    room = DEFAULT_CHUNK_TOKENS - 1
    load = batch / steps * prompt / room
    assert 0.4 < load < 0.5
    assert state.prompt_load == pytest.approx(load)
    assert state.rate == pytest.approx(batch / (steps * SECOND))
    assert state.tpot == pytest.approx(SECOND)
    residual = (1 - exp(-batch)) * SECOND / 2
    queue = load * prompt / room * SECOND / (2 * (1 - load))
    own = 49 * SECOND
    assert state.ttft == pytest.approx(residual + queue + own)


def test_prompts_that_fill_the_room_queue_for_ever(clockwork: Replica) -> None:
    shape = RequestShape(1000, 11)
    full = steady_state(clockwork, shape, 4, chunk_tokens=404)
    assert full.prompt_load == 1
    assert full.ttft == full.in_flight == inf
    assert full.rate == pytest.approx(4 / (10 * SECOND))
    beyond = steady_state(clockwork, shape, 4, chunk_tokens=104)
    assert beyond.prompt_load == 4
    assert beyond.ttft == inf
    # Forty steps for the prompts of four requests: those pace, not the decodes.
    assert beyond.rate == pytest.approx(4 / (40 * SECOND))
    assert beyond.tpot == pytest.approx(SECOND)


def test_an_answer_of_one_token_has_no_tpot_but_a_rate(clockwork: Replica) -> None:
    state = steady_state(clockwork, SINGLE, 4)
    assert state.tpot == 0
    assert state.rate == pytest.approx(4 / SECOND)  # each is held for one step
    load, room = state.prompt_load, DEFAULT_CHUNK_TOKENS - 4
    assert load == pytest.approx(400 / room)
    queue = load * 100 / room * SECOND / (2 * (1 - load))
    assert state.ttft == pytest.approx((1 - exp(-4)) * SECOND / 2 + queue + SECOND)


# ---- properties ----

prompts = st.integers(1, 3000)
answers = st.integers(1, 500)
longer_answers = st.integers(2, 500)
chunks = st.sampled_from([64, 256, 2048])
layouts = st.builds(
    Parallelism,
    st.sampled_from([1, 2, 4]),
    st.integers(1, 6),
    dp=st.sampled_from([1, 3]),
)
# Up to thousands of prompt tokens per step of a sequence, down to less than one.
shapes = st.builds(RequestShape, prompts, answers) | st.builds(
    RequestShape, st.integers(1000, 100_000), st.integers(1, 4)
)


STEPS = np.linspace(0, 1, 161)[1:-1]


def leaves_room(shape: RequestShape, chunk: int) -> bool:
    """Whether prompts fill the room before decodes leave none."""
    return shape.input_tokens * (chunk - 1) >= shape.held_steps


@settings
@hypothesis.given(shapes, chunks, st.integers(1, 16))
def test_prompts_fill_the_room_at_the_saturating_batch(
    shape: RequestShape, chunk: int, pp: int
) -> None:
    hypothesis.assume(leaves_room(shape, chunk))
    full = saturating_batch(Schedule(pp), shape, chunk)
    at = Mix.of(Schedule(pp), shape, full, chunk)
    assert at.prompt_load == pytest.approx(1, rel=1e-9)
    assert at.share == pytest.approx(1, rel=1e-9)
    assert Mix.of(Schedule(pp), shape, full * 1.01, chunk).prompt_load > 1
    assert Mix.of(Schedule(pp), shape, full * 0.99, chunk).prompt_load < 1


@settings
@hypothesis.given(shapes, chunks, layouts)
def test_until_prompts_saturate_more_batch_raises_rate_and_tpot(
    toy_replica: Replica, shape: RequestShape, chunk: int, split: Parallelism
) -> None:
    replica = replace(toy_replica, parallelism=split)
    full = float(saturating_batch(Schedule(split.pp, split.dp), shape, chunk))
    batch = full * np.sort(np.append(np.geomspace(1e-6, 1e-3, 40), STEPS))
    state = steady_state(replica, shape, batch, chunk)
    assert np.all(state.prompt_load < 1)
    assert np.all(np.isfinite(state.ttft))
    assert np.all(np.diff(state.prompt_load) >= -1e-12)
    for values in (state.rate, state.tpot):
        assert np.all(np.diff(values) >= -1e-6 * values[:-1])
    assert np.all(np.diff(state.ttft) >= -1e-9 * state.ttft[:-1])


@settings
@hypothesis.given(shapes, chunks, layouts)
def test_beyond_saturation_prompts_wait_for_ever_and_the_rate_does_not_grow(
    toy_replica: Replica, shape: RequestShape, chunk: int, split: Parallelism
) -> None:
    hypothesis.assume(leaves_room(shape, chunk))
    replica = replace(toy_replica, parallelism=split)
    full = float(saturating_batch(Schedule(split.pp, split.dp), shape, chunk))
    batch = full * np.append(1 + 1e-9, np.geomspace(1.001, 50, 100))
    state = steady_state(replica, shape, batch, chunk)
    assert np.all(state.prompt_load > 1)
    assert np.all(state.ttft == inf)
    assert np.all(np.diff(state.rate) <= 1e-9 * state.rate[:-1])


@settings
@hypothesis.given(
    prompts, longer_answers, chunks, layouts, st.floats(1e-4, 1, exclude_max=True)
)
def test_batch_is_rate_times_the_seconds_of_decoding(
    toy_replica: Replica,
    prompt: int,
    answer: int,
    chunk: int,
    split: Parallelism,
    fullness: float,
) -> None:
    shape = RequestShape(prompt, answer)
    replica = replace(toy_replica, parallelism=split)
    batch = fullness * saturating_batch(Schedule(split.pp, split.dp), shape, chunk)
    state = steady_state(replica, shape, batch, chunk)
    held = state.rate * (answer - 1) * state.tpot
    assert held == pytest.approx(float(batch))  # Little's law
    assert state.batch == batch
    assert state.in_flight == pytest.approx(
        float(state.rate * (state.ttft + (answer - 1) * state.tpot))
    )


@settings
@hypothesis.given(shapes, chunks, layouts)
def test_an_idle_replica_starts_a_prompt_at_once(
    toy_replica: Replica, shape: RequestShape, chunk: int, split: Parallelism
) -> None:
    replica = replace(toy_replica, parallelism=split)
    room = chunk - 1
    each = min(shape.input_tokens, room)
    step = Step(
        (
            prefill(1, each, (shape.input_tokens - each) / 2),
            decode(1, shape.mean_context),
        )
    )
    time, stages = step_time(replica, step), split.pp
    # Chunks follow each other through the stages of a pipeline.
    own = time.latency + (ceil(shape.input_tokens / room) - 1) * (
        time.period(stages) / stages
    )
    ttft = steady_state(replica, shape, 1e-9, chunk).ttft
    assert ttft == pytest.approx(own, rel=1e-5)
    assert ttft >= own * (1 - 1e-9)


@settings
@hypothesis.given(
    prompts, answers, chunks, layouts, st.integers(1, 64), st.floats(1, 9)
)
def test_faster_hardware_never_serves_less(
    toy_replica: Replica,
    toy_npu: Npu,
    prompt: int,
    answer: int,
    chunk: int,
    split: Parallelism,
    batch: int,
    factor: float,
) -> None:
    def state(**rates: object) -> object:
        replica = replace(
            toy_replica,
            parallelism=split,
            supply=Supply.of(replace(toy_npu, **rates)),
        )
        return steady_state(replica, RequestShape(prompt, answer), batch, chunk)

    tiers = toy_npu.fabric.tiers
    slow = state()
    for fast in (
        state(flop_per_s={d: r * factor for d, r in toy_npu.flop_per_s.items()}),
        state(memory_bandwidth=toy_npu.memory_bandwidth * factor),
        state(
            fabric=Fabric(
                tuple(replace(t, bandwidth=t.bandwidth * factor) for t in tiers)
            )
        ),
        state(step_overhead=toy_npu.step_overhead / factor),
    ):
        assert fast.rate >= slow.rate * (1 - 1e-12)
        assert fast.tpot <= slow.tpot * (1 + 1e-12)


PARTS = ("batch", "ttft", "tpot", "rate", "prompt_load", "in_flight")


def test_arrays_and_stacked_supplies_equal_scalars(
    toy_arch: ModelArch, toy_replica: Replica, toy_npu: Npu
) -> None:
    npus = (toy_npu, replace(toy_npu, memory_bandwidth=3e10, step_overhead=9e-6))
    tp, pp = np.array([1, 2, 4]), np.array([1, 3, 2])
    batch = np.array([0.3, 1.0, 2.0, 7.5, 64.0])
    shape = RequestShape(np.array(300), np.array(50))
    together = steady_state(
        Replica(
            toy_arch,
            Parallelism(tp[:, None], pp[:, None]),
            toy_replica.precision,
            Supply.stack(npus, 2),
        ),
        shape,
        batch,
        256,
    )
    grid = (len(npus), len(tp), len(batch))
    for index in np.ndindex(grid):
        chip, split, point = index
        alone = steady_state(
            Replica(
                toy_arch,
                Parallelism(int(tp[split]), int(pp[split])),
                toy_replica.precision,
                Supply.of(npus[chip]),
            ),
            RequestShape(300, 50),
            float(batch[point]),
            256,
        )
        for part in PARTS:
            found = np.broadcast_to(getattr(together, part), grid)[index]
            assert found == pytest.approx(getattr(alone, part), rel=1e-12)


def test_arrays_of_shapes_and_chunks_equal_scalars(toy_replica: Replica) -> None:
    input_tokens = np.array([1, 300, 5000])[:, None, None, None]
    output_tokens = np.array([1, 2, 50])[:, None, None]
    chunk, batch = np.array([64, 2048])[:, None], np.array([0.02, 1.0, 2.5, 90.0])
    replica = replace(toy_replica, parallelism=Parallelism(2, 3))
    shape = RequestShape(input_tokens, output_tokens)
    together = steady_state(replica, shape, batch, chunk)
    full = saturating_batch(Schedule(3), shape, chunk)
    grid = (3, 3, 2, 4)
    for index in np.ndindex(grid):
        one = RequestShape(
            int(input_tokens.flat[index[0]]), int(output_tokens.flat[index[1]])
        )
        size = int(chunk.flat[index[2]])
        alone = steady_state(replica, one, float(batch[index[3]]), size)
        for part in PARTS:
            found = np.broadcast_to(getattr(together, part), grid)[index]
            assert found == pytest.approx(getattr(alone, part), rel=1e-12)
        expected = float(saturating_batch(Schedule(3), one, size))
        assert np.broadcast_to(full, grid)[index] == pytest.approx(expected)
