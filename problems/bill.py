"""Whether a purchase is what its replicas need, at the price that is asked."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

from problems.offers import Offer
from problems.plan import Purchase
from problems.violation import ROUNDING, Violation


class Stands(Protocol):
    """Replicas that are alike, on one offer; None is what nobody knows."""

    @property
    def npu(self) -> str:
        """Their NPU type."""

    @property
    def replicas(self) -> int:
        """How many."""

    @property
    def npus_per_replica(self) -> int:
        """NPUs of one."""

    @property
    def npus(self) -> int:
        """NPUs that they say they use together."""

    @property
    def nodes(self) -> int | None:
        """Servers that they say they stand on."""

    @property
    def usd_per_hour(self) -> float | None:
        """What they say is their share of the purchase."""


def bill_violations(
    purchase: Purchase, offer: Offer, standing: Sequence[Stands]
) -> Iterator[Violation]:
    """Yield what a purchase of an offer states wrongly, given what stands on it."""
    slots: Counter[int] = Counter()
    for row in standing:
        npus = row.npus_per_replica
        if row.npu != offer.npu.name:
            yield Violation("hardware", f"{offer.label} is no {row.npu}")
        if row.npus != row.replicas * npus:
            yield Violation("npus", f"{row.npu}: {row.npus} are not used")
        slots[offer.slot(npus)] += row.replicas
    hosts = offer.hosts_for(slots)
    if hosts != purchase.hosts:
        yield Violation("hosts", f"{purchase.hosts} of {offer.label}, {hosts} needed")
    yield from _origin(purchase, offer)
    yield from _bill(purchase, offer, sum(row.npus for row in standing))
    yield from _shares(purchase, offer, standing)


def _origin(purchase: Purchase, offer: Offer) -> Iterator[Violation]:
    """Compare what a purchase says it is, and its price's origin, with its offer."""
    if purchase.npu != offer.npu.name:
        yield Violation("hardware", f"{offer.label} is no {purchase.npu}")
    price = offer.price
    for name, stated, known in (
        ("provider", purchase.provider, offer.provider),
        ("instance", purchase.instance, price.instance),
        ("term", purchase.term, price.term),
        ("region", purchase.region, price.region),
        ("source", purchase.source, price.source),
        ("as_of", purchase.as_of, price.as_of),
    ):
        if stated != known:
            yield Violation(name, f"{offer.label}: '{stated}' stated, '{known}' known")


def _bill(purchase: Purchase, offer: Offer, used: int) -> Iterator[Violation]:
    """Compare what a purchase states with what its offer asks."""
    npus = offer.billed_npus(purchase.hosts, used)
    if purchase.npus != npus:
        yield Violation("npus", f"{offer.label}: {purchase.npus} stated, {npus} paid")
    cost = offer.usd_per_hour(purchase.hosts, used)
    if abs(purchase.usd_per_hour - cost) > ROUNDING * cost:
        yield Violation(
            "cost", f"{offer.label}: {purchase.usd_per_hour} stated, {cost} asked"
        )
    power = None if offer.npu.power is None else offer.npu.power * npus
    if purchase.power != power:
        yield Violation("power", f"{offer.label}: {purchase.power} stated, {power}")


def _shares(
    purchase: Purchase, offer: Offer, standing: Sequence[Stands]
) -> Iterator[Violation]:
    """Compare the rows' shares of a purchase with the whole of it."""
    shares = [row.usd_per_hour for row in standing]
    split = sum(share for share in shares if share is not None)
    off = abs(split - purchase.usd_per_hour) > ROUNDING * purchase.usd_per_hour
    if None not in shares and off:
        yield Violation("cost", f"{offer.label}: the shares add up to {split}")
    for row in standing:
        slots = {offer.slot(row.npus_per_replica): row.replicas}
        nodes = offer.hosts_for(slots) * offer.nodes_per_host
        if row.nodes not in (None, nodes):
            yield Violation("nodes", f"{offer.label}: {row.nodes} stated, {nodes}")
