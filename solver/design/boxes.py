"""Boxes of platforms, what they cost at least, and the shapes that may be best in them.

No step gets slower and no NPU cheaper when a figure gets better. So over a box of
platforms (a range of levels of each figure, one scale-up domain) the times at its
fastest corner, with the cost at its cheapest, bound the objective from below; and a
shape that needs no more NPUs at the slowest corner than another at the fastest is never
worse than it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solver.design.evaluate import Evaluator
from solver.design.space import Space

Floats = npt.NDArray[np.float64]


Indices = npt.NDArray[np.int64]


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


def root(evaluator: Evaluator) -> Boxes:
    """Return one box per scale-up domain, with every shape."""
    space = evaluator.space
    domains = len(space.domains)
    low = np.zeros((domains, len(space.sizes)), dtype=np.int64)
    high = np.tile(highest(space), (domains, 1))
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
    return Boxes(low, high, np.zeros(domains), pairs, [np.zeros(0)] * len(pairs))


def highest(space: Space, *, limited: bool = True) -> Indices:
    """Return each figure's best level, that the limits allow with all others low."""
    found: list[int] = []
    for k, size in enumerate(space.sizes):
        levels = np.zeros((size, len(space.sizes)), dtype=np.int64)
        levels[:, k] = np.arange(size)
        allowed = int(np.count_nonzero(space.allowed(levels))) if limited else int(size)
        found.append(max(allowed - 1, 0))
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
    """Return the boxes and shapes whose bound does not exceed what is known.

    Memory that no stacks of a box are small enough for is none of it.
    """
    space, forms = evaluator.space, evaluator.forms
    boxes.low = np.minimum(space.lifted(boxes.low), boxes.high)
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
    slowest = boxes.low.copy()
    slowest[:, space.capacity] = boxes.high[:, space.capacity]
    some = space.allowed(boxes.low) & space.built(slowest)
    bound = np.where(np.isfinite(total) & some, bound, np.inf)
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


def below(boxes: Boxes, evaluator: Evaluator, known: float) -> Boxes:
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


def halved(space: Space, boxes: Boxes, which: npt.NDArray[np.bool_]) -> Boxes:
    """Return the boxes with some of them cut in two, along what costs most in them."""
    spread = np.full(boxes.low.shape, -1.0)
    for k in range(boxes.low.shape[1]):
        if k == space.domain:
            continue
        top = boxes.low.copy()
        top[:, k] = boxes.high[:, k]
        if space.is_cost:
            dearest = space.npu_usd(space.lifted(top))
            spread[:, k] = dearest - space.npu_usd(boxes.low)
        else:
            spread[:, k] = np.ptp(
                np.stack(
                    [space.distances[k][boxes.low[:, k]], space.distances[k][top[:, k]]]
                ),
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
