"""Seconds of a collective by the alpha-beta model, hierarchical over the tiers.

A hop costs ``latency + bytes / bandwidth``, so each algorithm's time is a line in
the payload, and a library takes the lowest line for the size at hand. Tiers work
one after the other: the inner gathers or reduces first, so that an outer one
carries only its share. Inside the innermost tier the lines of what was measured
stand in for the model's (`CollectiveKernel`); no collective between nodes was.

Sources, by the short names used below:

- *Thakur*: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective
  communication operations in MPICH", IJHPCA 19(1), 2005.
- *Chan*: E. Chan, M. Heimlich, A. Purkayastha, R. van de Geijn, "Collective
  communication: theory, practice, and experience", CCPE 19(13), 2007.
- *Jouppi*: N. Jouppi et al., "TPU v4", ISCA 2023 (a torus whose collectives run
  along all axes at once).
- *Dally*: W. Dally, B. Towles, "Principles and practices of interconnection
  networks", 2004 (hop counts of tori and the bound they set on throughput).
- *SHARP*: R. Graham et al., "Scalable hierarchical aggregation protocol", COMHPC
  2016; for NVLink the NVLS algorithm of NCCL.

Doubling whole payloads (Thakur) is left out of all-reduce: no library for
NPUs offers it between one-shot and reduce-scatter with all-gather.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.opcost import Collective, CollectiveKind, Mask, Number
from model_ops.platform.fabric import Fabric, Tier


@dataclass(frozen=True, slots=True)
class AlphaBeta:
    """A time that is a line in the payload: ``latency + payload * per_byte``."""

    latency: Number
    per_byte: Number

    def seconds(self, payload: Number) -> Number:
        """Return the seconds for a payload in bytes."""
        return self.latency + payload * self.per_byte


@dataclass(frozen=True, slots=True)
class _Leg:
    """What a group sees of one tier: its members there and what they reach."""

    tier: Tier
    members: Number
    efficiency: Number

    @property
    def full_bandwidth(self) -> Number:
        """Bytes per second over all links of a member."""
        return self.tier.bandwidth * self.efficiency / self.tier.oversubscription

    @property
    def bandwidth(self) -> Number:
        """Bytes per second over those links of a member that lead to its group.

        In a mesh these are ``members - 1``, on a torus two for each axis.
        """
        tier = self.tier
        if not _anywhere(tier.links > 1):
            return self.full_bandwidth
        useful = np.where(tier.direct, self.members - 1, 2 * self.axes)
        return self.full_bandwidth * (np.clip(useful, 1, tier.links) / tier.links)

    @property
    def unshared_bandwidth(self) -> Number:
        """Bytes per second over all links, whatever share of it collectives reach."""
        return self.tier.bandwidth / self.tier.oversubscription

    @property
    def crossed(self) -> Mask:
        """Whether the group spans the tier at all."""
        return self.members > 1

    @property
    def axes(self) -> Number:
        """Axes of the torus over which the group spreads, at least two long each."""
        most = np.maximum(self.tier.dimensions, 1)
        return np.clip(np.floor(np.log2(self.members)), 1, most)

    @property
    def around(self) -> Number:
        """Hops along a ring, or along one axis of a near-cubic torus after another."""
        if not _anywhere(self.tier.dimensions > 1):
            return self.members - 1
        axes = self.axes
        return axes * (self.members ** (1.0 / axes) - 1)

    @property
    def hops(self) -> Number:
        """Hops of a gather: doubling on direct links, else around."""
        return np.where(self.tier.direct, np.ceil(np.log2(self.members)), self.around)


def _anywhere(condition: Mask) -> bool:
    """Return whether it holds for any NPU; a plain bool skips numpy."""
    return condition if isinstance(condition, bool) else bool(np.any(condition))


def collective_seconds(
    collective: Collective, fabric: Fabric, efficiency: Number
) -> Number:
    """Return the seconds of one collective on a fabric.

    Parameters
    ----------
    collective
        Its kind, payload in bytes, ranks and stride.
    fabric
        The tiers that the group is placed on, innermost first.
    efficiency
        Share of the links' bandwidth that collectives reach where nobody measured
        them.
    """
    first, *others = collective_lines(collective, fabric, efficiency)
    seconds = first.seconds(collective.payload)
    for line in others:
        seconds = np.minimum(seconds, line.seconds(collective.payload))
    return seconds


def collective_lines(
    collective: Collective, fabric: Fabric, efficiency: Number
) -> tuple[AlphaBeta, ...]:
    """Return the line of each algorithm; the collective takes the lowest.

    Where nothing was measured, a line's latency is a sum of the tiers' latencies, and
    its seconds per byte one of the reciprocals of their bandwidths (but for the chain
    of a broadcast): see `collective_seconds` for the parameters.
    """
    spread = fabric.spread(collective.ranks, collective.stride)
    legs = tuple(
        _Leg(tier, members, efficiency)
        for tier, members in zip(fabric.tiers, spread, strict=True)
    )
    return _ALGORITHMS[collective.kind](legs, collective.kind)


def _measured(
    kind: CollectiveKind, legs: Sequence[_Leg], modelled: Sequence[AlphaBeta]
) -> tuple[AlphaBeta, ...]:
    """Put what was measured in the model's place, for groups inside the inner tier."""
    inner, *outer = legs
    kernels = inner.tier.kernels.get(kind, ())
    if not kernels:
        return tuple(modelled)
    known: Mask = np.asarray(kernels[0].share) > 0
    for leg in outer:
        known = known & (leg.members == 1)
    least = Collective(kind.value, kind, 1.0, inner.members).cost().link_bytes
    sent = least / inner.unshared_bandwidth
    lines = []
    for index in range(max(len(kernels), len(modelled))):
        kernel = kernels[min(index, len(kernels) - 1)]
        model = modelled[min(index, len(modelled) - 1)]
        latency = np.where(known, kernel.latency(inner.members), model.latency)
        per_byte = np.where(known, sent * kernel.excess(inner.members), model.per_byte)
        lines.append(AlphaBeta(latency, per_byte))
    return tuple(lines)


