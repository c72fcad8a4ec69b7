"""A frontier as text, JSON and CSV."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from problems.given.table import CandidatesTable
from sizing.frontier import Axis, Frontier, Point, axis_of
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


@dataclass(frozen=True, slots=True)
class Drawn:
    """The points of a frontier in the order of its axis; all of them, or cut short.

    Of figures that a table gives, if there is one.
    """

    frontier: Frontier
    points: Sequence[Point]
    complete: bool = True
    table: CandidatesTable | None = None

    @property
    def axis(self) -> Axis:
        """What cost is set against."""
        return axis_of(self.frontier.along)

    @property
    def title(self) -> str:
        """What is set against what."""
        varies = self.frontier.along in ("rate", "concurrency")
        asked = subject(self.frontier.problem, self.table, varies=varies)
        return f"{self.minimised} against {self.axis.name}: {asked}"

    @property
    def minimised(self) -> str:
        """What is as small as it can be at each point."""
        limits = self.frontier.along in ("npus", "power")
        objective = "cost" if limits else self.frontier.problem.objective
        return {"cost": "Cost", "npus": "NPUs", "power": "Power"}[objective]


def as_text(drawn: Drawn) -> str:
    """Return the points as a table; those that others beat are marked."""
    console, axis = new_console(), drawn.axis
    console.print(f"{drawn.title}.")
    counted = [] if axis.name == "NPUs" else [">NPUs"]
    table = plain_table(f">{axis.name}", ">USD/h", *counted, "", "plan")
    for point in drawn.points:
        plan = point.solved.plan
        table.add_row(
            axis.text(point.at),
            dollars(point.solved),
            *("" if plan is None else f"{plan.total_npus:,}" for _ in counted),
            "beaten" if point.dominated else "",
            plan_line(point.solved),
        )
    section(console, _proof(drawn), table)
    if any(point.dominated for point in drawn.points):
        console.print()
        console.print(
            f"Beaten: another point has no worse {axis.name} and costs no more."
        )
    if not drawn.complete:
        console.print()
        console.print("Interrupted: what is missing was not solved.")
    return text_of(console)


def _proof(drawn: Drawn) -> str:
    if all(p.solved.status in ("optimal", "infeasible") for p in drawn.points):
        return "Each point is proved and verified"
    return "Proved and verified, but for what is marked"


def as_json(drawn: Drawn) -> str:
    """Return the points as one JSON object."""
    content = {
        "complete": drawn.complete,
        "problem": drawn.frontier.problem.model_dump(mode="json"),
        **of_table(drawn.table),
        "along": drawn.frontier.along,
        "unit": None if drawn.axis.unit is None else drawn.axis.unit.base,
        "points": [
            {"at": p.at, "dominated": p.dominated, **as_data(p.solved)}
            for p in drawn.points
        ],
    }
    return json_text(content)


def as_csv(drawn: Drawn) -> str:
    """Return a row per point."""
    classes = [traffic.name for traffic in drawn.frontier.problem.traffic]
    names = [drawn.frontier.along, "dominated", *row_names(classes)]
    rows = (
        {drawn.frontier.along: point.at, "dominated": point.dominated}
        | as_row(point.solved)
        for point in drawn.points
    )
    return csv_text(names, rows)


FORMATS: dict[str, Callable[[Drawn], str]] = {
    "text": as_text,
    "json": as_json,
    "csv": as_csv,
}
