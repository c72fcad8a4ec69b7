"""A second memory behind an NPU's own: larger, slower, shared with the host."""

from dataclasses import dataclass

from model_ops.units import Bytes, BytesPerSecond


@dataclass(frozen=True, slots=True)
class OuterMemory:
    """What one NPU has of a memory that it reaches over a link.

    Parameters
    ----------
    technology
        What it is and how it is reached, e.g. ``"host DDR5 over PCIe 5"``.
    capacity
        Bytes, an NPU's share of those that the server's NPUs have in common.
    bandwidth
        Bytes per second one NPU reads while it writes as much, all NPUs of the
        server at once: the slower of the link and the NPU's share of the memory.
    """

    technology: str
    capacity: Bytes
    bandwidth: BytesPerSecond


NO_OUTER_MEMORY = OuterMemory("none", 0.0, 1.0)
"""Holds nothing. Its byte per second keeps quotients finite, and a mistaken use of
it is plain to see: a gigabyte takes thirty years."""
