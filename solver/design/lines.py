"""Which linear functions of the reciprocal rates a shape's times are the largest of."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solver.design.forms import LINKS, RATES, RELOADS, Forms
from solver.design.platform import Platform

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds as a linear function of reciprocals over today's, by figure."""

    terms: tuple[tuple[str, float], ...]
    constant: float = 0.0


def facets(platform: Platform, forms: Forms, shape: int, path: int) -> Iterator[Line]:
    """Yield the lines of which a path's operators together take the largest.

    An operator is bound by its arithmetic or, where on-chip memory is short, by its
    reloads, or else by the bytes that it moves once. Those whose reloads take alike
    over their arithmetic change from the one to the other together; of n bound by
    either only n + 1 choices count instead of 2^n: sorted by intensity, the first are,
    and the others are bound by memory. What every platform left binds alike is no
    choice.
    """
    path_of = _Path.of(platform, forms, shape, path)
    constant = float(forms.constants[path, shape])
    for groups in path_of.groups():
        for chosen in itertools.product(*(path_of.cuts(group) for group in groups)):
            total = path_of.streamed.copy()
            for each in chosen:
                total += each
            terms = zip((*RATES, *RELOADS), map(float, total), strict=True)
            yield Line(tuple((f, v) for f, v in terms if v > 0), constant)


@dataclass(frozen=True, slots=True)
class _Group:
    """Operators that are fed alike: by reloads, or by arithmetic."""

    operators: list[int]
    reloaded: bool


@dataclass(frozen=True, slots=True)
class _Path:
    """The lines of each operator of a path: fed by arithmetic, by reloads, moved once.

    Each is shaped [operator, 5], the last axis as `Forms.paths` has its rates.
    """

    platform: Platform
    busy: Floats
    reloads: Floats
    moved: Floats
    streamed: Floats

    @classmethod
    def of(cls, platform: Platform, forms: Forms, shape: int, path: int) -> "_Path":
        """Return the operators that a path has."""
        weights = forms.operator_weights[path]
        columns = (
            forms.compute,
            forms.compute_8bit,
            forms.traffic,
            forms.tiles,
            forms.sweeps,
        )
        each = np.stack([column[shape] * weights for column in columns], axis=1)
        each = each[weights > 0]
        return cls(
            platform,
            busy=each * (1, 1, 0, 0, 0),
            reloads=each * (0, 0, 0, 1, 1),
            moved=each * (0, 0, 1, 0, 0),
            streamed=float(forms.streamed[path, shape]) * np.eye(5)[2],
        )

    def groups(self) -> Iterator[list[_Group]]:
        """Yield the operators by what feeds them, for each choice of it."""
        position = self.platform.space.position
        apart = position(RATES[0]) != position(RATES[1])
        engines: dict[int, tuple[bool, int]] = {}
        classes: dict[tuple[float, ...], list[int]] = {}
        for k, (wide, narrow, *_) in enumerate(self.busy):
            both = k if apart and wide > 0 and narrow > 0 else -1
            engines[k] = (bool(apart and narrow > 0), both)
            if self._is_reloaded(k):
                ratios = self.reloads[k, 3:] / (wide + narrow)
                alike = tuple(float(f"{ratio:.9g}") for ratio in ratios)
                classes.setdefault((*engines[k], *alike), []).append(k)
        for chosen in itertools.product(*(self._feeds(c) for c in classes.values())):
            pairs = list(zip(classes.values(), chosen, strict=True))
            found = [_Group(each, reloaded=True) for each, reloads in pairs if reloads]
            taken = {k for group in found for k in group.operators}
            rest: dict[tuple[bool, int], list[int]] = {}
            for k, engine in engines.items():
                if k not in taken:
                    rest.setdefault(engine, []).append(k)
            yield [*found, *(_Group(each, reloaded=False) for each in rest.values())]

    def _is_reloaded(self, k: int) -> bool:
        """Return whether an operator's reloads are the longest on some platform."""
        return bool(np.any(self.reloads[k])) and all(
            _range(self.platform, self.reloads[k] - other[k])[1] > 0
            for other in (self.busy, self.moved)
        )

    def _feeds(self, alike: list[int]) -> tuple[bool, ...]:
        """Return whether operators may be fed by arithmetic (no), by reloads (yes)."""
        k = alike[0]
        least, _ = _range(self.platform, self.reloads[k] - self.busy[k])
        return (True,) if least >= 0 else (False, True)

    def cuts(self, group: _Group) -> list[Floats]:
        """Return the sums of a group's lines, the first n fed, the others moved."""
        lines = self.reloads if group.reloaded else self.busy
        intensity = lines.sum(axis=1) / np.maximum(self.moved[:, 2], 1e-300)
        order = sorted(group.operators, key=lambda k: -intensity[k])
        ranges = [_range(self.platform, lines[k] - self.moved[k]) for k in order]
        first = sum(least >= 0 for least, _ in ranges)
        last = len(order) - sum(most <= 0 < -least for least, most in ranges)
        return [
            lines[order[:n]].sum(axis=0) + self.moved[order[n:]].sum(axis=0)
            for n in range(first, last + 1)
        ]


def _range(platform: Platform, line: Floats) -> tuple[float, float]:
    """Return the least and the greatest value of a line over the platforms left.

    Parameters
    ----------
    platform
        The levels left.
    line
        Coefficients of `RATES`, then of `RELOADS`; shaped [5].
    """
    space = platform.space
    by_level: dict[int, Floats] = {}
    for figure, value in zip(RATES[:2], line, strict=False):
        position = space.position(figure)
        seconds = value * platform.slowness(figure)
        by_level[position] = seconds + by_level.get(position, 0.0)
    lacking = space.lacking[platform.levels[space.on_chip]]
    moved = line[2] + sum(
        value * lacking**power
        for value, power in zip(line[3:], RELOADS.values(), strict=True)
    )
    bandwidth = platform.slowness(RATES[2])
    by_level[-1] = np.outer(
        [np.min(moved), np.max(moved)], [np.min(bandwidth), np.max(bandwidth)]
    )
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
