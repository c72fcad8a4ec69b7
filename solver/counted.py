"""What a plan counts, as far as the solver needs to know it."""

from collections.abc import Hashable
from dataclasses import dataclass

from problems.plan import Mode


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
    mode
        Whether they read and answer, only read, or only answer.
    pairing
        Index of the pairing that replicas belong to which only read or only answer.
    kind
        What tells its deployment from others on the same NPU, whatever its class.
    """

    traffic: int
    offer: int
    npus: int
    slot: int
    capacity: float
    least: int = 1
    mode: Mode = "aggregated"
    pairing: int = -1
    kind: Hashable = None


@dataclass(frozen=True, slots=True)
class Pairing:
    """Prefill replicas and decode replicas that may serve a class together.

    Any of its candidates that read go with any that answer.

    Parameters
    ----------
    traffic
        Index of the class served.
    """

    traffic: int
