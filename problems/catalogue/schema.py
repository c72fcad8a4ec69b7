"""What a catalogue file must hold; each file is one item and names its source."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily
from model_ops.platform.fabric import UNLIMITED, Tier, Topology
from model_ops.platform.kernels import KernelEfficiency
from model_ops.platform.memory import OuterMemory
from model_ops.units import (
    Bytes,
    BytesPerSecond,
    FlopPerSecond,
    RequestsPerSecond,
    Seconds,
    UsdPerHour,
    Watts,
)
from problems.catalogue.measured_collectives import CollectiveFit
from problems.lengths import LengthTable

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0, le=100_000)]
Confidence = Literal["high", "medium", "low"]
CONFIDENCES: tuple[Confidence, ...] = ("low", "medium", "high")
"""From least to most."""
Term = Literal[
    "on_demand", "spot", "reserved_1y", "reserved_3y", "marketplace", "owner_tco"
]


class CatalogueFile(BaseModel):
    """What every item of the catalogue says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Annotated[str, Field(min_length=2)]
    aliases: tuple[str, ...] = ()
    as_of: date
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    notes: str = ""


class LinkFile(CatalogueFile):
    """A link technology: what a hop costs on it before the first byte moves."""

    latency: Annotated[Seconds, Field(gt=0, le=1e-3)]
    topology: Topology
    in_network_reduction: Annotated[
        bool, Field(description="switches add what passes, in the measured software")
    ] = False
    like: Annotated[
        str | None, Field(description="link whose collectives stand for those it lacks")
    ] = None
    collectives: tuple[CollectiveFit, ...] = ()


class TierFile(BaseModel):
    """One tier of an NPU's fabric, innermost first in the NPU's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    link: str
    npus: Annotated[Count | None, Field(description="None: no limit known")] = None
    bandwidth: Annotated[BytesPerSecond, Field(gt=0, le=1e14)]
    dimensions: Annotated[int, Field(description="axes of a torus", ge=1, le=6)] = 1
    links: Annotated[
        Count, Field(description="equal ones that `bandwidth` sums; a send uses one")
    ] = 1
    oversubscription: Annotated[
        float, Field(description="ports of a leaf switch over its uplinks", ge=1, le=64)
    ] = 1.0

    def tier(self, link: LinkFile) -> Tier:
        """Return the tier with its link's latency and topology."""
        return Tier(
            technology=link.title,
            npus=self.npus or UNLIMITED,
            bandwidth=self.bandwidth,
            latency=link.latency,
            direct=link.topology.direct,
            dimensions=0 if link.topology is Topology.TREE else self.dimensions,
            links=self.links,
            oversubscription=self.oversubscription,
            in_network_reduction=link.in_network_reduction,
        )


