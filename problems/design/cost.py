"""What an accelerator costs by the hour, from its figures.

Per NPU, with the coefficients of a file in `problems/design/costs/`, each of which
names its source::

    area    = die_mm2 + sum of mm2 of its figures + stacks mm2_per_stack
    stacks  = max(ceil(bandwidth / stack_bandwidth), ceil(capacity / stack_capacity))
    dies    = the number n >= area / reticle, stacks / stacks_per_die that makes
              n good(area / n) + (n - 1) join least
    good(a) = wafer / (per_wafer(a) yield(a)),   yield(a) = (1 + a D / alpha) ** -alpha
    per_wafer(a) = pi (d / 2)^2 / a - pi d / sqrt(2 a)
    capital = markup (dies + stacks usd_per_stack + capacity usd_per_gb + test_usd)
            + server_usd + links
    USD/h   = capital / lifetime + W (energy + facility)

Yield: negative binomial (C. H. Stapper, IBM J. Res. Dev. 27(6), 1983). Dies per wafer:
J. Hennessy, D. Patterson, "Computer Architecture". All terms but the dies' and the
stacks' are sums over the figures, and none falls when a figure gets better: what the
solver's bounds rest on.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_ops.errors import ProblemError, nearest
from model_ops.platform.specification import Specification
from model_ops.units import UsdPerHour, Watts
from problems.fields import read_text

FOLDER = Path(__file__).parent / "costs"

DEFAULT = "accelerator-2026"

Floats = npt.NDArray[np.float64]

HOURS_PER_YEAR = 8760.0
_TERA, _GIGA, _MEGA = 1e12, 1e9, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Coefficients of the cost of an accelerator; the data file says where from.

    Parameters
    ----------
    wafer_usd, wafer_mm, defects_per_cm2, clustering, reticle_mm2
        A wafer's price and diameter; D and alpha of its yield; the largest die.
    die_mm2, mm2_per_tflops, mm2_per_tflops_8bit, mm2_per_stack, mm2_per_gb_per_s,
    mm2_per_mb
        Area of what does not scale; per TFLOP/s; per memory stack; per GB/s of links;
        per MB of on-chip memory.
    join_usd, test_usd
        Per die beyond the first; package, test and assembly per NPU.
    stack_gb_per_s, stack_gb, stack_least_gb, stacks_per_die, usd_per_stack, usd_per_gb
        What a memory stack carries, holds at most and at least, how many find room at
        the edges of a die, a stack's place in the package, its memory.
    scale_up_usd_per_gb_per_s, scale_out_usd_per_gb_per_s
        Links, switches and cables per GB/s of each NPU.
    board_npus, domain_usd_per_doubling
        The largest domain on one board, and what each doubling beyond adds per NPU.
    latency_usd_per_halving
        Per halving of the scale-up latency from 10 us.
    markup
        What the NPU is sold for over what it costs to make.
    server_usd, server_watts
        An NPU's share of host, chassis and cooling.
    static_watts, watts_per_tflops, watts_per_tflops_8bit, watts_per_tb_per_s,
    watts_per_gb_per_s
        Power at full load.
    lifetime_years, load
        Years of use, and the share of the power at full load that is drawn in them.
    usd_per_kwh, pue, facility_usd_per_watt, facility_years
        Energy, its overhead, and the building, power and cooling for a watt of load.
    """

    wafer_usd: float
    wafer_mm: float
    defects_per_cm2: float
    clustering: float
    reticle_mm2: float
    die_mm2: float
    mm2_per_tflops: float
    mm2_per_tflops_8bit: float
    mm2_per_stack: float
    mm2_per_gb_per_s: float
    mm2_per_mb: float
    join_usd: float
    test_usd: float
    stack_gb_per_s: float
    stack_gb: float
    stack_least_gb: float
    stacks_per_die: float
    usd_per_stack: float
    usd_per_gb: float
    scale_up_usd_per_gb_per_s: float
    scale_out_usd_per_gb_per_s: float
    board_npus: float
    domain_usd_per_doubling: float
    latency_usd_per_halving: float
    markup: float
    server_usd: float
    server_watts: float
    static_watts: float
    watts_per_tflops: float
    watts_per_tflops_8bit: float
    watts_per_tb_per_s: float
    watts_per_gb_per_s: float
    lifetime_years: float
    load: float
    usd_per_kwh: float
    pue: float
    facility_usd_per_watt: float
    facility_years: float

    def capital(self, figure: str, value: Floats) -> Floats:
        """Return the USD of a figure that depend on no other; never falling."""
        giga = value / _GIGA
        if figure == "memory_capacity":
            return self.markup * self.usd_per_gb * giga
        if figure == "scale_up_bandwidth":
            return self.scale_up_usd_per_gb_per_s * giga
        if figure == "scale_out_bandwidth":
            return self.scale_out_usd_per_gb_per_s * giga
        if figure == "scale_up_npus":
            beyond = np.maximum(value / self.board_npus, 1.0)
            return self.domain_usd_per_doubling * np.log2(beyond)
        if figure == "scale_up_latency":
            return self.latency_usd_per_halving * np.maximum(
                -np.log2(value / 1e-5), 0.0
            )
        return np.zeros_like(value)

    def watts(self, figure: str, value: Floats) -> Floats:
        """Return the watts of a figure at full load."""
        per = {
            "flop_per_s": self.watts_per_tflops / _TERA,
            "flop_per_s_8bit": self.watts_per_tflops_8bit / _TERA,
            "memory_bandwidth": self.watts_per_tb_per_s / _TERA,
            "scale_up_bandwidth": self.watts_per_gb_per_s / _GIGA,
            "scale_out_bandwidth": self.watts_per_gb_per_s / _GIGA,
        }
        return np.asarray(per.get(figure, 0.0) * value)

    def mm2(self, figure: str, value: Floats) -> Floats:
        """Return the die area of a figure."""
        per = {
            "flop_per_s": self.mm2_per_tflops / _TERA,
            "flop_per_s_8bit": self.mm2_per_tflops_8bit / _TERA,
            "scale_up_bandwidth": self.mm2_per_gb_per_s / _GIGA,
            "scale_out_bandwidth": self.mm2_per_gb_per_s / _GIGA,
            "on_chip_memory": self.mm2_per_mb / _MEGA,
        }
        return np.asarray(per.get(figure, 0.0) * value)

    def stacks(self, figure: str, value: Floats) -> Floats:
        """Return the memory stacks that a figure asks for."""
        per = {
            "memory_bandwidth": self.stack_gb_per_s * _GIGA,
            "memory_capacity": self.stack_gb * _GIGA,
        }
        # Not one more for a rounding error in the last digit.
        return np.ceil(value / per.get(figure, np.inf) * (1 - 1e-12))

    @property
    def usd_per_capital(self) -> float:
        """USD/h of a dollar spent at the start."""
        return 1.0 / (self.lifetime_years * HOURS_PER_YEAR)

    @property
    def usd_per_watt(self) -> float:
        """USD/h of a watt at full load."""
        energy = self.load * self.pue * self.usd_per_kwh / 1e3
        facility = self.facility_usd_per_watt / (self.facility_years * HOURS_PER_YEAR)
        return energy + facility

    def package_usd(self, stacks: Floats, area: Floats) -> Floats:
        """Return the USD of dies and of the stacks' places, of the whole die area."""
        return self.markup * (
            self.dies_usd(stacks, area) + self.test_usd + self.usd_per_stack * stacks
        )

    def dies_usd(self, stacks: Floats, area: Floats) -> Floats:
        """Return the USD of a good set of dies with a total area in mm2."""
        by_area = np.ceil(area / self.reticle_mm2 * (1 - 1e-12))
        least = np.maximum(
            np.maximum(by_area, np.ceil(stacks / self.stacks_per_die)), 1
        )
        each = np.array(
            [
                count * self._die_usd(area / count) + (count - 1.0) * self.join_usd
                for count in (least, least + 1.0, least + 2.0, least + 3.0)
            ]
        )
        return np.asarray(np.min(each, axis=0))

    def _die_usd(self, area: Floats) -> Floats:
        across = math.pi * self.wafer_mm
        per_wafer = across * self.wafer_mm / 4.0 / area - across / np.sqrt(2.0 * area)
        defects = area / 100.0 * self.defects_per_cm2
        good = (1.0 + defects / self.clustering) ** -self.clustering
        return self.wafer_usd / (per_wafer * good)

    def fixed_watts(self) -> Watts:
        """Return the watts of an NPU that no figure changes."""
        return self.static_watts + self.server_watts

    def parts(self, chosen: Specification) -> "NpuCost":
        """Return what one NPU of the figures costs."""
        values = {name: np.array([v]) for name, v in chosen.figures.items()}

        def total(each: Any) -> Floats:
            return np.asarray(sum(each(name, v) for name, v in values.items()))

        stacks = np.maximum.reduce([self.stacks(n, v) for n, v in values.items()])
        area = self.die_mm2 + total(self.mm2) + self.mm2_per_stack * stacks
        memory = self.capital("memory_capacity", values["memory_capacity"])
        watts = self.fixed_watts() + total(self.watts)
        return NpuCost(
            dies_usd=float((self.markup * self.dies_usd(stacks, area))[0]),
            memory_usd=float((memory + self.markup * self.usd_per_stack * stacks)[0]),
            test_usd=self.markup * self.test_usd,
            links_usd=float((total(self.capital) - memory)[0]),
            server_usd=self.server_usd,
            watts=float(watts[0]),
            area_mm2=float(area[0]),
            stacks=int(stacks[0]),
            usd_per_hour=float(
                (
                    self.usd_per_capital
                    * (
                        self.server_usd
                        + total(self.capital)
                        + self.package_usd(stacks, area)
                    )
                    + self.usd_per_watt * watts
                )[0]
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NpuCost:
    """What one NPU of a design costs, and of what.

    Parameters
    ----------
    dies_usd, memory_usd, test_usd, links_usd, server_usd
        Capital.
    watts, area_mm2, stacks
        Power at full load, die area, memory stacks.
    usd_per_hour
        Capital over the lifetime, energy and facility.
    """

    dies_usd: float
    memory_usd: float
    test_usd: float
    links_usd: float
    server_usd: float
    watts: Watts
    area_mm2: float
    stacks: int
    usd_per_hour: UsdPerHour

    @property
    def capital_usd(self) -> float:
        """USD to buy it, with its share of server and network."""
        return (
            self.dies_usd
            + self.memory_usd
            + self.test_usd
            + self.links_usd
            + self.server_usd
        )


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A coefficient as its file states it."""

    value: float
    unit: str
    source: str


@cache
def coefficients(name: str) -> Mapping[str, Coefficient]:
    """Return the coefficients of a shipped cost file, or of one at a path.

    Raises
    ------
    ProblemError
        If it cannot be read, lacks a coefficient, or has an unknown one.
    """
    shipped = FOLDER / f"{name}.toml"
    path = shipped if shipped.is_file() else Path(name)
    if path is not shipped and path.suffix != ".toml":
        known = [each.stem for each in FOLDER.glob("*.toml")]
        raise ProblemError(f"cost.file: no '{name:.60}'{nearest(name, known)}")
    try:
        stated = tomllib.loads(read_text(path, "cost.file"))
    except tomllib.TOMLDecodeError as error:
        raise ProblemError(f"cost.file: {path} is not valid TOML: {error}") from None
    tables = stated.get("coefficients", {})
    wanted = [f.name for f in fields(CostModel)]
    missing = [each for each in wanted if each not in tables]
    if missing:
        raise ProblemError(f"cost.file: {path} lacks coefficients.{missing[0]}")
    for each in tables:
        _known(each, "cost.file: coefficients")
    return {
        each: Coefficient(
            _positive(f"cost.file: {each}", tables[each].get("value")),
            str(tables[each].get("unit", "")),
            str(tables[each].get("source", "")),
        )
        for each in wanted
    }


def _known(name: str, field: str) -> None:
    wanted = [f.name for f in fields(CostModel)]
    if name not in wanted:
        raise ProblemError(
            f"{field}: no coefficient '{name:.60}'{nearest(name, wanted)}"
        )


_ABOVE_ZERO = (
    "wafer_usd",
    "wafer_mm",
    "clustering",
    "reticle_mm2",
    "die_mm2",
    "stack_gb_per_s",
    "stack_gb",
    "stacks_per_die",
    "board_npus",
    "lifetime_years",
    "facility_years",
    "server_usd",
)
"""Coefficients that something is divided by, or without which an NPU is free."""


def _positive(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProblemError(f"{field}: {value!r} is no number")
    if not math.isfinite(value) or value < 0:
        raise ProblemError(f"{field}: {value} must be a finite number of zero or more")
    return float(value)


def cost_model(name: str, changed: Mapping[str, float]) -> CostModel:
    """Return a cost file's model with some coefficients changed.

    Raises
    ------
    ProblemError
        If a name is unknown, or a value is none that the formulas allow.
    """
    values = {each: stated.value for each, stated in coefficients(name).items()}
    for each, value in changed.items():
        _known(each, "cost.set")
        values[each] = _positive(f"cost.set.{each}", value)
    for each in _ABOVE_ZERO:
        if values[each] <= 0:
            raise ProblemError(f"cost.set.{each}: must be above zero")
    if values["stack_least_gb"] > values["stack_gb"] / 2:
        # Else some sizes between one stack and two could not be built of either.
        raise ProblemError(
            f"cost.set.stack_least_gb: {values['stack_least_gb']:g} is more than half "
            f"of the largest stack, stack_gb {values['stack_gb']:g}"
        )
    widest = values["wafer_mm"] / 3.0
    if values["reticle_mm2"] > widest**2:
        raise ProblemError(
            f"cost.set.reticle_mm2: {values['reticle_mm2']:g} mm2 is too much of a "
            f"wafer of {values['wafer_mm']:g} mm; at most {widest**2:g}"
        )
    return CostModel(**values)
