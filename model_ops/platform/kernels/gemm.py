"""Matrix multiplications: one matrix (GEMM), or several in one kernel (experts)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from model_ops.opcost import Number
from model_ops.platform.kernels.base import KernelEfficiency, OpTime, Work
from model_ops.units import Bytes, Seconds

TILE = 128 * 128
"""Outputs that one processor works on at a time."""

SUSTAINED: Seconds = 1e-3
"""Compute time at which half of the slowdown of long kernels has set in."""

DEPTH = 2000.0
"""Inner width at which half of `depth_latency` is due."""

ROWS = 256.0
"""Rows at which half of `row_latency` is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmKernel:
    """A tiled matrix multiplication, of m rows, n columns and depth k.

    ::

        area    = m n + padding n per matrix + idle processors TILE
        compute = 2 (k + prologue) area / (FLOP/s efficiency)
        compute = compute (1 + slowdown compute / (compute + SUSTAINED))
        memory  = bytes / (bandwidth efficiency)
        start   = launch + depth_latency k / (k + DEPTH)
                + row_latency m / (m + ROWS) + staging m k / bandwidth
        t       = start + longer of both + exposed x shorter of both

    All terms are linear or saturate, so that it costs a few multiplications, more work
    never takes less time, and neither do slower rates.

    Parameters
    ----------
    compute, memory
        Shares of the peak rates that large problems reach.
    launch
        From the start of the kernel to its first loads, and its end.
    exposed
        Share of the shorter of compute and memory that the longer does not hide.
    idle
        Tiles' time that a processor stands idle, mean: the last wave is not full and
        few tiles do not fill the first.
    padding
        Rows that each matrix is multiplied with in vain: a tile's last rows.
    prologue
        Depth whose time passes before the pipeline of a tile is filled and after.
    slowdown
        By how much more long kernels take: clocks under full power, caches that no
        longer hold what tiles share.
    depth_latency
        Loads that follow each other, and the sum over split depth.
    row_latency
        What kernels for many rows need more to start: larger tiles, more of them.
    staging
        Bytes per input that are moved before the multiplication: inputs quantised,
        or sorted by expert.
    """

    compute: Number
    memory: Number
    launch: Seconds | Number
    exposed: Number = 0.0
    idle: Number = 0.0
    padding: Number = 0.0
    prologue: Number = 0.0
    slowdown: Number = 0.0
    depth_latency: Seconds | Number = 0.0
    row_latency: Seconds | Number = 0.0
    staging: Bytes | Number = 0.0

    CHOICES: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "compute": (0.05, 1.0),
        "memory": (0.05, 1.0),
        "launch": (3e-7, 3e-4),
        "exposed": (1e-3, 1.0),
        "idle": (1e-3, 10.0),
        "padding": (0.01, 16.0),
        "prologue": (1.0, 3000.0),
        "slowdown": (1e-3, 3.0),
        "depth_latency": (1e-8, 1e-4),
        "row_latency": (1e-8, 1e-4),
        "staging": (0.01, 100.0),
    }

    def time(self, work: Work) -> OpTime:
        """Return the seconds of the work."""
        shape = work.shape
        depth, rows = shape.depth, shape.rows * shape.groups
        vain = self.padding * (shape.groups * shape.columns)
        vain = vain + self.idle * TILE * work.processors
        each = 2.0 * (depth + self.prologue) / (work.flop_per_s * self.compute)
        compute = work.compute * ((1.0 + self.prologue / depth) / self.compute)
        compute = compute + each * vain
        compute = compute + self.slowdown * (compute * compute / (compute + SUSTAINED))
        start = self.launch + self.depth_latency * (depth / (depth + DEPTH))
        staged = (rows * depth) * (self.staging / work.bandwidth)
        by_rows = self.row_latency * (rows / (rows + ROWS))
        return OpTime(
            compute=compute,
            memory=work.memory * (1.0 / self.memory),
            tiles=work.tiles(1.0 / self.memory),
            launch=work.launches * start + (staged + by_rows),
            exposed=self.exposed,
        )

    @classmethod
    def plain(cls, kernel: KernelEfficiency) -> "GemmKernel":
        """Return the form with constant shares alone."""
        return cls(compute=kernel.compute, memory=kernel.memory, launch=kernel.launch)
