"""Measured serving runs, request by request."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_ops.errors import ProblemError
from problems.measured import cells
from problems.measured.names import model_name, npu_name
from problems.measured.tables import Row

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

LATENCIES = ("ttft", "tpot", "e2e")


@dataclass(frozen=True)
class Run:
    """The requests of one run that a single NPU served.

    Parameters
    ----------
    model, npu
        Names in the catalogue.
    lines
        Positions of its requests in their table.
    arrival
        Seconds; shaped [request], as all that follows.
    prompt, output
        Tokens.
    """

    model: str
    npu: str
    lines: tuple[int, ...]
    arrival: Floats
    prompt: Counts
    output: Counts


def runs(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Return the positions of each run's requests."""
    found: dict[str, list[int]] = defaultdict(list)
    for line, row in enumerate(rows):
        found[cells.text(row, "run")].append(line)
    return found


def run(name: str, rows: Sequence[Row], lines: Sequence[int]) -> Run:
    """Return a run out of a table; its name is ``HARDWARE/MODEL``.

    Raises
    ------
    GenzSizeError
        If the name says something else, a cell is wrong, or the catalogue lacks it.
    """
    hardware, _, model = name.partition("/")
    if not model:
        raise ProblemError(f"run: '{name}' is not HARDWARE/MODEL")
    some = [rows[line] for line in lines]
    return Run(
        model=model_name(model),
        npu=npu_name(hardware),
        lines=tuple(lines),
        arrival=np.array([cells.number(row, "queued_s") or 0.0 for row in some]),
        prompt=_tokens(some, "input_toks"),
        output=_tokens(some, "output_toks"),
    )


def _tokens(rows: Sequence[Row], column: str) -> Counts:
    return np.array([int(cells.measured(row, column)) for row in rows])


def measured(row: Row, latency: str) -> float:
    """Return one latency of a request in seconds.

    Raises
    ------
    ProblemError
        If a time is missing, or a request with one token is asked for its TPOT.
    """
    queued = cells.number(row, "queued_s")
    first, last = (cells.number(row, f"{name}_token_s") for name in ("first", "last"))
    if queued is None or first is None or last is None:
        raise ProblemError("a time of the request is blank")
    further = (cells.finite(row, "output_toks") or 1.0) - 1.0
    if latency == "tpot" and further <= 0:
        raise ProblemError("output_toks: there is no token after the first")
    seconds = {"ttft": first - queued, "e2e": last - queued}
    return seconds[latency] if latency in seconds else (last - first) / further
