"""What a plan breaks."""

from collections.abc import Iterator
from dataclasses import dataclass

ROUNDING = 1e-9
"""Relative tolerance of float sums."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A requirement that a plan breaks, and by how much."""

    requirement: str
    message: str

    def __str__(self) -> str:
        return f"{self.requirement}: {self.message}"


def at_most(requirement: str, value: float, most: float | None) -> Iterator[Violation]:
    """Yield the violation of a limit, if there is a limit and it is exceeded."""
    if most is not None and value > most * (1 + ROUNDING):
        yield Violation(requirement, f"{value:.6g} exceeds {most:.6g}")
