"""Reading files that people write: size, encoding, and what pydantic found wrong."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_ops.errors import ProblemError, nearest

LARGEST_FILE = 5_000_000
"""Bytes; every file we read is text of a few pages (a points table: of a few MB)."""

Name = Annotated[str, Field(min_length=1, max_length=200)]


class Part(BaseModel):
    """A table of a problem: never changed, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Stated = TypeVar("Stated", bound=BaseModel)


def stated(schema: type[Stated], data: Mapping[str, Any], source: str) -> Stated:
    """Return what a mapping states of a schema.

    Parameters
    ----------
    schema, data
        What it is, and its fields, as parsed from TOML.
    source
        ``"file"`` where bare numbers must not stand for quantities, else
        ``"python"``.

    Raises
    ------
    ProblemError
        One message that names every wrong field.
    """
    try:
        return schema.model_validate(data, context={"source": source})
    except ValidationError as error:
        raise ProblemError(messages(error, schema)) from None


def twice(names: Sequence[str]) -> str:
    """Return the first name that is there more than once."""
    return next(name for name in names if names.count(name) > 1)


def read_text(path: Path, field: str, largest: int = LARGEST_FILE) -> str:
    """Return a file's text.

    Raises
    ------
    ProblemError
        If it is missing, no file, too large, or not UTF-8 text; the message
        starts with the name of the field that gave the path.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ProblemError(f"{field}: {path} is not a file")
        if size > largest:
            raise ProblemError(
                f"{field}: {path} has {size / 1e6:.0f} MB; "
                f"at most {largest / 1e6:.0f} MB are read"
            )
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ProblemError(f"{field}: there is no file {path}") from None
    except UnicodeDecodeError:
        raise ProblemError(f"{field}: {path} is not UTF-8 text") from None
    except OSError as error:
        raise ProblemError(f"{field}: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ProblemError(f"{field}: cannot read {str(path)!r}: {error}") from None


def is_file(path: Path) -> bool:
    """Return whether there is such a file; a path that cannot be is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def messages(error: ValidationError, schema: type[BaseModel]) -> str:
    """Return what pydantic found in data of a schema, one clause per field."""
    found = [cast(Mapping[str, Any], item) for item in error.errors()]
    places = [item["loc"] for item in found]
    clauses = [
        _message(item, schema)
        for item in found
        # A list whose only item is wrong is called too short: the latter says more.
        if not any(_inside(place, item["loc"]) for place in places)
    ]
    rest = len(clauses) - _MOST_CLAUSES
    return "; ".join(clauses[:_MOST_CLAUSES]) + (f"; and {rest} more" * (rest > 0))


_MOST_CLAUSES = 5


def _inside(place: tuple[object, ...], outer: tuple[object, ...]) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def _message(item: Mapping[str, Any], schema: type[BaseModel]) -> str:
    place, kind, given = item["loc"], item["type"], item["input"]
    # Parts with a hash tell apart the forms of one field; they are not written.
    where = ".".join(str(part) for part in place if not str(part).startswith("#"))
    prefix = f"{where}: " if where else ""
    context = item.get("ctx", {})
    if kind == "value_error":
        return f"{prefix}{context['error']}"
    if kind == "missing":
        return f"{prefix}required, but missing"
    if kind == "extra_forbidden":
        hint = nearest(str(place[-1]), _fields_beside(schema, place))
        return f"{prefix}there is no such field{hint}"
    if kind in ("literal_error", "enum"):
        known = [w.strip(" '") for w in _listed(context.get("expected", ""))]
        return f"{prefix}unknown value {shown(given)}{nearest(str(given), known)}"
    if kind == "tuple_type":
        return f"{prefix}{_list_wanted(where, given)}"
    return f"{prefix}{_broken_rule(item)}"


def _list_wanted(where: str, given: Any) -> str:
    """Return how a list is written in TOML, where something else stands."""
    if isinstance(given, dict):
        table = ".".join(part for part in where.split(".") if not part.isdigit())
        return f"must be a list; write [[{table}]] above it"
    if isinstance(given, str):
        return f'must be a list; write ["{given:.60}"]'
    return f"must be a list, got {shown(_plain(given))}"


def _broken_rule(item: Mapping[str, Any]) -> str:
    """Return what a value must be, and the value."""
    kind, given, context = item["type"], item["input"], item.get("ctx", {})
    if context.get("min_length") == 1:
        return "must not be empty"
    if isinstance(given, float) and math.isnan(given):
        kind = "finite_number"
    limits = {name: _plain(value) for name, value in context.items()}
    rule = _RULES.get(kind, item["msg"]).format(**limits)
    return f"{rule}, got {shown(_plain(given))}"


def _plain(value: Any) -> Any:
    """Return a number as people write it: 2, not 2.0."""
    return f"{value:.12g}" if isinstance(value, float) else value


def _fields_beside(schema: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """Return the fields that the table with an unknown one may have."""
    for part in place[:-1]:
        if part in schema.model_fields:
            schema = _model_in(schema.model_fields[part].annotation) or schema
    return list(schema.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in get_args(annotation))
    return next((model for model in found if model is not None), None)


_RULES = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "model_type": "must be a table",
}


def shown(given: object, most: int = 60) -> str:
    """Return a value as a message quotes it: in one line, and not too long."""
    text = " ".join(str(given).split())
    return f"'{text[:most]}...'" if len(text) > most else f"'{text}'"


def _listed(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")
