"""What the solver chooses from: candidates, offers, demands and limits."""

import math
from dataclasses import dataclass

from problems.offers import Offer
from problems.problem import Limits, Objective
from solver.counted import Counted, Pairing


@dataclass(frozen=True, slots=True)
class Instance:
    """A choice of integer replica counts.

    Parameters
    ----------
    candidates, offers
        What may be counted, and what it stands on.
    demand
        Per traffic class, in the unit of the candidates' capacity.
    limits, objective
        What may be used at most, and what is minimised.
    pairings
        Which candidates may be the two pools of a disaggregated pair.
    known
        What some plan that keeps the limits is known to cost, in the objective.
    """

    candidates: tuple[Counted, ...]
    offers: tuple[Offer, ...]
    demand: tuple[float, ...]
    limits: Limits
    objective: Objective
    pairings: tuple[Pairing, ...] = ()
    known: float = math.inf

    @property
    def limited(self) -> bool:
        """Whether anything may be used at most."""
        return bool(self.limits.model_dump(exclude_defaults=True))

    def unit_cost(self, offer: Offer) -> float:
        """Return the objective's value per NPU of an offer, its hosts full."""
        if self.objective == "cost":
            return offer.usd_per_hour_per_npu
        if self.objective == "power":
            return offer.npu.power or 0.0
        return 1.0
