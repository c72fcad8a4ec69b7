"""A kernel is found again from rows that it made."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import KernelKey
from model_ops.platform.kernels import GemmKernel
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from problems import catalogue
from problems.measured.operators import GEMM, OperatorRows, WeightCache, operator_rows
from sizing.calibration import fit as fitting

pytest.importorskip("scipy")

KEY = KernelKey(KernelFamily.GEMM, Dtype.BF16, Dtype.BF16)
TRUE = GemmKernel(
    compute=0.7,
    memory=0.8,
    launch=4e-6,
    exposed=0.2,
    idle=0.3,
    padding=16.0,
    prologue=64.0,
    slowdown=0.1,
    depth_latency=2e-6,
    row_latency=2e-6,
    staging=2.0,
)


class OnlyGemm:
    """An efficiency of one kernel."""

    def kernel(self, key: KernelKey) -> GemmKernel:
        return TRUE


@pytest.fixture(scope="module")
def npu() -> Npu:
    return replace(catalogue.load_npu("h100-sxm").ideal(), efficiency=OnlyGemm())


def table(seconds: np.ndarray | None = None) -> OperatorRows:
    """Layers of 5 widths and 4 depths, 1 to 8192 rows of each."""
    cells = [
        {"m": m, "n": n, "k": k}
        for n in (1024, 2048, 4096, 8192, 16384)
        for k in (512, 2048, 4096, 16384)
        for m in (1, 16, 128, 512, 2048, 8192)
    ]
    times = np.ones(len(cells)) if seconds is None else seconds * 1e3
    rows = [
        {
            **{name: str(value) for name, value in cell.items()},
            "system": "h100_sxm",
            "framework": "vllm",
            "version": "1",
            "gemm_dtype": "bfloat16",
            "latency_ms": repr(float(time)),
        }
        for cell, time in zip(cells, times, strict=True)
    ]
    (found,) = operator_rows(GEMM, rows)
    return found


def test_a_fit_finds_the_kernel_that_made_the_rows(
    npu: Npu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "STARTS", 2)
    cache = WeightCache(capacity=2e7, speedup=2.5)
    made = table(table().predicted(Supply.of(npu), cache))
    fitted = fitting.fit(KEY, [made], npu)
    assert fitted.rows == 120
    assert fitted.error < 0.005
    assert fitted.left_out < 0.02
    assert fitted.cache is not None
    assert fitted.cache.speedup == pytest.approx(2.5, rel=0.1)
    assert fitted.cache.capacity == pytest.approx(2e7, rel=0.1)
    assert isinstance(fitted.kernel, GemmKernel)
    assert fitted.kernel.memory == pytest.approx(TRUE.memory, rel=0.05)
    assert fitted.kernel.launch == pytest.approx(TRUE.launch, rel=0.2)


def test_half_the_weights_are_found_in_a_cache_of_their_size() -> None:
    cache = WeightCache(capacity=1e6, speedup=2.0)
    assert cache.share(1e6) == pytest.approx(1 / 2)
    assert cache.share(2e6) == pytest.approx(1 / (1 + 2**4))
    assert cache.share(1.0) == pytest.approx(1.0)


def test_cached_weights_are_read_at_the_caches_bandwidth(npu: Npu) -> None:
    plain = replace(npu, efficiency=_Ideal())
    supply = Supply.of(plain)
    rows = table()
    gemm = rows.operators[0].cost()
    cache = WeightCache(capacity=1e15, speedup=2.0)  # holds everything
    bandwidth = plain.memory_bandwidth
    compute = gemm.total_flop / plain.flop_per_s[Dtype.BF16]
    memory = (gemm.bytes - gemm.weights / 2) / bandwidth
    expected = np.maximum(compute, memory)
    assert rows.predicted(supply, cache) == pytest.approx(expected)


class _Ideal:
    def kernel(self, key: KernelKey) -> GemmKernel:
        return GemmKernel(compute=1.0, memory=1.0, launch=0.0)
