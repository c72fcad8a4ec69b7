"""Scenarios side by side, as text, JSON and CSV."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as RichTable

from problems.given.table import CandidatesTable
from problems.problem import SizingProblem
from sizing.report.console import new_console, plain_table, section, text_of
from sizing.report.data import csv_text, json_text
from sizing.report.solved import (
    as_data,
    as_row,
    dollars,
    of_table,
    plan_line,
    row_names,
    subject,
)
from sizing.what_if import Row


@dataclass(frozen=True, slots=True)
class Compared:
    """The rows of a question, the base first; not all of them if it was interrupted.

    Of figures that a table gives, if there is one.
    """

    problem: SizingProblem
    rows: Sequence[Row]
    complete: bool = True
    table: CandidatesTable | None = None

    def change(self, row: Row) -> float | None:
        """Return how much dearer a row's plan is than the base's, relatively."""
        base, cost = self.rows[0].solved.usd_per_hour, row.solved.usd_per_hour
        # Hardware that is there already may cost nothing.
        if not base or cost is None or row is self.rows[0]:
            return None
        return cost / base - 1


def as_text(compared: Compared) -> str:
    """Return the scenarios as a table, and what became of the base's plan in each."""
    console, problem = new_console(), compared.problem
    asked = subject(problem, compared.table)
    console.print(f"What if: {asked}, and {_count(compared)}.")
    section(console, _title(compared), _table(compared))
    told = [row for row in compared.rows if row.why]
    if told:
        console.print()
        console.print("Why")
        for row in told:
            console.print(f"- {row.name}: {'; '.join(row.why)}.")
    if not compared.complete:
        console.print()
        console.print("Interrupted: what is missing was not solved.")
    return text_of(console)


def _count(compared: Compared) -> str:
    number = len(compared.rows) - 1
    return f"{number:,} scenario{'' if number == 1 else 's'}"


def _title(compared: Compared) -> str:
    if all(row.solved.status in ("optimal", "infeasible") for row in compared.rows):
        return "Each is proved and verified"
    return "Proved and verified, but for what is marked"


def _table(compared: Compared) -> RichTable:
    table = plain_table("scenario", ">USD/h", ">to base", ">NPUs", "plan")
    for row in compared.rows:
        plan, change = row.solved.plan, compared.change(row)
        table.add_row(
            row.name,
            dollars(row.solved),
            "" if change is None else _percent(change),
            "" if plan is None else f"{plan.total_npus:,}",
            plan_line(row.solved),
        )
    return table


def _percent(change: float) -> str:
    return f"{change:+.1%}" if abs(change) > _CLOSE else "same"


_CLOSE = 1e-9


def as_json(compared: Compared) -> str:
    """Return the scenarios as one JSON object."""
    base, *others = (_data(compared, row) for row in compared.rows)
    content = {
        "complete": compared.complete,
        "problem": compared.problem.model_dump(mode="json"),
        **of_table(compared.table),
        "base": base,
        "scenarios": others,
    }
    return json_text(content)


def _data(compared: Compared, row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "changes": list(row.changes),
        **as_data(row.solved),
        "relative_to_base": compared.change(row),
        "why": list(row.why),
    }


def as_csv(compared: Compared) -> str:
    """Return a row per scenario."""
    own = row_names([traffic.name for traffic in compared.problem.traffic])
    names = ["scenario", "changes", *own, "relative_to_base", "why"]
    rows = (
        {
            "scenario": row.name,
            "changes": "; ".join(row.changes),
            **as_row(row.solved),
            "relative_to_base": compared.change(row),
            "why": "; ".join(row.why),
        }
        for row in compared.rows
    )
    return csv_text(names, rows)


FORMATS: dict[str, Callable[[Compared], str]] = {
    "text": as_text,
    "json": as_json,
    "csv": as_csv,
}
