"""How long a communication library takes for a collective, from measurements.

A library has several algorithms and protocols per collective: some start fast, some
move bytes fast. Each is a line in the payload whose coefficients depend on the
members; which it takes for a size is the lowest line's business.
"""

from dataclasses import dataclass

import numpy as np

from model_ops.opcost import Number
from model_ops.units import Seconds

MEASURED_MEMBERS = 8
"""The largest groups measured; beyond, latency grows as the depth of a tree."""


@dataclass(frozen=True, slots=True)
class CollectiveKernel:
    """One algorithm and protocol of a library, on one link technology.

    With m members, links of bandwidth b and s bytes that each member must send at
    the least (`Collective.cost`), it takes ``launch + hop (m - 1) + s (m - 1) **
    contention / (share b)``, and never less than ``s / b``. Numbers may be arrays
    over NPUs.

    Parameters
    ----------
    launch
        Seconds that do not depend on the members.
    hop
        Seconds for each further member.
    share
        Share of the bandwidth that two members reach; 0 where nobody measured it.
    contention
        How that falls with the members: 0 behind a switch, 1 where all share one
        root; negative where larger groups use the links better (rings of many
        channels, sums formed in the switch).
    """

    launch: Seconds | Number
    hop: Seconds | Number
    share: Number
    contention: Number

    def latency(self, members: Number) -> Number:
        """Return the seconds of an empty payload; none for a member alone."""
        depth = np.log2(np.maximum(members / MEASURED_MEMBERS, 1.0))
        reached = np.minimum(members, MEASURED_MEMBERS) - 1
        tree = (MEASURED_MEMBERS - 1) / np.log2(MEASURED_MEMBERS)
        peers: Number = reached + tree * depth
        return np.where(members > 1, self.launch + self.hop * peers, 0.0)

    def excess(self, members: Number) -> Number:
        """Return how much longer the bytes take than at the links' bandwidth."""
        peers = np.clip(members, 2, MEASURED_MEMBERS) - 1.0
        share = np.where(np.asarray(self.share) > 0, self.share, 1.0)
        return np.maximum(np.power(peers, self.contention) / share, 1.0)

    def never_slower(self, other: "CollectiveKernel") -> bool:
        """Return whether no payload and no group is faster by the other."""
        members = np.arange(2, MEASURED_MEMBERS + 1)
        starts = self.launch <= other.launch and self.hop <= other.hop
        return bool(starts and np.all(self.excess(members) <= other.excess(members)))


UNMEASURED = CollectiveKernel(0.0, 0.0, 0.0, 0.0)
"""Stands for an NPU without measurements beside others that have some."""
