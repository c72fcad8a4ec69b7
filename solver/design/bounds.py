"""Bound and prune: which boxes of platforms, and which shapes, can hold the optimum.

No step gets slower and no NPU cheaper when a figure gets better. So over a box of
platforms (a range of levels of each figure, one scale-up domain) the times at its fastest
corner, with the cost at its cheapest, bound the objective from below. Boxes are halved,
and a box, or a shape in it, goes when its bound exceeds what a known platform reaches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from solver.design.forms import Forms
from solver.design.space import Space

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MOST_PAIRS = 4_000_000
"""Pairs of platform and shape that are evaluated: some seconds' worth."""

ENOUGH_BOXES = 48
"""Boxes that are few enough for the proof."""

_TRIED = 3
"""Boxes near which better platforms are looked for, each time."""

_HAIR = 1e-9
"""Relative tolerance of a target: what the verifier forgives, too."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A platform and a shape for each use case.

    Parameters
    ----------
    levels
        Of each figure.
    shapes
        Group of forms, and shape in it, per use case.
    replicas
        Per use case.
    value
        The objective.
    """

    levels: Indices
    shapes: tuple[tuple[int, int], ...]
    replicas: tuple[int, ...]
    value: float


@dataclass
class Boxes:
    """Boxes of platforms that may hold the optimum, and the shapes alive in each.

    Parameters
    ----------
    low, high
        Levels, both included; shaped [box, figure].
    bound
        Of the objective in each.
    pairs
        Boxes and shapes, per group of forms; each shaped [pair].
    npus
        Least NPUs of each pair; per group of forms.
    """

    low: Indices
    high: Indices
    bound: Floats
    pairs: list[tuple[Indices, Indices]]
    npus: list[Floats]

    @property
    def count(self) -> int:
        """How many boxes."""
        return len(self.low)


@dataclass
class Evaluator:
    """What shapes do on platforms; see `Forms`."""

    space: Space
    forms: Sequence[Forms]
    evaluated: int = field(default=0)

    def npus(
        self, group: int, levels: Indices, which: Indices, *, capacity: bool = True
    ) -> Floats:
        """Return the NPUs that pairs of platform and shape need; infinite where none do.

        Parameters
        ----------
        group
            Of forms.
        levels
            Of each pair's platform; shaped [pair, figure].
        which
            Each pair's shape.
        """
        forms, space = self.forms[group], self.space
        self.evaluated += len(which)
        if not len(which):
            return np.zeros(0)
        use_case = space.problem.use_case[forms.use_case]
        ttft, tpot = forms.latencies(
            space.rates(levels), space.links(levels), levels[:, space.domain], which
        )
        fast = ttft <= use_case.targets["ttft"] * (1 + _HAIR)
        if use_case.shape.decode_steps > 0:
            fast &= tpot <= use_case.targets["tpot"] * (1 + _HAIR)
        if capacity:
            held = space.capacities[levels[:, space.capacity]]
            fast &= forms.memory[which] <= held * (1 + _HAIR)
        tp = np.array([split.tp for split in forms.splits], dtype=float)
        fast &= tp[which] <= space.domains[levels[:, space.domain]]
        npus = forms.npus[which] * replicas(space, forms, tpot, which)
        if use_case.max_npus is not None:
            fast &= npus <= use_case.max_npus
        return np.where(fast, npus, np.inf)


def replicas(space: Space, forms: Forms, tpot: Floats, which: Indices) -> Floats:
    """Return the replicas that take a use case's rate at a TPOT."""
    use_case = space.problem.use_case[forms.use_case]
    steps = float(use_case.shape.held_steps)
    return np.maximum(
        np.ceil(use_case.rate * steps * tpot / forms.batch[which] * (1 - _HAIR)), 1.0
    )


