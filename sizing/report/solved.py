"""Answers kept small, as a line of a table and as plain data."""

from collections import Counter
from typing import Any

from problems.given.offers import UNPRICED
from problems.given.plan import GivenPlan, PlannedRow
from problems.given.table import CandidatesTable
from problems.plan import PlannedDeployment
from problems.problem import SizingProblem
from sizing.solved import AnyPlan, Solved

STATUS = {
    "optimal": "",
    "feasible": "not proved",
    "infeasible": "no plan",
    "timed_out": "no answer in time",
}
"""What a table says of each status beside the plan."""


def replicas_line(plan: AnyPlan) -> str:
    """Return a plan's replicas in a line, class by class where it has several."""
    if isinstance(plan, GivenPlan):
        return ", ".join(f"{many:,} x {what}" for what, many in _rows(plan).items())
    classes = {each.traffic: plan.of_class(each.traffic) for each in plan.deployments}
    lines = {name: ", ".join(map(_replicas, rows)) for name, rows in classes.items()}
    if len(lines) == 1:
        return "".join(lines.values())
    return "; ".join(f"{name}: {line}" for name, line in lines.items())


def _rows(plan: GivenPlan) -> Counter[str]:
    """Return how many replicas there are of each row, whatever they stand on."""
    counts: Counter[str] = Counter()
    for row in plan.rows:
        counts[f"{row.name} ({row.npus_per_replica} x {row.npu})"] += row.replicas
    return counts


def _replicas(each: PlannedDeployment) -> str:
    mode = "" if each.mode == "aggregated" else f" ({each.mode})"
    return f"{each.replicas:,} x {each.npu} {each.parallelism.text}{mode}"


def plan_line(solved: Solved) -> str:
    """Return what a table says of an answer: its replicas, or why there are none."""
    if solved.status == "infeasible":
        return f"no plan: {solved.clash}"
    if solved.plan is None:
        return STATUS[solved.status]
    note = STATUS[solved.status]
    gap = f" ({note}: up to {solved.gap:.2%} better)" if note else ""
    return replicas_line(solved.plan) + gap


def dollars(solved: Solved) -> str:
    """Return what a table says of a plan's cost; nothing if there is none to say."""
    cost = solved.usd_per_hour
    return "" if cost is None else f"{cost:,.2f}"


def subject(
    problem: SizingProblem, table: CandidatesTable | None, *, varies: bool = False
) -> str:
    """Return what is served, and whose figures say how, if they are not ours.

    Where the load varies, only how long requests are, which tables do not say.
    """
    parts = problem.traffic if table is None or not varies else ()
    traffic = "; ".join(each.tokens_text if varies else each.text for each in parts)
    asked = f" ({traffic})" if traffic else ""
    if table is None:
        return f"{problem.model}{asked}"
    what = problem.model or "the model of the table"
    return f"{what}{asked} by the figures of {table.name}, not ours"


def of_table(table: CandidatesTable | None) -> dict[str, str]:
    """Return what JSON says of the table that figures are from."""
    return {} if table is None else {"candidates": table.name}


def as_data(solved: Solved) -> dict[str, Any]:
    """Return an answer as plain dictionaries and lists, in SI units and USD/h."""
    plan = solved.plan
    return {
        "status": solved.status,
        "usd_per_hour": solved.usd_per_hour,
        "objective_value": solved.value,
        "bound": solved.bound,
        "gap": solved.gap,
        "total_npus": None if plan is None else plan.total_npus,
        "power_w": None if plan is None else plan.power,
        "plan": [] if plan is None else plan_rows(plan),
        "purchases": [] if plan is None else plan_purchases(plan),
        "means": [means.model_dump() for means in solved.means],
        "conflicts": list(solved.conflicts),
    }


def plan_rows(plan: AnyPlan) -> list[dict[str, Any]]:
    """Return what a plan counts, a dictionary each."""
    if isinstance(plan, GivenPlan):
        return [given_row(row) for row in plan.rows]
    return [deployment.model_dump() for deployment in plan.deployments]


def given_row(row: PlannedRow) -> dict[str, Any]:
    """Return a row of a table as reports have it, its figures with their units."""
    shown = row.model_dump(exclude={"rate", "ttft", "tpot"})
    return shown | {
        "req_per_s_per_replica": row.rate,
        "ttft_mean_s": row.ttft,
        "tpot_mean_s": row.tpot,
    }


def plan_purchases(plan: AnyPlan) -> list[dict[str, Any]]:
    """Return what is bought, a dictionary each; without a cost where it is unknown."""
    return [
        purchase.model_dump()
        | ({"usd_per_hour": None} if purchase.provider == UNPRICED else {})
        for purchase in plan.purchases
    ]


def as_row(solved: Solved) -> dict[str, Any]:
    """Return an answer as the cells of a row."""
    data = as_data(solved)
    names = ("status", "usd_per_hour", "bound", "gap", "total_npus", "power_w")
    return {
        **{name: data[name] for name in names},
        "plan": "" if solved.plan is None else replicas_line(solved.plan),
        **{
            f"{means.traffic}_{metric}_mean_s": getattr(means, f"{metric}_s")
            for means in solved.means
            for metric in ("ttft", "tpot", "e2e")
        },
        "conflicts": "; ".join(solved.conflicts),
    }


def row_names(traffic: list[str]) -> list[str]:
    """Return the columns of `as_row` for a problem of some classes."""
    means = [f"{t}_{m}_mean_s" for t in traffic for m in ("ttft", "tpot", "e2e")]
    first = ["status", "usd_per_hour", "bound", "gap", "total_npus", "power_w", "plan"]
    return [*first, *means, "conflicts"]