def _all_gather(
    legs: tuple[_Leg, ...], kind: CollectiveKind = CollectiveKind.ALL_GATHER
) -> tuple[AlphaBeta, ...]:
    """Gather tier by tier: an outer tier carries only its share of the payload.

    On direct links recursive doubling takes log2(members) hops (Thakur), on a
    ring the pieces go round in members - 1 (bucket algorithm: Chan), on a
    torus one axis after another, each of several parts of the payload starting on
    another axis, so that all links work (Jouppi). Each moves the same bytes. A
    reduce-scatter is an all-gather run backwards.
    """
    lines = [_gather_inside(leg) for leg in legs]
    latency: Number = 0.0
    per_byte: Number = 0.0
    share: Number = 1.0 / legs[0].members
    for leg, line in zip(legs[1:], lines[1:], strict=True):
        latency = latency + line.latency
        per_byte = per_byte + share * line.per_byte
        share = share / leg.members
    return tuple(
        AlphaBeta(line.latency + latency, line.per_byte + per_byte)
        for line in _measured(kind, legs[:1], lines[:1])
    )


def _gather_inside(leg: _Leg) -> AlphaBeta:
    moved = (leg.members - 1) / leg.members
    return AlphaBeta(leg.hops * leg.tier.latency, moved / leg.bandwidth)


def _all_reduce(legs: tuple[_Leg, ...], kind: CollectiveKind) -> tuple[AlphaBeta, ...]:
    """Reduce-scatter and all-gather (Thakur), one shot, or in the network."""
    lines = [
        AlphaBeta(2.0 * gather.latency, 2.0 * gather.per_byte)
        for gather in _all_gather(legs)
    ]
    lines.append(_one_shot_all_reduce(legs))
    if any(_anywhere(leg.tier.in_network_reduction) for leg in legs):
        lines.append(_in_network_all_reduce(legs))
    return _measured(kind, legs, lines)


def _one_shot_all_reduce(legs: tuple[_Leg, ...]) -> AlphaBeta:
    """Every rank sends its whole payload to every other: one hop, more bytes.

    Possible inside one direct innermost tier only; infinite elsewhere.
    """
    inner, *outer = legs
    possible = np.asarray(inner.tier.direct)
    for leg in outer:
        possible = possible & (leg.members == 1)
    latency = np.where(possible, inner.crossed * inner.tier.latency, np.inf)
    return AlphaBeta(latency, (inner.members - 1) / inner.bandwidth)


def _in_network_all_reduce(legs: tuple[_Leg, ...]) -> AlphaBeta:
    """Send the payload up once and receive the sum once, where switches can add.

    Two hops whatever the members (SHARP); tiers without it work in two phases. The
    bytes are SHARP's: NVLS moves up to 1 / members more, since members pull sums.
    """
    latency: Number = 0.0
    per_byte: Number = 0.0
    share: Number = 1.0
    for leg in legs:
        able, members = leg.tier.in_network_reduction, leg.members
        latency = latency + leg.tier.latency * np.where(
            able, 2.0 * leg.crossed, 2.0 * leg.hops
        )
        payloads = np.where(able, leg.crossed, 2.0 * (members - 1) / members)
        per_byte = per_byte + share * payloads / leg.bandwidth
        share = share / members
    return AlphaBeta(latency, per_byte)