def root(evaluator: Evaluator) -> Boxes:
    """Return one box per scale-up domain, with every shape."""
    space = evaluator.space
    domains = len(space.domains)
    low = np.zeros((domains, len(space.sizes)), dtype=np.int64)
    high = np.tile(np.maximum(_highest(space), 0), (domains, 1))
    low[:, space.domain] = high[:, space.domain] = np.arange(domains)
    for k in _free(space):
        low[:, k] = high[:, k]
    pairs = [
        (
            np.repeat(np.arange(domains), forms.shapes),
            np.tile(np.arange(forms.shapes), domains),
        )
        for forms in evaluator.forms
    ]
    boxes = Boxes(low, high, np.zeros(domains), pairs, [np.zeros(0)] * len(pairs))
    return boxes


def _highest(space: Space) -> Indices:
    """Return the best level of each figure that the limits allow with all others low."""
    found = []
    for k, size in enumerate(space.sizes):
        levels = np.zeros((size, len(space.sizes)), dtype=np.int64)
        levels[:, k] = np.arange(size)
        found.append(int(np.count_nonzero(space.allowed(levels))) - 1)
    return np.array(found)


def _free(space: Space) -> list[int]:
    """Return the figures whose best level costs nothing more than any other."""
    if not space.is_cost:
        return []
    tables = (space.usd, space.area, space.watts, space.stacks)
    return [
        k
        for k in range(len(space.sizes))
        if k != space.domain and all(np.ptp(table[k]) == 0 for table in tables)
    ]


def undominated(evaluator: Evaluator, boxes: Boxes) -> Boxes:
    """Return the shapes that need the fewest NPUs somewhere in their box.

    A shape goes where another needs no more at the slowest corner than it does at the
    fastest: on no platform of the box is it better.
    """
    forms = evaluator.forms
    slow = [
        evaluator.npus(group, boxes.low[box], shape)
        for group, (box, shape) in enumerate(boxes.pairs)
    ]
    users = len(evaluator.space.problem.use_case)
    least = np.full((users, boxes.count), np.inf)
    for group, (box, _) in enumerate(boxes.pairs):
        np.minimum.at(least[forms[group].use_case], box, slow[group])
    taken = np.zeros((users, boxes.count), dtype=bool)
    pairs, npus = [], []
    for group, (box, shape) in enumerate(boxes.pairs):
        user = forms[group].use_case
        stays = boxes.npus[group] < least[user, box]
        # Of those that are least there, one stands for all.
        equal = np.flatnonzero(slow[group] <= least[user, box])
        equal = equal[np.isfinite(slow[group][equal])]
        _, first = np.unique(box[equal], return_index=True)
        first = equal[first]
        stays[first[~taken[user, box[first]]]] = True
        taken[user, box[first]] = True
        pairs.append((box[stays], shape[stays]))
        npus.append(boxes.npus[group][stays])
    return Boxes(boxes.low, boxes.high, boxes.bound, pairs, npus)


def bounded(evaluator: Evaluator, boxes: Boxes, best: float) -> Boxes:
    """Return the boxes and shapes whose bound does not exceed what is known."""
    space, forms = evaluator.space, evaluator.forms
    users = len(space.problem.use_case)
    npus = [
        evaluator.npus(group, boxes.high[box], shape)
        for group, (box, shape) in enumerate(boxes.pairs)
    ]
    least = np.full((users, boxes.count), np.inf)
    for group, (box, _) in enumerate(boxes.pairs):
        np.minimum.at(least[forms[group].use_case], box, npus[group])
    total = least.sum(axis=0)
    if space.is_cost:
        unit = space.npu_usd(boxes.low)
        bound = np.where(np.isfinite(total), total, 0.0) * unit
    else:
        unit = np.zeros(boxes.count)
        bound = space.least_distance(boxes.low, boxes.high)
    bound = np.where(np.isfinite(total) & space.allowed(boxes.low), bound, np.inf)
    most = space.problem.limits.npus or np.inf
    keep = np.isfinite(bound) & (bound <= best) & (total <= most)
    number = np.cumsum(keep) - 1
    pairs, kept_npus = [], []
    for group, (box, shape) in enumerate(boxes.pairs):
        with np.errstate(invalid="ignore"):
            more = npus[group] - least[forms[group].use_case, box]
            own = bound[box] + unit[box] * more
            stays = keep[box] & (own <= best) & (total[box] + more <= most)
        stays &= np.isfinite(npus[group])
        pairs.append((number[box[stays]], shape[stays]))
        kept_npus.append(npus[group][stays])
    return Boxes(boxes.low[keep], boxes.high[keep], bound[keep], pairs, kept_npus)


