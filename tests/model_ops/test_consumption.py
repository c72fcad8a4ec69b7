"""Power and energy of whole replicas under a load."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.binding import load_steps
from model_ops.consumption import consumption
from model_ops.dtypes import Precision
from model_ops.estimate import Load, LoadMode, estimate
from model_ops.platform.energy import PowerRange
from model_ops.platform.kernels import OpTime
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape, Step
from model_ops.serving.speculative import Speculation
from model_ops.serving.step import Replica, timed_operators
from problems import catalogue

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

SHAPE = RequestShape(64.0, 32.0)
SPLITS = [
    Parallelism(),
    Parallelism(tp=2),
    Parallelism(pp=3),
    Parallelism(tp=2, pp=2),
    Parallelism(tp=2, dp=2),
]
LOADS = [
    Load(SHAPE, LoadMode.STATIC_BATCH, concurrency=5.0),
    Load(SHAPE, LoadMode.CLOSED_LOOP, concurrency=5.0),
    Load(SHAPE, LoadMode.OFFLINE, concurrency=5.0),
    Load(SHAPE, LoadMode.OPEN_LOOP, rate=100.0),
    Load(RequestShape(64.0, 1.0), LoadMode.STATIC_BATCH, concurrency=5.0),
    Load(RequestShape(4096.0, 1.0), LoadMode.CLOSED_LOOP, concurrency=1.0),
]


@pytest.fixture(scope="session")
def npu(toy_npu: Npu) -> Npu:
    return replace(toy_npu, memory_capacity=1e9, tdp=100.0, idle_power=20.0)


@pytest.fixture(scope="session")
def replica(toy_arch: ModelArch, npu: Npu) -> Replica:
    return Replica(toy_arch, Parallelism(), Precision(), Supply.of(npu))


def step_joules(replica: Replica, step: Step) -> float:
    """What one NPU takes for each operator of a step and the gap after it."""
    power = PowerRange.of(replica.supply)
    assert power is not None
    overhead = OpTime(launch=replica.supply.step_overhead)
    runs = ((t.count, t.time) for t in timed_operators(replica, step))
    return sum(n * power.energy(time) for n, time in runs) + power.energy(overhead)


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.text)
@pytest.mark.parametrize("load", LOADS)
def test_between_least_power_and_tdp(
    replica: Replica, split: Parallelism, load: Load
) -> None:
    layout = replace(replica, parallelism=split)
    result = estimate(layout, load)
    used = consumption(layout, load, result)
    assert used is not None
    assert 20 < used.watts_per_npu < 100
    spent = used.watts_per_npu * split.npus
    assert used.joules_per_request * result.rate == pytest.approx(spent)
    per_token = used.joules_per_output_token * result.output_tokens_per_s
    assert per_token == pytest.approx(spent)


@pytest.mark.slow
@hypothesis.settings(derandomize=True, deadline=None)
@hypothesis.given(
    batch=st.integers(1, 5000),
    prompt=st.integers(1, 20_000),
    answer=st.integers(1, 3000),
    split=st.sampled_from(SPLITS),
    mode=st.sampled_from([LoadMode.STATIC_BATCH, LoadMode.CLOSED_LOOP]),
)
def test_any_load_is_between_least_power_and_tdp(
    replica: Replica,
    batch: int,
    prompt: int,
    answer: int,
    split: Parallelism,
    mode: LoadMode,
) -> None:
    layout = replace(replica, parallelism=split)
    shape = RequestShape(float(prompt), float(answer))
    load = Load(shape, mode, concurrency=float(batch))
    used = consumption(layout, load, estimate(layout, load))
    assert used is not None
    assert used.watts_per_npu * (1 + 1e-9) >= 20
    assert used.watts_per_npu <= 100 * (1 + 1e-9)


@pytest.mark.parametrize("split", SPLITS[:2], ids=lambda split: split.text)
def test_a_static_batch_takes_what_its_operators_take(
    replica: Replica, split: Parallelism
) -> None:
    layout, load = replace(replica, parallelism=split), LOADS[0]
    used = consumption(layout, load, estimate(layout, load))
    assert used is not None
    prompts, further = (
        step_joules(layout, step) for step in load_steps(layout, load, 5.0)
    )
    batch = split.npus * (prompts + 31 * further)
    assert used.joules_per_request == pytest.approx(batch / 5)


def test_a_pipeline_takes_what_its_micro_batches_take(replica: Replica) -> None:
    layout, load = replace(replica, parallelism=Parallelism(pp=3)), LOADS[0]
    result = estimate(layout, load)
    used = consumption(layout, load, result)
    assert used is not None
    above_idle = replace(layout.supply.npus[0], idle_power=1e-12)
    micro_batch = replace(layout, supply=Supply.of(above_idle))
    prompts, further = (
        step_joules(micro_batch, step) for step in load_steps(layout, load, 5.0)
    )
    # Three stages idle at 20 W throughout; three micro-batches pass all of them.
    idle = 3 * 20 * 5 / result.rate
    busy = 3 * (prompts + 31 * further) * (100 - 20) / 100
    assert used.joules_per_request == pytest.approx((idle + busy) / 5)


def test_a_steady_state_takes_the_mean_of_its_steps(replica: Replica) -> None:
    # Prompts of one token, ten thousand out: nearly every step only decodes.
    shape = RequestShape(1.0, 10_000.0)
    load = Load(shape, LoadMode.OFFLINE, concurrency=8.0)
    result = estimate(replica, load)
    used = consumption(replica, load, result)
    assert used is not None
    _, further = load_steps(replica, load, result.batch)
    each = step_joules(replica, further) / result.batch
    assert used.joules_per_output_token == pytest.approx(each, rel=1e-3)


def test_an_idle_replica_takes_its_least_power(replica: Replica) -> None:
    load = Load(SHAPE, LoadMode.OPEN_LOOP, rate=0.2)
    result = estimate(replica, load)
    used = consumption(replica, load, result)
    assert used is not None
    assert used.watts_per_npu == pytest.approx(20.0, rel=1e-3)
    assert used.joules_per_request == pytest.approx(20.0 / 0.2, rel=0.05)


def test_a_larger_batch_takes_less_per_token(replica: Replica) -> None:
    loads = [Load(SHAPE, LoadMode.CLOSED_LOOP, concurrency=n) for n in (1.0, 4.0, 16.0)]
    used = [consumption(replica, load, estimate(replica, load)) for load in loads]
    each = [u.joules_per_output_token for u in used if u is not None]
    assert each == sorted(each, reverse=True)
    watts = [u.watts_per_npu for u in used if u is not None]
    assert watts == sorted(watts)
    assert len(each) == len(watts) == 3


def test_a_drafter_takes_energy_too(replica: Replica, toy_arch: ModelArch) -> None:
    drafter = replace(toy_arch, name="small")
    # What is never accepted only costs.
    guessing = replace(replica, speculation=Speculation(3, 1e-9, drafter))
    alone, with_drafter = (
        consumption(each, LOADS[0], estimate(each, LOADS[0]))
        for each in (replica, guessing)
    )
    assert alone is not None
    assert with_drafter is not None
    assert with_drafter.joules_per_request > 2 * alone.joules_per_request
    assert 20 < with_drafter.watts_per_npu < 100


@pytest.mark.parametrize("mode", [LoadMode.STATIC_BATCH, LoadMode.CLOSED_LOOP])
def test_arrays_equal_scalars(replica: Replica, npu: Npu, mode: LoadMode) -> None:
    users = np.array([1.0, 7.0, 300.0])
    pp = np.array([[1], [2], [3]])
    many = replace(replica, parallelism=Parallelism(pp=pp))
    load = Load(SHAPE, mode, concurrency=users)
    used = consumption(many, load, estimate(many, load))
    assert used is not None
    assert np.shape(used.watts_per_npu) == (3, 3)
    for row, stages in enumerate((1, 2, 3)):
        for column, concurrency in enumerate(users):
            one = replace(replica, parallelism=Parallelism(pp=stages))
            single = Load(SHAPE, mode, concurrency=float(concurrency))
            alone = consumption(one, single, estimate(one, single))
            assert alone is not None
            for name in ("watts_per_npu", "joules_per_request"):
                expected = pytest.approx(getattr(alone, name), rel=1e-6)
                assert getattr(used, name)[row, column] == expected


def test_no_energy_without_a_tdp(replica: Replica, toy_npu: Npu) -> None:
    unknown = replace(replica, supply=Supply.of(replace(toy_npu, tdp=None)))
    assert consumption(unknown, LOADS[0], estimate(unknown, LOADS[0])) is None


ALONE = Load(RequestShape(500.0, 500.0), LoadMode.CLOSED_LOOP, concurrency=1.0)
PROMPTS = Load(RequestShape(8000.0, 1.0), LoadMode.STATIC_BATCH, concurrency=32.0)


@pytest.mark.parametrize(
    ("npu", "load", "low", "high"),
    [
        # ML.ENERGY v3.0: 300 W at batch 1, a quarter more or less.
        ("h100-sxm", ALONE, 225, 375),
        # Splitwise, POLCA: prompts are near the TDP of 700 W.
        ("h100-sxm", PROMPTS, 595, 700),
        # arXiv:2605.11999: decoding takes 137 to 300 W of 700 W.
        ("h200-sxm", ALONE, 137, 300),
    ],
)
def test_published_power(npu: str, load: Load, low: float, high: float) -> None:
    arch = catalogue.load_model("llama-3.1-8b")
    supply = Supply.of(catalogue.load_npu(npu))
    replica = Replica(arch, Parallelism(), arch.precision, supply)
    used = consumption(replica, load, estimate(replica, load))
    assert used is not None
    assert low < used.watts_per_npu < high
