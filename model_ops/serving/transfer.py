"""The links that KV caches travel over from a prefill replica to a decode replica."""

from dataclasses import dataclass
from typing import Self

from model_ops.platform.fabric import Tier
from model_ops.platform.supply import Supply
from model_ops.units import BytesPerSecond, Seconds

STATED = "links of the bandwidth stated"


@dataclass(frozen=True, slots=True)
class Link:
    """What caches travel over, per NPU.

    Parameters
    ----------
    technology
        For reports.
    send, receive
        Bytes per second at the prefill pool's end, and at the decode pool's.
    latency
        Seconds before the first byte arrives.
    """

    technology: str
    send: BytesPerSecond
    receive: BytesPerSecond
    latency: Seconds

    @classmethod
    def between(
        cls,
        prefill: Supply,
        decode: Supply,
        npus: int,
        bandwidth: BytesPerSecond | None = None,
    ) -> Self:
        """Return the link between the NPUs of two pools.

        NPUs of one type meet on the innermost tier of their fabric that holds both
        pools; those of two types on the outermost tier of each.

        Parameters
        ----------
        prefill, decode
            The NPUs.
        npus
            NPUs of both pools together.
        bandwidth
            What transfers reach in place of the tier's, at both ends.
        """
        alike = prefill.npus[0].name == decode.npus[0].name
        ends = [_tier(supply, npus if alike else None) for supply in (prefill, decode)]
        reached = [
            _one_link(tier) * float(supply.link_efficiency)
            for tier, supply in zip(ends, (prefill, decode), strict=True)
        ]
        send, receive = reached if bandwidth is None else (bandwidth, bandwidth)
        names = dict.fromkeys(tier.technology for tier in ends)
        return cls(
            technology=" and ".join(names) if bandwidth is None else STATED,
            send=send,
            receive=receive,
            latency=max(float(tier.latency) for tier in ends),
        )


def slowest_link(
    supply: Supply, bandwidth: BytesPerSecond | None = None
) -> tuple[BytesPerSecond, Seconds]:
    """Return the bandwidth and latency of a link that no pair's is slower than.

    See `Link.between`, whatever the NPUs at the other end and however many. `bandwidth`
    is what transfers reach in place of the tiers'.
    """
    tiers = supply.fabric.tiers
    slowest = min(_one_link(tier) for tier in tiers) * float(supply.link_efficiency)
    latency = max(float(tier.latency) for tier in tiers)
    return slowest if bandwidth is None else bandwidth, latency


def _tier(supply: Supply, npus: int | None) -> Tier:
    """Return the innermost tier that holds so many NPUs; None: the outermost."""
    *inner, outermost = supply.fabric.tiers
    holding = (tier for tier in inner if npus is not None and npus <= int(tier.npus))
    return next(holding, outermost)


def _one_link(tier: Tier) -> BytesPerSecond:
    """Return what a send reaches: it uses one of a tier's links."""
    return float(tier.bandwidth / tier.oversubscription / tier.links)


@dataclass(frozen=True)
class Transfer:
    """Caches on their way, at a rate of the pair.

    Parameters
    ----------
    sent, received
        Bytes per second of each NPU of the prefill pool, and of the decode pool.
    per_token
        Seconds that a cache travels per prompt token.
    latency
        Seconds besides.
    utilisation
        Share of the time in which the busier end's links carry caches.
    """

    sent: BytesPerSecond
    received: BytesPerSecond
    per_token: Seconds
    latency: Seconds
    utilisation: float

    def seconds(self, tokens: float) -> Seconds:
        """Return how long the cache of so many prompt tokens travels."""
        return self.latency + self.per_token * tokens
