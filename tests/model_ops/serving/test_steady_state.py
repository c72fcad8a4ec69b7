from dataclasses import replace
from math import ceil, inf

import numpy as np
import pytest

from model_ops.dtypes import Dtype
from model_ops.platform.fabric import Fabric
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Step, decode, prefill
from model_ops.serving.steady_state import (
    RequestShape,
    decode_step,
    mixed_step,
    pipeline_slots,
    sequences_per_step,
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
    assert shape.decode_steps == 20
    assert shape.mean_context == 100 + 21 / 2
    assert RequestShape(100, 1).decode_steps == 0


@pytest.mark.parametrize(
    ("pp", "batch", "slots"), [(1, 64, 1), (4, 64, 4), (4, 3, 3), (4, 0.5, 1)]
)
def test_a_pipeline_has_no_more_micro_batches_than_sequences(
    pp: int, batch: float, slots: float
) -> None:
    assert pipeline_slots(pp, batch) == slots
    assert sequences_per_step(batch, slots) == max(batch / slots, 1)


@pytest.mark.parametrize(
    ("batch", "slots", "chunk", "prompts", "of_each", "context"),
    [
        (4, 1, 2048, 1, 100, 0),  # 4 prompts in 10 steps: one at a time
        (30, 1, 2048, 3, 100, 0),  # 30 prompts in 10 steps: three in each
        (4, 1, 44, 1, 40, 30),  # 40 of the chunk are left for prompts
        (40, 4, 60, 1, 50, 25),  # ten decode in each of four micro-batches
        (100, 1, 60, 1, 1, 49.5),  # the decodes take it all; prompts still crawl
    ],
)
def test_mixed_step_by_hand(
    batch: int, slots: int, chunk: int, prompts: float, of_each: float, context: float
) -> None:
    shape = RequestShape(100, 11)
    step, carried, each = mixed_step(shape, batch, slots, chunk)
    assert carried == prompts * of_each
    assert each == of_each
    expected = (
        prefill(prompts, of_each, context),
        decode(batch / slots, shape.mean_context),
    )
    assert step == Step(expected)
    assert decode_step(shape, batch, slots) == Step(expected[1:])


def test_cycle_of_whole_prompts_by_hand(clockwork: Replica) -> None:
    batch, prompt, answer = 4, 100, 11
    state = steady_state(clockwork, RequestShape(prompt, answer), batch)
    # Ten steps a cycle; each of the four newcomers' prompts rides in one.
    steps, mixed = answer - 1, 4
    share = mixed / steps
    assert state.prefill_share == share
    assert state.rate == pytest.approx(batch / (steps * SECOND))
    assert state.tpot == pytest.approx(SECOND)
    residual, service = SECOND / 2, SECOND
    queue = share * service / (2 * (1 - share))  # M/D/1
    assert state.ttft == pytest.approx(residual + queue + SECOND)


def test_cycle_of_chunked_prompts_by_hand(clockwork: Replica) -> None:
    batch, prompt, answer, chunk = 4, 100, 101, 20
    room = chunk - batch
    state = steady_state(clockwork, RequestShape(prompt, answer), batch, chunk)
    steps, mixed = answer - 1, batch * prompt / room
    share = mixed / steps
    assert state.prefill_share == pytest.approx(share)
    assert state.rate == pytest.approx(batch / (steps * SECOND))
    service = prompt / room * SECOND
    queue = share * service / (2 * (1 - share))
    own = ceil(prompt / room) * SECOND
    assert state.ttft == pytest.approx(SECOND / 2 + queue + own)


def test_cycle_of_a_pipeline_by_hand(clockwork: Replica) -> None:
    pp, batch, prompt, answer = 2, 8, 100, 11
    replica = replace(clockwork, parallelism=Parallelism(1, pp))
    state = steady_state(replica, RequestShape(prompt, answer), batch)
    # Two micro-batches share the stages, so each steps every other second; a
    # micro-batch of four takes up four prompts in its ten steps.
    period, share = 2 * SECOND, 4 / 10
    assert state.tpot == pytest.approx(period)
    assert state.rate == pytest.approx(batch / (10 * period))
    assert state.prefill_share == pytest.approx(share)
    residual, service = SECOND / 2, SECOND  # a step starts every second
    queue = share * service / (2 * (1 - share))
    assert state.ttft == pytest.approx(residual + queue + SECOND)


def test_unequal_steps_by_hand(toy_replica: Replica) -> None:
    batch, prompt, answer = 4, 100, 11
    shape = RequestShape(prompt, answer)
    context = prompt + answer / 2
    with_prompt = Step((prefill(1, prompt), decode(batch, context)))
    mixed = step_time(toy_replica, with_prompt).latency
    plain = step_time(toy_replica, Step((decode(batch, context),))).latency
    assert mixed > 1.2 * plain
    cycle = 4 * mixed + 6 * plain
    state = steady_state(toy_replica, shape, batch)
    assert state.rate == pytest.approx(batch / cycle)
    assert state.tpot == pytest.approx(cycle / 10)
    # An arrival falls into a step in proportion to its length, and waits half.
    residual = (4 * mixed * mixed / 2 + 6 * plain * plain / 2) / cycle
    queue = 0.4 * mixed / (2 * 0.6)
    assert state.ttft == pytest.approx(residual + queue + mixed)


def test_prompts_that_take_every_step_queue_for_ever(clockwork: Replica) -> None:
    state = steady_state(clockwork, RequestShape(1000, 11), 4, chunk_tokens=104)
    assert state.prefill_share == 1
    assert state.ttft == inf
    # Forty steps for the prompts of four requests: those pace, not the decodes.
    assert state.rate == pytest.approx(4 / (40 * SECOND))


def test_an_answer_of_one_token_has_no_tpot(clockwork: Replica) -> None:
    assert steady_state(clockwork, RequestShape(100, 1), 4).tpot == 0


# ---- properties ----

prompts = st.integers(1, 3000)
answers = st.integers(2, 500)
chunks = st.sampled_from([64, 256, 2048])
layouts = st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 6))