def _all_to_all(legs: tuple[_Leg, ...], kind: CollectiveKind) -> tuple[AlphaBeta, ...]:
    """Send each rank its part; a byte crosses the outermost tier on its way, only.

    Direct links take one hop, all parts at once; over a shared root the members
    take turns (pairwise exchange: Thakur). On a ring or torus a byte uses as
    many links as it passes hops, and the farthest part sets the latency (Dally).
    """
    inner, *others = legs
    latency: Number = 0.0
    per_byte: Number = 0.0
    outside: Number = 1.0
    for leg in reversed(others):
        line = _exchange_inside(leg)
        latency = latency + line.latency
        per_byte = per_byte + line.per_byte / outside
        outside = outside * leg.members
    return tuple(
        AlphaBeta(line.latency + latency, line.per_byte / outside + per_byte)
        for line in _measured(kind, (inner,), [_exchange_inside(inner)])
    )


def _exchange_inside(leg: _Leg) -> AlphaBeta:
    hops, links = _exchange(leg)
    return AlphaBeta(hops * leg.tier.latency, links / leg.bandwidth)


def _exchange(leg: _Leg) -> tuple[Number, Number]:
    """Return the hops of an all-to-all on a tier, and how many links a byte uses.

    Along an axis of length s the farthest member is s / 2 away, rounded down, and
    the mean member, oneself included, s / 4, or (s - 1 / s) / 4 if s is odd.
    """
    tier, members = leg.tier, leg.members
    hops = np.where(tier.direct, leg.crossed, members - 1)
    links = (members - 1) / members
    round_about = ~np.asarray(tier.direct) & (np.asarray(tier.dimensions) > 0)
    if not _anywhere(round_about):
        return hops, links
    axes = leg.axes
    side = members ** (1.0 / axes)
    whole = np.rint(side)
    side = np.where(np.abs(side - whole) < 1e-9 * whole, whole, side)
    farthest = axes * np.floor(side / 2)
    mean = axes * np.where(side % 2 == 1, side - 1 / side, side) / 4
    return np.where(round_about, farthest, hops), np.where(round_about, mean, links)


def _broadcast(legs: tuple[_Leg, ...], kind: CollectiveKind) -> tuple[AlphaBeta, ...]:
    """Send by a tree, down a pipelined chain, or scatter and gather.

    The tree sends whole payloads (Chan); the chain takes members - 1 hops, but
    passes small pieces on at once, so that the slowest link sets the pace (ring
    broadcast of NCCL); a scatter costs what a gather does (Chan).
    """
    tree, chain = AlphaBeta(0.0, 0.0), AlphaBeta(0.0, 0.0)
    for leg in legs:
        tree = AlphaBeta(
            tree.latency + leg.hops * leg.tier.latency,
            tree.per_byte + leg.hops / leg.bandwidth,
        )
        length = np.where(leg.tier.direct, leg.members - 1, leg.around)
        chain = AlphaBeta(
            chain.latency + length * leg.tier.latency,
            np.maximum(chain.per_byte, leg.crossed / leg.bandwidth),
        )
    gathers = _all_gather(legs)
    return tree, chain, *(AlphaBeta(2.0 * g.latency, 2.0 * g.per_byte) for g in gathers)


def _send(legs: tuple[_Leg, ...], kind: CollectiveKind) -> tuple[AlphaBeta, ...]:
    """One hop over one link of the outermost tier that the replica spans."""
    latency: Number = 0.0
    per_byte: Number = 0.0
    for leg in legs:
        latency = np.where(leg.crossed, leg.tier.latency, latency)
        one_link = leg.full_bandwidth / leg.tier.links
        per_byte = np.where(leg.crossed, 1.0 / one_link, per_byte)
    return _measured(kind, legs, [AlphaBeta(latency, per_byte)])


_Algorithms = Callable[[tuple[_Leg, ...], CollectiveKind], tuple[AlphaBeta, ...]]

_ALGORITHMS: Mapping[CollectiveKind, _Algorithms] = {
    CollectiveKind.ALL_REDUCE: _all_reduce,
    CollectiveKind.ALL_GATHER: _all_gather,
    CollectiveKind.REDUCE_SCATTER: _all_gather,
    CollectiveKind.ALL_TO_ALL: _all_to_all,
    CollectiveKind.DISPATCH: _all_to_all,
    CollectiveKind.COMBINE: _all_to_all,
    CollectiveKind.BROADCAST: _broadcast,
    CollectiveKind.SEND: _send,
}
"""The lines of each kind; a group takes the lowest."""
