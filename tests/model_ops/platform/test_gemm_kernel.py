from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelShape
from model_ops.platform.kernels import GemmKernel, KernelEfficiency, Work, stacked
from model_ops.platform.kernels.gemm import DEPTH, ROWS, SUSTAINED, TILE

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None)

RATE, BANDWIDTH, PROCESSORS = 1e12, 1e11, 10
PLAIN = GemmKernel(compute=0.5, memory=0.25, launch=3e-6)


def work(
    m: float, n: float, k: float, *, matrices: float = 1, rate: float = RATE
) -> Work:
    """A multiplication of m rows by all matrices together, in 16 bits."""
    moved = 2 * (m * k + matrices * n * k + m * n)
    return Work(
        compute=2 * m * n * k / rate,
        memory=moved / BANDWIDTH,
        launches=1.0,
        shape=KernelShape(
            format=Dtype.BF16, rows=m / matrices, columns=n, depth=k, groups=matrices
        ),
        processors=PROCESSORS,
        flop_per_s=rate,
        bandwidth=BANDWIDTH,
    )


def test_constant_shares_alone_are_the_roofline() -> None:
    problem = work(64, 512, 1024)
    roofline = KernelEfficiency(0.5, 0.25, 3e-6)
    assert GemmKernel.plain(roofline) == PLAIN
    assert PLAIN.time(problem).total == pytest.approx(roofline.time(problem).total)


def test_padded_rows_are_multiplied_for_every_matrix() -> None:
    m, n, k, matrices = 64, 512, 1024, 8
    kernel = replace(PLAIN, padding=24.0)
    rows = m + 24 * matrices
    expected = 2 * rows * n * k / (RATE * 0.5)
    compute = kernel.time(work(m, n, k, matrices=matrices)).compute
    assert compute == pytest.approx(expected)


def test_idle_processors_stand_for_tiles() -> None:
    m, n, k = 64, 512, 1024
    kernel = replace(PLAIN, idle=0.5)
    area = m * n + 0.5 * PROCESSORS * TILE
    expected = 2 * area * k / (RATE * 0.5)
    assert kernel.time(work(m, n, k)).compute == pytest.approx(expected)


def test_a_prologue_is_as_much_more_depth() -> None:
    m, n, k = 64, 512, 1024
    kernel = replace(PLAIN, prologue=256.0, idle=0.5)
    deeper = replace(PLAIN, idle=0.5).time(work(m, n, k + 256))
    assert kernel.time(work(m, n, k)).compute == pytest.approx(deeper.compute)


def test_long_kernels_slow_down_and_short_ones_do_not() -> None:
    kernel = replace(PLAIN, slowdown=0.2)

    def share(seconds: float) -> float:
        # Of half the peak rate.
        problem = replace(work(1, 1, 1), compute=seconds / 2)
        return float(kernel.time(problem).compute / seconds)

    assert share(SUSTAINED) == pytest.approx(1.1)  # half of it
    assert share(1e-9) == pytest.approx(1.0, abs=1e-5)
    assert share(1e3) == pytest.approx(1.2, abs=1e-5)


def test_what_is_exposed_is_added() -> None:
    problem = work(64, 512, 1024)
    time = replace(PLAIN, exposed=0.3).time(problem)
    compute = 2 * 64 * 512 * 1024 / (RATE * 0.5)
    memory = 2 * (64 * 1024 + 512 * 1024 + 64 * 512) / (BANDWIDTH * 0.25)
    assert memory < compute
    assert time.busy == pytest.approx(compute + 0.3 * memory)
    assert time.total == pytest.approx(compute + 0.3 * memory + 3e-6)


def test_latencies_saturate_with_depth_and_with_rows() -> None:
    kernel = replace(PLAIN, depth_latency=4e-6, row_latency=8e-6)
    half = kernel.time(work(ROWS, 512, DEPTH))
    assert half.launch == pytest.approx(3e-6 + 2e-6 + 4e-6)
    all_of_both = kernel.time(work(1e9, 512, 1e9))
    assert all_of_both.launch == pytest.approx(3e-6 + 4e-6 + 8e-6, rel=1e-4)


def test_inputs_are_staged_through_the_memory() -> None:
    kernel = replace(PLAIN, staging=3.0)
    launch = kernel.time(work(64, 512, 1024)).launch
    assert launch == pytest.approx(3e-6 + 3 * 64 * 1024 / BANDWIDTH)


def test_constant_shares_join_a_richer_form_in_a_stack() -> None:
    rich = replace(PLAIN, padding=24.0, exposed=0.3)
    both = stacked([rich, KernelEfficiency(0.5, 0.25, 3e-6)], axes=1)
    assert isinstance(both, GemmKernel)
    problem = work(64, 512, 1024)
    times = both.time(problem).total
    assert times.shape == (2, 1)
    assert times[0, 0] == pytest.approx(rich.time(problem).total)
    assert times[1, 0] == pytest.approx(PLAIN.time(problem).total)


def parameters() -> "st.SearchStrategy[GemmKernel]":
    bounds = GemmKernel.BOUNDS.items()
    return st.builds(
        GemmKernel, **{name: st.floats(low, high) for name, (low, high) in bounds}
    )


sizes = st.integers(1, 20_000)


@settings
@hypothesis.given(parameters(), sizes, sizes, sizes, st.floats(1, 4))
def test_more_work_and_slower_rates_never_take_less_time(
    kernel: GemmKernel, m: int, n: int, k: int, times: float
) -> None:
    least = kernel.time(work(m, n, k)).total * (1 - 1e-12)
    assert kernel.time(work(m * times, n, k)).total >= least
    assert kernel.time(work(m, n * times, k)).total >= least
    assert kernel.time(work(m, n, k * times)).total >= least
    assert kernel.time(work(m, n, k, rate=RATE / times)).total >= least


@settings
@hypothesis.given(parameters(), sizes, sizes)
def test_arrays_give_what_numbers_give(kernel: GemmKernel, n: int, k: int) -> None:
    rows = np.array([1.0, 7.0, 300.0, 20_000.0])
    together = kernel.time(work(rows, n, k)).total
    each = [kernel.time(work(m, n, k)).total for m in rows]
    assert together == pytest.approx(each)
