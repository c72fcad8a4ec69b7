"""Distribution functions and quantiles for many mixtures at once, in numpy alone."""

from collections.abc import Callable

import numpy as np

from model_ops.serving.lengths import Floats

_STEP = 1.0 / 256.0
_FARTHEST = 8.0


def _normal_table() -> Floats:
    """Return the normal distribution function at the nodes, by Simpson's rule."""
    nodes = np.arange(-_FARTHEST, _FARTHEST + _STEP / 2, _STEP)

    def density(x: Floats) -> Floats:
        return np.asarray(np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi))

    middles = nodes[:-1] + _STEP / 2
    cells = density(nodes[:-1]) + 4.0 * density(middles) + density(nodes[1:])
    return np.concatenate([[0.0], np.cumsum(cells * _STEP / 6.0)])


_NORMAL = _normal_table()


def normal_cdf(x: Floats) -> Floats:
    """Return the standard normal distribution function, to 1e-6."""
    place = np.clip((x + _FARTHEST) / _STEP, 0.0, len(_NORMAL) - 1.001)
    cell = place.astype(np.int64)
    low = _NORMAL[cell]
    return np.asarray(low + (place - cell) * (_NORMAL[cell + 1] - low))


def gamma_cdf(x: Floats, mean: Floats, variance: Floats) -> Floats:
    """Return the distribution function of a gamma law; zero below 0.

    Source: E. B. Wilson and M. M. Hilferty, "The distribution of chi-square", PNAS 17
    (1931): the cube root of a gamma variable is nearly normal.
    """
    ninth = variance / (9.0 * mean * mean)
    score = (np.cbrt(np.maximum(x, 0.0) / mean) - 1.0 + ninth) / np.sqrt(ninth)
    return np.asarray(normal_cdf(score) * (x > 0.0))


Survival = Callable[[Floats], Floats]
"""The share of requests above values shaped [..., point], in the same shape."""

_POINTS = (10, 6, 6)
"""Points of the grids that close in on a quantile."""


def quantile(survival: Survival, level: float, low: Floats, high: Floats) -> Floats:
    """Return where a decreasing `survival` falls to ``1 - level``.

    A geometric grid brackets the place, finer ones close in on it; between the last
    points the logarithm of the survival is linear, as it is for exponential tails.

    Parameters
    ----------
    survival
        Of values shaped [..., point].
    level
        Between 0 and 1.
    low, high
        Positive bounds, shaped [..., 1]; what lies outside is returned as the bound.
    """
    target = np.log1p(-level)
    for points in _POINTS:
        values = low * (high / low) ** np.linspace(0.0, 1.0, points)
        heights = np.log(np.maximum(survival(values), 1e-12))
        heights = np.minimum.accumulate(heights, axis=-1)
        above = np.sum(heights > target, axis=-1, keepdims=True)
        right = np.clip(above, 1, points - 1)
        low, high = (
            np.take_along_axis(values, side, axis=-1) for side in (right - 1, right)
        )
    first, last = (
        np.take_along_axis(heights, side, axis=-1) for side in (right - 1, right)
    )
    share = np.clip((first - target) / np.maximum(first - last, 1e-12), 0.0, 1.0)
    return np.asarray(low + share * (high - low))
