"""A sizing problem: what to serve, how fast, on what, at which prices, how much."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from model_ops.dtypes import Precision
from model_ops.errors import DeploymentError, ProblemError
from model_ops.units import BytesPerSecond, UsdPerHour, Watts
from problems import catalogue
from problems.catalogue.schema import Confidence, Term
from problems.fields import Name, Part, is_file, read_text, stated, twice
from problems.fleet import Count, Current, Owned, Quota, Racks, Redundancy, Some
from problems.npu_names import CATALOGUE, Names
from problems.optimisations import Optimisations
from problems.traffic import LatencyTarget as LatencyTarget
from problems.traffic import TrafficClass as TrafficClass

Globs = Annotated[tuple[Name, ...], Field(min_length=1)]
Objective = Literal["cost", "npus", "power"]
ServingMode = Literal["aggregated", "disaggregated"]


def _precision(name: str) -> str:
    try:
        return Precision.of(name).name
    except DeploymentError as error:
        raise ValueError(str(error)) from None


PrecisionName = Annotated[str, AfterValidator(_precision)]


class Hardware(Part):
    """Which NPUs may be used, by name, alias or glob."""

    npus: Globs = ("*",)
    exclude: tuple[Name, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Return the catalogue NPUs that pass the filter.

        Raises
        ------
        ProblemError
            If a pattern matches nothing, or nothing passes.
        """
        kept = CATALOGUE.matching("hardware.npus", self.npus)
        kept -= CATALOGUE.matching("hardware.exclude", self.exclude)
        if not kept:
            raise ProblemError("hardware: exclude leaves no NPU of those in npus")
        return tuple(sorted(kept))


LARGEST = 5_000
"""Traffic classes of one problem at most."""


class GivenPrice(Part):
    """A price of the user's own, used instead of the catalogue's for that NPU."""

    npu: Name
    usd_per_hour: Annotated[UsdPerHour, Field(gt=0, le=1e6)]
    npus: Annotated[int, Field(gt=0, le=100_000)] = 1
    whole_instance: bool | None = None

    @model_validator(mode="after")
    def _is_whole_or_single(self) -> Self:
        if self.npus > 1 and self.whole_instance is False:
            raise ValueError("whole_instance: a price for several NPUs buys them whole")
        return self


_NpuPart = TypeVar("_NpuPart", GivenPrice, Owned, Current)


class Prices(Part):
    """Which prices count; of those that do, the cheapest is used and named.

    Prices of low confidence (blogs, single resellers) count only if asked for.

    Parameters
    ----------
    given
        Prices of the user's own.
    factors
        By NPU, name, alias or glob: what its prices are multiplied by that are not of
        the user's own; where several match, by all of them.
    """

    terms: Annotated[tuple[Term, ...], Field(min_length=1)] = ("on_demand",)
    providers: Globs = ("*",)
    regions: Globs = ("*",)
    confidence: Confidence = "medium"
    given: tuple[GivenPrice, ...] = ()
    factors: Mapping[Name, Annotated[float, Field(gt=0, le=1000)]] = {}

    def factor(self, npu: str, names: Names = CATALOGUE) -> float:
        """Return what the known prices of an NPU are multiplied by.

        Raises
        ------
        ProblemError
            If a pattern of `factors` matches no NPU.
        """
        return math.prod(
            factor
            for pattern, factor in self.factors.items()
            if npu in names.matching("prices.factors", (pattern,), strict=False)
        )


class Limits(Part):
    """What may be used at most.

    Parameters
    ----------
    npus, npus_per_type, nodes, usd_per_hour, power
        NPUs and nodes paid for, their cost and their watts.
    quota
        NPUs by type, region and provider.
    racks
        Racks, and what one holds.
    deployment_types, npu_types
        Different deployments, whatever classes they serve, and NPU types.
    changed_npus
        NPUs whose use begins or ends, beside `SizingProblem.current`.
    """

    npus: Annotated[int, Field(gt=0, le=10_000_000)] | None = None
    npus_per_type: Mapping[str, Annotated[int, Field(ge=0, le=10_000_000)]] = {}
    nodes: Annotated[int, Field(gt=0, le=10_000_000)] | None = None
    usd_per_hour: Annotated[UsdPerHour, Field(gt=0, le=1e9)] | None = None
    power: Annotated[Watts, Field(gt=0, le=1e12)] | None = None
    quota: tuple[Quota, ...] = ()
    racks: Racks | None = None
    deployment_types: Some | None = None
    npu_types: Some | None = None
    changed_npus: Count | None = None


