"""How long kernels take: one file per form, and which family has which."""

from collections.abc import Mapping

from model_ops.opcost import KernelFamily
from model_ops.platform.kernels.base import (
    IDEAL_KERNEL,
    Kernel,
    KernelEfficiency,
    OpTime,
    Work,
    stacked,
)
from model_ops.platform.kernels.gemm import GemmKernel

FORMS: Mapping[KernelFamily, type[Kernel]] = {
    **dict.fromkeys(KernelFamily, KernelEfficiency),
    KernelFamily.GEMM: GemmKernel,
    KernelFamily.MOE: GemmKernel,
}
"""The form whose parameters the catalogue holds for a family of kernels."""

__all__ = [
    "FORMS",
    "IDEAL_KERNEL",
    "GemmKernel",
    "Kernel",
    "KernelEfficiency",
    "OpTime",
    "Work",
    "stacked",
]
