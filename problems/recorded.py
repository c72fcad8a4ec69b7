"""Requests that were recorded: a CSV or JSON Lines file, one request per row."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from model_ops.errors import ProblemError, nearest
from model_ops.serving.lengths import Floats, Lengths, observed
from model_ops.units import RequestsPerSecond, Seconds
from problems.fields import Name, Part, read_text, shown

PEAK_WINDOW: Seconds = 60.0
"""Length of the window with the most arrivals, by which a recording is sized."""

LARGEST_RECORDING = 500_000_000
"""Bytes; some ten million requests."""

_MOST_TOKENS = 100_000_000
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


class TraceSource(Part):
    """A file of recorded requests, and which of its columns say what.

    Parameters
    ----------
    path
        A ``.jsonl`` file of objects, else CSV with a header; relative to the problem
        file, or to the working directory.
    input, output
        Columns (or keys) of prompt and answer tokens.
    time
        Column of the arrival: a number, or an ISO 8601 time.
    time_unit
        Of such a number.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    input: Name
    output: Name
    time: Name | None = None
    time_unit: Literal["s", "ms", "us"] = "s"

    def read(self) -> "Recording":
        """Return the requests of the file.

        Raises
        ------
        ProblemError
            If the file cannot be read, lacks a column, has no rows, or has one that
            is no request.
        """
        path = Path(self.path)
        try:
            changed = path.stat().st_mtime_ns
        except (OSError, ValueError):
            changed = 0  # what is wrong with it is told where it is read
        return _read(self, changed)


@dataclass(frozen=True, eq=False)
class Recording:
    """Recorded requests in the order of their arrival, each shaped [request].

    Parameters
    ----------
    prompt, output
        Tokens.
    arrival
        Seconds after the first arrival; None where no times were recorded.
    window
        Length of the window whose arrivals are counted to find the peak.
    """

    prompt: npt.NDArray[np.int64]
    output: npt.NDArray[np.int64]
    arrival: Floats | None = None
    window: Seconds = PEAK_WINDOW

    @cached_property
    def lengths(self) -> tuple[Lengths, Lengths]:
        """Distributions of prompt and answer tokens."""
        return observed(self.prompt.astype(float)), observed(self.output.astype(float))

    @property
    def mean_rate(self) -> RequestsPerSecond:
        """Arrivals per second from the first to the last."""
        times = self._times()
        return (times.size - 1) / float(times[-1])

    @property
    def peak_rate(self) -> RequestsPerSecond:
        """Arrivals per second in the window that has the most of them."""
        first, last = self._peak
        return (last - first) / self._counted

    @property
    def gap_variation(self) -> float:
        """Standard deviation over mean of the times between arrivals at the peak."""
        first, last = self._peak
        gaps = np.diff(self._times()[first : last + 1])
        if gaps.size < 2 or gaps.mean() == 0.0:
            return 1.0
        return float(gaps.std() / gaps.mean())

    def at_peak_rate(self, rate: RequestsPerSecond) -> Self:
        """Return the requests with all times stretched to another peak rate."""
        longer = self.peak_rate / rate
        return replace(
            self, arrival=self._times() * longer, window=self.window * longer
        )

    def _times(self) -> Floats:
        if self.arrival is None:
            raise ValueError("no arrival times were recorded")
        return self.arrival

    @property
    def _counted(self) -> Seconds:
        """The window, or all the time if that is shorter."""
        return min(self.window, float(self._times()[-1]))

    @cached_property
    def _peak(self) -> tuple[int, int]:
        """Return the first request of the peak window, and the first behind it."""
        times = self._times()
        ends = np.searchsorted(times, times + self._counted, side="left")
        first = int(np.argmax(ends - np.arange(times.size)))
        return first, int(ends[first])


@lru_cache(maxsize=4)
def _read(source: TraceSource, _changed: int) -> Recording:
    text = read_text(Path(source.path), "trace.path", LARGEST_RECORDING)
    is_lines = Path(source.path).suffix.lower() in (".jsonl", ".ndjson")
    rows = _json_rows(text) if is_lines else _csv_rows(text)
    counts: dict[str, list[int]] = {"input": [], "output": []}
    times: list[Any] = []
    for line, row in rows:
        for field, values in counts.items():
            values.append(_tokens(line, *_cell(line, row, source, field)))
        if source.time is not None:
            times.append((line, *_cell(line, row, source, "time")))
    if not counts["input"]:
        raise ProblemError(f"trace.path: {source.path} has no rows")
    requests = Recording(np.array(counts["input"]), np.array(counts["output"]))
    if source.time is None:
        return requests
    return _timed(requests, _arrivals(times, source))


def _timed(requests: Recording, arrival: Floats) -> Recording:
    order = np.argsort(arrival, kind="stable")
    times = arrival[order] - arrival[order[0]]
    if times[-1] <= 0.0:
        raise ProblemError("trace.time: all requests arrive at once; no rate follows")
    return Recording(requests.prompt[order], requests.output[order], times)


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ProblemError(f"trace.path: not valid CSV: {error}") from None


def _json_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ProblemError(f"trace.path: line {number} is not a JSON object")
        yield number, row


def _cell(
    line: int, row: Mapping[str, Any], source: TraceSource, field: str
) -> tuple[str, Any]:
    """Return a cell's column and its content."""
    column = str(getattr(source, field))
    if column not in row:
        known = [str(name) for name in row if name is not None]
        raise ProblemError(
            f"trace.{field}: line {line} of {source.path} has no column "
            f"{shown(column)}{nearest(column, known)}"
        )
    return column, row[column]


def _tokens(line: int, column: str, content: Any) -> int:
    number = _number(content)
    if number is None or not number.is_integer() or not 1 <= number <= _MOST_TOKENS:
        raise ProblemError(
            f"trace: line {line}: {column} must be a whole number of tokens, one or "
            f"more, got {shown(content)}"
        )
    return int(number)


def _number(content: Any) -> float | None:
    """Return content as a finite number, None where it is none."""
    if isinstance(content, bool) or not isinstance(content, str | int | float):
        return None
    try:
        number = float(content)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _arrivals(times: list[tuple[int, str, Any]], source: TraceSource) -> Floats:
    """Return seconds, of numbers or clock times: all are what the first one is."""
    numbers = _number(times[0][2]) is not None
    scale = _SECONDS[source.time_unit]
    found = []
    for line, column, content in times:
        value = _number(content) if numbers else _clock(content)
        if value is None:
            wanted = "a number" if numbers else "a number or an ISO time"
            raise ProblemError(
                f"trace.time: line {line}: {column} must be {wanted}, "
                f"got {shown(content)}"
            )
        found.append(value * scale if numbers else value)
    return np.array(found)


def _clock(content: Any) -> Seconds | None:
    """Return an ISO time as seconds, UTC where it names no zone."""
    try:
        time = datetime.fromisoformat(str(content).strip())
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
