"""The levels that each figure of a design may take."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.errors import ProblemError
from model_ops.platform.specification import Specification
from problems.design.parameters import PARAMETERS, Parameter

SPAN = (1 / 4, 8.0)
"""Ends of a ladder over today's figure, where none are stated."""

DOMAINS = (1, 2, 4, 8, 16, 32, 64, 72, 128)
"""Sizes of a scale-up domain that are tried, where none are stated."""

LEVELS = 24
"""Levels of a ladder where nobody says how many."""

MOST_LEVELS = 512
"""Levels of one ladder at most."""

_FOLLOWS = "flop_per_s_8bit"
"""The figure that keeps its ratio to `flop_per_s` where nothing is stated of it."""


def between(low: float, high: float, levels: int, *, whole: bool) -> tuple[float, ...]:
    """Return a geometric ladder; whole numbers where a count is meant."""
    found = np.geomspace(low, high, levels) if levels > 1 else np.array([low])
    if whole:
        found = np.unique(np.rint(found))
    return tuple(float(value) for value in found)


def around(one: Parameter, today: float, levels: int) -> tuple[float, ...]:
    """Return the ladder of a figure that nobody states, about that of today's part.

    Today's is a level of it, exactly: two geometric ladders meet there, of about the
    same ratio. Two levels are today's and the far end.
    """
    if one.unit is None:
        return tuple(sorted({*map(float, DOMAINS), today}))
    low, high = (1 / SPAN[1], 1 / SPAN[0]) if one.falling else SPAN
    below = round((levels - 1) * math.log(1 / low) / math.log(high / low))
    rising = between(low * today, today, below + 1, whole=False)[:below]
    further = between(today, high * today, levels - below, whole=False)[1:]
    return (*rising, today, *further)


@dataclass(frozen=True)
class Ladders:
    """The levels of every figure, the slowest or smallest first.

    Parameters
    ----------
    levels
        By figure; a fixed one has one level. Without `flop_per_s_8bit`, its rate keeps
        the base's ratio to `flop_per_s`. What nobody knows of the base has none.
    today
        The base's figures.
    """

    levels: Mapping[str, tuple[float, ...]]
    today: Specification

    @classmethod
    def of(
        cls, stated: Mapping[str, Sequence[float]], today: Specification
    ) -> "Ladders":
        """Return ladders of the stated figures; the others stay as today.

        Raises
        ------
        ProblemError
            If a ladder is empty or too long.
        """
        levels = {}
        for name, one in PARAMETERS.items():
            if name == _FOLLOWS and name not in stated:
                continue
            if name not in today.figures:
                continue
            values = sorted(
                {float(v) for v in stated.get(name, ())}, reverse=one.falling
            )
            if name in stated and not 0 < len(values) <= MOST_LEVELS:
                raise ProblemError(
                    f"platform.{name}: {len(values)} levels; 1 to {MOST_LEVELS} "
                    "are tried"
                )
            levels[name] = tuple(values) or (float(today.figures[name]),)
        return cls(levels, today)

    @property
    def names(self) -> tuple[str, ...]:
        """Figures with levels of their own."""
        return tuple(self.levels)

    @property
    def varied(self) -> tuple[str, ...]:
        """Figures with a choice."""
        return tuple(name for name, levels in self.levels.items() if len(levels) > 1)

    @property
    def points(self) -> float:
        """Platforms that there are to choose from."""
        return float(np.prod([float(len(levels)) for levels in self.levels.values()]))

    def source(self, figure: str) -> str:
        """Return the figure whose level sets a figure: itself, or what it follows."""
        return figure if figure in self.levels else "flop_per_s"

    def values(self, figure: str) -> tuple[float, ...]:
        """Return a figure at each level of its source."""
        if figure in self.levels:
            return self.levels[figure]
        wide, narrow = self.today.flop_per_s, self.today.flop_per_s_8bit
        return tuple(narrow * (value / wide) for value in self.levels["flop_per_s"])

    def specification(self, chosen: Mapping[str, int]) -> Specification:
        """Return the figures at chosen levels."""
        figures = {
            name: self.values(name)[chosen[self.source(name)]]
            for name in self.today.figures
        }
        domain = int(figures.pop("scale_up_npus"))
        return Specification(scale_up_npus=domain, **figures)
