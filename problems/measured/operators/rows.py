"""Rows of an operator table that go through the model together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model_ops.dtypes import Dtype, LinearFormat
from model_ops.opcost import (
    RESIDENT,
    Collective,
    KernelFamily,
    Number,
    Operator,
    Placement,
)
from model_ops.platform.efficiency import KernelKey
from model_ops.platform.memory import OuterMemory
from model_ops.platform.roofline import op_time
from model_ops.platform.supply import Supply
from model_ops.units import Bytes, Seconds
from problems.measured.tables import Row

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WeightCache:
    """A cache that a benchmark finds its weights in, as no serving step does.

    A benchmark that runs one small layer again and again reads its weights from a
    cache; between two runs of a layer in serving come all others, and evict them.

    Parameters
    ----------
    capacity
        Bytes of weights of which half are still found there.
    speedup
        The cache's bandwidth over the memory's.
    """

    capacity: Bytes
    speedup: float

    def share(self, weights: Number) -> Number:
        """Return the share of some bytes of weights that are found there."""
        return 1.0 / (1.0 + (weights / self.capacity) ** _EDGE)

    def behind(self, supply: Supply) -> Supply:
        """Return an NPU whose second memory is the cache."""
        npu = supply.npus[0]
        bandwidth = npu.memory_bandwidth * self.speedup
        cache = OuterMemory("cache", self.capacity, bandwidth)
        return Supply.of(replace(npu, outer_memory=cache))


_EDGE = 4
"""How sharply a cache stops to help: benchmarks take turns between a few copies."""


@dataclass(frozen=True)
class OperatorRows:
    """Measurements of one kind of operator on one NPU under one software stack.

    Parameters
    ----------
    table
        What was measured: ``gemm``, ``context_attention``, ...
    npu
        Catalogue name.
    stack, version
        Framework or library whose kernel ran.
    label
        Formats, as the table names them.
    operators
        What one measurement ran; dimensions are arrays shaped [row].
    seconds
        Measured time of all of them, one after the other; shaped [row].
    shapes
        Number of the group of shapes that a row belongs to: rows of one group are
        left out together in cross-validation; shaped [row].
    lines
        Positions of the rows in their table; shaped [row].
    about
        Families of kernels of which one is what the table is about; any if empty.
    repeated
        Whether one problem ran again and again, so that a cache may hold its weights.
    """

    table: str
    npu: str
    stack: str
    version: str
    label: str
    operators: tuple[Operator | Collective, ...]
    seconds: Floats
    shapes: Ints
    lines: Ints
    repeated: bool = False
    about: tuple[KernelFamily, ...] = ()

    @property
    def key(self) -> KernelKey:
        """The kernel that the table is about: the one with the most FLOP, or bytes."""
        own = [o for o in self.operators if not isinstance(o, Collective)]
        own = [o for o in own if o.family in self.about] or own
        heaviest = max(own, key=_weight)
        return key_of(heaviest)

    def predicted(self, supply: Supply, cache: WeightCache | None = None) -> Floats:
        """Return the model's seconds on an NPU; shaped [row].

        Parameters
        ----------
        supply
            The NPU.
        cache
            Where repeated problems find their weights; None for its memory.
        """
        found = cache if self.repeated else None
        where = supply if found is None else found.behind(supply)
        total: Number = sum(
            (op_time(o, where, _placed(o, found)).total for o in self.operators),
            start=0.0,
        )
        return np.broadcast_to(np.asarray(total, float), self.seconds.shape)


def _placed(operator: Operator | Collective, cache: WeightCache | None) -> Placement:
    if cache is None:
        return RESIDENT
    cost = operator.cost()
    share = cache.share(cost.weights + cost.cache)
    return Placement(weights=share, cache=share)


def key_of(operator: Operator) -> KernelKey:
    """Return the kernel that runs an operator."""
    engine = next(iter(operator.cost().flop), None)
    return KernelKey(operator.family, operator.shape().format, engine)


def _weight(operator: Operator) -> tuple[float, float]:
    cost = operator.cost()
    return float(np.sum(cost.total_flop)), float(np.sum(cost.bytes))


@dataclass(frozen=True)
class Columns:
    """Numbers of some rows by column."""

    rows: Sequence[Row]

    def __getitem__(self, name: str) -> Floats:
        """Return a column; shaped [row]; blanks are NaN."""
        return np.array([float(row.get(name) or "nan") for row in self.rows])

    def only(self, name: str) -> float:
        """Return the value of a column whose cells are all alike."""
        return float(self.rows[0].get(name) or "nan")


@dataclass(frozen=True)
class Reader:
    """How one table of operators is read.

    Parameters
    ----------
    table
        Its name.
    needs
        Columns that tell it from other tables.
    alike
        Columns whose cells rows of one array share, beside system and stack.
    shape
        Columns that name a group of shapes.
    label
        Columns that name the formats.
    build
        Makes the operators.
    seconds_per
        Seconds of one unit of the measured column.
    measured
        The measured column.
    part
        Names the table of a row where two tables have the same columns.
    about
        Families of kernels of which one is fitted to it; the heaviest one if empty.
    repeats
        Whether one problem ran again and again, so that a cache may hold its weights.
    usual
        Whether a row's kernel is the one that the stack runs for its format; no kernel
        is fitted to others. None if all are.
    fitted
        Whether kernels are fitted to it; else it is there to compare with, alone.
    """

    table: str
    needs: tuple[str, ...]
    alike: tuple[str, ...]
    shape: tuple[str, ...]
    label: tuple[str, ...]
    build: Callable[[Columns], Iterator[Operator | Collective]]
    seconds_per: Seconds = 1e-3
    measured: str = "latency_ms"
    part: Callable[[Row], str] | None = None
    repeats: bool = False
    about: tuple[KernelFamily, ...] = ()
    usual: Callable[[Row], bool] | None = None
    fitted: bool = True

    def table_of(self, row: Row) -> str:
        """Return the name of the table, or of the part of it, that a row belongs to."""
        return self.table if self.part is None else self.part(row)


def formats(weights: Dtype, inputs: Dtype) -> dict[str, Any]:
    """Return the formats of a linear layer whose outputs have 16 bits."""
    engine = LinearFormat(weights, inputs).engine
    return {
        "weights": weights,
        "inputs": inputs,
        "outputs": Dtype.BF16,
        "engine": engine,
    }


LINEAR_FORMATS = {
    "bfloat16": (Dtype.BF16, Dtype.BF16),
    "float16": (Dtype.FP16, Dtype.FP16),
    "fp8": (Dtype.FP8, Dtype.FP8),
    "fp8_block": (Dtype.FP8_BLOCK, Dtype.FP8),
    "nvfp4": (Dtype.NVFP4, Dtype.NVFP4),
    "int4_wo": (Dtype.INT4, Dtype.BF16),
    "int8_wo": (Dtype.INT8, Dtype.BF16),
    "sq": (Dtype.INT8, Dtype.INT8),
    "w4a16_mxfp4": (Dtype.MXFP4, Dtype.BF16),
    "w4a8_mxfp4_mxfp8": (Dtype.MXFP4, Dtype.FP8),
}
"""Weights and inputs by the names of NVIDIA AIConfigurator's tables; ``sq`` is
SmoothQuant."""
