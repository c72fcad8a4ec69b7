"""A plan: which deployments, how many replicas of each, bought how."""

from collections import Counter
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
        Requests per second that a replica takes at most within the targets; in a
        disaggregated pair, when the pair takes all it can.
    mean_batch
        Sequences that decode on average at that rate; none on a prefill replica.
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
        return self

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

    A class may have one disaggregated pair: a row of prefill replicas and a row of
    decode replicas. Its KV caches travel at `kv_bandwidth` per NPU and direction; None:
    at that of the tier of the fabric between them.
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
            modes = [d.mode for d in self.of_class(traffic)]
            if modes.count("prefill") != modes.count("decode"):
                raise ValueError(
                    f"mode: {traffic} has prefill or decode replicas without the other"
                )
            if modes.count("prefill") > 1:
                raise ValueError(f"mode: {traffic} has more than one prefill row")
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

    def pair(self, traffic: str) -> tuple[PlannedDeployment, PlannedDeployment] | None:
        """Return a class's prefill replicas and decode replicas, if it has any."""
        found = {d.mode: d for d in self.of_class(traffic)}
        if "prefill" not in found:
            return None
        return found["prefill"], found["decode"]