class OuterMemoryFile(BaseModel):
    """A larger, slower memory behind an NPU's own, as one NPU shares in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    technology: Annotated[str, Field(min_length=2)]
    capacity: Annotated[Bytes, Field(description="per NPU", ge=1e9, le=1e16)]
    bandwidth: Annotated[
        BytesPerSecond, Field(description="one direction, per NPU", ge=1e8, le=1e13)
    ]

    def memory(self) -> OuterMemory:
        """Return the memory as the model takes it."""
        return OuterMemory(self.technology, self.capacity, self.bandwidth)


class NpuFile(CatalogueFile):
    """An NPU as its datasheet states it: dense rates, bandwidth per direction."""

    vendor: str
    year: Annotated[int, Field(ge=2015, le=2035)]
    kind: Literal["gpu", "tpu", "asic", "cpu"]
    confidence: Confidence
    efficiency: Annotated[str, Field(description="an item of efficiencies/")]
    node_npus: Annotated[Count, Field(description="NPUs in the server as bought")]
    memory_type: str
    memory_capacity: Annotated[Bytes, Field(ge=1e8, le=1e14)]
    memory_bandwidth: Annotated[BytesPerSecond, Field(ge=1e9, le=1e17)]
    flop_per_s: dict[Dtype, Annotated[FlopPerSecond, Field(ge=1e9, le=1e18)]]
    tdp: Annotated[Watts | None, Field(description="per NPU", gt=0, le=1e5)] = None
    provisioned_power: Annotated[
        Watts | None,
        Field(description="share of host, network, cooling included", gt=0, le=1e5),
    ] = None
    idle_power: Annotated[
        Watts | None, Field(description="model in memory, nothing runs", gt=0, le=1e4)
    ] = None
    processors: Annotated[
        Count | None,
        Field(description="streaming multiprocessors, compute units, cores"),
    ] = None
    on_chip_memory: Annotated[
        Bytes | None,
        Field(description="scratchpad, or last cache before memory", ge=1e5, le=1e12),
    ] = None
    fabric: Annotated[tuple[TierFile, ...], Field(min_length=1, max_length=4)]
    outer_memory: OuterMemoryFile | None = None

    @field_validator("flop_per_s")
    @classmethod
    def _has_a_wide_rate(cls, rates: dict[Dtype, float]) -> dict[Dtype, float]:
        if not {Dtype.FP32, Dtype.TF32, Dtype.FP16, Dtype.BF16} & set(rates):
            raise ValueError("needs at least one of bf16, fp16, tf32 or fp32")
        return rates

    @model_validator(mode="after")
    def _idles_below_tdp(self) -> Self:
        if self.idle_power is not None and not self.idle_power < (self.tdp or 0):
            raise ValueError("idle_power needs a tdp above it")
        return self

    @field_validator("fabric")
    @classmethod
    def _grows_outwards(cls, fabric: tuple[TierFile, ...]) -> tuple[TierFile, ...]:
        sizes = [tier.npus or float("inf") for tier in fabric]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"tiers must grow outwards, got npus {sizes}")
        return fabric


class EfficiencyFile(CatalogueFile):
    """What share of an NPU's rates its kernels reach, by kernel family."""

    measured_on: Annotated[
        tuple[str, ...], Field(description="NPUs whose kernels its NPUs take")
    ]
    fitted_on: Annotated[
        tuple[str, ...], Field(description="NPUs whose serving results fitted it")
    ] = ()
    memory_usable: Annotated[Fraction, Field(description="share of the capacity")]
    runtime_reserve: Annotated[Bytes, Field(description="context, communicator")]
    link_efficiency: Fraction
    collective_library: Annotated[
        str | None, Field(description="by which its links' collectives were measured")
    ] = None
    step_overhead: Annotated[Seconds, Field(description="scheduler, per step")]
    host_pace: Annotated[
        float,
        Field(description="time to start kernels over a Hopper server's host", gt=0),
    ] = 1.0
    kernels: dict[KernelFamily, "KernelFile"]
    stacks: Annotated[
        dict[str, dict[KernelFamily, "KernelFile"]],
        Field(description="frameworks with kernels of their own, before any measured"),
    ] = {}

    @field_validator("kernels")
    @classmethod
    def _is_complete(
        cls, kernels: dict[KernelFamily, "KernelFile"]
    ) -> dict[KernelFamily, "KernelFile"]:
        needed = {family for family in KernelFamily if family.relative is family}
        if missing := needed - set(kernels):
            raise ValueError(f"missing families: {', '.join(sorted(missing))}")
        return kernels


class FrameworkFile(CatalogueFile):
    """A serving framework: what it takes of an NPU; None: as the NPU's profile says.

    An earlier generation of one, with habits of its own, is a file of its own that
    names it.
    """

    generation_of: Annotated[
        str | None, Field(description="framework that it is an earlier generation of")
    ] = None
    until: Annotated[
        str | None,
        Field(description="first month without it", pattern=r"^20\d\d-\d\d$"),
    ] = None
    below: Annotated[
        str | None, Field(description="first release without it", pattern=r"^\d+\.\d+$")
    ] = None
    is_fitted: Annotated[
        bool, Field(description="whether its figures were fitted to serving results")
    ] = True
    memory_usable: Annotated[Fraction | None, Field(description="of capacity")] = None
    runtime_reserve: Annotated[Bytes | None, Field(ge=0, le=1e11)] = None
    step_overhead: Annotated[Seconds | None, Field(ge=0, le=1)] = None
    sequence_overhead: Annotated[
        Seconds | None, Field(description="of a step, per sequence", ge=0, le=1)
    ] = None
    layer_time: Annotated[
        Seconds | None,
        Field(description="host starts a layer's kernels one by one", ge=0, le=1),
    ] = None
    pace: Annotated[
        float | None,
        Field(description="operators' time over what kernels and links say", gt=0),
    ] = None
    exposed_launch: Annotated[
        Fraction | None, Field(description="share of kernels' starts not hidden")
    ] = None
    prefill_pace: Annotated[
        float | None, Field(description="the same of prompt tokens, besides", gt=0)
    ] = None
    host_time: Annotated[
        Seconds | None, Field(description="of the host, per request alone", ge=0, le=1)
    ] = None
    request_overhead: Annotated[
        Seconds | None, Field(description="outside the steps", ge=0, le=10)
    ] = None
    kernels: Annotated[
        str | None, Field(description="whose measured kernels it runs; None: its own")
    ] = None
    prefill_first: Annotated[
        bool, Field(description="reads what waits before it decodes on")
    ] = False
    chunk_tokens: Annotated[
        int | None,
        Field(description="tokens of a step, by default", gt=0, le=1_000_000),
    ] = None
    activation_factor: Annotated[
        float,
        Field(description="activations alive over those that must be", ge=1, le=10),
    ] = 1.0


