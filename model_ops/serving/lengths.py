"""Token lengths of requests as distributions: moments, nodes to average over, samples.

Every kind gives its quantile function; moments and nodes follow from it, so that a
fixed length, a lognormal law and a measured trace go one way through the model.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_CELLS = np.concatenate(
    [
        [0, 0.06, 0.15, 0.28, 0.42, 0.56, 0.68, 0.78, 0.86],
        [0.91, 0.94, 0.96, 0.975, 0.985, 0.99, 0.994, 0.998, 1],
    ]
)
"""Bounds of the probability cells behind the nodes; finer where the tail decides."""

_POINTS_PER_CELL = 64


@dataclass(frozen=True)
class Lengths:
    """A distribution of token counts.

    Parameters
    ----------
    levels, tokens
        Cumulative probabilities, from 0 to 1, and the tokens at each: the quantile
        function, linear in between. A fixed length has its value at 0 and at 1.
    """

    levels: tuple[float, ...]
    tokens: tuple[float, ...]

    def quantile(self, level: Floats) -> Floats:
        """Return the tokens that a share `level` of the requests does not exceed."""
        found: Floats = np.interp(level, self.levels, self.tokens)
        return found

    @cached_property
    def _middles(self) -> tuple[Floats, Floats]:
        """Tokens at the midpoints of slices of every cell, and the slices' weights."""
        shares = (np.arange(_POINTS_PER_CELL) + 0.5) / _POINTS_PER_CELL
        widths = np.diff(_CELLS)
        levels = _CELLS[:-1, None] + widths[:, None] * shares
        return self.quantile(levels), widths / _POINTS_PER_CELL

    @cached_property
    def nodes(self) -> tuple[Floats, Floats]:
        """Mean tokens of each probability cell, and the cells' weights; [node]."""
        if self.is_fixed:
            return np.array([self.tokens[0]]), np.array([1.0])
        values, _ = self._middles
        return values.mean(axis=1), np.diff(_CELLS)

    @property
    def is_fixed(self) -> bool:
        """Whether every request has the same length."""
        return self.tokens[0] == self.tokens[-1]

    def moment(self, power: int) -> float:
        """Return the mean of the tokens to a power."""
        values, weights = self._middles
        return float(np.sum(values**power * weights[:, None]))

    @property
    def mean(self) -> float:
        """Mean tokens."""
        return self.moment(1)

    @property
    def variation(self) -> float:
        """Standard deviation over the mean."""
        return math.sqrt(max(self.moment(2) / self.mean**2 - 1.0, 0.0))

    def sample(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """Return whole token counts of so many requests."""
        drawn = np.rint(self.quantile(rng.random(count)))
        return np.maximum(drawn, 1.0).astype(np.int64)


def fixed(tokens: float) -> Lengths:
    """Return the distribution of requests that are all of one length."""
    return Lengths((0.0, 1.0), (tokens, tokens))


def lognormal(
    mean: float, variation: float, least: float = 1.0, most: float = math.inf
) -> Lengths:
    """Return a lognormal distribution with a mean and a coefficient of variation.

    Its quantiles are kept at levels that grow finer towards both ends; the mean is
    restored exactly, and what is below `least` is raised to it. What is above `most` is
    cut to it, as data sets and engines do, and the rest stretched to keep the mean.
    """
    if variation == 0.0:
        return fixed(mean)
    spread = math.sqrt(math.log1p(variation**2))
    inner = np.concatenate(
        [
            np.geomspace(1e-5, 0.02, 24)[:-1],
            np.linspace(0.02, 0.98, 97),
            1 - np.geomspace(0.02, 1e-6, 40)[1:],
        ]
    )
    levels = np.concatenate([[0.0], inner, [1.0]])
    normal = NormalDist()
    scores = [normal.inv_cdf(float(level)) for level in inner]
    scores = [scores[0] - 0.5, *scores, scores[-1] + 0.5]
    tokens = np.exp(spread * np.array(scores) - spread**2 / 2)
    shape = Lengths(tuple(levels.tolist()), tuple(tokens.tolist()))
    tokens = np.maximum(tokens * (mean / shape.mean), least)
    for _ in range(_STRETCHES if tokens[-1] > most else 0):
        cut = Lengths(shape.levels, tuple(np.minimum(tokens, most).tolist()))
        tokens = tokens * (mean / cut.mean)
    return Lengths(shape.levels, tuple(np.minimum(tokens, most).tolist()))


_STRETCHES = 40
"""Rounds that keep the mean of a cut law to 1 %, cut at twice the mean or above."""


def quantiles(points: dict[float, float], mean: float | None = None) -> Lengths:
    """Return the distribution through measured quantiles.

    Parameters
    ----------
    points
        Tokens by cumulative probability; 0 and 1 are taken from the nearest where
        they are not given.
    mean
        The measured mean, if known: the tokens between the quantiles are bent (by a
        power of the share of the way) so that the mean is kept.
    """
    levels = sorted(points)
    known = {0.0: points[levels[0]], **points, 1.0: points[levels[-1]]}
    ordered = sorted(known)
    values = [known[level] for level in ordered]
    plain = Lengths(tuple(ordered), tuple(values))
    if mean is None or plain.is_fixed:
        return plain
    low, high = 0.05, 20.0
    for _ in range(60):
        bend = math.sqrt(low * high)
        low, high = (bend, high) if _bent(plain, bend).mean > mean else (low, bend)
    return _bent(plain, math.sqrt(low * high))


def _bent(plain: Lengths, power: float) -> Lengths:
    """Return the distribution with a power law between each two quantiles."""
    levels, tokens = [plain.levels[0]], [plain.tokens[0]]
    for i in range(1, len(plain.levels)):
        start, end = plain.levels[i - 1], plain.levels[i]
        first, last = plain.tokens[i - 1], plain.tokens[i]
        for step in range(1, 17):
            share = step / 16
            levels.append(start + (end - start) * share)
            tokens.append(first + (last - first) * share**power)
    return Lengths(tuple(levels), tuple(tokens))


def observed(tokens: Floats) -> Lengths:
    """Return the distribution of measured lengths, one per request."""
    levels = np.unique(
        np.concatenate([np.linspace(0, 1, 201), 1 - np.geomspace(5e-3, 1e-4, 24)])
    )
    values = np.quantile(tokens, levels)
    return Lengths(tuple(levels.tolist()), tuple(values.tolist()))
