"""The only place where floats become integers.

Demands round up, capacities and limits round down, costs round up: a plan that
holds in integers holds in floats. Each scale is the largest power of ten that
keeps every sum below CP-SAT's range; what rounding loses is measured.
"""

import math
from dataclasses import dataclass

from model_ops.errors import SolverError
from solver.counted import Counted
from solver.instance import Instance

RANGE = 2**53
"""Sums stay below this; CP-SAT's own limit is 2**63, and this leaves it room."""

_DECIMALS = 10
"""Decimal places of dollars and watts at most."""

_SIGNIFICANT = 7
"""Significant digits that the smallest capacity of a class keeps."""

SLACK = 1e-9
"""Relative tolerance of a limit: what the verifier forgives, too."""

LARGEST_LOSS = 1e-3
"""Relative loss of a capacity by rounding beyond which a problem is refused."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """An instance's numbers as integers.

    Parameters
    ----------
    capacity, demand
        Per candidate and per class, in the class's own scale.
    usd, usd_per
        Price of one portion (host or NPU) per offer, and the scale.
    watts, watts_per
        Power of one NPU per offer, 0 where unknown, and the scale.
    most
        Replicas of each candidate that could ever be needed.
    loss
        Largest relative loss of a capacity or price by rounding.
    """

    capacity: tuple[int, ...]
    demand: tuple[int, ...]
    usd: tuple[int, ...]
    usd_per: float
    watts: tuple[int, ...]
    watts_per: float
    most: tuple[int, ...]
    loss: float


def scale(instance: Instance) -> Scaled:
    """Return the instance in integers.

    Raises
    ------
    SolverError
        If no scale keeps the sums in range with a loss below `LARGEST_LOSS`.
    """
    capacity = [0] * len(instance.candidates)
    demand: list[int] = []
    loss = 0.0
    members: list[list[tuple[int, Counted]]] = [[] for _ in instance.demand]
    for i, candidate in enumerate(instance.candidates):
        members[candidate.traffic].append((i, candidate))
    for wanted, of_class in zip(instance.demand, members, strict=True):
        largest = sum(
            c.capacity * (math.ceil(wanted / c.capacity) + _beyond_demand(instance, c))
            for _, c in of_class
        )
        smallest = min((c.capacity for _, c in of_class), default=1.0)
        decimals = _SIGNIFICANT - 1 - math.floor(math.log10(smallest))
        per = _scale_for(max(largest, wanted), decimals)
        demand.append(ceiling(wanted * per))
        for i, candidate in of_class:
            exact = candidate.capacity * per
            capacity[i] = floor(exact)
            loss = max(loss, 1 - capacity[i] / exact)
    _checked(loss)
    most = tuple(
        max(
            math.ceil(demand[c.traffic] / max(capacity[i], 1))
            + _beyond_demand(instance, c),
            c.least,
        )
        for i, c in enumerate(instance.candidates)
    )
    npus = sum(n * c.npus for n, c in zip(most, instance.candidates, strict=True))
    dearest = max((o.price.usd_per_hour for o in instance.offers), default=1.0)
    usd_per = _scale_for(dearest * max(npus, 1), _DECIMALS)
    usd = [offer.price.usd_per_hour for offer in instance.offers]
    loss = _checked(
        max([loss, *(ceiling(u * usd_per) / (u * usd_per) - 1 for u in usd if u)])
    )
    hungriest = max((o.npu.power or 0.0 for o in instance.offers), default=0.0)
    hosts = max((o.host_npus for o in instance.offers), default=1)
    watts_per = _scale_for(max(hungriest, 1.0) * max(npus, 1) * hosts, _DECIMALS)
    return Scaled(
        capacity=tuple(capacity),
        demand=tuple(demand),
        usd=tuple(ceiling(u * usd_per) for u in usd),
        usd_per=usd_per,
        watts=tuple(ceiling((o.npu.power or 0.0) * watts_per) for o in instance.offers),
        watts_per=watts_per,
        most=most,
        loss=loss,
    )


def _beyond_demand(instance: Instance, candidate: Counted) -> int:
    """Return the replicas that may be needed beside those that cover the demand.

    For hosts that fail, and to keep what is in use today.
    """
    offer = instance.offers[candidate.offer]
    slot = min(candidate.slot, offer.host_npus)
    spare = instance.redundancy.domains * -(-instance.domain_npus(offer) // slot)
    if instance.limits.changed_npus is None:
        return spare
    today = sum(each.npus for each in instance.current if each.npu == offer.npu.name)
    return spare + today // candidate.npus


def _scale_for(largest: float, decimals: int) -> float:
    """Return the scale of so many decimals; fewer keep `largest` in the range."""
    room = math.floor(math.log10(RANGE / max(largest, 1e-12)))
    return float(10.0 ** min(room, decimals))


def _checked(loss: float) -> float:
    """Return a relative loss by rounding if it is small enough, else refuse."""
    if loss > LARGEST_LOSS:
        raise SolverError(
            f"rounding to integers would lose {loss:.2%} of a capacity or a price; the "
            "demand, or the prices, are too many times apart"
        )
    return loss


def floor(value: float) -> int:
    """Return the integer below, or the nearest one where floats cannot tell."""
    near = round(value)
    return near if _same(near, value) else math.floor(value)


def ceiling(value: float) -> int:
    """Return the integer above, or the nearest one where floats cannot tell."""
    near = round(value)
    return near if _same(near, value) else math.ceil(value)


def _same(whole: int, value: float) -> bool:
    return abs(whole - value) <= 1e-9 + 1e-15 * abs(value)
