"""How long, and with what, to search."""

import math
import time
from dataclasses import dataclass, replace

from model_ops.errors import SolverError


@dataclass(frozen=True, slots=True)
class SolveOptions:
    """How to search.

    Parameters
    ----------
    time_limit
        Seconds of wall time for the whole proof.
    workers
        Threads; one makes the search deterministic.
    seed
        Of the search's random choices.
    deadline
        When the time is up, on `time.monotonic`'s clock; None until `started`.
    """

    time_limit: float = 60.0
    workers: int = 1
    seed: int = 0
    deadline: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.time_limit < math.inf:
            raise SolverError(f"time_limit: {self.time_limit} s is no positive time")
        if self.workers < 1:
            raise SolverError(f"workers: {self.workers} must be at least 1")
        if not 0 <= self.seed < 2**31:
            raise SolverError(f"seed: {self.seed} must be from 0 to 2^31 - 1")

    def started(self) -> "SolveOptions":
        """Return options whose time runs from now, for solves that share it."""
        return replace(self, deadline=time.monotonic() + self.time_limit)

    def at_most(self, share: float) -> "SolveOptions":
        """Return options that end after a share of the time left."""
        return replace(self, deadline=time.monotonic() + share * self.remaining)

    @property
    def remaining(self) -> float:
        """Seconds left; zero once the time is up."""
        if self.deadline is None:
            return self.time_limit
        return max(self.deadline - time.monotonic(), 0.0)
