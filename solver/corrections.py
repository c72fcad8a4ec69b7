"""Rates that a simulation has corrected."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from model_ops.profiler.parallelism import Parallelism
from problems.plan import Mode
from solver.settings import Setting

if TYPE_CHECKING:
    from solver.table import Table

Deployed: TypeAlias = tuple[str, str, Parallelism, str, Setting, Mode]
"""Class, NPU, split, precision, setting and mode: what a rate belongs to."""

Corrections: TypeAlias = Mapping[Deployed, float]
"""Shares of predicted rates that a simulation has confirmed."""

NO_CORRECTIONS: Corrections = MappingProxyType({})


def confirmed(table: "Table", corrections: Corrections) -> npt.NDArray[np.float64]:
    """Return the share of each rate that is confirmed; shaped [setting, option].

    A setting that was not simulated is trusted as the best of its split that was: what
    the formulas miss of one they mostly miss of all.
    """
    own = np.full((len(table.settings), table.options), np.nan)
    best = np.full(table.options, -np.inf)
    own_table = (table.traffic.name, table.mode, table.precision.name)
    for (traffic, npu, split, precision, setting, mode), share in corrections.items():
        if (traffic, mode, precision) != own_table:
            continue
        is_npu = np.array([known.name == npu for known in table.npus])
        is_split = np.array([known == split for known in table.splits])
        here = is_npu[table.npu_of] & is_split[table.split_of]
        own[np.ix_([known == setting for known in table.settings], here)] = share
        best[here] = np.maximum(best[here], share)
    others = np.where(np.isfinite(best), best, 1.0)
    return np.where(np.isfinite(own), own, others)
