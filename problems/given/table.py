"""A candidates table that was read once, and may be asked about many times."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from problems.given.rows import Row, read_rows


@dataclass(frozen=True)
class CandidatesTable:
    """The rows of a file.

    Parameters
    ----------
    path, rows
        The file, and what it says.
    """

    path: Path
    rows: tuple[Row, ...]

    @classmethod
    def read(cls, path: Path) -> "CandidatesTable":
        """Return the table of a file.

        Raises
        ------
        ProblemError
            One message that names each wrong line and column.
        """
        return cls(path, read_rows(path))

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.path.name

    @cached_property
    def npus(self) -> frozenset[str]:
        """The NPU types of its rows."""
        return frozenset(row.npu for row in self.rows)

    @cached_property
    def again(self) -> tuple[Row, ...]:
        """The file read once more, for the verifier."""
        return read_rows(self.path)

    @cached_property
    def digest(self) -> str:
        """What tells its rows from those of other tables."""
        return hashlib.sha256(repr(self.rows).encode()).hexdigest()