class SizingProblem(Part):
    """What to serve, how fast, on what, at which prices, and how much at most.

    Parameters
    ----------
    model
        Catalogue name, or path of a Hugging Face ``config.json``; of classes that name
        none of their own.
    precisions
        Formats that may be used; empty: the published checkpoint's own. They
        change the model's answers, so none is ever tried unasked.
    traffic
        Classes of requests; each is served by replicas of its own.
    chunk_tokens, max_num_seqs
        Tokens that one step of the engine may process, and requests that a
        data-parallel group may run at once; None: whatever suits each deployment.
    headroom
        Share of the capacity to keep free for bursts and failures.
    framework
        Serving framework whose kernels, memory use and host time are assumed.
    confidence
        Chance with which the targets hold, given how far predictions have been from
        measurements; None: as the model predicts, about an even chance for a target
        that is just met.
    optimisations
        What the deployments use besides: speculation, adapters, offload.
    kv_bandwidth
        What KV transfers of disaggregated deployments reach per NPU and direction;
        None: the tier of the fabric between the pools.
    modes
        Whether replicas that read and answer may be chosen, and prefill replicas with
        decode replicas.
    owned
        Hardware that is there already, beside what can be rented.
    current
        NPUs in use today, by type.
    redundancy
        What may fail while the demand is still met.
    """

    beyond: ClassVar[frozenset[str]] = frozenset()
    """Fields that say nothing in problems of this kind."""

    title: str = ""
    model: Name
    precisions: tuple[PrecisionName, ...] = ()
    traffic: Annotated[
        tuple[TrafficClass, ...], Field(min_length=1, max_length=LARGEST)
    ]
    hardware: Hardware = Hardware()
    prices: Prices = Prices()
    limits: Limits = Limits()
    objective: Objective = "cost"
    chunk_tokens: Annotated[int, Field(ge=16, le=1_000_000)] | None = None
    max_num_seqs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    headroom: Annotated[float, Field(ge=0, le=0.95)] = 0.0
    framework: Name = catalogue.DEFAULT_FRAMEWORK
    confidence: Annotated[float, Field(ge=0.5, le=0.99)] | None = None
    optimisations: Optimisations = Optimisations()
    kv_bandwidth: Annotated[BytesPerSecond, Field(gt=0, le=1e15)] | None = None
    modes: Annotated[tuple[ServingMode, ...], Field(min_length=1)] = ("aggregated",)
    owned: tuple[Owned, ...] = ()
    current: tuple[Current, ...] = ()
    redundancy: Redundancy = Redundancy()

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> Self:
        given = [traffic.name for traffic in self.traffic]
        if len(given) != len(set(given)):
            raise ValueError(
                f"traffic: each class needs a name of its own, '{twice(given)}' is not"
            )
        return self

    def model_of(self, traffic: TrafficClass) -> str:
        """Return the model that a class asks for."""
        return traffic.model or self.model

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are asked for, each once."""
        return tuple(dict.fromkeys(self.model_of(each) for each in self.traffic))

    def formats(self, model: str | None = None) -> tuple[Precision, ...]:
        """Return the precisions that a model may have; None: the problem's own."""
        if self.precisions:
            return tuple(Precision.of(name) for name in self.precisions)
        return (catalogue.load_model(model or self.model).precision,)

    @property
    def names(self) -> Names:
        """Where its NPUs are looked up."""
        return CATALOGUE

    def restated(self, data: Mapping[str, Any]) -> "SizingProblem":
        """Return the checked problem of the same kind that other data state.

        Raises
        ------
        GenzSizeError
            One message that names every wrong field.
        """
        return problem_of(data, source="python")

    def checked(self) -> Self:
        """Return the problem with its names looked up and its limits compared.

        Raises
        ------
        ProblemError, CatalogueError, ConfigError
            If a name is unknown, or limits contradict each other or the model.
        """
        catalogue.load_model(self.model)
        framework = catalogue.canonical("frameworks", self.framework)
        for npu in self.hardware.names():
            self.prices.factor(npu)
        for traffic in self.traffic:
            self._check_class(traffic)
        limits = self.limits
        if limits.npus is not None and limits.nodes is not None:
            smallest = min(
                catalogue.npu_file(n).node_npus for n in self.hardware.names()
            )
            if limits.npus < smallest and limits.nodes > limits.npus:
                raise ProblemError(
                    f"limits: npus {limits.npus} is less than nodes {limits.nodes}"
                )
        return self._named().model_copy(update={"framework": framework})

    def _named(self) -> Self:
        """Return the problem with the NPUs of limits, prices and fleet looked up."""
        stated = self.limits.npus_per_type
        limited = [self.names.npu("limits.npus_per_type", name) for name in stated]
        if len(limited) != len(set(limited)):
            raise ProblemError(f"limits.npus_per_type: two limits for {twice(limited)}")
        per_type = dict(zip(limited, stated.values(), strict=True))
        limits = self.limits.model_copy(update={"npus_per_type": per_type})
        given = self._renamed("prices.given.npu", self.prices.given)
        priced = [price.npu for price in given]
        if len(priced) != len(set(priced)):
            raise ProblemError(
                f"prices.given: one price per NPU, please, not two for {twice(priced)}"
            )
        prices = self.prices.model_copy(update={"given": given})
        changes = {"limits": limits, "prices": prices, **self._named_fleet()}
        return self.model_copy(update=changes)

    def _check_class(self, traffic: TrafficClass) -> None:
        """Raise `ProblemError` if a class fits its model or the problem not at all."""
        arch = catalogue.load_model(self.model_of(traffic))
        self.optimisations.features(arch, arch.precision)
        if traffic.beams > 1 and self.optimisations.speculation:
            raise ProblemError("beams: beam search cannot be speculated on")
        traffic.checked(arch)
        if traffic.kept_whole and "aggregated" not in self.modes:
            raise ProblemError(
                f"modes: {traffic.name} has {traffic.kept_whole}, which is not "
                "disaggregated; allow 'aggregated' too"
            )

    def _named_fleet(self) -> dict[str, Any]:
        """Return what the fleet consists of, with its NPUs looked up."""
        names = self.names
        for quota in self.limits.quota:
            names.matching("limits.quota.npu", (quota.npu,), strict=False)
        racks = self.limits.racks
        if self.redundancy.racks and (racks is None or racks.nodes is None):
            raise ProblemError(
                "redundancy.racks: say how many nodes a rack holds (limits.racks.nodes)"
            )
        owned = self._renamed("owned.npu", self.owned)
        out = self.hardware.exclude
        excluded = names.matching("hardware.exclude", out, strict=False)
        for each in owned:
            if each.npu in excluded:
                raise ProblemError(
                    f"owned: {each.npu} is owned, but hardware.exclude leaves it out; "
                    "drop one of the two"
                )
        kinds = [f"{each.npu}{' nodes' * bool(each.nodes)}" for each in owned]
        current = self._renamed("current.npu", self.current)
        types = [each.npu for each in current]
        for field, found in (("owned", kinds), ("current", types)):
            if len(found) != len(set(found)):
                raise ProblemError(f"{field}: two entries for {twice(found)}")
        return {"owned": owned, "current": current}

    def _renamed(self, field: str, parts: Sequence[_NpuPart]) -> tuple[_NpuPart, ...]:
        """Return parts with the names of their NPUs looked up."""
        named = ((part, self.names.npu(field, part.npu)) for part in parts)
        return tuple(part.model_copy(update={"npu": name}) for part, name in named)


def problem_of(data: Mapping[str, Any], source: str) -> SizingProblem:
    """Return the checked problem that a mapping states.

    `data` and `source` are as `stated` takes them.

    Raises
    ------
    GenzSizeError
        One message that names every wrong field.
    """
    return stated(SizingProblem, data, source).checked()


def read_toml(path: Path, field: str = "problem") -> dict[str, Any]:
    """Return a problem file's content, not yet checked.

    Raises
    ------
    ProblemError
        If it cannot be read, or is not TOML; the message starts with the name of the
        field that gave the path.
    """
    text = read_text(path, field)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        if text.lstrip().startswith("{"):
            why = "it looks like JSON"
        raise ProblemError(f"{field}: {path} is not valid TOML: {why}") from None
    _find_traces(content, path.parent)
    return content


def _find_traces(content: dict[str, Any], folder: Path) -> None:
    """Let the traces that lie beside a problem file be found from anywhere."""
    classes = content.get("traffic")
    for traffic in classes if isinstance(classes, list) else ():
        trace = traffic.get("trace") if isinstance(traffic, dict) else None
        if isinstance(trace, dict) and isinstance(path := trace.get("path"), str):
            trace["path"] = str(folder / path) if is_file(folder / path) else path