def halved(space: Space, boxes: Boxes, which: npt.NDArray[np.bool_]) -> Boxes:
    """Return the boxes with some of them cut in two, along what costs most in them."""
    spread = np.full(boxes.low.shape, -1.0)
    for k in range(boxes.low.shape[1]):
        if k == space.domain:
            continue
        top = boxes.low.copy()
        top[:, k] = boxes.high[:, k]
        if space.is_cost:
            spread[:, k] = space.npu_usd(top) - space.npu_usd(boxes.low)
        else:
            spread[:, k] = np.ptp(
                np.stack([space.distances[k][boxes.low[:, k]], space.distances[k][top[:, k]]]),
                axis=0,
            )
        wide = boxes.high[:, k] > boxes.low[:, k]
        spread[:, k] = np.where(wide, spread[:, k] + 1e-12, -1.0)
    axis = np.argmax(spread, axis=1)
    rows = np.arange(boxes.count)
    cut = which & (spread[rows, axis] >= 0)
    middle = (boxes.low[rows, axis] + boxes.high[rows, axis]) // 2
    first_high, second_low = boxes.high.copy(), boxes.low.copy()
    first_high[rows[cut], axis[cut]] = middle[cut]
    second_low[rows[cut], axis[cut]] = middle[cut] + 1
    low = np.concatenate([boxes.low, second_low[cut]])
    high = np.concatenate([first_high, boxes.high[cut]])
    bound = np.concatenate([boxes.bound, boxes.bound[cut]])
    twin = np.full(boxes.count, -1)
    twin[cut] = boxes.count + np.arange(int(cut.sum()))
    pairs, npus = [], []
    for (box, shape), least in zip(boxes.pairs, boxes.npus, strict=True):
        second = twin[box] >= 0
        pairs.append(
            (
                np.concatenate([box, twin[box[second]]]),
                np.concatenate([shape, shape[second]]),
            )
        )
        npus.append(np.concatenate([least, least[second]]))
    return Boxes(low, high, bound, pairs, npus)


def settled(space: Space, boxes: Boxes) -> bool:
    """Return whether no box can be cut."""
    return bool(np.all(boxes.low == boxes.high))


def cheapest_shapes(
    evaluator: Evaluator, levels: Indices, alive: Sequence[Indices] | None = None
) -> Choice | None:
    """Return the fewest NPUs on one platform; None where a use case cannot run.

    Parameters
    ----------
    evaluator, levels
        The problem, and the platform.
    alive
        Shapes to try, per group of forms; all if None.
    """
    space = evaluator.space
    if not space.allowed(levels[None])[0]:
        return None
    best = {user: (np.inf, -1, -1) for user in range(len(space.problem.use_case))}
    for group, forms in enumerate(evaluator.forms):
        which = np.arange(forms.shapes) if alive is None else alive[group]
        if not len(which):
            continue
        npus = evaluator.npus(group, np.tile(levels, (len(which), 1)), which)
        at = int(np.argmin(npus))
        one = (float(npus[at]), group, int(which[at]))
        best[forms.use_case] = min(best[forms.use_case], one)
    if not all(np.isfinite(npus) for npus, _, _ in best.values()):
        return None
    return choice_of(evaluator, levels, tuple((g, s) for _, g, s in best.values()))


