"""What the solver chooses from: candidates, offers, demands and limits."""

import math
from dataclasses import dataclass

from problems.fleet import Current, Redundancy
from problems.offers import Offer
from problems.problem import Limits, Objective
from problems.survival import domain_hosts
from solver.counted import Counted, Pairing

_NONE = Redundancy()


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
    redundancy, current
        What may fail, and what is in use today.
    """

    candidates: tuple[Counted, ...]
    offers: tuple[Offer, ...]
    demand: tuple[float, ...]
    limits: Limits
    objective: Objective
    pairings: tuple[Pairing, ...] = ()
    known: float = math.inf
    redundancy: Redundancy = _NONE
    current: tuple[Current, ...] = ()

    @property
    def limited(self) -> bool:
        """Whether any constraint goes beyond demand, pools and hosts."""
        return (
            bool(self.limits.model_dump(exclude_defaults=True))
            or any(offer.stock is not None for offer in self.offers)
            or self.redundancy.domains > 0
        )

    def domain_npus(self, offer: Offer) -> int:
        """Return the NPUs of an offer that fail together."""
        racks = self.limits.racks
        return offer.host_npus * domain_hosts(self.redundancy, racks, offer)

    def unit_cost(self, offer: Offer) -> float:
        """Return the objective's value per NPU of an offer, its hosts full."""
        if self.objective == "cost":
            return offer.usd_per_hour_per_npu
        if self.objective == "power":
            return offer.npu.power or 0.0
        return 1.0
