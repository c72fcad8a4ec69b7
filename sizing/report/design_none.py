"""Why there is no design, as text: what clashes, and the floors of what is asked."""

from rich.console import Console

from model_ops.units import BYTE, SECOND, WATT
from problems.design.statement import DesignProblem
from sizing.report.console import plain_table, section
from sizing.report.counts import count, counted
from solver.design.explain import Floor, WhyNone

TARGETS = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "memory": "memory",
    "npus": "the NPU limit",
    "rate": "the rate",
    "domain": "the domain",
    "stacks": "the least memory stack",
}
"""What a use case asks of a platform, in words."""

_LIMITS = {
    "npus": "NPUs",
    "watts": "power",
    "die_mm2": "die area",
    "stacks": "memory stacks",
}
"""What `DesignLimits` limits, in words."""


def print_why_none(console: Console, problem: DesignProblem, why: WhyNone) -> None:
    """Print what clashes on the best platform, which limits are in the way, floors."""
    names = ", ".join(each.name for each in problem.use_case)
    console.print(f"No platform on the ladders serves {names}.")
    console.print()
    for name, requirements in why.clashes:
        what = " and ".join(TARGETS[each] for each in requirements)
        verb = "clash" if len(requirements) > 1 else "cannot be met"
        console.print(f"- {name}: {what or 'the split'} {verb} on the best platform.")
    if not why.clashes:
        console.print(
            "- Each use case could run on the best platform: the limits on one NPU or "
            "on all of them are in the way."
        )
    for floor in why.floors:
        if floor.is_above and floor.target in _LIMITS:
            what = _LIMITS[floor.target]
            console.print(
                f"- {what[0].upper()}{what[1:]} of {_whose(floor)}: at most "
                f"{_amount(floor, floor.limit)}, but the least on the ladders is "
                f"{_amount(floor, floor.least)}."
            )
    table = plain_table("of", "requirement", ">least", ">limit", "")
    for floor in why.floors:
        table.add_row(
            _whose(floor),
            _LIMITS.get(floor.target) or TARGETS[floor.target],
            _amount(floor, floor.least),
            _amount(floor, floor.limit),
            "impossible" if floor.is_above else "",
        )
    title = "Floors: the least on any platform of the ladders, each by itself"
    section(console, title, table)


def _whose(floor: Floor) -> str:
    all_of = "all use cases" if floor.target == "npus" else "one NPU"
    return floor.use_case or all_of


def _amount(floor: Floor, value: float) -> str:
    if floor.target == "npus":
        return counted(value, "NPU")
    if floor.target == "stacks":
        return count(value)
    if floor.target == "die_mm2":
        return f"{value:,.0f} mm2"
    if floor.target == "watts":
        return WATT.format(value)
    return (BYTE if floor.target == "memory" else SECOND).format(value)
