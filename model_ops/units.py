"""SI floats under annotated aliases; quantities as text at the edge.

A field annotated with an alias below is a float in the unit's base (bytes,
seconds, FLOP/s...); a plain ``float`` is dimensionless. Files write units
(``"141 GB"``); the alias's `Unit` parses them and refuses any other text.
GB is 1e9 bytes, GiB is 2**30; bandwidths are decimal, per NPU, per direction.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from model_ops.errors import UnitError

_WHOLE = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+(?:_[0-9]+)*"
"""Digits, plain, or in threes behind commas (``12,345``), or with underscores."""
_QUANTITY = re.compile(
    rf"\s*([-+]?(?:{_WHOLE})(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*(.*?)\s*"
)
_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {f"{p}i": 1024.0 ** (n + 1) for n, p in enumerate("KMGTP")}


@dataclass(frozen=True)
class Unit:
    """A physical unit: its base, the texts it is written with, and an example.

    Parameters
    ----------
    base
        Symbol of the unit that the float is in, e.g. ``"B/s"``.
    scales
        Accepted unit texts and what one of each is in the base unit.
    example
        A well-written quantity, shown when a text is refused.
    shown
        Unit texts used for display, smallest first.
    """

    base: str
    scales: Mapping[str, float] = field(hash=False)
    example: str
    shown: tuple[str, ...]

    def parse(self, text: str) -> float:
        """Return the quantity in the base unit; thousands may have commas.

        Raises
        ------
        UnitError
            If the text has no unit, an unknown one, or is no finite number
            of zero or more.
        """
        match = _QUANTITY.fullmatch(text)
        if match is None:
            raise UnitError(f"{_quoted(text)} is not a quantity; {self._hint}")
        number, unit = match.groups()
        if not unit:
            raise UnitError(f"{_quoted(text)} has no unit; {self._hint}")
        if unit not in self.scales:
            raise UnitError(
                f"{_quoted(text)} is not a quantity in {self.base}; {self._hint}"
            )
        return self.check(float(number.replace(",", "")) * self.scales[unit], text)

    @property
    def _hint(self) -> str:
        return f"write it like '{self.example}'"

    def check(self, value: float, given: object) -> float:
        """Return the value if it is finite and not negative, else raise `UnitError`."""
        if not math.isfinite(value) or value < 0:
            raise UnitError(
                f"{_quoted(given)} must be a finite quantity of zero or more"
            )
        return value

    def format(self, value: float, digits: int = 3) -> str:
        """Return the value as text in the largest shown unit that keeps it >= 1.

        Rounded to so many digits, or to a whole number where that has more.
        """
        one = 1 - 0.5 * 10.0**-digits  # what rounds up to 1 counts as 1
        fitting = [u for u in self.shown if abs(value) >= self.scales[u] * one]
        unit = fitting[-1] if fitting else self.shown[0]
        number = value / self.scales[unit]
        if abs(number) >= 10**digits - 0.5:  # {:g} would write an exponent
            return f"{number:,.0f} {unit}"
        return f"{number:.{digits}g} {unit}"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let pydantic read text with a unit (and, outside files, a bare number)."""
        from pydantic_core import core_schema

        return core_schema.with_info_before_validator_function(
            self._validate, handler(source)
        )

    def _validate(self, value: Any, info: Any) -> float:
        if isinstance(value, str):
            return self.parse(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnitError(f"{_quoted(value)} is not text like '{self.example}'")
        if (info.context or {}).get("source") == "file":
            raise UnitError(f"{_quoted(value)} has no unit; {self._hint}")
        return self.check(float(value), value)


def _quoted(given: object) -> str:
    text = " ".join(str(given).split())
    return f"'{text[:57]}...'" if len(text) > 60 else f"'{text}'"


def _prefixed(base: str, prefixes: Mapping[str, float]) -> dict[str, float]:
    return {prefix + base: scale for prefix, scale in prefixes.items()}


_TIME = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_TIME |= {"h": 3600.0, "hour": 3600.0, "day": 86400.0}
_RATE = {
    "/s": 1.0,
    "/min": 1 / 60,
    "/h": 1 / 3600,
    "/hour": 1 / 3600,
    "/day": 1 / 86400,
}
_REQUESTS = {n + per: s for n in ("req", "requests") for per, s in _RATE.items()}
_ARITHMETIC = _prefixed("FLOP/s", _DECIMAL) | _prefixed("OP/s", _DECIMAL)
_MONEY = {"": 1.0, "k": 1e3, "M": 1e6}
HOURS_PER_MONTH = 730.0
"""Hours in a mean month: 365 x 24 / 12."""
_COST = {
    f"{prefix}USD/{per}": scale / hours
    for prefix, scale in _MONEY.items()
    for per, hours in (
        ("h", 1.0),
        ("hour", 1.0),
        ("day", 24.0),
        ("month", HOURS_PER_MONTH),
        ("year", 8760.0),
    )
}

BYTE = Unit(
    "B", _prefixed("B", _DECIMAL | _BINARY), "141 GB", ("B", "kB", "MB", "GB", "TB")
)
# Long times stay in seconds, to be compared with the target that was asked for.
SECOND = Unit("s", _TIME, "50 ms", ("us", "ms", "s"))
BYTE_PER_SECOND = Unit(
    "B/s",
    _prefixed("B/s", _DECIMAL),
    "4.8 TB/s",
    ("B/s", "kB/s", "MB/s", "GB/s", "TB/s"),
)
FLOP_PER_SECOND = Unit(
    "FLOP/s", _ARITHMETIC, "989 TFLOP/s", ("FLOP/s", "GFLOP/s", "TFLOP/s")
)
FLOP = Unit("FLOP", _prefixed("FLOP", _DECIMAL), "2 TFLOP", ("MFLOP", "GFLOP", "TFLOP"))
WATT = Unit("W", _prefixed("W", _DECIMAL), "700 W", ("W", "kW", "MW"))
JOULE = Unit(
    "J",
    {"uJ": 1e-6, "mJ": 1e-3} | _prefixed("J", _DECIMAL),
    "40 J",
    ("uJ", "mJ", "J", "kJ"),
)
REQUEST_PER_SECOND = Unit("req/s", _REQUESTS, "10 req/s", ("req/s",))
USD_PER_HOUR = Unit("USD/h", _COST, "55.04 USD/h", ("USD/h",))

Bytes = Annotated[float, BYTE]
Seconds = Annotated[float, SECOND]
BytesPerSecond = Annotated[float, BYTE_PER_SECOND]
FlopPerSecond = Annotated[float, FLOP_PER_SECOND]
Flop = Annotated[float, FLOP]
Watts = Annotated[float, WATT]
Joules = Annotated[float, JOULE]
RequestsPerSecond = Annotated[float, REQUEST_PER_SECOND]
UsdPerHour = Annotated[float, USD_PER_HOUR]
