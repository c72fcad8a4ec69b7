"""A sizing problem whose deployments' figures a table gives."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from model_ops.errors import CatalogueError, ProblemError, nearest
from problems import catalogue
from problems.fields import Part, stated, twice
from problems.given.rows import FIELD, Row
from problems.npu_names import Names, globbed, is_glob
from problems.problem import ServingMode, SizingProblem
from problems.traffic import TrafficClass

_OF_OUR_MODEL = (
    "precisions",
    "chunk_tokens",
    "max_num_seqs",
    "framework",
    "confidence",
    "optimisations",
    "kv_bandwidth",
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
"""What the figures of a table cannot follow: they hold for how they were made."""

_MADE_FOR = ("input_tokens", "output_tokens", "lengths")
"""What is told again of the requests, and cannot be varied."""


@dataclass(frozen=True, slots=True)
class TableNames:
    """The NPUs of a table: by their names there, or the catalogue's."""

    there: AbstractSet[str]

    @property
    def known(self) -> Sequence[str]:
        """Every one of them."""
        return sorted(self.there)

    def npu(self, field: str, name: str) -> str:
        """Return the NPU that a name or an alias means, in the table or not.

        Raises
        ------
        ProblemError
            If neither the table nor the catalogue knows it.
        """
        for known in self.there:
            if known.lower() == name.strip().lower():
                return known
        try:
            return catalogue.canonical("npus", name)
        except CatalogueError:
            hint = nearest(name, self.there, catalogue.names("npus"))
            raise ProblemError(f"{field}: unknown NPU '{name}'{hint}") from None

    def matching(
        self, field: str, patterns: Iterable[str], *, strict: bool = True
    ) -> set[str]:
        """Return the NPUs of the table that names, aliases or globs match.

        Raises
        ------
        ProblemError
            If one of them matches none; unless `strict`, only if the catalogue has none
            either.
        """
        kept: set[str] = set()
        for pattern in patterns:
            found = self._anywhere(field, pattern) & self.there
            if strict and not found:
                raise ProblemError(
                    f"{field}: no row of the table has '{pattern}'"
                    f"{nearest(pattern.strip('*'), self.there)}"
                )
            kept |= found
        return kept

    def _anywhere(self, field: str, pattern: str) -> set[str]:
        """Return what a pattern matches in the table or the catalogue."""
        if not is_glob(pattern):
            return {self.npu(field, pattern)}
        every = {*self.there, *catalogue.names("npus")}
        found = globbed(pattern, every)
        if not found:
            hint = nearest(pattern.strip("*"), every)
            raise ProblemError(f"{field}: '{pattern}' matches no NPU{hint}")
        return found


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
        """What arrives, and of what length where that is stated, for reports."""
        both = self.input_tokens is not None and self.output_tokens is not None
        return super().text if both or self.lengths else self._load_text()


class GivenProblem(SizingProblem):
    """What to serve how fast, at which prices, and how much at most.

    The model may be left out: it is only told again. Both serving modes are allowed
    unless one is stated.

    Parameters
    ----------
    npus_of_table
        The NPU types of the table's rows; no part of what is stated.
    """

    model: Annotated[str, Field(max_length=200)] = ""
    traffic: Annotated[tuple[GivenTraffic, ...], Field(min_length=1, max_length=1)]
    modes: Annotated[tuple[ServingMode, ...], Field(min_length=1)] = (
        "aggregated",
        "disaggregated",
    )
    beyond: ClassVar = frozenset({*_OF_OUR_MODEL, *_OF_OUR_QUEUES, *_MADE_FOR, "e2e"})

    npus_of_table: Annotated[frozenset[str], Field(exclude=True)] = frozenset()

    @model_validator(mode="after")
    def _leaves_the_model_alone(self) -> Self:
        _refuse(self, _OF_OUR_MODEL)
        return self

    @property
    def names(self) -> Names:
        """Where its NPUs are looked up."""
        return TableNames(self.npus_of_table)

    def restated(self, data: Mapping[str, Any]) -> "GivenProblem":
        """Return the checked problem that other data state of the same table.

        Raises
        ------
        ProblemError
            If they state other requests, or another model: those have other figures.
        """
        other = given_problem_of(data, self.npus_of_table, "python")
        for field, value in _made_for(self).items():
            if _made_for(other)[field] != value:
                raise ProblemError(
                    f"{field}: figures of {FIELD} hold for the requests and the model "
                    "that they were made for; others need a table of their own"
                )
        return other

    def checked(self) -> Self:
        """Return the problem with its names looked up.

        Raises
        ------
        ProblemError
            If a name is unknown, or the filter leaves no NPU of the table.
        """
        if not admitted(self, self.npus_of_table):
            raise ProblemError("hardware: exclude leaves no NPU of those in the table")
        self.names.matching("prices.factors", self.prices.factors, strict=False)
        named = self._named()
        for each in named.owned:
            if each.nodes is not None and each.npu not in catalogue.names("npus"):
                raise ProblemError(
                    f"owned.nodes: nobody knows the servers of {each.npu}, which the "
                    "catalogue does not have; state its npus instead"
                )
        return named


def _made_for(problem: GivenProblem) -> dict[str, Any]:
    """Return what a table's figures hold for, as far as it is stated."""
    traffic = {name: getattr(problem.traffic[0], name) for name in _MADE_FOR}
    return {"model": problem.model} | traffic


def _refuse(part: Part, fields: Iterable[str]) -> None:
    for field in fields:
        stated = field in part.model_fields_set
        if stated and getattr(part, field) != type(part).model_fields[field].default:
            raise ValueError(
                f"{field}: goes with our model, and not with {FIELD}, whose rows are "
                "taken as they are. Leave it out"
            )


def given_problem_of(
    data: Mapping[str, Any], npus: AbstractSet[str], source: str
) -> GivenProblem:
    """Return the checked problem that a mapping states.

    Parameters
    ----------
    data
        As parsed from TOML; see `problems.problem.problem_of`.
    npus
        Types of the candidates table's rows.
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
    of_table = {"npus_of_table": frozenset(npus)}
    return problem.model_copy(update=of_table).checked()


def admitted(problem: SizingProblem, there: AbstractSet[str]) -> set[str]:
    """Return the NPUs of a table that a problem's filter lets pass.

    Raises
    ------
    ProblemError
        If the filter names an NPU that the table does not have.
    """
    names, hardware = TableNames(there), problem.hardware
    kept = names.matching("hardware.npus", hardware.npus)
    return kept - names.matching("hardware.exclude", hardware.exclude, strict=False)


def admitted_rows(problem: SizingProblem, rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows of a table that a problem admits: by their NPU and mode.

    Raises
    ------
    ProblemError
        If it admits none.
    """
    npus = admitted(problem, {row.npu for row in rows})
    found = [row for row in rows if row.npu in npus and row.mode in problem.modes]
    if not found:
        said = " or ".join(problem.modes)
        raise ProblemError(f"modes: no row of the table is {said}")
    return tuple(found)