def choice_of(
    evaluator: Evaluator, levels: Indices, shapes: tuple[tuple[int, int], ...]
) -> Choice | None:
    """Return a platform with given shapes; None where they miss a target or limit."""
    space = evaluator.space
    if not space.allowed(levels[None])[0]:
        return None
    npus = [evaluator.npus(g, levels[None], np.array([s]))[0] for g, s in shapes]
    total = float(np.sum(npus))
    if not np.isfinite(total) or total > (space.problem.limits.npus or np.inf):
        return None
    each = tuple(
        round(float(n / evaluator.forms[g].npus[s]))
        for n, (g, s) in zip(npus, shapes, strict=True)
    )
    value = space.distance(levels[None])[0]
    if space.is_cost:
        value = total * space.npu_usd(levels[None])[0]
    return Choice(levels.copy(), shapes, each, float(value))


def descended(evaluator: Evaluator, start: Choice) -> Choice:
    """Return what single steps along one figure make of a platform, shapes kept."""
    space, best = evaluator.space, start
    moves = [
        (k, level)
        for k, size in enumerate(space.sizes)
        for level in range(size)
        if size > 1
    ]
    if not moves:
        return best
    axis, level = (np.array(column) for column in zip(*moves, strict=True))
    most = space.problem.limits.npus or np.inf
    while True:
        levels = np.tile(best.levels, (len(moves), 1))
        levels[np.arange(len(moves)), axis] = level
        total = np.zeros(len(moves))
        for group, shape in best.shapes:
            total += evaluator.npus(group, levels, np.full(len(moves), shape))
        value = space.distance(levels)
        if space.is_cost:
            with np.errstate(invalid="ignore"):
                value = total * space.npu_usd(levels)
        possible = np.isfinite(total) & (total <= most) & space.allowed(levels)
        value = np.where(possible, value, np.inf)
        at = int(np.argmin(value))
        if not value[at] < best.value * (1 - 1e-12):
            return best
        found = choice_of(evaluator, levels[at], best.shapes)
        assert found is not None
        best = found


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


def pruned(evaluator: Evaluator, depth: int | None = None) -> Pruned:
    """Return the boxes and shapes that may hold the optimum, and a good platform.

    Parameters
    ----------
    evaluator
        The problem.
    depth
        How often boxes are cut at most; 0 for none, which looks for no platform either.
    """
    space = evaluator.space
    boxes = bounded(evaluator, root(evaluator), np.inf)
    best: Choice | None = None
    while boxes.count and depth != 0:
        depth = None if depth is None else depth - 1
        best = _improved(evaluator, boxes, best)
        known = np.inf if best is None else best.value * (1 + 1e-12)
        kept = undominated(evaluator, _kept(boxes, evaluator, known))
        if kept.count <= ENOUGH_BOXES and best is not None and _small(kept):
            boxes = kept
            break
        if evaluator.evaluated > MOST_PAIRS or settled(space, kept):
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
    return boxes.bound <= np.partition(boxes.bound, most)[most]


def _kept(boxes: Boxes, evaluator: Evaluator, known: float) -> Boxes:
    """Return the boxes whose bounds a better known platform leaves."""
    space, forms = evaluator.space, evaluator.forms
    keep = boxes.bound <= known
    unit = space.npu_usd(boxes.low) if space.is_cost else np.zeros(boxes.count)
    least = np.full((len(space.problem.use_case), boxes.count), np.inf)
    for group, (box, _) in enumerate(boxes.pairs):
        np.minimum.at(least[forms[group].use_case], box, boxes.npus[group])
    number = np.cumsum(keep) - 1
    pairs, npus = [], []
    for group, (box, shape) in enumerate(boxes.pairs):
        more = boxes.npus[group] - least[forms[group].use_case, box]
        stays = keep[box] & (boxes.bound[box] + unit[box] * more <= known)
        pairs.append((number[box[stays]], shape[stays]))
        npus.append(boxes.npus[group][stays])
    return Boxes(boxes.low[keep], boxes.high[keep], boxes.bound[keep], pairs, npus)


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
    """Yield the corners of a box, the fast one as far as it is allowed, and its middle."""
    yield _within_limits(space, high)
    yield (low + high) // 2
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
            [space.slowed(k, int(levels[k]) - 1) / space.slowed(k, int(levels[k])) for k in lower]
        )
        levels = steps[int(np.argmax(saved / np.log(np.maximum(slower, 1 + 1e-9))))]
    return levels
