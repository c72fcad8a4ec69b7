"""Kernels that an NPU takes from another: within its power, and of all heads."""

import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import KernelKey, MeasuredEfficiency
from model_ops.platform.kernels.gemm import GemmKernel
from problems import catalogue
from problems.catalogue.measured_kernels import kernels_file

BF16 = KernelKey(KernelFamily.GEMM, Dtype.BF16, Dtype.BF16)


def gemm(npu: str) -> GemmKernel:
    efficiency = catalogue.load_npu(npu).efficiency
    assert isinstance(efficiency, MeasuredEfficiency)
    kernel = efficiency.kernel(BF16)
    assert isinstance(kernel, GemmKernel)
    return kernel


@pytest.mark.parametrize(
    ("npu", "measured", "share"),
    [
        # 350 W for 756 TFLOP/s, and 700 W for 989: 0.463 over 0.708 W per TFLOP/s.
        ("h100-pcie", "h100-sxm", 350 / 756 / (700 / 989)),
        # More power for the same rates buys nothing.
        ("gh200-96gb", "h100-sxm", 1.0),
    ],
)
def test_a_card_sustains_what_its_power_lets_it(
    npu: str, measured: str, share: float
) -> None:
    own, theirs = gemm(npu), gemm(measured)
    assert own.compute == pytest.approx(share * theirs.compute)
    assert own.memory == theirs.memory


def test_no_kernel_of_latent_attention_runs_128_heads_one_by_one() -> None:
    decoding = [
        fit.parameters["alone_above"]
        for npu in catalogue.names("kernels")
        for fit in kernels_file(npu).fits
        if fit.family is KernelFamily.MLA_DECODE
    ]
    assert decoding
    assert min(float(heads) for heads in decoding) >= 128
