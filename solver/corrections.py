"""Rates that a simulation has corrected."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from model_ops.profiler.parallelism import Parallelism

if TYPE_CHECKING:
    from solver.table import Table

Deployed: TypeAlias = tuple[str, str, Parallelism, str]
"""Class, NPU, split and precision: what a rate belongs to."""

Corrections: TypeAlias = Mapping[Deployed, float]
"""Shares of predicted rates that a simulation has confirmed."""

NO_CORRECTIONS: Corrections = MappingProxyType({})


def confirmed(table: "Table", corrections: Corrections) -> npt.NDArray[np.float64]:
    """Return the share of each option's rate that is confirmed; shaped [option]."""
    shares = np.ones(table.options)
    for (traffic, npu, split, precision), share in corrections.items():
        if (traffic, precision) == (table.traffic.name, table.precision.name):
            is_npu = np.array([known.name == npu for known in table.npus])
            is_split = np.array([known == split for known in table.splits])
            shares[is_npu[table.npu_of] & is_split[table.split_of]] = share
    return shares
