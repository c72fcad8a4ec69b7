"""How a kernel is timed: warmed up, often enough per sample, the median of samples."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from model_ops.errors import ProblemError
from model_ops.units import Seconds

Kernel = Callable[[], object]
"""Starts an operator once."""


class Recorder(Protocol):
    """A device that can run a kernel many times in a row and say how long it took."""

    def record(self, kernel: Kernel, calls: int) -> Callable[[], Seconds]:
        """Return what runs `calls` of a kernel and returns the seconds of them all."""
        ...

    def flush(self) -> object:
        """Start an operator that leaves nothing of others in the last-level cache."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often a kernel runs.

    Parameters
    ----------
    warm_up
        Runs before the first sample.
    samples
        Samples, of which the median counts.
    sample_seconds
        Least length of a sample, so that the clock's own error vanishes.
    most_calls
        Calls of a sample, at the most.
    flush
        Whether the cache is flushed before each call. Then the time of as many
        flushes alone is taken off.
    """

    warm_up: int = 3
    samples: int = 10
    sample_seconds: Seconds = 2e-3
    most_calls: int = 1000
    flush: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1 or self.warm_up < 0 or self.most_calls < 1:
            raise ProblemError("--repeats: must be a whole number of at least 1")


def kernel_seconds(
    kernel: Kernel, recorder: Recorder, sampling: Sampling = Sampling()
) -> Seconds:
    """Return the median seconds of one call of a kernel.

    Raises
    ------
    ProblemError
        If the flushes outlast what is measured, so that nothing is left.
    """
    for _ in range(sampling.warm_up):
        kernel()
    run = _flushing(kernel, recorder) if sampling.flush else kernel
    calls = _calls(recorder.record(run, 1)(), sampling)
    seconds = _median(recorder.record(run, calls), sampling.samples)
    if sampling.flush:
        seconds -= _median(recorder.record(recorder.flush, calls), sampling.samples)
    if seconds <= 0:
        raise ProblemError("too short to be told from the flushes of the cache")
    return seconds / calls


def _flushing(kernel: Kernel, recorder: Recorder) -> Kernel:
    def run() -> None:
        recorder.flush()
        kernel()

    return run


def _calls(once: Seconds, sampling: Sampling) -> int:
    """Return how many calls fill a sample."""
    wanted = sampling.sample_seconds / max(once, 1e-9)
    return min(max(int(wanted) + 1, 1), sampling.most_calls)


def _median(run: Callable[[], Seconds], samples: int) -> Seconds:
    return statistics.median(run() for _ in range(samples))
