"""Reading files that people write: size, encoding, and what pydantic found wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from model_ops.errors import ProblemError, nearest

LARGEST_FILE = 5_000_000
"""Bytes; every file we read is text of a few pages (a points table: of a few MB)."""


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
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProblemError(f"{field}: there is no file {path}") from None
    except UnicodeDecodeError:
        raise ProblemError(f"{field}: {path} is not UTF-8 text") from None
    except OSError as error:
        raise ProblemError(f"{field}: cannot read {path}: {error.strerror}") from None


def messages(error: ValidationError) -> str:
    """Return what pydantic found, one clause per field, without its jargon."""
    found = [cast(Mapping[str, Any], item) for item in error.errors()]
    places = [item["loc"] for item in found]
    clauses = [
        _message(item, error.title)
        for item in found
        # A list is said to be too short when its only item is wrong: say the latter.
        if not any(_inside(place, item["loc"]) for place in places)
    ]
    return "; ".join(dict.fromkeys(clauses))


def _inside(place: tuple[object, ...], outer: tuple[object, ...]) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def _message(item: Mapping[str, Any], title: str) -> str:
    where = ".".join(str(part) for part in item["loc"]) or title
    kind, given, context = item["type"], item["input"], item.get("ctx", {})
    if kind in ("literal_error", "enum"):
        known = [w.strip(" '") for w in _listed(context.get("expected", ""))]
        return f"{where}: unknown value {shown(given)}{nearest(str(given), known)}"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    if kind in _PLAIN:
        return f"{where}: {_PLAIN[kind].format(**context)}"
    rule = _RULES.get(kind, item["msg"]).format(**context)
    return f"{where}: {rule}, got {shown(given)}"


_PLAIN = {
    "extra_forbidden": "there is no such field",
    "missing": "required, but missing",
}

_RULES = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
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
    "tuple_type": "must be a list",
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
