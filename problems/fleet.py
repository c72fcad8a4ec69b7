"""What a fleet has, may have and must survive: tables of a problem."""

import math
from fnmatch import fnmatch
from typing import Annotated, Self

from pydantic import Field, model_validator

from model_ops.units import UsdPerHour, Watts
from problems.fields import Name, Part

Count = Annotated[int, Field(ge=0, le=10_000_000)]
Some = Annotated[int, Field(gt=0, le=10_000_000)]


class Quota(Part):
    """NPUs, at most, of those whose type, region and provider match.

    Parameters
    ----------
    npu, region, provider
        Names or globs.
    npus
        How many, over all offers that match.
    """

    npu: Name = "*"
    region: Annotated[str, Field(max_length=200)] = "*"
    provider: Name = "*"
    npus: Count

    def covers(self, npu: str, region: str, provider: str) -> bool:
        """Return whether the quota counts such NPUs."""
        pairs = ((npu, self.npu), (region, self.region), (provider, self.provider))
        return all(fnmatch(has.lower(), glob.lower()) for has, glob in pairs)

    def misses(self, npu: str, region: str, provider: str) -> bool:
        """Return whether it counts such NPUs nowhere but for a region not stated."""
        anywhere = self.model_copy(update={"region": "*"})
        counted = self.covers(npu, region, provider)
        return not region and not counted and anywhere.covers(npu, region, provider)

    @property
    def label(self) -> str:
        """What it counts, for reports."""
        where = [("in", self.region), ("of", self.provider)]
        places = [f"{word} {glob}" for word, glob in where if glob != "*"]
        return " ".join(["quota", *([self.npu] if self.npu != "*" else []), *places])


class Racks(Part):
    """Racks for the nodes; each holds nodes of one offer.

    Parameters
    ----------
    count
        How many, at most.
    nodes, power
        Of one rack: nodes, and watts of its NPUs (all-in), at most.
    """

    count: Some | None = None
    nodes: Some | None = None
    power: Annotated[Watts, Field(gt=0, le=1e12)] | None = None

    @model_validator(mode="after")
    def _holds_so_many(self) -> Self:
        if self.nodes is None and self.power is None:
            raise ValueError("nodes or power: say what one rack holds")
        return self

    def holds(self, node_power: Watts | None) -> int:
        """Return the nodes that fit a rack, given the watts of one; 0 if unknown."""
        most = math.inf if self.nodes is None else self.nodes
        if self.power is not None:
            if node_power is None:
                return 0
            most = min(most, math.floor(self.power * (1 + 1e-9) / node_power))
        return int(min(most, 10_000_000))


class Owned(Part):
    """Hardware that is there already: an offer with a stock.

    Parameters
    ----------
    npu
        Its type.
    nodes, npus
        How many there are: nodes, used whole, or NPUs, used one by one.
    usd_per_hour
        What one costs while it is used; nothing, if what was paid is paid.
    """

    npu: Name
    nodes: Some | None = None
    npus: Some | None = None
    usd_per_hour: Annotated[UsdPerHour, Field(ge=0, le=1e6)] = 0.0

    @model_validator(mode="after")
    def _counts_one_thing(self) -> Self:
        if (self.nodes is None) == (self.npus is None):
            raise ValueError("nodes, npus: state one of them")
        return self


class Redundancy(Part):
    """Hosts that may fail at once while all demand is still met within the targets.

    Parameters
    ----------
    nodes, racks
        How many of either; the worst ones, however the replicas are placed.
    """

    nodes: Annotated[int, Field(ge=0, le=1000)] = 0
    racks: Annotated[int, Field(ge=0, le=1000)] = 0

    @model_validator(mode="after")
    def _counts_one_thing(self) -> Self:
        if self.nodes and self.racks:
            raise ValueError("nodes, racks: state one of them")
        return self

    @property
    def domains(self) -> int:
        """Nodes or racks that may fail at once."""
        return self.nodes or self.racks

    @property
    def text(self) -> str:
        """What may fail, for reports."""
        kind = "node" if self.nodes else "rack"
        return f"{self.domains} {kind}{'s' * (self.domains > 1)}"


class Current(Part):
    """NPUs of a type that are in use today."""

    npu: Name
    npus: Count
