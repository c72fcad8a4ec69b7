"""A better plan from a known one: a few traffic classes are chosen anew at a time.

With all but a few classes fixed, what is left is a small fleet on the hardware that the
others leave, which a MIP solver proves in a fraction of a second. Rounds of random
classes follow each other while they help (P. Shaw, "Using constraint programming and
local search methods to solve vehicle routing problems", CP 1998: large neighbourhood
search).
"""

import random
import time
from collections.abc import Sequence
from dataclasses import replace

from solver.linear import LinearModel, Row
from solver.mip import solved

_CLASSES = 5
"""Classes chosen anew at a time: as many as are proved in a fraction of a second."""

_SECONDS = 1.0
"""For one round; what was found until then counts."""


def improved(
    linear: LinearModel,
    owner: Sequence[int | None],
    values: Sequence[int],
    *,
    bound: int,
    deadline: float,
    seed: int = 0,
) -> tuple[int, ...]:
    """Return values that cost no more than those given, and keep every row.

    Parameters
    ----------
    linear, owner
        The model, and the class that a variable counts replicas of.
    values
        Of all variables; a solution.
    bound
        Cost at which nothing better is left to look for.
    deadline
        On `time.monotonic`'s clock.
    seed
        Of the choice of classes.
    """
    draw, best = random.Random(seed), tuple(values)
    classes = sorted({each for each in owner if each is not None})
    idle = 0
    while idle < 3 * len(classes) and linear.value(best) > bound:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        free = set(draw.sample(classes, min(_CLASSES, len(classes))))
        open_ = [who is None or who in free for who in owner]
        part, index = _part(linear, best, open_)
        found = solved(part, "SCIP", min(left, _SECONDS), [best[i] for i in index])
        other = list(best)
        for at, value in zip(index, found.values, strict=False):
            other[at] = value
        better = linear.value(other) < linear.value(best) and linear.admits(other)
        best, idle = (tuple(other), 0) if better else (best, idle + 1)
        if len(classes) <= _CLASSES:
            break
    return best


def _part(
    linear: LinearModel, values: Sequence[int], free: Sequence[bool]
) -> tuple[LinearModel, list[int]]:
    """Return the model of the free variables, and where they are in the whole."""
    index = [i for i, each in enumerate(free) if each]
    place = {i: at for at, i in enumerate(index)}
    rows = []
    for row in linear.rows:
        literal = row.literal
        if literal is not None:
            at = literal if literal >= 0 else -1 - literal
            if at not in place:
                if bool(values[at]) is not (literal >= 0):
                    continue
                literal = None
            else:
                literal = place[at] if literal >= 0 else -1 - place[at]
        terms = [
            (place[i], weight)
            for i, weight in zip(row.variables, row.weights, strict=True)
            if free[i]
        ]
        if not terms:
            continue
        fixed = sum(
            weight * values[i]
            for i, weight in zip(row.variables, row.weights, strict=True)
            if not free[i]
        )
        rows.append(
            Row(
                tuple(at for at, _ in terms),
                tuple(weight for _, weight in terms),
                None if row.low is None else row.low - fixed,
                None if row.high is None else row.high - fixed,
                literal,
            )
        )
    part = replace(
        linear,
        domains=tuple(linear.domains[i] for i in index),
        rows=tuple(rows),
        costs=tuple(linear.costs[i] for i in index),
    )
    return part, index
