"""From tables of measured operators to the kernels file of an NPU."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import get_type_hints

from model_ops.errors import ProblemError
from model_ops.platform.efficiency import KernelKey
from model_ops.units import BYTE
from problems import catalogue
from problems.catalogue.measured_kernels import unit_of
from problems.measured.operators import (
    OperatorRows,
    Reader,
    WeightCache,
    operator_rows,
    reader_of,
)
from problems.measured.tables import Row, read_rows
from sizing.calibration.fit import Fitted, fit


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A kernel's fit, and the software that ran it."""

    key: KernelKey
    stack: str
    version: str
    fitted: Fitted


def read_operators(path: Path) -> tuple[Reader, Sequence[Row]]:
    """Return a table of operators and how it is read.

    Raises
    ------
    ProblemError
        If it cannot be read, or is no table of operators.
    """
    columns, rows = read_rows(path, "OPS.csv")
    reader = reader_of(columns)
    if reader is None:
        raise ProblemError(f"OPS.csv: {path} is no table of measured operators")
    return reader, rows


def measured_on(
    npu: str, tables: Sequence[tuple[Reader, Sequence[Row]]]
) -> list[OperatorRows]:
    """Return the rows of some tables that were measured on an NPU.

    Raises
    ------
    ProblemError
        If there are none.
    """
    wanted = catalogue.canonical("npus", npu)
    found = [
        rows
        for reader, table in tables
        if reader.fitted
        for rows in operator_rows(reader, list(filter(reader.usual, table)))
        if rows.npu == wanted
    ]
    if not found:
        raise ProblemError(f"--npu: no row was measured on {wanted}")
    return found


def calibrate(
    npu: str, measured: Sequence[OperatorRows], seed: int = 0
) -> Iterator[Calibrated]:
    """Yield the fit of every kernel that was measured on an NPU.

    Kernels with fewer rows than parameters are left out.
    """
    groups: dict[tuple[KernelKey, str], list[OperatorRows]] = defaultdict(list)
    chip = catalogue.load_npu(npu)
    for each in measured:
        key, engine = each.key, each.key.engine
        # What stands in for an arithmetic that the NPU lacks.
        own = key._replace(engine=engine and chip.engine(engine))
        groups[(own, each.stack)].append(each)
    for (key, stack), rows in sorted(groups.items()):
        chip = catalogue.load_npu_as(npu, stack)
        yield Calibrated(key, stack, rows[0].version, fit(key, rows, chip, seed))


def kernels_toml(
    npu: str, found: Sequence[Calibrated], sources: Sequence[str], as_of: date
) -> str:
    """Return a kernels file of the catalogue."""
    title = catalogue.npu_file(npu).title
    head = [
        f'title = "Measured kernels of {title}"',
        f"as_of = {as_of.isoformat()}",
        "sources = [",
        *(f'    "{source}",' for source in sources),
        "]",
    ]
    return "\n".join([*head, *(_fit_toml(each) for each in found)]) + "\n"


def _cache_toml(cache: WeightCache | None) -> list[str]:
    """Return what the benchmark's cache did, if it did anything."""
    if cache is None or cache.speedup < _NO_SPEEDUP:
        return []
    return [
        f'benchmark_cache = "{BYTE.format(cache.capacity, 4)}"',
        f"benchmark_speedup = {cache.speedup:.3g}",
    ]


_NO_SPEEDUP = 1.05
"""Up to which a cache is no faster than the memory, as far as a fit can tell."""


def _fit_toml(one: Calibrated) -> str:
    key, fitted = one.key, one.fitted
    lines = [
        "",
        "[[fits]]",
        f'family = "{key.family}"',
        f'format = "{key.format}"',
        *([f'engine = "{key.engine}"'] if key.engine else []),
        f'stack = "{one.stack}"',
        f'version = "{one.version}"',
        f"rows = {fitted.rows}",
        f"error = {fitted.error:.3f}",
        f"left_out = {fitted.left_out:.3f}",
        f"bias = {fitted.bias:.3f}",
        *_cache_toml(fitted.cache),
        "",
        "[fits.parameters]",
    ]
    form = type(fitted.kernel)
    hints = get_type_hints(form, include_extras=True)
    for field in fields(form):  # type: ignore[arg-type]
        value = float(getattr(fitted.kernel, field.name))
        unit = unit_of(hints[field.name])
        text = f"{value:.4g}" if unit is None else f'"{unit.format(value, 4)}"'
        lines.append(f"{field.name} = {text}")
    return "\n".join(lines)
