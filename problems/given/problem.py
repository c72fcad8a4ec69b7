"""A sizing problem whose deployments' figures a table gives."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from model_ops.errors import CatalogueError, ProblemError, nearest
from problems import catalogue
from problems.fields import Part, stated, twice
from problems.given.rows import FIELD, Row
from problems.problem import GivenPrice, ServingMode, SizingProblem
from problems.traffic import TrafficClass

_OF_OUR_MODEL = (
    "precisions",
    "chunk_tokens",
    "max_num_seqs",
    "framework",
    "confidence",
    "optimisations",
    "kv_bandwidth",
    "owned",
    "current",
    "redundancy",
)
_OF_OUR_QUEUES = (
    "model",
    "trace",
    "concurrency",
    "burstiness",
    "router",
    "prefix_hit",
    "beams",
    "goodput",
)
_OF_FLEETS = ("racks", "changed_npus")
"""What the figures of a table cannot follow: they hold for how they were made."""


class GivenTraffic(TrafficClass):
    """Requests of which the table knows the lengths: how many come, how fast to be.

    Lengths may be stated and are only told again.
    """

    @model_validator(mode="after")
    def _is_stated_once(self) -> Self:
        _refuse(self, _OF_OUR_QUEUES)
        if self.rate is None:
            raise ValueError("rate is missing")
        for target in self.targets:
            if target.metric == "e2e" or target.level is not None:
                raise ValueError(
                    f"targets: a candidates table has mean TTFT and mean TPOT, and no "
                    f"{target.label}"
                )
        metrics = [target.metric for target in self.targets]
        if len(metrics) != len(set(metrics)):
            raise ValueError(f"targets: one for the mean {twice(metrics).upper()}")
        return self

    @property
    def text(self) -> str:
        """What arrives, for reports."""
        return f"{self.demand(headroom=0.0):,.10g} req/s"


class GivenProblem(SizingProblem):
    """What to serve how fast, at which prices, and how much at most.

    The model may be left out: it is only told again. Both serving modes are allowed
    unless one is stated.
    """

    model: Annotated[str, Field(max_length=200)] = ""
    traffic: Annotated[tuple[GivenTraffic, ...], Field(min_length=1, max_length=1)]
    modes: Annotated[tuple[ServingMode, ...], Field(min_length=1)] = (
        "aggregated",
        "disaggregated",
    )

    @model_validator(mode="after")
    def _leaves_the_model_alone(self) -> Self:
        _refuse(self, _OF_OUR_MODEL)
        _refuse(self.limits, _OF_FLEETS)
        return self


def _refuse(part: Part, fields: Iterable[str]) -> None:
    for field in fields:
        stated = field in part.model_fields_set
        if stated and getattr(part, field) != type(part).model_fields[field].default:
            raise ValueError(
                f"{field}: goes with our model, and not with {FIELD}, whose rows are "
                "taken as they are. Leave it out"
            )


def given_problem_of(
    data: Mapping[str, Any], rows: Sequence[Row], source: str
) -> tuple[GivenProblem, tuple[Row, ...]]:
    """Return the problem that a mapping states, and the rows that it admits.

    Parameters
    ----------
    data
        As parsed from TOML; see `problems.problem.problem_of`.
    rows
        Of the candidates table.
    source
        ``"file"`` where bare numbers must not stand for quantities, else
        ``"python"``.

    Raises
    ------
    ProblemError
        One message that names every wrong field, or the NPU that is not known.
    """
    classes = data.get("traffic")
    if isinstance(classes, list | tuple) and len(classes) > 1:
        raise ProblemError(
            f"traffic: {FIELD} has the figures of one class of requests, and the "
            f"problem {len(classes)}"
        )
    problem = stated(GivenProblem, data, source)
    there = {row.npu for row in rows}
    kept = admitted(problem, there)
    if not kept:
        raise ProblemError("hardware: exclude leaves no NPU of those in the table")
    named = _with_names(problem, there)
    found = [row for row in rows if row.npu in kept and row.mode in named.modes]
    if not found:
        raise ProblemError(f"modes: no row of the table is {' or '.join(named.modes)}")
    return named, tuple(found)


def admitted(problem: SizingProblem, there: set[str]) -> set[str]:
    """Return the NPUs of a table that a problem's filter lets pass.

    Raises
    ------
    ProblemError
        If the filter names an NPU that the table does not have.
    """
    hardware = problem.hardware
    kept = _matching("hardware.npus", hardware.npus, there)
    return kept - _matching("hardware.exclude", hardware.exclude, there, strict=False)


def _with_names(problem: GivenProblem, there: set[str]) -> GivenProblem:
    """Return a problem with the NPUs of its limits and prices looked up."""
    per_type = problem.limits.npus_per_type
    limited = [_npu("limits.npus_per_type", name, there) for name in per_type]
    if len(limited) != len(set(limited)):
        raise ProblemError(f"limits.npus_per_type: two limits for {twice(limited)}")
    given: dict[str, GivenPrice] = {}
    for price in problem.prices.given:
        npu = _npu("prices.given.npu", price.npu, there)
        if npu in given:
            raise ProblemError(f"prices.given: one price per NPU, not two for {npu}")
        given[npu] = price.model_copy(update={"npu": npu})
    counts = dict(zip(limited, per_type.values(), strict=True))
    return problem.model_copy(
        update={
            "limits": problem.limits.model_copy(update={"npus_per_type": counts}),
            "prices": problem.prices.model_copy(
                update={"given": tuple(given.values())}
            ),
        }
    )


def _npu(field: str, name: str, there: set[str]) -> str:
    """Return an NPU's name as the table's rows have it, or as the catalogue does."""
    for known in there:
        if known.lower() == name.strip().lower():
            return known
    try:
        return catalogue.canonical("npus", name)
    except CatalogueError:
        hint = nearest(name, there, catalogue.names("npus"))
        raise ProblemError(f"{field}: unknown NPU '{name}'{hint}") from None


def _matching(
    field: str, patterns: Sequence[str], there: set[str], *, strict: bool = True
) -> set[str]:
    """Return the NPUs of a table that patterns name.

    Raises
    ------
    ProblemError
        If a pattern names none; unless `strict`, only if the catalogue has none either.
    """
    kept: set[str] = set()
    for pattern in patterns:
        if any(mark in pattern for mark in "*?["):
            found = {name for name in there if fnmatch(name.lower(), pattern.lower())}
        else:
            found = {_npu(field, pattern, there)} & there
        if strict and not found:
            hint = nearest(pattern.strip("*"), there)
            raise ProblemError(f"{field}: no row of the table has '{pattern}'{hint}")
        kept |= found
    return kept
