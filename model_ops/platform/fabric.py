"""A fabric: tiers of links, innermost first, that a group of NPUs spans."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from model_ops.opcost import Mask, Number
from model_ops.units import BytesPerSecond, Seconds

UNLIMITED = 2**30
"""NPUs of a tier without a known limit."""


class Topology(StrEnum):
    """How the NPUs of a tier reach each other."""

    SWITCH = "switch"
    MESH = "mesh"
    RING = "ring"
    TORUS = "torus"


@dataclass(frozen=True, slots=True)
class Tier:
    """Links of one reach.

    Parameters
    ----------
    technology
        What the links are, for reports.
    npus
        NPUs that reach each other over this tier or one inside it.
    bandwidth
        Bytes per second each NPU sends while it receives as much.
    latency
        Seconds before the first byte of a hop arrives.
    direct
        Whether any two NPUs talk without passing a third (switch, mesh).
    """

    technology: str
    npus: Number
    bandwidth: BytesPerSecond | Number
    latency: Seconds | Number
    direct: Mask = True


@dataclass(frozen=True, slots=True)
class Fabric:
    """Tiers, innermost first; an NPU reaches everything through the last."""

    tiers: tuple[Tier, ...]

    def spread(self, ranks: Number) -> tuple[Number, ...]:
        """Return over how many members a group is spread on each tier.

        A group is placed innermost first: it fills a tier's domain before it
        crosses to the next; one that does not fill whole domains takes as many
        NPUs of each as the greatest common divisor says. The product of the
        returned numbers is `ranks`.
        """
        left: Number = np.asarray(ranks, dtype=np.int64)
        inside: Number = np.asarray(1)
        members: list[Number] = []
        for tier in self.tiers[:-1]:
            room = np.asarray(tier.npus, dtype=np.int64) // inside
            here = np.where(left <= room, left, np.gcd(left, room))
            members.append(here)
            left = left // here
            inside = inside * room
        return (*members, left)
