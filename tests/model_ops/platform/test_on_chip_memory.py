"""What on-chip memory makes operators move: by hand, and beside schedules that run."""

from dataclasses import replace
from math import ceil, inf, sqrt

import numpy as np
import pytest

from model_ops.binding import bounds
from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily
from model_ops.platform.kernels import GemmKernel, KernelEfficiency, OpTime, Work
from model_ops.platform.npu import Npu
from model_ops.platform.roofline import ideal_work, op_time
from model_ops.platform.supply import Supply
from model_ops.profiler.ops import SUM_BYTES, AttentionCore, Elementwise, Gemm
from model_ops.serving.step import TimedOperator

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None)

BANDWIDTH = 1e11  # of the toy NPU
SIDE = 4096


def gemm(m: int, k: int, n: int, **formats: Dtype) -> Gemm:
    usual = dict.fromkeys(("weights", "inputs", "outputs", "engine"), Dtype.BF16)
    return Gemm(name="g", m=m, k=k, n=n, **(usual | formats))


def attention(queries: int) -> AttentionCore:
    return AttentionCore(
        name="a",
        family=KernelFamily.ATTENTION_PREFILL,
        sequences=3,
        queries=queries,
        context=0,
        heads=8,
        qk_dim=64,
        v_dim=64,
        key_elements=2 * 2 * 64,
        cache_bytes=2,
        outputs=Dtype.BF16,
        engine=Dtype.BF16,
        kv_heads=2,
    )


def with_memory(npu: Npu, on_chip: float | None) -> Supply:
    return Supply.of(replace(npu, on_chip_memory=on_chip))


def moved(operator: Gemm | AttentionCore, on_chip: float) -> float:
    """Bytes that an operator moves at least."""
    flop = float(operator.cost().total_flop)
    return flop * float(operator.shape().reload(on_chip))


def test_a_product_moves_its_tiles_as_often_as_on_chip_memory_makes_it(
    toy_npu: Npu,
) -> None:
    on_chip = 1024.0
    time = op_time(gemm(SIDE, SIDE, SIDE), with_memory(toy_npu, on_chip))
    expected = 2 * SIDE**3 * sqrt(2 * 2 * SUM_BYTES / on_chip) / BANDWIDTH
    assert time.tiles == pytest.approx(expected)
    assert time.total == time.tiles > max(time.compute, time.memory)


@pytest.mark.parametrize("on_chip", [None, inf, 1e9])
def test_enough_on_chip_memory_changes_nothing(
    toy_npu: Npu, on_chip: float | None
) -> None:
    problem = gemm(SIDE, SIDE, SIDE)
    time = op_time(problem, with_memory(toy_npu, on_chip))
    assert time == op_time(problem, Supply.of(toy_npu))
    assert time.tiles == 0


def _loads(m: int, k: int, n: int, rows: int, columns: int) -> float:
    """Bytes of inputs and weights where tiles of sums stay on the chip."""
    across, down = ceil(n / columns), ceil(m / rows)
    return k * (across * m * Dtype.BF16.bytes + down * n * Dtype.FP8.bytes)


@pytest.mark.parametrize(("m", "k", "n"), [(512, 300, 768), (1536, 64, 384)])
def test_no_tiling_of_a_product_moves_less_and_the_best_hardly_more(
    m: int, k: int, n: int
) -> None:
    on_chip = 64 * 128 * SUM_BYTES
    least = moved(gemm(m, k, n, weights=Dtype.FP8), on_chip)
    tiles = [
        (rows, columns)
        for rows in range(1, m + 1)
        if (columns := int(on_chip / SUM_BYTES / rows)) <= n
    ]
    best = min(_loads(m, k, n, *tile) for tile in tiles if tile[1] > 0)
    assert least <= best <= 1.05 * least


def test_attention_passes_over_its_keys_once_per_on_chip_memory_of_rows() -> None:
    queries, heads, kv_heads, size = 4096, 8, 2, 64
    core = attention(queries)
    row, key = size * (2 + SUM_BYTES), 2 * size * 2
    rows = queries * heads / kv_heads
    on_chip = rows / 16 * row  # the rows of a key head in 16 passes
    seen = (queries + 1) / 2  # of each row, in the mean
    expected = 3 * kv_heads * 16 * seen * key
    assert moved(core, on_chip) == pytest.approx(expected)


def test_kernels_that_were_measured_move_no_less(toy_npu: Npu) -> None:
    supply = with_memory(toy_npu, 4096.0)
    problem = gemm(SIDE, SIDE, SIDE)
    work = ideal_work(problem.cost(), problem.shape(), supply)
    kernel = GemmKernel(compute=0.9, memory=0.5, launch=1e-6, exposed=0.3)
    time = kernel.time(work)
    assert time.busy == time.tiles == pytest.approx(work.flop * work.reload / 0.5)


def test_what_waits_for_its_tiles_is_bound_by_memory(toy_npu: Npu) -> None:
    problem = gemm(SIDE, SIDE, SIDE)
    for on_chip, bound in ((1024.0, "memory bandwidth"), (None, "compute")):
        time = op_time(problem, with_memory(toy_npu, on_chip))
        seconds = bounds([TimedOperator("g", problem, 3, time)], 0.0)
        assert seconds[bound] == 3 * time.busy
        assert sum(seconds.values()) == 3 * time.busy


def test_passes_over_elements_have_no_tiles(toy_npu: Npu) -> None:
    passes = Elementwise(name="e", elements=1e6, read=2.0, written=2.0)
    assert op_time(passes, with_memory(toy_npu, 1.0)).tiles == 0


def test_the_longest_of_three_counts() -> None:
    assert OpTime(compute=5.0, memory=3.0, tiles=4.0).busy == 5
    assert OpTime(compute=5.0, memory=3.0, tiles=6.0).busy == 6
    assert OpTime(compute=5.0, memory=3.0, exposed=0.5, tiles=6.0).busy == 6.5
    assert OpTime(tiles=6.0).times(2.0).busy == 12


def test_tiles_are_left_out_where_peak_arithmetic_takes_longer() -> None:
    work = Work(
        compute=1.0,
        memory=0.1,
        launches=1.0,
        shape=gemm(1, 1, 1).shape(),
        processors=1,
        flop_per_s=1e12,
        flop=1e12,
        reload=0.4e-12,
    )
    assert KernelEfficiency(1.0, 0.5, 0.0).time(work).tiles == 0
    assert KernelEfficiency(1.0, 0.2, 0.0).time(work).tiles == pytest.approx(2.0)


def test_npus_side_by_side_are_as_each_alone(toy_npu: Npu) -> None:
    npus = [replace(toy_npu, on_chip_memory=size) for size in (None, 1e3, 1e6)]
    sides = np.array([64, 1024, 8192])
    together = op_time(gemm(sides, 512, 512), Supply.stack(npus, 1)).total
    alone = [op_time(gemm(sides, 512, 512), Supply.of(npu)).total for npu in npus]
    assert np.array_equal(together, alone)


@settings
@hypothesis.given(
    st.integers(1, 3000), st.integers(1, 3000), st.floats(10.0, 1e7), st.floats(1, 50)
)
def test_more_on_chip_memory_is_never_slower(
    toy_npu: Npu, m: int, n: int, on_chip: float, more: float
) -> None:
    few, many = (with_memory(toy_npu, size) for size in (on_chip, on_chip * more))
    for operator in (gemm(m, 256, n), attention(m)):
        assert op_time(operator, many).total <= op_time(operator, few).total
