"""A fabric: tiers of links, innermost first, that a group of NPUs spans."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from model_ops.opcost import CollectiveKind, Mask, Number
from model_ops.platform.collective_kernel import CollectiveKernel
from model_ops.units import BytesPerSecond, Seconds

UNLIMITED = 2**30
"""NPUs of a tier without a known limit."""


class Topology(StrEnum):
    """How the NPUs of a tier reach each other."""

    SWITCH = "switch"
    """Any two directly, at the full bandwidth."""
    MESH = "mesh"
    """Any two directly, over a link of their own."""
    RING = "ring"
    """Neighbours on a circle."""
    TORUS = "torus"
    """Neighbours on rings along each of several axes."""
    TREE = "tree"
    """Any two over a shared root (PCIe); collectives go round as on a ring."""

    @property
    def direct(self) -> bool:
        """Whether many pairs talk at once without passing a third NPU."""
        return self in (Topology.SWITCH, Topology.MESH)


@dataclass(frozen=True, slots=True)
class Tier:
    """Links of one reach; every number may be an array over NPUs.

    Parameters
    ----------
    technology
        What the links are, for reports.
    npus
        NPUs that reach each other over this tier or one inside it.
    bandwidth
        Bytes per second each NPU sends while it receives as much, summed over
        its links of this tier.
    latency
        Seconds before the first byte of a hop arrives.
    direct
        Whether any two NPUs talk without passing a third (switch, mesh).
    dimensions
        Axes of a torus, 1 for a ring; 0 where only collectives go round and any
        pair can exchange over a shared root (PCIe). Without meaning if direct.
    links
        Equal links that the bandwidth is the sum of: a send uses one, and a
        group those that lead to its members. 1 behind a switch.
    oversubscription
        By how much the bandwidth shrinks for groups that span the tier, 1 or
        more: the ports of a leaf switch over its uplinks.
    in_network_reduction
        Whether the switches add what passes (NVLink SHARP, InfiniBand SHARP).
    kernels
        What was measured of a library's collectives inside the tier; it stands in
        for the model of the kinds it names.
    """

    technology: str
    npus: Number
    bandwidth: BytesPerSecond | Number
    latency: Seconds | Number
    direct: Mask = True
    dimensions: Number = 1
    links: Number = 1
    oversubscription: Number = 1.0
    in_network_reduction: Mask = False
    kernels: Mapping[CollectiveKind, tuple[CollectiveKernel, ...]] = field(
        default_factory=dict, hash=False
    )


@dataclass(frozen=True, slots=True)
class Fabric:
    """Tiers, innermost first; an NPU reaches everything through the last."""

    tiers: tuple[Tier, ...]

    def ideal(self) -> "Fabric":
        """Return the fabric as its links could be used, not as they are."""
        return Fabric(tuple(replace(tier, kernels={}) for tier in self.tiers))

    def spread(self, ranks: Number, stride: Number = 1) -> tuple[Number, ...]:
        """Return over how many members a group is spread on each tier.

        A group is placed innermost first: it fills a tier's domain before it
        crosses to the next; one that does not fill whole domains takes as many
        NPUs of each as the greatest common divisor says. The product of the
        returned numbers is `ranks`.

        With a stride each member stands for a block of that many NPUs, placed the
        same way, and a domain holds as many members as whole blocks fit into it.
        Where all fill their domains that is ``spread(ranks * stride)`` over
        ``spread(stride)``, tier by tier.
        """
        left: Number = np.asarray(ranks, dtype=np.int64)
        block: Number = np.asarray(stride, dtype=np.int64)
        strided = bool(np.any(block > 1))
        inside: Number = np.asarray(1)
        members: list[Number] = []
        for tier in self.tiers[:-1]:
            room = np.asarray(tier.npus, dtype=np.int64) // inside
            inside = inside * room
            here = _placed(left, room)
            if strided:
                taken = _placed(block, room)
                block = block // taken
                here = np.where(block > 1, 1, _placed(left, room // taken))
            members.append(here)
            left = left // here
        return (*members, left)


def _placed(ranks: Number, room: Number) -> Number:
    """Return how many of a group one domain takes: all, or an equal share."""
    return np.where(ranks <= room, ranks, np.gcd(ranks, room))