@settings
@hypothesis.given(prompts, answers, chunks, layouts)
def test_until_prompts_saturate_more_batch_raises_rate_ttft_and_tpot(
    toy_replica: Replica, prompt: int, answer: int, chunk: int, split: tuple[int, int]
) -> None:
    replica = replace(toy_replica, parallelism=Parallelism(*split))
    batch = split[1] * np.linspace(1, 40, 157)  # every micro-batch has a sequence
    state = steady_state(replica, RequestShape(prompt, answer), batch, chunk)
    free = state.prefill_share < 1 - 1e-6
    assert np.all(np.diff(free.astype(int)) <= 0)  # once saturated, always
    for values in (state.rate[free], state.ttft[free], state.tpot[free]):
        assert np.all(np.diff(values) >= -1e-9 * values[:-1])


@settings
@hypothesis.given(prompts, answers, chunks, layouts, st.integers(1, 64))
def test_batch_is_rate_times_the_seconds_of_decoding(
    toy_replica: Replica,
    prompt: int,
    answer: int,
    chunk: int,
    split: tuple[int, int],
    batch: int,
) -> None:
    replica = replace(toy_replica, parallelism=Parallelism(*split))
    state = steady_state(replica, RequestShape(prompt, answer), batch, chunk)
    hypothesis.assume(state.prefill_share < 1)
    held = state.rate * (answer - 1) * state.tpot
    assert held == pytest.approx(batch)  # Little's law


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
    split: tuple[int, int],
    batch: int,
    factor: float,
) -> None:
    def state(**rates: object) -> object:
        replica = replace(
            toy_replica,
            parallelism=Parallelism(*split),
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
        for part in ("ttft", "tpot", "rate", "prefill_share"):
            found = np.broadcast_to(getattr(together, part), grid)[index]
            assert found == pytest.approx(getattr(alone, part), rel=1e-12)
