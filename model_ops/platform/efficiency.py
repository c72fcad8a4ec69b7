"""What share of its peak rates an NPU's kernels reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily, Number, Operator


@dataclass(frozen=True, slots=True)
class KernelEfficiency:
    """Shares of the peak rates in (0, 1], and seconds to launch a kernel."""

    compute: Number
    memory: Number
    launch: Number


IDEAL_KERNEL = KernelEfficiency(1.0, 1.0, 0.0)


class Efficiency(Protocol):
    """Says how well an operator runs; it may look at the operator's shape."""

    def kernel(self, operator: Operator, engine: Dtype | None) -> KernelEfficiency:
        """Return the efficiency of an operator; `engine` None if it has no FLOP."""
        ...


@dataclass(frozen=True, slots=True)
class IdealEfficiency:
    """Every kernel reaches the peak rates and starts at once."""

    def kernel(self, operator: Operator, engine: Dtype | None) -> KernelEfficiency:
        """Return efficiency one and no launch time."""
        return IDEAL_KERNEL


@dataclass(frozen=True, slots=True)
class ConstantEfficiency:
    """One set of constants per kernel family, and per engine where they differ."""

    families: Mapping[KernelFamily, KernelEfficiency]
    by_engine: Mapping[tuple[KernelFamily, Dtype], KernelEfficiency]

    def kernel(self, operator: Operator, engine: Dtype | None) -> KernelEfficiency:
        """Return the constants of the operator's family on that engine.

        A family that nobody measured takes its relative's.
        """
        family = operator.family
        if family not in self.families:
            family = family.relative
        special = self.by_engine.get((family, engine)) if engine else None
        return special or self.families[family]
