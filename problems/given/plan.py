"""A plan over the rows of a candidates table."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_ops.units import RequestsPerSecond, Seconds, UsdPerHour
from problems.given.offers import UNPRICED, is_known
from problems.given.rows import Row
from problems.offers import Offer
from problems.plan import Bought, Positive
from problems.problem import ServingMode
from problems.purchasing import purchase_of


class PlannedRow(BaseModel):
    """Replicas of one row.

    Parameters
    ----------
    name, npu, mode, tp, pp, ep, dp, batch, precision
        As the table says; None where it does not.
    rate, ttft, tpot
        Requests per second that a replica takes, and its means at that rate.
    replicas, npus, nodes
        How many, the NPUs they use together, and the servers they stand on (shared
        ones count for each); None where nobody knows the NPU's servers.
    usd_per_hour
        Their share of the purchases; None without a price.
    offer
        Key of the purchase that they stand on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    npu: str
    mode: ServingMode
    tp: Positive | None
    pp: Positive | None
    ep: Positive | None = None
    dp: Positive | None
    batch: Positive | None
    precision: str | None = None
    rate: RequestsPerSecond
    ttft: Seconds
    tpot: Seconds
    replicas: Positive
    npus: Positive
    nodes: Positive | None
    usd_per_hour: UsdPerHour | None
    offer: str

    @property
    def npus_per_replica(self) -> int:
        """NPUs of one replica."""
        return self.npus // self.replicas

    @property
    def latencies(self) -> dict[str, Seconds]:
        """The means that targets may bound, by metric."""
        return {"ttft": self.ttft, "tpot": self.tpot}


class GivenPlan(Bought):
    """Rows with their counts, and the purchases that they stand on."""

    rows: Annotated[tuple[PlannedRow, ...], Field(min_length=1)]

    @property
    def has_prices(self) -> bool:
        """Whether everything bought has a price."""
        return all(purchase.provider != UNPRICED for purchase in self.purchases)

    @property
    def usd_per_hour_if_known(self) -> UsdPerHour | None:
        """Cost of the purchases; None where one has no price."""
        return self.usd_per_hour if self.has_prices else None

    def mean(self, metric: Literal["ttft", "tpot"]) -> Seconds:
        """Return the mean over all requests, dealt in proportion to rows' rates."""
        total = sum(r.replicas * r.rate * getattr(r, metric) for r in self.rows)
        return float(total / self.capacity)

    @property
    def capacity(self) -> RequestsPerSecond:
        """Requests per second that all replicas take together."""
        return sum(row.replicas * row.rate for row in self.rows)


def planned(counts: Sequence[tuple[Row, Offer, int]]) -> GivenPlan:
    """Return the plan of so many replicas of rows on offers."""
    rows, purchases = [], []
    for key in dict.fromkeys(offer.key for _, offer, _ in counts):
        here = [(row, offer, many) for row, offer, many in counts if offer.key == key]
        offer = here[0][1]
        purchase = purchase_of(offer, [(row.npus, many) for row, _, many in here])
        purchases.append(purchase)
        room = sum(offer.slot(row.npus) * many for row, _, many in here)
        usd = purchase.usd_per_hour / room
        rows += [_planned(row, offer, many, usd) for row, _, many in here]
    rows.sort(key=lambda row: (-row.npus, row.name))
    return GivenPlan(rows=tuple(rows), purchases=tuple(purchases))


def _planned(row: Row, offer: Offer, many: int, usd_per_npu: float) -> PlannedRow:
    slot = offer.slot(row.npus)
    nodes = offer.hosts_for({slot: many}) * offer.nodes_per_host
    return PlannedRow(
        name=row.name,
        npu=row.npu,
        mode=row.mode,
        tp=row.tp,
        pp=row.pp,
        dp=row.dp,
        batch=row.batch,
        rate=row.rate,
        ttft=row.ttft,
        tpot=row.tpot,
        replicas=many,
        npus=row.npus * many,
        nodes=nodes if is_known(offer) else None,
        usd_per_hour=None if offer.provider == UNPRICED else usd_per_npu * slot * many,
        offer=offer.key,
    )
