"""What replicas cost that stand on an offer together."""

from collections import Counter
from collections.abc import Iterable

from problems.offers import Offer
from problems.plan import PlannedDeployment, Purchase


def purchase_of(offer: Offer, standing: Iterable[tuple[int, int]]) -> Purchase:
    """Return what is bought of an offer.

    Parameters
    ----------
    standing
        NPUs of a replica, and how many replicas, of each deployment there.
    """
    slots: Counter[int] = Counter()
    used = 0
    for npus, count in standing:
        slots[offer.slot(npus)] += count
        used += npus * count
    hosts = offer.hosts_for(slots)
    npus = offer.billed_npus(hosts, used)
    power = offer.npu.power
    return Purchase(
        offer=offer.key,
        npu=offer.npu.name,
        provider=offer.provider,
        instance=offer.price.instance,
        term=offer.price.term,
        region=offer.price.region,
        source=offer.price.source,
        as_of=offer.price.as_of,
        hosts=hosts,
        npus=npus,
        usd_per_hour=offer.usd_per_hour(hosts, used),
        power=None if power is None else power * npus,
    )


def share_of(
    row: PlannedDeployment, offer: Offer, purchase: Purchase, room: int
) -> PlannedDeployment:
    """Return a deployment with its nodes, and its part of a purchase by its room.

    Parameters
    ----------
    room
        NPUs of the slots that all deployments on the offer take.
    """
    slot = offer.slot(row.npus_per_replica)
    return row.model_copy(
        update={
            "nodes": offer.hosts_for({slot: row.replicas}) * offer.nodes_per_host,
            "usd_per_hour": purchase.usd_per_hour * slot * row.replicas / room,
        }
    )
