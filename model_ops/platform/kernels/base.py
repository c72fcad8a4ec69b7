"""What a kernel makes of an NPU's peak rates: the base that every form refines.

A form is a frozen dataclass of a few parameters, floats or arrays over NPUs, that turns
an operator's ideal work into seconds. `FORMS` says which form each family of kernels
has; the catalogue holds the parameters, per NPU, format and software stack.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from model_ops.opcost import KernelShape, Number
from model_ops.units import BytesPerSecond, FlopPerSecond, Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class OpTime:
    """Seconds of one operator, by what they are spent on.

    Parameters
    ----------
    compute, memory, network, launch
        Seconds of each by itself.
    exposed
        Share of the shorter of compute and memory that the longer does not hide: 0
        where they overlap, 1 where they follow each other.
    """

    compute: Seconds | Number = 0.0
    memory: Seconds | Number = 0.0
    network: Seconds | Number = 0.0
    launch: Seconds | Number = 0.0
    exposed: Number = 0.0

    @property
    def busy(self) -> Seconds | Number:
        """Seconds of compute and memory together."""
        longer = np.maximum(self.compute, self.memory)
        if np.ndim(self.exposed) == 0 and self.exposed == 0:
            return longer
        return longer + self.exposed * np.minimum(self.compute, self.memory)

    def times(self, pace: Number, launched: Number = 1.0) -> "OpTime":
        """Return the operator at another pace, a share of its start hidden."""
        if np.ndim(pace) == np.ndim(launched) == 0 and pace == launched == 1.0:
            return self
        return OpTime(
            compute=self.compute * pace,
            memory=self.memory * pace,
            network=self.network * pace,
            launch=self.launch * (pace * launched),
            exposed=self.exposed,
        )

    @property
    def total(self) -> Seconds | Number:
        """Seconds from start to end."""
        # Summed smallest first: launch and network often have fewer axes.
        return self.busy + (self.network + self.launch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An operator on an NPU that reaches its peak rates.

    Parameters
    ----------
    compute, memory
        Seconds of its FLOP and of its bytes, each by itself.
    launches
        Kernels started.
    shape
        How the work can be cut.
    processors
        Units of the NPU that work side by side: streaming multiprocessors, compute
        units, cores.
    flop_per_s, bandwidth
        The NPU's peak rates: of the work's arithmetic (infinite where it has none),
        and of its memory.
    """

    compute: Seconds | Number
    memory: Seconds | Number
    launches: Number
    shape: KernelShape
    processors: Number
    flop_per_s: FlopPerSecond | Number = np.inf
    bandwidth: BytesPerSecond | Number = np.inf


class Kernel(Protocol):
    """A form with its parameters.

    `BOUNDS` are the least and the greatest value that a fit may give each; all are
    above zero, as fits search their logarithms. `CHOICES` are the values of parameters
    that are one thing or another; a fit tries them all.
    """

    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]]
    CHOICES: ClassVar[Mapping[str, tuple[float, ...]]]

    def time(self, work: Work) -> OpTime:
        """Return the seconds of the work."""
        ...

    @classmethod
    def plain(cls, kernel: "KernelEfficiency") -> Self:
        """Return the form that constant shares of the peak rates make of it."""
        ...


@dataclass(frozen=True, slots=True)
class KernelEfficiency:
    """Constant shares of the peak rates in (0, 1], and seconds to launch a kernel.

    ``t = launch + max(compute / e_c, memory / e_m)``: S. Williams, A. Waterman and D.
    Patterson, "Roofline", CACM 52(4), 2009, with measured efficiencies.
    """

    compute: Number
    memory: Number
    launch: Seconds | Number

    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "compute": (0.005, 1.0),
        "memory": (0.01, 1.0),
        "launch": (1e-7, 1e-3),
    }
    CHOICES: ClassVar[Mapping[str, tuple[float, ...]]] = {}

    def time(self, work: Work) -> OpTime:
        """Return the seconds of the work."""
        return OpTime(
            compute=work.compute * (1.0 / self.compute),
            memory=work.memory * (1.0 / self.memory),
            launch=work.launches * self.launch,
        )

    @classmethod
    def plain(cls, kernel: "KernelEfficiency") -> "KernelEfficiency":
        """Return the kernel itself."""
        return kernel


IDEAL_KERNEL = KernelEfficiency(1.0, 1.0, 0.0)


def stacked(kernels: list[Any], axes: int) -> Any:
    """Return one kernel whose parameters are arrays shaped [kernel, 1 x axes].

    Kernels of constant shares join those of a richer form; all others are of one.
    """
    richest = next((k for k in kernels if not isinstance(k, KernelEfficiency)), None)
    form = KernelEfficiency if richest is None else type(richest)
    alike = [k if type(k) is form else form.plain(k) for k in kernels]
    shape = (len(alike), *(1,) * axes)
    values = {
        f.name: np.array([getattr(k, f.name) for k in alike], float).reshape(shape)
        for f in fields(form)
    }
    return form(**values)
