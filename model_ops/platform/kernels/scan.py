"""Recurrences over the tokens of a sequence: state space models, delta rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from model_ops.opcost import Number
from model_ops.platform.kernels.base import KernelEfficiency, OpTime, Work
from model_ops.units import Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanKernel:
    """A recurrence: tokens of a sequence follow each other, sequences do not.

    ::

        compute = FLOP / (FLOP/s efficiency) + step n, for n tokens of each sequence
        t       = launch + longer of compute and memory + exposed x the shorter

    Parameters
    ----------
    compute, memory
        Shares of the peak rates that many long sequences reach.
    launch
        Start of the kernels.
    exposed
        Share of the shorter of compute and memory that the longer does not hide.
    step
        From a token's state to the next one's.
    """

    compute: Number
    memory: Number
    launch: Seconds | Number
    exposed: Number = 0.0
    step: Seconds | Number = 0.0

    CHOICES: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "compute": (0.002, 1.0),
        "memory": (0.02, 1.0),
        "launch": (1e-6, 3e-4),
        "exposed": (1e-3, 1.0),
        "step": (1e-10, 1e-5),
    }

    def time(self, work: Work) -> OpTime:
        """Return the seconds of the work."""
        return OpTime(
            compute=work.compute * (1.0 / self.compute) + self.step * work.shape.rows,
            memory=work.memory * (1.0 / self.memory),
            launch=work.launches * self.launch,
            exposed=self.exposed,
        )

    @classmethod
    def plain(cls, kernel: KernelEfficiency) -> "ScanKernel":
        """Return the form with constant shares alone."""
        return cls(compute=kernel.compute, memory=kernel.memory, launch=kernel.launch)
