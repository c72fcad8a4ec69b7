"""A plan: which deployments, how many replicas of each, bought how."""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_ops.profiler.parallelism import Parallelism
from model_ops.units import BytesPerSecond, RequestsPerSecond, UsdPerHour, Watts
from problems.optimisations import Optimisations

Positive = Annotated[int, Field(gt=0)]
Mode = Literal["aggregated", "prefill", "decode"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedDeployment(_Part):
    """Replicas that are alike.

    Parameters
    ----------
    traffic
        Class of requests that they serve.
    model
        What they run; None: the plan's model.
    npu, mode, tp, pp, ep, dp, cp, batch, precision, chunk_tokens
        What fixes a replica's behaviour; `batch` caps its decoding sequences, or the
        prompts that a prefill replica reads.
    rate
        Requests per second that a replica takes at most within the targets.
    mean_batch
        Sequences that decode on average at that rate, or when the disaggregated pair
        takes all it can; none on a prefill replica.
    pair
        Number of the disaggregated pair it belongs to, where its class has several.
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
    model: str | None = None
    npu: str
    mode: Mode = "aggregated"
    pair: Positive | None = None
    tp: Positive
    pp: Positive
    ep: Positive = 1
    dp: Positive = 1
    cp: Positive = 1
    batch: Positive
    rate: Annotated[RequestsPerSecond, Field(gt=0)]
    mean_batch: Annotated[float, Field(ge=0)]
    chunk_tokens: Positive
    precision: str
    replicas: Positive
    npus: Positive
    nodes: Positive
    usd_per_hour: UsdPerHour
    offer: str

    @model_validator(mode="after")
    def _decodes_or_reads(self) -> Self:
        if (self.mode == "prefill") is not (self.mean_batch == 0):
            raise ValueError("mean_batch: above 0, but 0 for prefill replicas")
        if self.mode == "aggregated" and self.pair is not None:
            raise ValueError("pair: aggregated replicas belong to none")
        return self

    @property
    def parallelism(self) -> Parallelism:
        """How a replica is split."""
        return Parallelism(self.tp, self.pp, self.ep, self.dp, self.cp)

    @property
    def npus_per_replica(self) -> int:
        """NPUs of one replica."""
        return int(self.parallelism.npus)


Route = tuple[PlannedDeployment, PlannedDeployment]
"""A deployment that reads, and one that answers what it has read."""


@dataclass(frozen=True)
class PlannedPair:
    """A prefill pool and a decode pool: caches go from any replica to any other.

    Requests are dealt to the deployments of a pool by what they can take, at random.

    Parameters
    ----------
    prefill, decode
        The deployments of each pool.
    """

    prefill: tuple[PlannedDeployment, ...]
    decode: tuple[PlannedDeployment, ...]

    @property
    def rows(self) -> tuple[PlannedDeployment, ...]:
        """The deployments of both pools."""
        return (*self.prefill, *self.decode)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The ways that a request may take."""
        return tuple(product(self.prefill, self.decode))

    def takes(self, mode: Mode) -> RequestsPerSecond:
        """Return the requests per second that one pool takes."""
        pool = self.prefill if mode == "prefill" else self.decode
        return sum(row.replicas * row.rate for row in pool)

    @property
    def rate(self) -> RequestsPerSecond:
        """The requests per second that the pair takes: its slower pool's."""
        return min(self.takes("prefill"), self.takes("decode"))

    def share(self, *rows: PlannedDeployment) -> float:
        """Return the share of the requests that pass through all of these rows."""
        shares = (row.replicas * row.rate / self.takes(row.mode) for row in rows)
        return math.prod(shares)

    def load(self, row: PlannedDeployment) -> RequestsPerSecond:
        """Return what each replica of a row gets when the pair takes all it can."""
        return self.rate * self.share(row) / row.replicas


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


class Bought(_Part):
    """What is bought, and what it comes to."""

    purchases: Annotated[tuple[Purchase, ...], Field(min_length=1)]

    @property
    def usd_per_hour(self) -> UsdPerHour:
        """Cost of the purchases."""
        return sum(purchase.usd_per_hour for purchase in self.purchases)

    @property
    def usd_per_hour_if_known(self) -> UsdPerHour | None:
        """The same; None where something bought has no price."""
        return self.usd_per_hour

    @property
    def hardware(self) -> str:
        """NPUs paid for by type, in words."""
        per_type: Counter[str] = Counter()
        for purchase in self.purchases:
            per_type[purchase.npu] += purchase.npus
        return " and ".join(f"{npus:,} x {npu}" for npu, npus in per_type.items())

    @property
    def total_npus(self) -> int:
        """NPUs paid for."""
        return sum(purchase.npus for purchase in self.purchases)

    @property
    def power(self) -> Watts | None:
        """Watts to provision; None where one NPU's is unknown."""
        each = [purchase.power for purchase in self.purchases]
        return None if None in each else sum(p for p in each if p is not None)


class Plan(Bought):
    """Deployments and the purchases that they stand on.

    Its rates are those at which targets hold with `confidence`; None: as predicted.

    A class may have disaggregated pairs, each with rows of prefill replicas and rows of
    decode replicas. Their KV caches travel at `kv_bandwidth` per NPU and direction;
    None: at that of the tier of the fabric between them.
    """

    model: str
    framework: str = "vllm"
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None
    optimisations: Optimisations = Optimisations()
    kv_bandwidth: Annotated[BytesPerSecond, Field(gt=0)] | None = None
    deployments: Annotated[tuple[PlannedDeployment, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _pools_are_pairs(self) -> Self:
        for traffic in dict.fromkeys(d.traffic for d in self.deployments):
            for pair in self.pairs(traffic):
                if not (pair.prefill and pair.decode):
                    raise ValueError(
                        f"mode: {traffic} has prefill or decode replicas without the "
                        "other"
                    )
                if len(set(pair.rows)) < len(pair.rows):
                    raise ValueError(f"replicas: {traffic} has the same row twice")
        return self

    def at(self, confidence: float | None) -> "Plan":
        """Return the plan with NPUs as slow as they are with another confidence."""
        return self.model_copy(update={"confidence": confidence})

    def model_of(self, deployment: PlannedDeployment) -> str:
        """Return the model that a deployment runs."""
        return deployment.model or self.model

    def of_class(self, traffic: str) -> tuple[PlannedDeployment, ...]:
        """Return the deployments that serve a class."""
        return tuple(d for d in self.deployments if d.traffic == traffic)

    def aggregated(self, traffic: str) -> tuple[PlannedDeployment, ...]:
        """Return the deployments of a class whose replicas read and answer."""
        return tuple(d for d in self.of_class(traffic) if d.mode == "aggregated")

    def pairs(self, traffic: str) -> tuple[PlannedPair, ...]:
        """Return the disaggregated pairs of a class."""
        pools = [d for d in self.of_class(traffic) if d.mode != "aggregated"]
        return tuple(
            PlannedPair(
                *(
                    tuple(d for d in pools if (d.pair, d.mode) == (number, mode))
                    for mode in ("prefill", "decode")
                )
            )
            for number in dict.fromkeys(d.pair for d in pools)
        )
