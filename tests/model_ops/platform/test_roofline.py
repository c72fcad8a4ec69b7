from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, CollectiveKind, KernelFamily
from model_ops.platform.collectives import collective_seconds
from model_ops.platform.efficiency import ConstantEfficiency
from model_ops.platform.kernels import KernelEfficiency, OpTime
from model_ops.platform.npu import Npu
from model_ops.platform.roofline import op_time
from model_ops.platform.supply import Supply
from model_ops.profiler.ops import Elementwise, Gemm

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None)

RATE, BANDWIDTH = 1e12, 1e11  # of the toy NPU, in 16 bits


def gemm(m: float, k: float, n: float, dtype: Dtype = Dtype.BF16) -> Gemm:
    formats = dict.fromkeys(("weights", "inputs", "outputs", "engine"), dtype)
    return Gemm(name="g", m=m, k=k, n=n, **formats)


def test_total_overlaps_compute_and_memory_alone() -> None:
    assert OpTime(compute=5.0, memory=3.0, network=2.0, launch=1.0).total == 5 + 2 + 1
    assert OpTime(compute=3.0, memory=5.0).total == 5


def test_roofline_of_a_toy_gemm(toy_npu: Npu) -> None:
    supply = Supply.of(toy_npu)
    m, k, n, size = 4, 2, 8, 2
    time = op_time(gemm(m, k, n), supply)
    assert time.compute == pytest.approx(2 * m * k * n / RATE)
    assert time.memory == pytest.approx(size * (m * k + k * n + m * n) / BANDWIDTH)
    assert time.network == time.launch == 0
    assert time.total == time.memory  # 1.1 FLOP per byte, of the NPU's ten


def test_the_ridge_is_where_intensity_meets_the_npus_balance(toy_npu: Npu) -> None:
    supply = Supply.of(toy_npu)
    # A square GEMM of side s in 16 bits has s / 3 FLOP per byte.
    balance = RATE / BANDWIDTH
    for side, bound in ((3 * balance / 2, "memory"), (3 * balance * 2, "compute")):
        time = op_time(gemm(side, side, side), supply)
        assert time.total == getattr(time, bound)
        assert (time.compute > time.memory) == (bound == "compute")


def test_formats_use_their_own_rate(toy_npu: Npu) -> None:
    supply = Supply.of(toy_npu)
    wide, narrow = gemm(9, 9, 9), gemm(9, 9, 9, Dtype.FP8)
    assert op_time(wide, supply).compute == 2 * op_time(narrow, supply).compute
    assert op_time(wide, supply).memory == 2 * op_time(narrow, supply).memory


def test_efficiencies_and_launch(toy_npu: Npu) -> None:
    family = KernelEfficiency(compute=0.5, memory=0.25, launch=3e-6)
    npu = replace(
        toy_npu, efficiency=ConstantEfficiency({KernelFamily.GEMM: family}, {})
    )
    ideal = op_time(gemm(4, 2, 8), Supply.of(toy_npu))
    real = op_time(gemm(4, 2, 8), Supply.of(npu))
    assert real.compute == pytest.approx(ideal.compute / 0.5)
    assert real.memory == pytest.approx(ideal.memory / 0.25)
    assert real.launch == 3e-6
    assert real.total == pytest.approx(ideal.memory / 0.25 + 3e-6)


def test_elementwise_moves_bytes_only(toy_npu: Npu) -> None:
    operator = Elementwise(name="e", elements=1000, read=4.0, written=2.0)
    time = op_time(operator, Supply.of(toy_npu))
    assert time == OpTime(memory=pytest.approx(1000 * (4 + 2) / BANDWIDTH))


def test_collectives_take_network_time_at_the_link_efficiency(toy_npu: Npu) -> None:
    npu = replace(toy_npu, link_efficiency=0.5)
    collective = Collective("c", CollectiveKind.ALL_GATHER, 1e6, 8)
    time = op_time(collective, Supply.of(npu))
    assert time.total == time.network
    assert time.network == collective_seconds(collective, toy_npu.fabric, 0.5)


sizes = st.integers(1, 10**5)
factors = st.floats(1, 1000)


@settings
@hypothesis.given(sizes, sizes, sizes, factors, factors)
def test_more_of_either_rate_is_never_slower(
    toy_npu: Npu, m: int, k: int, n: int, compute: float, memory: float
) -> None:
    faster = replace(
        toy_npu,
        flop_per_s={d: rate * compute for d, rate in toy_npu.flop_per_s.items()},
        memory_bandwidth=toy_npu.memory_bandwidth * memory,
    )
    slow = op_time(gemm(m, k, n), Supply.of(toy_npu)).total
    fast = op_time(gemm(m, k, n), Supply.of(faster)).total
    assert fast <= slow * (1 + 1e-12)
    assert fast * max(compute, memory) >= slow * (1 - 1e-12)


@settings
@hypothesis.given(sizes, sizes, sizes)
def test_twice_the_bytes_over_twice_the_bandwidth_take_as_long(
    toy_npu: Npu, m: int, k: int, n: int
) -> None:
    # FP32 has twice the bytes of BF16, and on the toy NPU the same rate.
    wide = replace(toy_npu, memory_bandwidth=2 * toy_npu.memory_bandwidth)
    before = op_time(gemm(m, k, n), Supply.of(toy_npu))
    after = op_time(gemm(m, k, n, Dtype.FP32), Supply.of(wide))
    assert after.total == pytest.approx(before.total, rel=1e-12)
    assert after.memory == pytest.approx(before.memory, rel=1e-12)


def test_arrays_equal_scalars(toy_npu: Npu) -> None:
    supply, ms = Supply.of(toy_npu), np.array([1, 10, 1000])
    together = op_time(gemm(ms, 64, 64), supply).total
    assert together.tolist() == [
        op_time(gemm(int(m), 64, 64), supply).total for m in ms
    ]


def test_pace_stretches_every_part_of_an_operator(toy_npu: Npu) -> None:
    kernel = KernelEfficiency(compute=0.5, memory=0.25, launch=3e-6)
    npu = replace(
        toy_npu, efficiency=ConstantEfficiency({KernelFamily.GEMM: kernel}, {})
    )
    slow = npu.slower(1.5)
    assert slow.step_overhead == 1.5 * npu.step_overhead
    usual, late = (op_time(gemm(4, 2, 8), Supply.of(n)) for n in (npu, slow))
    for part in ("compute", "memory", "launch", "total"):
        assert getattr(late, part) == pytest.approx(1.5 * getattr(usual, part))
    reduced = Collective("sum", CollectiveKind.ALL_REDUCE, 1e6, 4)
    usual, late = (op_time(reduced, Supply.of(n)) for n in (npu, slow))
    assert late.total == pytest.approx(1.5 * usual.total)
    assert npu.ideal().pace == 1.0


@pytest.mark.parametrize(("exposed", "busy"), [(0.0, 4.0), (0.5, 5.5), (1.0, 7.0)])
def test_what_the_longer_part_does_not_hide_is_added(
    exposed: float, busy: float
) -> None:
    time = OpTime(compute=3.0, memory=4.0, launch=1.0, exposed=exposed)
    assert time.busy == busy
    assert time.total == busy + 1.0
