"""Which variations of a problem are asked for: by options, and by a file of them."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model_ops.errors import ProblemError
from problems.changes import Change, changed
from problems.fields import Name, Part, messages, shown, twice
from problems.problem import SizingProblem, read_toml

MOST = 10_000
"""Scenarios of one question."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A variation of a problem.

    Parameters
    ----------
    name
        What reports call it.
    changes
        From the base.
    problem
        What they make of it.
    """

    name: str
    changes: tuple[Change, ...]
    problem: SizingProblem

    @classmethod
    def of(
        cls, base: SizingProblem, changes: Iterable[Change], name: str | None = None
    ) -> "Scenario":
        """Return the scenario that changes make; named by them if it has no name.

        Raises
        ------
        ProblemError
            If a key is unknown or a value wrong.
        """
        given = tuple(changes)
        named = name or ", ".join(change.text for change in given)
        return cls(named, given, changed(base, given))


class _Stated(Part):
    name: Name | None = None
    set: Mapping[str, Any]


class _File(Part):
    scenario: tuple[_Stated, ...] = ()
    grid: Mapping[str, Any] = {}


def product(
    base: SizingProblem, axes: Sequence[tuple[str, Sequence[str]]]
) -> list[Scenario]:
    """Return a scenario for each combination of values; none without an axis.

    Raises
    ------
    ProblemError
        If a key or value is wrong, or there are too many combinations.
    """
    if not axes:
        return []
    named = [key for key, _ in axes]
    if len(named) != len(set(named)):
        raise ProblemError(f"grid: '{twice(named)}' is there twice")
    rows = [[Change(key, value) for value in values] for key, values in axes]
    number = 1
    for row in rows:
        number *= len(row)
    if number > MOST:
        raise ProblemError(f"grid: {number:,} scenarios; at most {MOST:,} are solved")
    return [Scenario.of(base, changes) for changes in itertools.product(*rows)]


def read_scenarios(base: SizingProblem, path: Path) -> list[Scenario]:
    """Return the scenarios of a TOML file: its ``[[scenario]]``s, then its ``[grid]``.

    Raises
    ------
    ProblemError
        If it cannot be read, or states what is no scenario.
    """
    where = f"--scenarios: {path.name}"
    try:
        file = _File.model_validate(read_toml(path, "--scenarios"))
    except ValidationError as error:
        raise ProblemError(
            f"--scenarios: {path.name}: {messages(error, _File)}"
        ) from None
    if not file.scenario and not file.grid:
        raise ProblemError(
            f"--scenarios: {path.name}: neither a [[scenario]] nor a [grid]"
        )
    try:
        single = [
            Scenario.of(base, _changes(stated.set), stated.name)
            for stated in file.scenario
        ]
        axes = [(key, _values(key, value)) for key, value in _flat(file.grid)]
        return [*single, *product(base, axes)]
    except ProblemError as error:
        raise ProblemError(f"{where}: {error}") from None


def _changes(stated: Mapping[str, Any]) -> list[Change]:
    return [Change(key, _text(value)) for key, value in _flat(stated)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the values of nested tables under dotted keys."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _values(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ProblemError(f"grid.{key}: must be a list of values, got {shown(value)}")
    return [_text(each) for each in value]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
