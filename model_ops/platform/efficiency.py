"""Which kernel an operator runs on: an NPU's measured ones, or constants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily
from model_ops.platform.kernels import FORMS, IDEAL_KERNEL, Kernel, KernelEfficiency


class Evidence(StrEnum):
    """How well an NPU's kernels are known."""

    MEASURED = "measured"
    """On the NPU itself."""
    RELATIVE = "relative"
    """On one of its architecture, or through serving results of its own."""
    ASSUMED = "assumed"
    """On none like it, or not at all."""


class KernelKey(NamedTuple):
    """What kernels are told apart by.

    Parameters
    ----------
    family
        Kernels that share an implementation.
    format
        How weights or cache are stored.
    engine
        The arithmetic; None where the operator has no FLOP.
    """

    family: KernelFamily
    format: Dtype
    engine: Dtype | None


_RUNS_AS = {Dtype.FP16: Dtype.BF16}
"""Formats whose kernels differ in nothing but the format of the numbers."""


class Efficiency(Protocol):
    """Says which kernel runs an operator, and so how well."""

    def covers(self, family: KernelFamily) -> bool:
        """Return whether it has a kernel of the family's own."""
        ...

    def kernel(self, key: KernelKey) -> Kernel:
        """Return the kernel."""
        ...


@dataclass(frozen=True, slots=True)
class IdealEfficiency:
    """Every kernel reaches the peak rates and starts at once."""

    def covers(self, family: KernelFamily) -> bool:
        """Return that it has one."""
        return True

    def kernel(self, key: KernelKey) -> Kernel:
        """Return efficiency one and no launch time."""
        return IDEAL_KERNEL


@dataclass(frozen=True, slots=True)
class ConstantEfficiency:
    """One set of constants per kernel family, and per engine where they differ."""

    families: Mapping[KernelFamily, KernelEfficiency]
    by_engine: Mapping[tuple[KernelFamily, Dtype], KernelEfficiency]

    def covers(self, family: KernelFamily) -> bool:
        """Return whether it has constants of the family's own."""
        return family in self.families

    def kernel(self, key: KernelKey) -> Kernel:
        """Return the constants of the family on that engine.

        A family that nobody measured takes its relative's.
        """
        family = key.family
        if family not in self.families:
            family = family.relative
        special = self.by_engine.get((family, key.engine)) if key.engine else None
        return special or self.families[family]


@dataclass(frozen=True, slots=True)
class MeasuredEfficiency:
    """Kernels that were measured, and constants for all others.

    A format that was not measured takes the kernel of one that is computed alike; FP16
    runs as BF16 does.

    Parameters
    ----------
    kernels
        Fitted forms.
    otherwise
        Constants.
    """

    kernels: Mapping[KernelKey, Kernel]
    otherwise: ConstantEfficiency
    _alike: Mapping[tuple[KernelFamily, Dtype | None], Kernel] = field(init=False)

    def __post_init__(self) -> None:
        alike: dict[tuple[KernelFamily, Dtype | None], Kernel] = {}
        for key, kernel in self.kernels.items():
            # Of several, the one whose operand is stored as it is computed.
            if key.format.engine is key.engine or key[::2] not in alike:
                alike[key.family, key.engine] = kernel
        object.__setattr__(self, "_alike", alike)

    def covers(self, family: KernelFamily) -> bool:
        """Return whether a kernel of the family was measured or has constants."""
        measured = any(key.family is family for key in self.kernels)
        return measured or self.otherwise.covers(family)

    def kernel(self, key: KernelKey) -> Kernel:
        """Return the kernel measured, a like one, its relative's, or constants."""
        alike = key._replace(
            format=_RUNS_AS.get(key.format, key.format),
            engine=_RUNS_AS.get(key.engine, key.engine) if key.engine else None,
        )
        form = FORMS[key.family]
        for family in (key.family, key.family.relative):
            own = alike._replace(family=family)
            found = self.kernels.get(own) or self._alike.get(own[::2])
            if found and FORMS[family] is form:
                return found
        return self.otherwise.kernel(key)
