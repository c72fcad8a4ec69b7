"""What travels between the pools of a planned pair, and what its links take."""

from dataclasses import dataclass

from model_ops.units import Bytes, BytesPerSecond, Seconds
from problems.pair_stations import PairStation
from problems.plan import Plan
from problems.serve import Served
from problems.traffic import TrafficClass


@dataclass(frozen=True, slots=True)
class KvTransfer:
    """KV caches on their way, at a pair's share of the demand.

    Parameters
    ----------
    technology
        Of the links.
    bytes_per_request
        For a mean prompt.
    needed, available
        Bytes per second of an NPU at the busier end: on average, and what its link
        takes.
    utilisation
        The one over the other.
    seconds
        That the cache of a mean prompt travels.
    """

    technology: str
    bytes_per_request: Bytes
    needed: BytesPerSecond
    available: BytesPerSecond
    utilisation: float
    seconds: Seconds


def kv_transfer(plan: Plan, traffic: TrafficClass, served: Served) -> KvTransfer | None:
    """Return what travels in a pair; None of replicas that read and answer."""
    station = served.station(plan, traffic)
    if not isinstance(station, PairStation):
        return None
    pair = station.pair
    moved = pair.transfer(float(served.estimate.rate))
    needed, available = max(
        (moved.sent, pair.link.send),
        (moved.received, pair.link.receive),
        key=lambda end: end[0] / end[1],
    )
    return KvTransfer(
        technology=pair.link.technology,
        bytes_per_request=pair.bytes_per_request,
        needed=needed,
        available=available,
        utilisation=moved.utilisation,
        seconds=moved.seconds(pair.profile.prompt.mean),
    )
