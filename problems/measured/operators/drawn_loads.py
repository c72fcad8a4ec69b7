"""Expert loads as NVIDIA AIConfigurator's collector draws them for its MoE tables.

Its ``power_law`` loads are no Zipf law over ranks: each expert draws a load from the
density ``x ** -alpha`` between 1 and 0.8 x tokens (between 0.01 and 2 where choices are
fewer than experts), the loads are scaled to the number of choices and rounded, and what
rounding lost goes to the most popular. A row of the table is the busiest rank's time,
the mean of some draws.

Source: github ai-dynamo/aiconfigurator, collector/helper.py, Apache-2.0.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

DRAWS = 16
"""Seeded draws that the load is the mean of."""

Loads = npt.NDArray[np.int64]


@cache
def busiest_rank(
    tokens: int, topk: int, experts: int, ranks: int, *, alpha: float
) -> tuple[float, float]:
    """Return the rows of the busiest rank, and its experts that have any.

    Parameters
    ----------
    tokens, topk
        Tokens of all ranks, and the experts that each chooses.
    experts, ranks
        Experts of the layer, dealt to the ranks alike.
    alpha
        Exponent of the loads; 0 if all experts are alike.
    """
    if alpha == 0.0:
        rows = tokens * topk / ranks
        return rows, max(min(experts / ranks, rows), 1.0)
    rng = np.random.default_rng(0)
    drawn = [_draw(tokens, topk, experts, alpha, rng) for _ in range(DRAWS)]
    dealt = [loads.reshape(ranks, -1) for loads in drawn]
    busiest = [by_rank[np.argmax(by_rank.sum(axis=1))] for by_rank in dealt]
    rows = float(np.mean([loads.sum() for loads in busiest]))
    return rows, float(np.mean([np.count_nonzero(loads) for loads in busiest]))


def _draw(
    tokens: int, topk: int, experts: int, alpha: float, rng: np.random.Generator
) -> Loads:
    """Return the rows of each expert of one draw."""
    choices = tokens * topk
    low, high = (1.0, tokens * 0.8) if choices > experts else (0.01, 2.0)
    power = 1.0 - alpha
    span = high**power - low**power
    drawn = (span * rng.random(experts) + low**power) ** (1.0 / power)
    loads: Loads = np.round(drawn / drawn.sum() * choices).astype(np.int64)
    missing = int(choices - loads.sum())
    # Equal loads in any order: nothing says which comes first.
    order = np.lexsort((rng.random(experts), -loads))
    if missing > 0:
        np.add.at(loads, order[np.arange(missing) % experts], 1)
        return loads
    for place in range(-missing):
        least = order[-(place % experts) - 1]
        loads[least if loads[least] > 0 else np.argmax(loads)] -= 1
    return loads
