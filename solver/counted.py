"""What a plan counts, as far as the solver needs to know it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Replicas that a plan may count, whatever they are.

    Parameters
    ----------
    traffic
        Index of the class served.
    offer
        Index of the offer stood on.
    npus, slot
        NPUs used, and NPUs of a host occupied.
    capacity
        What one replica covers of the class's demand.
    least
        Replicas behind one router that this needs; a plan counts none or as many.
    """

    traffic: int
    offer: int
    npus: int
    slot: int
    capacity: float
    least: int = 1
