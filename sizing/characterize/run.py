"""Every shape of a suite on a device, and the tables of what it took."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from model_ops.errors import ProblemError
from model_ops.units import Seconds
from sizing.characterize.shapes import AnyShape, Cell
from sizing.characterize.timing import Kernel, Recorder, Sampling, kernel_seconds
from sizing.report.data import csv_text


class Device(Recorder, Protocol):
    """Where the operators run."""

    version: str

    def lacks(self, shape: AnyShape) -> str | None:
        """Return why a shape cannot be measured here; None if it can."""
        ...

    def kernel(self, shape: AnyShape) -> tuple[str, Kernel]:
        """Return the name of the kernel that runs a shape, and what starts it."""
        ...


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one operator took; `kernel` names what ran."""

    shape: AnyShape
    kernel: str
    seconds: Seconds


def measure(
    shapes: Iterable[AnyShape],
    device: Device,
    sampling: Sampling,
    skipped: Callable[[AnyShape, str], None],
) -> Iterator[Measurement]:
    """Yield the time of each shape; those that the device cannot run are told."""
    for shape in shapes:
        reason = device.lacks(shape)
        if reason is None:
            try:
                name, kernel = device.kernel(shape)
                seconds = kernel_seconds(kernel, device, sampling)
            except (ProblemError, RuntimeError) as error:
                # PyTorch's out-of-memory and unsupported-operator errors are these.
                reason = str(error).splitlines()[0]
            else:
                yield Measurement(shape, name, seconds)
        if reason is not None:
            skipped(shape, reason)


def tables(
    measured: Iterable[Measurement], system: str, framework: str, version: str
) -> Mapping[str, str]:
    """Return each table as CSV text, by its name.

    Parameters
    ----------
    measured
        What ran, in order.
    system
        NPU, by its catalogue name.
    framework, version
        Under which `calibrate` files the kernels.
    """
    rows: dict[str, list[dict[str, Cell]]] = {}
    for each in measured:
        row = {
            "system": system,
            "framework": framework,
            "version": version,
            "kernel_source": each.kernel,
            **each.shape.columns(),
            "latency_ms": f"{each.seconds * 1e3:.6g}",
        }
        rows.setdefault(each.shape.table, []).append(row)
    return {table: csv_text(list(lines[0]), lines) for table, lines in rows.items()}
