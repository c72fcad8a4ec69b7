"""How near other plans are, as text and as dictionaries."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from model_ops.units import WATT
from problems.problem import Objective
from sizing.report.console import plain_table, section
from solver.margins import Margins, Without
from solver.relaxing import Worth
from solver.sensitivity import Shift
from solver.switches import Switch

_NO_PLAN = "no plan"

_SAME = 5e-5
"""Relative difference that is not told."""


def print_margins(console: Console, margins: Margins, objective: Objective) -> None:
    """Print what would change the plan, and what each requirement costs."""
    if margins.switches or margins.without or margins.apart:
        title = "How far things may move before this plan is not the best"
        section(console, title, _what_if(margins, objective))
    if margins.sensitivities:
        title = "What each requirement costs: the best plan a tenth tighter, and looser"
        section(console, title, _sensitivities(margins, objective))


def as_dict(margins: Margins) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "switches": [asdict(switch) for switch in margins.switches],
        "without": [asdict(without) for without in margins.without],
        "sensitivities": [asdict(each) for each in margins.sensitivities],
        "apart": None if margins.apart is None else asdict(margins.apart),
    }


def _what_if(margins: Margins, objective: Objective) -> RichTable:
    table = plain_table("what", ">now", ">until", ">by", "then")
    for switch in margins.switches:
        change = f"{switch.factor - 1:+.1%}"
        way = "up" if switch.factor >= 1 else "down"
        what = f"{switch.of}, {way}"
        table.add_row(what, switch.now, switch.to, change, _then(switch))
    for without in margins.without:
        then = _instead(without, objective)
        now, gone = (
            ("owned", "left aside") if without.owned else ("to be had", "sold out")
        )
        table.add_row(without.npu, now, gone, "", then)
    if margins.apart is not None:
        then = _changed(margins.apart.worth, margins.apart.change, objective)
        table.add_row("prefill and decode", "together", "or apart", "", then)
    return table


def _then(switch: Switch) -> str:
    return switch.then or "still this plan; farther was not looked"


def _instead(without: Without, objective: Objective) -> str:
    if without.worth is None or without.change is None:
        return _NO_PLAN
    return _changed(without.worth, without.change, objective)


def _changed(worth: Worth, change: float, objective: Objective) -> str:
    same = abs(change) < _SAME
    value = _value(worth, objective)
    return "the same" if same else f"{worth.hardware}: {value} ({change:+.1%})"


def _value(worth: Worth, objective: Objective) -> str:
    if objective == "npus":
        return f"{worth.npus:,} NPUs"
    if objective == "power":
        return WATT.format(worth.value)
    return f"{worth.value:,.2f} USD/h"


def _sensitivities(margins: Margins, objective: Objective) -> RichTable:
    table = plain_table("requirement", ">asked", "a tenth tighter", "a tenth looser")
    for each in margins.sensitivities:
        table.add_row(
            each.requirement,
            each.wanted,
            _shift(each.tighter, objective),
            _shift(each.looser, objective),
        )
    return table


def _shift(shift: Shift | None, objective: Objective) -> str:
    if shift is None:
        return ""
    if shift.worth is None or shift.change is None:
        return f"{shift.to}: {_NO_PLAN}"
    if abs(shift.change) < _SAME:
        return f"{shift.to}: the same"
    value = _value(shift.worth, objective)
    return f"{shift.to}: {value} ({shift.change:+.1%})"
