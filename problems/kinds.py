"""What a field of a problem holds, told from its annotation, and how it is written."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from model_ops.errors import ProblemError
from model_ops.units import Unit
from problems.fields import shown
from problems.lengths import LengthTable

_WHOLE = re.compile(r"\s*(\d{1,12}|\d{1,3}(?:,\d{3})+)\s*")
_NUMBER = re.compile(r"\s*((?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?)\s*(%?)\s*")
_LENGTHS = re.compile(r"\s*(\d{1,12})\s+cv\s+(\d+(?:\.\d*)?)\s*")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of field.

    Parameters
    ----------
    name
        ``quantity``, ``whole``, ``number``, ``text``, ``texts``, ``tokens``; or
        ``table``.
    unit
        Of a quantity.
    table
        The schema of a table.
    by_npu
        Whether there is one such value per NPU.
    """

    name: str
    unit: Unit | None = None
    table: type[BaseModel] | None = None
    by_npu: bool = False

    def read(self, text: str) -> Any:
        """Return the value that a text states.

        Raises
        ------
        GenzSizeError
            If it is none of this kind.
        """
        if self.unit is not None:
            return self.unit.parse(text)
        if self.name == "tokens" and (match := _LENGTHS.fullmatch(text)):
            return {"mean": float(match.group(1)), "cv": float(match.group(2))}
        if self.name in ("whole", "tokens"):
            if not (match := _WHOLE.fullmatch(text)):
                raise ProblemError(f"{shown(text)} is no whole number")
            return int(match.group(1).replace(",", ""))
        if self.name == "number":
            if not (match := _NUMBER.fullmatch(text)):
                raise ProblemError(f"{shown(text)} is no number")
            return float(match.group(1)) * (0.01 if match.group(2) else 1.0)
        if self.name == "texts":
            return [part.strip() for part in text.split(",")]
        return text

    def scaled(self, value: Any, factor: float) -> Any:
        """Return a value times a factor; counts are rounded.

        Raises
        ------
        ProblemError
            If values of this kind are no numbers.
        """
        if isinstance(value, Mapping):  # lengths: their spread stays
            return {
                key: number if key == "cv" or number is None else number * factor
                for key, number in value.items()
            }
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ProblemError("it is no number, so that nothing can be relative to it")
        return round(value * factor) if isinstance(value, int) else value * factor


def kind_of(field: FieldInfo) -> Kind | None:
    """Return a field's kind; None where no short text states its value."""
    if field.exclude:  # is no part of what is stated
        return None
    parts = [*_parts(field.annotation), *field.metadata]
    unit = next((part for part in parts if isinstance(part, Unit)), None)
    types = [part for part in parts if isinstance(part, type)]
    by_npu = Mapping in types
    if LengthTable in types:
        return Kind("tokens")
    tables = [each for each in types if issubclass(each, BaseModel)]
    if tables:
        listed = tuple in types or by_npu
        return None if listed else Kind("table", table=tables[0])
    if unit is not None:
        return Kind("quantity", unit=unit, by_npu=by_npu)
    if tuple in types:
        return Kind("texts") if float not in types else None
    for name, kind in (("whole", int), ("number", float), ("text", str)):
        if kind in types and (kind is not str or not by_npu):
            return Kind(name, by_npu=by_npu)
    return Kind("text") if any(isinstance(part, str) for part in parts) else None


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the types, literals and marks that an annotation is made of."""
    origin = get_origin(annotation)
    if origin is None:
        yield annotation
        return
    if isinstance(origin, type) and (issubclass(origin, tuple | Mapping)):
        yield tuple if issubclass(origin, tuple) else Mapping
        arguments = get_args(annotation)
        # The keys of a mapping are names.
        for inner in arguments[1:] if issubclass(origin, Mapping) else arguments:
            yield from _parts(inner)
        return
    for inner in get_args(annotation):
        yield from _parts(inner)
    yield from getattr(annotation, "__metadata__", ())
