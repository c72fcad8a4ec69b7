"""Bound and prune: halve boxes of platforms until few can hold the optimum.

A box, or a shape in it, goes when its bound exceeds what a known platform reaches;
known platforms are looked for near the boxes of the lowest bounds.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solver.design.boxes import (
    Boxes,
    below,
    bounded,
    halved,
    root,
    settled,
    undominated,
)
from solver.design.evaluate import (
    Choice,
    Evaluator,
    cheapest_shapes,
    descended,
)
from solver.design.space import Space

Floats = npt.NDArray[np.float64]


Indices = npt.NDArray[np.int64]


MOST_PAIRS = 100_000_000
"""Pairs of platform and shape that are evaluated: up to a minute's worth."""


ENOUGH_BOXES = 48
"""Boxes that are few enough for the proof."""


_TRIED = 3
"""Boxes near which better platforms are looked for, each time."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What is left after bounding, and what was found on the way.

    Parameters
    ----------
    boxes
        With their bounds and shapes.
    best
        The best platform known; None if there is none, and then no box is left.
    shapes, points
        How many there were before.
    """

    boxes: Boxes
    best: Choice | None
    shapes: int
    points: float

    def shapes_left(self) -> int:
        """Return how many shapes are alive in some box."""
        return sum(len(np.unique(shape)) for _, shape in self.boxes.pairs)

    def points_left(self) -> float:
        """Return how many platforms the boxes hold."""
        sizes = (self.boxes.high - self.boxes.low + 1).astype(float)
        return float(np.sum(np.prod(sizes, axis=1)))


def pruned(
    evaluator: Evaluator, depth: int | None = None, deadline: float | None = None
) -> Pruned:
    """Return the boxes and shapes that may hold the optimum, and a good platform.

    Parameters
    ----------
    evaluator
        The problem.
    depth
        How often boxes are cut at most; 0 for none, which looks for no platform either.
    deadline
        When to leave the rest to the proof, on `time.monotonic`'s clock.
    """
    space = evaluator.space
    boxes = bounded(evaluator, root(evaluator), np.inf)
    best: Choice | None = None
    while boxes.count and depth != 0:
        depth = None if depth is None else depth - 1
        best = _improved(evaluator, boxes, best)
        known = np.inf if best is None else best.value * (1 + 1e-12)
        kept = undominated(evaluator, below(boxes, evaluator, known))
        few = kept.count <= ENOUGH_BOXES and best is not None and _small(kept)
        late = deadline is not None and time.monotonic() > deadline
        if few or late or evaluator.evaluated > MOST_PAIRS or settled(space, kept):
            boxes = kept
            break
        boxes = bounded(evaluator, halved(space, kept, _worth(kept)), known)
    shapes = sum(forms.shapes for forms in evaluator.forms)
    return Pruned(boxes, best, shapes, space.problem.ladders.points)


def _small(boxes: Boxes) -> bool:
    return bool(np.all(boxes.high - boxes.low <= 3))


def _worth(boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Return which boxes to cut: all, or those of the lowest bounds where many are."""
    most = 512
    if boxes.count <= most:
        return np.ones(boxes.count, dtype=bool)
    return np.asarray(boxes.bound <= np.partition(boxes.bound, most)[most])


def _improved(evaluator: Evaluator, boxes: Boxes, best: Choice | None) -> Choice | None:
    """Return a better platform near the boxes of the lowest bounds, if there is one."""
    for box in np.argsort(boxes.bound, kind="stable")[:_TRIED]:
        alive = [shape[of == box] for of, shape in boxes.pairs]
        for start in _starts(evaluator.space, boxes.low[box], boxes.high[box]):
            found = cheapest_shapes(evaluator, start, alive)
            while found is not None and (best is None or found.value < best.value):
                best = descended(evaluator, found)
                found = cheapest_shapes(evaluator, best.levels)
            if found is None:
                continue
            lower = descended(evaluator, found)
            if lower.value < (np.inf if best is None else best.value) * (1 - 1e-12):
                best = lower
    return best


def _starts(space: Space, low: Indices, high: Indices) -> Iterator[Indices]:
    """Yield the corners of a box, the fast one as allowed, and its middle.

    Before them the platform of the least distance, where that is the objective.
    """
    if not space.is_cost:
        yield np.clip(space.nearest, low, high)
    yield _within_limits(space, high)
    yield space.lifted(((low + high) // 2)[None])[0]
    yield low


def _within_limits(space: Space, levels: Indices) -> Indices:
    """Return a platform as fast as the limits allow: what slows it least goes first."""
    levels = levels.copy()
    while not space.allowed(levels[None])[0]:
        lower = [k for k in range(len(levels)) if levels[k] > 0 and k != space.domain]
        if not lower:
            break
        steps = np.tile(levels, (len(lower), 1))
        steps[np.arange(len(lower)), lower] -= 1
        saved = space.excess(levels[None]) - space.excess(steps)
        slower = np.array(
            [
                space.slowed(k, int(levels[k]) - 1) / space.slowed(k, int(levels[k]))
                for k in lower
            ]
        )
        levels = steps[int(np.argmax(saved / np.log(np.maximum(slower, 1 + 1e-9))))]
    return levels
