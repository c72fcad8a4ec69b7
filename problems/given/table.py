"""A candidates table that was read once, and may be asked about many times."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from model_ops.errors import ProblemError
from problems.given.rows import FIELD, Row, read_rows

_IN_SECONDS = 0.2e-3
"""TPOT below which figures are doubted: 0.2 s that were written as milliseconds."""


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

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is odd of its figures, in sentences."""
        fastest = max(row.tpot for row in self.rows)
        if fastest >= _IN_SECONDS:
            return ()
        return (
            f"No row has a TPOT above {fastest * 1e3:.3g} ms: columns that end in _ms "
            "are in milliseconds, and these look like seconds.",
        )

    @cached_property
    def npus(self) -> frozenset[str]:
        """The NPU types of its rows."""
        return frozenset(row.npu for row in self.rows)

    @cached_property
    def again(self) -> tuple[Row, ...]:
        """The file read once more, for the verifier.

        Raises
        ------
        ProblemError
            If it is not what it was.
        """
        rows = read_rows(self.path)
        if rows != self.rows:
            raise ProblemError(
                f"{FIELD}: {self.path} has changed since it was read; ask again"
            )
        return rows

    @cached_property
    def digest(self) -> str:
        """What tells its rows from those of other tables."""
        return hashlib.sha256(repr(self.rows).encode()).hexdigest()
