"""Seconds of a collective by the alpha-beta model, hierarchical over the tiers.

A hop costs ``latency + bytes / bandwidth``, so each algorithm's time is a line in
the payload. Source: R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of
collective communication operations in MPICH", IJHPCA 19(1), 2005, sections 4.1
to 4.5 (ring, recursive doubling and halving).
"""

from dataclasses import dataclass

import numpy as np

from model_ops.opcost import Collective, CollectiveKind, Number
from model_ops.platform.fabric import Fabric, Tier


@dataclass(frozen=True, slots=True)
class AlphaBeta:
    """A time that is a line in the payload: ``latency + payload * per_byte``."""

    latency: Number
    per_byte: Number

    def seconds(self, payload: Number) -> Number:
        """Return the seconds for a payload in bytes."""
        return self.latency + payload * self.per_byte


def collective_seconds(
    collective: Collective, fabric: Fabric, efficiency: Number
) -> Number:
    """Return the seconds of one collective on a fabric.

    Parameters
    ----------
    collective
        Its kind, payload in bytes and ranks.
    fabric
        The tiers that the group is placed on, innermost first.
    efficiency
        Share of the links' bandwidth that collectives reach.
    """
    spread = fabric.spread(collective.ranks)
    payload = collective.payload
    if collective.kind is CollectiveKind.SEND:
        return _send(fabric, spread, efficiency).seconds(payload)
    gather = _all_gather(fabric, spread, efficiency)
    if collective.kind is CollectiveKind.ALL_GATHER:
        return gather.seconds(payload)
    # A reduce-scatter is an all-gather run backwards, and both make an all-reduce.
    two_phase = AlphaBeta(2.0 * gather.latency, 2.0 * gather.per_byte)
    one_shot = _one_shot_all_reduce(fabric.tiers[0], spread, efficiency)
    return np.minimum(two_phase.seconds(payload), one_shot.seconds(payload))


def _all_gather(
    fabric: Fabric, spread: tuple[Number, ...], efficiency: Number
) -> AlphaBeta:
    """Gather tier by tier: an outer tier carries only its share of the payload.

    On a tier of direct links recursive doubling takes log2(members) hops; on
    others a ring takes members - 1. Both move the same bytes.
    """
    latency: Number = 0.0
    per_byte: Number = 0.0
    share: Number = 1.0
    for tier, members in zip(fabric.tiers, spread, strict=True):
        hops = np.where(tier.direct, np.ceil(np.log2(members)), members - 1)
        latency = latency + hops * tier.latency
        moved = share * (members - 1) / members
        per_byte = per_byte + moved / (tier.bandwidth * efficiency)
        share = share / members
    return AlphaBeta(latency, per_byte)


def _one_shot_all_reduce(
    tier: Tier, spread: tuple[Number, ...], efficiency: Number
) -> AlphaBeta:
    """Every rank sends its whole payload to every other: one hop, more bytes.

    Possible inside one direct innermost tier only; infinite elsewhere.
    """
    members, *outer = spread
    possible = np.asarray(tier.direct)
    for further in outer:
        possible = possible & (further == 1)
    latency = np.where(possible, (members > 1) * tier.latency, np.inf)
    return AlphaBeta(latency, (members - 1) / (tier.bandwidth * efficiency))


def _send(fabric: Fabric, spread: tuple[Number, ...], efficiency: Number) -> AlphaBeta:
    """One hop over the outermost tier that the replica spans."""
    latency: Number = 0.0
    per_byte: Number = 0.0
    for tier, members in zip(fabric.tiers, spread, strict=True):
        crossed = members > 1
        latency = np.where(crossed, tier.latency, latency)
        per_byte = np.where(crossed, 1.0 / (tier.bandwidth * efficiency), per_byte)
    return AlphaBeta(latency, per_byte)
