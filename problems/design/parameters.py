"""The figures of an accelerator that a design may vary, and how they are written."""

from collections.abc import Mapping
from dataclasses import dataclass

from model_ops.errors import ProblemError, nearest
from model_ops.units import BYTE, BYTE_PER_SECOND, FLOP_PER_SECOND, SECOND, Unit


@dataclass(frozen=True, slots=True)
class Parameter:
    """One figure of `Specification`.

    Parameters
    ----------
    name
        Of the field.
    label
        In reports.
    unit
        How its levels are written; None for a count.
    falling
        Whether less is better, as of a latency.
    aliases
        Other names that people use.
    """

    name: str
    label: str
    unit: Unit | None
    falling: bool = False
    aliases: tuple[str, ...] = ()

    def parse(self, text: str) -> float:
        """Return a level as written.

        Raises
        ------
        UnitError, ProblemError
            If it is no quantity above zero of the parameter's unit.
        """
        if self.unit is not None:
            value = self.unit.parse(text)
        elif text.strip().isdigit():
            value = float(text)
        else:
            raise ProblemError(f"'{text:.40}' is not a whole number")
        if value <= 0:
            raise ProblemError(f"'{text:.40}' must be above zero")
        return value

    def text(self, value: float) -> str:
        """Return a level as text."""
        return self.unit.format(value) if self.unit else f"{value:,.0f}"


PARAMETERS: Mapping[str, Parameter] = {
    p.name: p
    for p in (
        Parameter(
            "flop_per_s",
            "16-bit FLOP/s",
            FLOP_PER_SECOND,
            aliases=("flops", "compute", "peak", "bf16"),
        ),
        Parameter(
            "flop_per_s_8bit",
            "8-bit FLOP/s",
            FLOP_PER_SECOND,
            aliases=("fp8", "int8", "low_precision"),
        ),
        Parameter(
            "memory_bandwidth",
            "memory bandwidth",
            BYTE_PER_SECOND,
            aliases=("hbm_bandwidth", "bandwidth"),
        ),
        Parameter(
            "memory_capacity",
            "memory capacity",
            BYTE,
            aliases=("hbm_capacity", "capacity", "memory"),
        ),
        Parameter(
            "scale_up_bandwidth",
            "scale-up bandwidth",
            BYTE_PER_SECOND,
            aliases=("link", "link_bandwidth", "nvlink"),
        ),
        Parameter(
            "scale_up_npus",
            "scale-up domain",
            None,
            aliases=("domain", "scale_up_domain", "node_npus"),
        ),
        Parameter(
            "scale_up_latency",
            "scale-up latency",
            SECOND,
            falling=True,
            aliases=("latency", "link_latency"),
        ),
        Parameter(
            "scale_out_bandwidth",
            "scale-out bandwidth",
            BYTE_PER_SECOND,
            aliases=("network", "scale_out", "nic"),
        ),
        Parameter(
            "scale_out_latency",
            "scale-out latency",
            SECOND,
            falling=True,
            aliases=("network_latency",),
        ),
        Parameter(
            "on_chip_memory",
            "on-chip memory",
            BYTE,
            aliases=("sram", "l2", "scratchpad", "on_chip"),
        ),
    )
}
"""Every figure of `Specification`, in its order."""

USUAL = (
    "flop_per_s",
    "memory_bandwidth",
    "memory_capacity",
    "scale_up_bandwidth",
    "scale_up_npus",
    "scale_out_bandwidth",
)
"""What varies where nobody says what does."""


def parameter(name: str) -> Parameter:
    """Return the parameter of a name or alias; dashes stand for underscores.

    Raises
    ------
    ProblemError
        If there is none; the message names the nearest.
    """
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    if key in PARAMETERS:
        return PARAMETERS[key]
    for one in PARAMETERS.values():
        if key in one.aliases:
            return one
    known = list(PARAMETERS)
    also = [alias for one in PARAMETERS.values() for alias in one.aliases]
    raise ProblemError(f"unknown parameter '{name:.40}'{nearest(key, known, also)}")
