"""How evenly tokens choose among experts: what the busiest rank of them gets.

Routers are trained towards balance and do not reach it. The popularity of experts is
modelled as a power law, ``p_i ~ i ** -alpha``; ``alpha`` 0 is balance. Experts are
dealt to ranks without regard to popularity, unless some are kept twice: then the
most loaded are replicated and dealt by load (DeepSeek-AI, EPLB, 2025).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from model_ops.opcost import Number

_DEALS = 64
"""Random placements averaged: the mean busiest rank is then within about 2 %."""


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """How tokens spread over the routed experts.

    Parameters
    ----------
    alpha
        Exponent of the experts' popularity; 0 for balance.
    redundant_experts
        Further copies of popular experts in each layer (EPLB); needs memory.
    """

    alpha: float = 0.0
    redundant_experts: int = 0

    def imbalance(self, experts: int, chosen: int, ranks: Number) -> Number:
        """Return the busiest rank's tokens over the mean rank's; at least 1.

        Parameters
        ----------
        experts, chosen
            Routed experts of a layer, and how many of them each token takes.
        ranks
            Ranks that they are dealt to; a number or an array.
        """
        if self.alpha == 0.0:
            return 1.0
        degrees = np.asarray(ranks)
        values = np.unique(degrees)
        each = np.array(
            [_busiest(self, experts, chosen, int(value)) for value in values]
        )
        found: npt.NDArray[np.float64] = each[np.searchsorted(values, degrees)]
        return found if found.ndim else float(found)


BALANCED = ExpertLoad()
"""Every expert is as popular as any other."""


@lru_cache(maxsize=256)
def _busiest(load: ExpertLoad, experts: int, chosen: int, ranks: int) -> float:
    popularity = _popularity(load.alpha, experts, chosen)
    if load.redundant_experts:
        return _dealt_by_load(popularity, load.redundant_experts, ranks)
    rng = np.random.default_rng(0)
    room = -(-experts // ranks)
    padded = np.concatenate([popularity, np.zeros(room * ranks - experts)])
    deals = [rng.permutation(padded).reshape(ranks, room) for _ in range(_DEALS)]
    return float(np.mean([deal.sum(axis=1).max() for deal in deals])) * ranks


def _popularity(alpha: float, experts: int, chosen: int) -> npt.NDArray[np.float64]:
    """Return each expert's share of the choices; a token takes no expert twice."""
    shares = np.arange(1, experts + 1, dtype=float) ** -alpha
    most = 1.0 / chosen
    full = np.zeros(experts, dtype=bool)
    while True:
        left = 1.0 - most * full.sum()
        scaled = np.where(full, most, shares * left / max(shares[~full].sum(), 1e-300))
        beyond = ~full & (scaled > most)
        if not beyond.any():
            return scaled
        full |= beyond


def _dealt_by_load(
    popularity: npt.NDArray[np.float64], redundant: int, ranks: int
) -> float:
    """Replicate the busiest copy again and again, then deal heaviest first."""
    copies = np.ones(len(popularity))
    for _ in range(redundant):
        copies[np.argmax(popularity / copies)] += 1
    pieces = np.repeat(popularity / copies, copies.astype(int))
    room = -(-len(pieces) // ranks)
    loads, held = np.zeros(ranks), np.zeros(ranks, dtype=int)
    for piece in np.sort(pieces)[::-1]:
        rank = int(np.argmin(np.where(held < room, loads, np.inf)))
        loads[rank] += piece
        held[rank] += 1
    return float(loads.max()) * ranks
