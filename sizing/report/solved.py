"""Answers kept small, as a line of a table and as plain data."""

from typing import Any

from problems.plan import Plan, PlannedDeployment
from sizing.solved import Solved

STATUS = {
    "optimal": "",
    "feasible": "not proved",
    "infeasible": "no plan",
    "timed_out": "no answer in time",
}
"""What a table says of each status beside the plan."""


def replicas_line(plan: Plan) -> str:
    """Return a plan's replicas in a line, class by class where it has several."""
    classes = {each.traffic: plan.of_class(each.traffic) for each in plan.deployments}
    lines = {name: ", ".join(map(_replicas, rows)) for name, rows in classes.items()}
    if len(lines) == 1:
        return "".join(lines.values())
    return "; ".join(f"{name}: {line}" for name, line in lines.items())


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


def as_data(solved: Solved) -> dict[str, Any]:
    """Return an answer as plain dictionaries and lists, in SI units and USD/h."""
    plan = solved.plan
    return {
        "status": solved.status,
        "usd_per_hour": None if plan is None else plan.usd_per_hour,
        "objective_value": solved.value,
        "bound": solved.bound,
        "gap": solved.gap,
        "total_npus": None if plan is None else plan.total_npus,
        "power_w": None if plan is None else plan.power,
        "plan": [] if plan is None else [d.model_dump() for d in plan.deployments],
        "purchases": [] if plan is None else [p.model_dump() for p in plan.purchases],
        "means": [means.model_dump() for means in solved.means],
        "conflicts": list(solved.conflicts),
    }


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
