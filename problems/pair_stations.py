"""Routes through a planned disaggregated pair as queues.

A pool may have deployments of several kinds: requests take each way from one that reads
to one that answers, and meet on it what the others leave of replicas and links.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_ops.platform.fabric import UNLIMITED
from model_ops.serving.pair import Pair, Pool
from model_ops.serving.pools import PairLaws
from model_ops.serving.queueing import Latencies
from model_ops.serving.transfer import Link
from model_ops.units import RequestsPerSecond, Seconds
from problems import catalogue
from problems.plan import Plan, PlannedDeployment, PlannedPair, Route
from problems.stations import QueueStation, planned_engine, replica_of
from problems.traffic import TrafficClass


def _apart(plan: Plan, rows: Sequence[PlannedDeployment]) -> bool:
    """Return whether a plan's replicas share no fabric, few NPUs as they may have.

    Those of two offers do not, nor those on instances that are parts of a node.
    """
    names = {row.offer for row in rows}
    bought = [purchase for purchase in plan.purchases if purchase.offer in names]
    return len(names) > 1 or any(
        purchase.hosts > -(-purchase.npus // catalogue.npu_file(purchase.npu).node_npus)
        for purchase in bought
    )


def _way(plan: Plan, planned: PlannedPair, route: Route, traffic: TrafficClass) -> Pair:
    """Return one way through a planned pair, as if no other were used."""
    prefill, decode = (
        Pool(
            replica_of(plan, row),
            planned_engine(plan, row, traffic),
            row.replicas,
            row.chunk_tokens,
        )
        for row in route
    )
    alike = sum(row.npus for row in planned.rows if row.npu == route[0].npu)
    link = Link.between(
        prefill.replica.supply,
        decode.replica.supply,
        UNLIMITED if _apart(plan, route) else alike,
        plan.kv_bandwidth,
    )
    return Pair(
        prefill,
        decode,
        traffic.profile,
        link,
        arrival_variation=traffic.arrival_variation,
        random=traffic.router == "random",
        prefill_share=planned.share(route[1]),
        decode_share=planned.share(route[0]),
    )


def _besides(
    ways: Mapping[Route, Pair], planned: PlannedPair, route: Route
) -> tuple[Seconds, Seconds]:
    """Return how long links at both ends carry other ways' caches; see `Pair`."""
    seconds = [
        sum(
            planned.share(*other) * way.link_times[end]
            for other, way in ways.items()
            if other[end] == route[end] and other != route
        )
        / planned.share(*route)
        for end in (0, 1)
    ]
    return seconds[0], seconds[1]


def with_batches(
    plan: Plan, pair: PlannedPair, traffic: TrafficClass
) -> Iterator[PlannedDeployment]:
    """Yield a pair's rows with the batches that they have when it takes all it can."""
    for row in pair.rows:
        batch = 0.0
        if row.mode == "decode":
            route = (pair.prefill[0], row)
            station = PairStation.of(plan, pair, route, traffic)
            batch = station.mean_batch(pair.rate * pair.share(*route))
        yield row.model_copy(update={"mean_batch": batch})


@dataclass(frozen=True)
class PairStation(QueueStation):
    """A route through a planned pair; its rates are those of the route's requests.

    Parameters
    ----------
    pair, traffic
        The pools at both ends, and the requests.
    pools
        All of the planned pair.
    """

    pair: Pair
    traffic: TrafficClass
    pools: tuple[Pool, ...]

    @classmethod
    def of(
        cls, plan: Plan, planned: PlannedPair, route: Route, traffic: TrafficClass
    ) -> "PairStation":
        """Return the queues that requests meet on a route through a planned pair."""
        ways = {
            other: _way(plan, planned, other, traffic)
            for other in planned.routes
            if other[0] == route[0] or other[1] == route[1]
        }
        pair = replace(ways[route], besides=_besides(ways, planned, route))
        pools = {
            row: pool
            for other, way in ways.items()
            for row, pool in zip(other, (way.prefill, way.decode), strict=True)
        }
        return cls(pair, traffic, tuple(pools[row] for row in planned.rows))

    @classmethod
    def full(
        cls, plan: Plan, planned: PlannedPair, route: Route, traffic: TrafficClass
    ) -> "PairStation":
        """Return the same where each pool takes all that it can, whatever the other.

        At the rate that the route has in the pair.
        """
        station = cls.of(plan, planned, route, traffic)
        pair = station.pair
        reads, answers = (
            planned.takes(mode) / planned.rate for mode in ("prefill", "decode")
        )
        times = zip(pair.link_times, pair.besides, (reads, answers), strict=True)
        send, receive = ((own + other) * more - own for own, other, more in times)
        loaded = replace(
            pair,
            prefill_share=pair.prefill_share / reads,
            decode_share=pair.decode_share / answers,
            besides=(send, receive),
        )
        return replace(station, pair=loaded)

    @property
    def groups(self) -> int:
        """Equal parts that the whole pair could be split into, queue by queue."""
        return math.gcd(*(pool.queues for pool in self.pools))

    @property
    def places(self) -> float:
        """Requests that the pools of a part may run at once."""
        return self._each(lambda pool: float(pool.engine.max_sequences))

    @property
    def cache_tokens(self) -> float:
        """Tokens that the caches of a part hold."""
        return self._each(lambda pool: float(pool.engine.cache_tokens))

    def _each(self, value: Callable[[Pool], float]) -> float:
        return sum(pool.queues * value(pool) for pool in self.pools) / self.groups

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a decoding request gains per step."""
        return float(self.pair.decode.engine.tokens_per_step)

    @property
    def saturation(self) -> RequestsPerSecond:
        """The rate beyond which a queue grows without end."""
        return min(self.pair.rates.values())

    def laws(self, rate: RequestsPerSecond) -> PairLaws:
        """Return the laws of the latencies at a rate."""
        return self.pair.laws(rate)

    def latencies(self, rate: RequestsPerSecond) -> Latencies:
        """Return the latencies at a rate; the batch is that of a decode group."""
        return self.pair.latencies(rate)

    def mean_batch(self, rate: RequestsPerSecond) -> float:
        """Return the requests of a decode replica that decode at a rate."""
        decode = self.pair.decode
        batch = float(np.ravel(self.laws(rate).decode.batch.mean)[0])
        return batch * decode.queues / decode.replicas
