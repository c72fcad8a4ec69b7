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
from model_ops.units import BytesPerSecond, Flop, FlopPerSecond, Seconds


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
    tiles
        Seconds of the bytes that must cross the memory interface because the on-chip
        memory is no larger: compute and memory together take no less. 0 where peak
        arithmetic alone takes longer.
    """

    compute: Seconds | Number = 0.0
    memory: Seconds | Number = 0.0
    network: Seconds | Number = 0.0
    launch: Seconds | Number = 0.0
    exposed: Number = 0.0
    tiles: Seconds | Number = 0.0

    @property
    def busy(self) -> Seconds | Number:
        """Seconds of compute and memory together."""
        busy = np.maximum(self.compute, self.memory)
        if not _is_zero(self.exposed):
            busy = busy + self.exposed * np.minimum(self.compute, self.memory)
        return busy if _is_zero(self.tiles) else np.maximum(busy, self.tiles)

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
            tiles=0.0 if _is_zero(self.tiles) else self.tiles * pace,
        )

    @property
    def total(self) -> Seconds | Number:
        """Seconds from start to end."""
        # Summed smallest first: launch and network often have fewer axes.
        return self.busy + (self.network + self.launch)


def _is_zero(value: Number) -> bool:
    return np.ndim(value) == 0 and bool(value == 0)


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
    flop, reload
        Its FLOP, and the seconds of the bytes that on-chip memory makes it move for
        each of them; see `KernelShape.reload`.
    """

    compute: Seconds | Number
    memory: Seconds | Number
    launches: Number
    shape: KernelShape
    processors: Number
    flop_per_s: FlopPerSecond | Number = np.inf
    bandwidth: BytesPerSecond | Number = np.inf
    flop: Flop | Number = 0.0
    reload: Seconds | Number = 0.0

    def tiles(self, slowed: Number) -> Seconds | Number:
        """Return the seconds of what on-chip memory makes it move; see `OpTime`.

        Parameters
        ----------
        slowed
            Peak bandwidth over what the kernel reaches.
        """
        if _is_zero(self.reload):
            return 0.0
        each = self.reload * slowed
        binds = each > 1.0 / self.flop_per_s
        return self.flop * each if np.any(binds) else 0.0


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

    ``t = launch + max(compute / e_c, memory / e_m, tiles / e_m)``: S. Williams, A.
    Waterman and D. Patterson, "Roofline", CACM 52(4), 2009, with measured efficiencies.
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
            tiles=work.tiles(1.0 / self.memory),
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
