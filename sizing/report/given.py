"""Answers over a candidates table, as text, JSON and CSV."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Literal

from rich.console import Console
from rich.table import Table as RichTable

from model_ops.units import HOURS_PER_MONTH, SECOND, WATT
from problems import catalogue
from problems.given.offers import TABLE, UNPRICED, left_out
from problems.given.plan import GivenPlan, PlannedRow
from problems.given.problem import GivenProblem, admitted
from problems.given.rows import PRICE
from problems.given.verify import used_rows
from problems.limits_kept import not_counted
from problems.offers import OWNED
from problems.requirements import requirements
from sizing.facts import price_provenance
from sizing.given import GivenAnswer
from sizing.report.console import new_console, plain_table, section, text_of
from sizing.report.data import csv_text, json_text
from sizing.report.infeasible import infeasible
from sizing.report.json import explained
from sizing.report.margins import as_dict as margins
from sizing.report.margins import print_margins
from sizing.report.quotas import beside_quotas
from sizing.report.solved import (
    given_row,
    plan_purchases,
    plan_rows,
    replicas_line,
)
from sizing.report.taken import changes, taken
from sizing.report.text import usd

_METRICS: tuple[Literal["ttft", "tpot"], ...] = ("ttft", "tpot")


def _rate(answer: GivenAnswer) -> float:
    return answer.problem.traffic[0].demand(headroom=0.0)


def _targets(answer: GivenAnswer) -> dict[str, float]:
    return {t.metric: t.at_most for t in answer.problem.traffic[0].targets}


# Text


def as_text(answer: GivenAnswer) -> str:
    """Return the answer as readable text."""
    console = new_console()
    if answer.plan is not None:
        _plan(console, answer, answer.plan)
        return text_of(console)
    console.print(f"{_whose(answer)}:")
    if answer.explanation is not None:
        infeasible(console, answer.problem, answer.explanation, "row of the table")
    else:
        console.print(
            "No answer in time: no plan was found, and none was ruled out. "
            "Give more --time-limit."
        )
    return text_of(console)


def _whose(answer: GivenAnswer) -> str:
    return f"By the figures of {answer.table.name}, taken as given and not ours"


def _plan(console: Console, answer: GivenAnswer, plan: GivenPlan) -> None:
    console.print(_sentence(answer, plan))
    console.print(_proof(answer))
    section(console, "The plan", _rows(plan))
    section(console, "By the table's mean figures", _figures(answer, plan))
    console.print()
    for line in _notes(answer, plan):
        console.print(f"- {line}")
    if answer.singles:
        section(console, "The best plans of one kind", _singles(answer))
    if answer.margins is not None:
        print_margins(console, answer.margins, answer.problem.objective)
    section(console, "Where the figures come from", _sources(answer, plan))
    console.print()
    console.print(_timing(answer))


def _sentence(answer: GivenAnswer, plan: GivenPlan) -> str:
    what = answer.problem.model or "the model of the table"
    cost = plan.usd_per_hour_if_known
    price = "of unknown price"
    if cost is not None:
        price = f"{usd(cost)} an hour, {usd(cost * HOURS_PER_MONTH)} a month"
    bought = taken(plan, ((row.offer, row) for row in plan.rows))
    asked = answer.problem.traffic[0].text
    return f"{_whose(answer)}: to serve {what} ({asked}), {bought}: {price}."


_LESS = {"cost": "costs less", "npus": "uses fewer NPUs", "power": "needs less power"}


def _proof(answer: GivenAnswer) -> str:
    certificate = answer.outcome.certificate
    if answer.status == "optimal":
        return (
            f"Proved optimal: of the {certificate.points:,} rows of "
            f"{answer.table.name}, each as the table says it is, no combination within "
            f"the targets that carries the traffic {_LESS[answer.problem.objective]}."
        )
    return (
        f"Not proved optimal in the time given: a plan could be up to "
        f"{certificate.gap:.2%} better, none can be better than that."
    )


def _rows(plan: GivenPlan) -> RichTable:
    own = {purchase.offer for purchase in plan.purchases if purchase.provider == OWNED}
    on = ["on"] if own else []
    table = plain_table(
        ">replicas", "row", "NPU", "mode", "split", ">req/s each", ">TTFT", ">TPOT",
        ">NPUs", ">USD/h", *on,
    )  # fmt: skip
    for row in plan.rows:
        cost = "" if row.usd_per_hour is None else f"{row.usd_per_hour:,.2f}"
        table.add_row(
            f"{row.replicas:,}", row.name, row.npu, row.mode, _split(row),
            f"{row.rate:.5g}", SECOND.format(row.ttft), SECOND.format(row.tpot),
            f"{row.npus:,}", cost, *("own" if row.offer in own else "rent" for _ in on),
        )  # fmt: skip
    return table


def _split(row: PlannedRow) -> str:
    """Return how a row is split, as far as the table says."""
    degrees = {"tp": row.tp, "pp": row.pp, "dp": row.dp}
    known = [f"{name}={n}" for name, n in degrees.items() if n and n > 1]
    return " ".join(known) if known or row.tp is None else "tp=1"


def _figures(answer: GivenAnswer, plan: GivenPlan) -> RichTable:
    table = plain_table("latency", ">mean", ">worst row", ">target")
    targets = _targets(answer)
    for metric in _METRICS:
        asked = targets.get(metric)
        table.add_row(
            metric.upper(),
            SECOND.format(plan.mean(metric)),
            SECOND.format(max(getattr(row, metric) for row in plan.rows)),
            "" if asked is None else f"mean {SECOND.format(asked)}",
        )
    return table


def _notes(answer: GivenAnswer, plan: GivenPlan) -> Iterator[str]:
    yield (
        "Figures are the table's means at each row's own rate, for the requests that "
        "it was made for; nothing here predicts or simulates them. Percentiles, bursts "
        "and errors of the table are not in them."
    )
    yield _spare(answer, plan)
    yield from changes(answer.problem, used_rows(plan))
    yield from beside_quotas(answer.problem, plan)
    for binding in answer.bindings:
        reason = binding.reason
        yield f"What keeps the plan from less: {binding.requirement} ({reason})."
    foreign = {p.npu for p in plan.purchases} - set(catalogue.names("npus"))
    for npu in sorted(foreign):
        yield f"{npu} is not in the catalogue: its servers and power are not known."
    if any(purchase.provider == TABLE for purchase in plan.purchases):
        yield f"{PRICE} of the table is what one replica costs, all its NPUs together."
    if plan.power is not None:
        yield (
            f"Power to provision: {WATT.format(plan.power)}, host and cooling included."
        )
    yield from _unused(answer.problem)
    yield from answer.table.doubts


def _spare(answer: GivenAnswer, plan: GivenPlan) -> str:
    """Return what of the capacity is free, and what for."""
    capacity, problem = plan.capacity, answer.problem
    free, redundancy = problem.headroom, problem.redundancy
    kept = f"{free:.0%} of it is kept free" if free else "none is asked to be kept free"
    used = f"{_rate(answer) / capacity:.1%} of which is used; {kept} (--headroom)"
    text = f"Together the replicas take {capacity:.5g} req/s, {used}."
    if redundancy.domains:
        text += (
            f" Losing {redundancy.text} is provided for, however the replicas are "
            "placed: those that are left take no more than their rows say."
        )
    return text


def _unused(problem: GivenProblem) -> Iterator[str]:
    """Yield which NPUs no plan could use, and why."""
    npus = admitted(problem, problem.npus_of_table)
    for npu, missing in left_out(problem, sorted(npus)):
        yield f"{npu} was left out: nobody knows its {missing}, which is asked about."
    for npu in dict.fromkeys(owned.npu for owned in problem.owned):
        if npu not in problem.npus_of_table:
            yield f"{npu} of your own stays idle: the table has no row for it."


def _singles(answer: GivenAnswer) -> RichTable:
    unit = {"cost": "USD", "npus": "NPUs", "power": "power"}[answer.problem.objective]
    table = plain_table("kind", "replicas", ">NPUs", ">USD/h", f">more {unit}")
    kinds = {"row": "one row", "npu": "one NPU type"}
    for single in answer.singles:
        cost = single.plan.usd_per_hour_if_known
        table.add_row(
            f"{kinds[single.kind]}: {single.of}",
            replicas_line(single.plan),
            f"{single.plan.total_npus:,}",
            "" if cost is None else f"{cost:,.2f}",
            f"{single.distance:+.1%}",
        )
    return table


def provenance(answer: GivenAnswer, plan: GivenPlan) -> list[dict[str, str]]:
    """Return where figures and prices come from."""
    rows = [
        {
            "fact": "TTFT, TPOT and rates of replicas",
            "as_of": "as given",
            "source": f"figures from {answer.table.name}",
        }
    ]
    for purchase in plan.purchases:
        if purchase.provider != UNPRICED:
            fact = price_provenance(purchase).fact
            source = {"as_of": purchase.as_of, "source": purchase.source}
            rows.append({"fact": fact, **source})
    return rows


def _sources(answer: GivenAnswer, plan: GivenPlan) -> RichTable:
    table = plain_table("fact", "as of", "source")
    for row in provenance(answer, plan):
        table.add_row(row["fact"], row["as_of"], row["source"])
    return table


def _timing(answer: GivenAnswer) -> str:
    certificate = answer.outcome.certificate
    return (
        f"{certificate.points:,} rows read in {answer.seconds['candidates']:.2f} s, "
        f"{certificate.candidates:,} candidates, {certificate.kept:,} after the bound, "
        f"solved and verified in {answer.seconds['solve']:.2f} s."
    )


# JSON


def as_json(answer: GivenAnswer) -> str:
    """Return the answer as one JSON object, shaped as that of our own model."""
    return json_text(as_dict(answer))


def as_dict(answer: GivenAnswer) -> dict[str, Any]:
    """Return the answer as plain dictionaries and lists."""
    certificate = answer.outcome.certificate
    problem = answer.problem
    common: dict[str, Any] = {
        "status": answer.status,
        "model": problem.model,
        "candidates": answer.table.name,
        "problem": problem.model_dump(mode="json"),
        "objective": problem.objective,
        "requirements": {r.label: r.text(r.value) for r in requirements(problem)},
        "certificate": {
            "bound": certificate.bound,
            "gap": certificate.gap,
            "points_evaluated": certificate.points,
            "candidates": certificate.candidates,
            "candidates_after_bound": certificate.kept,
            "integer_scaling_loss": certificate.loss,
        },
        "timing_s": answer.seconds,
    }
    if answer.plan is not None:
        return common | _planned(answer, answer.plan)
    empty: dict[str, Any] = {
        "cost": None,
        "plan": [],
        "total_npus": 0,
        "predictions": [],
    }
    if answer.explanation is None:
        return common | empty
    return common | empty | {"explanation": explained(answer.explanation)}


def _planned(answer: GivenAnswer, plan: GivenPlan) -> dict[str, Any]:
    certificate = answer.outcome.certificate
    cost = plan.usd_per_hour_if_known
    in_usd = answer.problem.objective == "cost"
    return {
        "cost": {
            "usd_per_hour": cost,
            "bound_usd_per_hour": certificate.bound if in_usd else None,
            "gap": certificate.gap,
            "usd_per_month": None if cost is None else cost * HOURS_PER_MONTH,
        },
        "plan": plan_rows(plan),
        "purchases": plan_purchases(plan),
        "not_counted_by_quotas": [p.offer for p in not_counted(answer.problem, plan)],
        "total_npus": plan.total_npus,
        "power_w": plan.power,
        "predictions": [_predictions(answer, plan)],
        "binding": [asdict(binding) for binding in answer.bindings],
        "best_of_one_kind": [
            {
                "kind": single.kind,
                "of": single.of,
                "usd_per_hour": single.plan.usd_per_hour_if_known,
                "total_npus": single.plan.total_npus,
                "distance": single.distance,
                "plan": plan_rows(single.plan),
            }
            for single in answer.singles
        ],
        "margins": None if answer.margins is None else margins(answer.margins),
        "provenance": provenance(answer, plan),
    }


def _predictions(answer: GivenAnswer, plan: GivenPlan) -> dict[str, Any]:
    traffic = answer.problem.traffic[0]
    targets = _targets(answer)
    return {
        "traffic": traffic.name,
        "rate_req_per_s": _rate(answer),
        **{
            f"{metric}_s": {
                "mean": plan.mean(metric),
                "worst_row": max(getattr(row, metric) for row in plan.rows),
                "target_mean": targets.get(metric),
            }
            for metric in _METRICS
        },
    }


# CSV


def as_csv(answer: GivenAnswer) -> str:
    """Return the plan's rows as CSV; without a plan, the header alone."""
    columns = (
        "status", "name", "npu", "mode", "tp", "pp", "ep", "dp", "batch", "precision",
        "replicas", "npus", "nodes", "usd_per_hour", "req_per_s_per_replica",
        "ttft_mean_s", "tpot_mean_s",
    )  # fmt: skip
    rows = () if answer.plan is None else answer.plan.rows
    written = ({"status": answer.status} | given_row(row) for row in rows)
    return csv_text(columns, written, only=True)


FORMATS: dict[str, Callable[[GivenAnswer], str]] = {
    "text": as_text,
    "json": as_json,
    "csv": as_csv,
}
