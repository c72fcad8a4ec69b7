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
    return "; ".join(
        _message(cast(Mapping[str, Any], item), error.title) for item in error.errors()
    )


def _message(item: Mapping[str, Any], title: str) -> str:
    where = ".".join(str(part) for part in item["loc"]) or title
    kind, given, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where}: there is no such field"
    if kind == "missing":
        return f"{where}: required, but missing"
    if kind in ("literal_error", "enum"):
        known = [w.strip(" '") for w in _listed(context.get("expected", ""))]
        return f"{where}: unknown value '{given}'{nearest(str(given), known)}"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    return f"{where}: {item['msg']}, got {given!r:.80}"


def _listed(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")
