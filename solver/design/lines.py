"""Which linear functions of the reciprocal rates a shape's times are the largest of."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solver.design.forms import LINKS, RATES, Forms
from solver.design.platform import Platform

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds as a linear function of reciprocals over today's, by figure."""

    terms: tuple[tuple[str, float], ...]
    constant: float = 0.0


def facets(platform: Platform, forms: Forms, shape: int, path: int) -> Iterator[Line]:
    """Yield the lines of which a path's operators together take the largest.

    A sum of n maxima of two is the largest of 2^n sums; where all operators share one
    rate of arithmetic, only n + 1 of them count: sorted by intensity, those above a
    ratio of the rates are bound by compute, those below by memory. Operators that every
    platform left binds alike are no choice.
    """
    weights = forms.operator_weights[path]
    wide = weights * forms.compute[shape]
    narrow = weights * forms.compute_8bit[shape]
    memory = weights * forms.traffic[shape]
    fixed = np.array([0.0, 0.0, float(forms.streamed[path, shape])])
    position = platform.space.position
    apart = position(RATES[0]) != position(RATES[1])
    groups: dict[tuple[bool, int], list[int]] = {}
    for k in np.flatnonzero(weights):
        least, most = _range(platform, (wide[k], narrow[k], -memory[k]))
        if least >= 0:
            fixed += np.array([wide[k], narrow[k], 0.0])
        elif most <= 0:
            fixed[2] += memory[k]
        else:
            both = int(k) if apart and wide[k] > 0 and narrow[k] > 0 else -1
            groups.setdefault((bool(apart and narrow[k] > 0), both), []).append(int(k))
    busy_share = (wide + narrow) / np.maximum(memory, 1e-300)
    cuts = [_cuts(group, busy_share) for group in groups.values()]
    for chosen in itertools.product(*cuts):
        busy = [k for above, _ in chosen for k in above]
        moved = [k for _, below in chosen for k in below]
        sums = (wide[busy].sum(), narrow[busy].sum(), memory[moved].sum())
        total = [float(a + b) for a, b in zip(fixed, sums, strict=True)]
        terms = tuple((f, v) for f, v in zip(RATES, total, strict=True) if v > 0)
        yield Line(terms, float(forms.constants[path, shape]))


def _cuts(group: list[int], intensity: Floats) -> list[tuple[list[int], list[int]]]:
    """Return the operators in two, bound by compute and by memory, in every order."""
    order = sorted(group, key=lambda k: -intensity[k])
    return [(order[:n], order[n:]) for n in range(len(order) + 1)]


def _range(platform: Platform, line: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest value of a line over the platforms left."""
    by_level: dict[int, Floats] = {}
    for figure, value in zip(RATES, line, strict=True):
        position = platform.space.position(figure)
        seconds = value * platform.slowness(figure)
        by_level[position] = seconds + by_level.get(position, 0.0)
    ends = [(float(np.min(s)), float(np.max(s))) for s in by_level.values()]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def undominated(platform: Platform, rows: Floats) -> list[int]:
    """Return the algorithms of a collective that are the fastest somewhere.

    Lines are compared at all corners of the links left; of equal ones the first stays.

    Parameters
    ----------
    platform
        The links.
    rows
        Seconds per figure of `LINKS`; shaped [algorithm, figure].
    """
    ends = []
    for figure in LINKS:
        slowness = platform.slowness(figure)
        ends.append((float(np.min(slowness)), float(np.max(slowness))))
    corners = np.array(list(itertools.product(*ends)))
    possible = [n for n in range(len(rows)) if np.all(np.isfinite(rows[n]))]
    at = {n: corners @ rows[n] for n in possible}

    def beaten(one: int, by: int) -> bool:
        better = np.any(at[by] < at[one]) or by < one
        return bool(by != one and np.all(at[by] <= at[one]) and better)

    return [n for n in possible if not any(beaten(n, other) for other in possible)]
