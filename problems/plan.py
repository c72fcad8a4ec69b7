"""A plan: which deployments, how many replicas of each, bought how."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_ops.profiler.parallelism import Parallelism
from model_ops.units import RequestsPerSecond, UsdPerHour, Watts
from problems.optimisations import Optimisations

Positive = Annotated[int, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedDeployment(_Part):
    """Replicas that are alike.

    Parameters
    ----------
    traffic
        Class of requests that they serve.
    npu, mode, tp, pp, ep, dp, cp, batch, precision, chunk_tokens
        What fixes a replica's behaviour; `batch` caps its decoding sequences.
    rate
        Requests per second that a replica takes at most within the targets.
    mean_batch
        Sequences that decode on average at that rate.
    replicas
        How many.
    npus
        NPUs they use together.
    nodes
        Servers they stand on (shared ones count for each).
    usd_per_hour
        Their share of the purchases.
    offer
        Key of the purchase that they stand on.
    """

    traffic: str
    npu: str
    mode: Literal["aggregated"] = "aggregated"
    tp: Positive
    pp: Positive
    ep: Positive = 1
    dp: Positive = 1
    cp: Positive = 1
    batch: Positive
    rate: Annotated[RequestsPerSecond, Field(gt=0)]
    mean_batch: Annotated[float, Field(gt=0)]
    chunk_tokens: Positive
    precision: str
    replicas: Positive
    npus: Positive
    nodes: Positive
    usd_per_hour: UsdPerHour
    offer: str

    @property
    def parallelism(self) -> Parallelism:
        """How a replica is split."""
        return Parallelism(self.tp, self.pp, self.ep, self.dp, self.cp)

    @property
    def npus_per_replica(self) -> int:
        """NPUs of one replica."""
        return int(self.parallelism.npus)


class Purchase(_Part):
    """What is bought of one offer.

    Parameters
    ----------
    offer
        Its key.
    npu, provider, instance, term, region, source, as_of
        What it is, and where its price comes from.
    hosts, npus
        Instances (or servers, where NPUs are paid one by one) and NPUs paid for.
    usd_per_hour
        What they cost together.
    power
        Watts to provision for the NPUs; None where the vendor publishes none.
    """

    offer: str
    npu: str
    provider: str
    instance: str
    term: str
    region: str
    source: str
    as_of: str
    hosts: Positive
    npus: Positive
    usd_per_hour: UsdPerHour
    power: Watts | None


class Plan(_Part):
    """Deployments and the purchases that they stand on."""

    model: str
    optimisations: Optimisations = Optimisations()
    deployments: Annotated[tuple[PlannedDeployment, ...], Field(min_length=1)]
    purchases: Annotated[tuple[Purchase, ...], Field(min_length=1)]

    @property
    def usd_per_hour(self) -> UsdPerHour:
        """Cost of the purchases."""
        return sum(purchase.usd_per_hour for purchase in self.purchases)

    @property
    def total_npus(self) -> int:
        """NPUs paid for."""
        return sum(purchase.npus for purchase in self.purchases)

    @property
    def power(self) -> Watts | None:
        """Watts to provision; None where one NPU's is unknown."""
        each = [purchase.power for purchase in self.purchases]
        return None if None in each else sum(p for p in each if p is not None)

    def of_class(self, traffic: str) -> tuple[PlannedDeployment, ...]:
        """Return the deployments that serve a class."""
        return tuple(d for d in self.deployments if d.traffic == traffic)
