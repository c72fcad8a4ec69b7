"""What was found, line by line in a file, so that an interrupted run can go on."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from model_ops.errors import ProblemError
from problems.fields import read_text

_LARGEST = 500_000_000
"""Bytes of a file that is read back."""


@dataclass
class Journal:
    """Findings by the question that they answer; kept in a file if there is one.

    A line is written when its finding is known. One that was cut off is no finding.
    """

    path: Path | None = None
    _found: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path | None) -> "Journal":
        """Return the journal of a file, which need not be there yet.

        Raises
        ------
        ProblemError
            If the file cannot be read or written, or is none of ours.
        """
        journal = cls(path)
        if path is None:
            return journal
        if path.exists():
            text = read_text(path, "--resume", _LARGEST)
            whole, end, rest = text.rpartition("\n")
            lines = [*whole.splitlines(), *([] if rest.startswith("[") else [rest])]
            found = (_line(path, n, line) for n, line in enumerate(lines) if line)
            journal._found = dict(found)
            journal._cut(len(f"{whole}{end}".encode()))
        else:
            journal._write("")
        return journal

    def get(self, key: str) -> Any:
        """Return what answers the question of a key; None if it is not known."""
        return self._found.get(key)

    def put(self, key: str, finding: Any) -> None:
        """Keep what answers the question of a key.

        Raises
        ------
        ProblemError
            If the file cannot be written.
        """
        self._found[key] = finding
        self._write(json.dumps([key, finding], allow_nan=False) + "\n")

    def _cut(self, size: int) -> None:
        """Take away a line that was cut off."""
        assert self.path is not None
        with self._opened() as file:
            file.truncate(size)

    def _write(self, text: str) -> None:
        if self.path is not None:
            with self._opened() as file:
                file.write(text.encode())

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """Open the file to write at its end."""
        assert self.path is not None
        try:
            with self.path.open("ab") as file:
                yield file
        except OSError as error:
            raise ProblemError(
                f"--resume: cannot write {self.path}: {error.strerror}"
            ) from None


def _line(path: Path, number: int, text: str) -> tuple[str, Any]:
    try:
        key, finding = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise ProblemError(
            f"--resume: line {number + 1} of {path} is none that genz-size wrote; "
            "name a new file"
        ) from None
    return str(key), finding


def key_of(*question: Any) -> str:
    """Return what tells a question from others, and from those to other versions."""
    text = json.dumps([version("genz-size"), *question], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
