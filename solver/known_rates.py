"""Highest rates that were found once, for problems that ask for them again.

Problems over the same tables often share their targets and differ in rates, prices or
limits: then most of what a race measures has been measured before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from problems.traffic import LatencyTarget

if TYPE_CHECKING:
    from solver.table import Floats, Indices, Table

Asked: TypeAlias = tuple[int, int, float]
"""Option, setting and pool."""


@dataclass(frozen=True)
class KnownRates:
    """The highest rates of a table's options, per targets."""

    _found: dict[tuple[LatencyTarget, ...], dict[Asked, float]] = field(
        default_factory=dict
    )

    def highest(
        self,
        table: "Table",
        targets: Sequence[LatencyTarget],
        which: "Indices",
        pool: "Floats",
        setting: "Indices",
    ) -> "Floats":
        """Return what `Table.highest_rate` does; it is asked for what is new alone.

        Parameters
        ----------
        table, targets, which, pool, setting
            See there; arrays, shaped [asked].
        """
        known = self._found.setdefault(tuple(targets), {})
        columns: tuple[npt.NDArray[np.generic], ...] = (which, setting, pool)
        asked: list[Asked] = list(zip(*(c.tolist() for c in columns), strict=True))
        new = [n for n, each in enumerate(asked) if each not in known]
        if new:
            found = table.highest_rate(targets, which[new], pool[new], setting[new])
            known.update(zip((asked[n] for n in new), found.tolist(), strict=True))
        return np.array([known[each] for each in asked])