class KernelFile(BaseModel):
    """Efficiencies of one kernel family; per dtype where they differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compute: Fraction
    memory: Fraction
    launch: Annotated[Seconds, Field(le=1e-2)]
    by_dtype: dict[Dtype, "KernelFile"] = {}

    def efficiency(self) -> KernelEfficiency:
        """Return the family's figures as the roofline takes them."""
        return KernelEfficiency(self.compute, self.memory, self.launch)


class PriceFile(BaseModel):
    """The prices one provider asks, each with its own date and source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Annotated[str, Field(min_length=2)]
    notes: str = ""
    prices: Annotated[tuple["Price", ...], Field(min_length=1)]


class Price(BaseModel):
    """What one NPU type costs at one provider on one term.

    ``npus`` is the number of NPUs the price buys. A price per NPU (1, with
    ``whole_instance`` false) rents any number of a node's NPUs together; a
    whole instance is indivisible, and one smaller than the node stands alone:
    its NPUs share no fast fabric with those of the next instance. ``region`` is the
    provider's name of one region; blank if the price is not one region's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    npu: str
    instance: str
    term: Term
    npus: Count
    whole_instance: bool
    usd_per_hour: Annotated[UsdPerHour, Field(gt=0, le=1e6)]
    region: Annotated[str, Field(pattern=r"^[\w-]*$")] = ""
    statistic: str = "list"
    as_of: str
    confidence: Confidence
    source: Annotated[str, Field(min_length=5)]
    notes: str = ""

    @model_validator(mode="after")
    def _is_whole_or_single(self) -> Self:
        if self.npus > 1 and not self.whole_instance:
            raise ValueError("a price for several NPUs is a whole instance's")
        return self


class ModelFile(CatalogueFile):
    """A model: its Hugging Face config and the parameter count it publishes."""

    parameters: Annotated[int, Field(gt=1_000_000, le=100_000_000_000_000)]
    config: dict[str, Any]


class UseCaseFile(CatalogueFile):
    """What a use of language models asks: tokens of a request, and how soon."""

    input_tokens: Annotated[int, Field(gt=0, le=100_000_000)]
    output_tokens: Annotated[int, Field(gt=0, le=100_000_000)]
    beams: Annotated[int, Field(gt=0, le=64)] = 1
    ttft: Annotated[
        Seconds | None, Field(description="None: no target", gt=0, le=86_400)
    ] = None
    tpot: Annotated[
        Seconds | None, Field(description="None: no target", gt=0, le=86_400)
    ] = None

    @model_validator(mode="after")
    def _has_a_target(self) -> Self:
        if self.ttft is None and self.tpot is None:
            raise ValueError("needs ttft, tpot or both")
        return self


class TraceFile(CatalogueFile):
    """What was measured of a public trace of requests."""

    licence: Annotated[str, Field(min_length=2)]
    requests: Annotated[int, Field(gt=0)]
    prompt: LengthTable
    output: LengthTable
    prompt_cv: Annotated[float, Field(description="measured", ge=0)]
    output_cv: Annotated[float, Field(description="measured", ge=0)]
    correlation: Annotated[
        float | None, Field(description="of prompt and output", ge=-1, le=1)
    ] = None
    rate: Annotated[RequestsPerSecond | None, Field(description="mean", gt=0)] = None
    hours: Annotated[float | None, Field(gt=0)] = None
    burstiness: Annotated[
        float | None, Field(description="cv of the times between arrivals", gt=0)
    ] = None
    idc_1s: Annotated[
        float | None, Field(description="variance over mean of counts per 1 s", gt=0)
    ] = None
    idc_10s: Annotated[float | None, Field(description="per 10 s", gt=0)] = None
    idc_60s: Annotated[float | None, Field(description="per 60 s", gt=0)] = None
    peak_minute: Annotated[
        float | None, Field(description="rate of the busiest over the mean", ge=1)
    ] = None
    prefix_hit: Annotated[
        float | None, Field(description="of an endless cache", ge=0, lt=1)
    ] = None


FOLDER = Path(__file__).parent
