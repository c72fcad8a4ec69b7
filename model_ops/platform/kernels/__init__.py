"""How long kernels take: one file per form, and which family has which."""

from collections.abc import Mapping

from model_ops.opcost import KernelFamily
from model_ops.platform.kernels.attention import (
    DecodeKernel,
    LatentDecodeKernel,
    PrefillKernel,
)
from model_ops.platform.kernels.base import (
    IDEAL_KERNEL,
    Kernel,
    KernelEfficiency,
    OpTime,
    Work,
    stacked,
)
from model_ops.platform.kernels.gemm import GemmKernel
from model_ops.platform.kernels.scan import ScanKernel

FORMS: Mapping[KernelFamily, type[Kernel]] = {
    **dict.fromkeys(KernelFamily, KernelEfficiency),
    KernelFamily.GEMM: GemmKernel,
    KernelFamily.MOE: GemmKernel,
    KernelFamily.ATTENTION_PREFILL: PrefillKernel,
    KernelFamily.ATTENTION_DECODE: DecodeKernel,
    KernelFamily.MLA_PREFILL: PrefillKernel,
    KernelFamily.MLA_DECODE: LatentDecodeKernel,
    KernelFamily.SCAN: ScanKernel,
    KernelFamily.SCAN_DECODE: ScanKernel,
}
"""The form whose parameters the catalogue holds for a family of kernels."""

__all__ = [
    "FORMS",
    "IDEAL_KERNEL",
    "DecodeKernel",
    "GemmKernel",
    "Kernel",
    "KernelEfficiency",
    "LatentDecodeKernel",
    "OpTime",
    "PrefillKernel",
    "ScanKernel",
    "Work",
    "stacked",
]
