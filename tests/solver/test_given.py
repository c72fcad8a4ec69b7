"""Plans over candidates tables: equal to brute force, and truly explained."""

import csv
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from problems.examples import FOLDER
from problems.given.plan import GivenPlan
from problems.given.problem import given_problem_of
from problems.given.rows import COLUMNS, PRICE, Row, read_rows
from problems.given.table import CandidatesTable
from problems.given.verify import violations
from problems.problem import SizingProblem
from problems.requirements import requirements
from solver.given.beside import singles
from solver.given.explain import explain_given
from solver.given.workspace import GivenWorkspace
from solver.model import SolveOptions
from solver.outcome import Feasible, Optimal

OPTIONS = SolveOptions(workers=1, seed=0)
EXAMPLE = FOLDER / "candidates.csv"

Ask = Callable[..., GivenWorkspace]


def workspace(path: Path, rate: float, **changes: Any) -> GivenWorkspace:
    targets = [
        {"metric": metric, "at_most": changes.pop(metric)}
        for metric in ("ttft", "tpot")
        if metric in changes
    ]
    data = {"traffic": [{"rate": rate, "targets": targets}]} | changes
    table = CandidatesTable.read(path)
    return GivenWorkspace.of(given_problem_of(data, table.npus, "python"), table)


def solved(asked: GivenWorkspace) -> GivenPlan:
    """Return the plan of a question that has one."""
    outcome = asked.solve(OPTIONS)
    assert isinstance(outcome, Optimal | Feasible)
    return outcome.plan


# The table that comes with the project


def test_the_best_mix_of_the_example_beats_its_best_row() -> None:
    asked = workspace(EXAMPLE, 50.0, ttft=2.0, tpot=0.03, objective="npus")
    outcome = asked.solve(OPTIONS)
    assert isinstance(outcome, Optimal)
    assert outcome.plan.total_npus == 35
    assert outcome.certificate.bound == 35
    (single,) = singles(asked, outcome.plan, OPTIONS)
    assert (single.kind, single.plan.total_npus) == ("row", 36)
    assert single.distance == pytest.approx(36 / 35 - 1)


def test_the_best_row_may_stand_on_several_offers() -> None:
    asked = workspace(EXAMPLE, 50.0, ttft=2.0, tpot=0.03)
    plan = solved(asked)
    (best,) = (s for s in singles(asked, plan, OPTIONS) if s.kind == "row")
    assert len({row.offer for row in best.plan.rows}) == 2
    names = {row.name for row in asked.rows}
    alone = [
        replace(asked, rows=tuple(r for r in asked.rows if r.name == name))
        for name in sorted(names)
    ]
    plans = [solved(one) for one in alone if one.instance(one.problem).candidates]
    costs = {plan.rows[0].name: plan.usd_per_hour for plan in plans}
    assert best.of == min(costs, key=costs.__getitem__)
    assert best.value == pytest.approx(costs[best.of])


def test_one_deployment_type_is_the_best_row_of_the_example() -> None:
    limits = {"deployment_types": 1}
    asked = workspace(
        EXAMPLE, 50.0, ttft=2.0, tpot=0.03, objective="npus", limits=limits
    )
    plan = solved(asked)
    assert plan.total_npus == 36
    assert len({row.name for row in plan.rows}) == 1


def test_the_example_needs_35_by_dynamic_programming_too() -> None:
    with EXAMPLE.open() as file:
        rows = [
            (int(row["npus"]), float(row["req_per_s"]))
            for row in csv.DictReader(file)
            if float(row["ttft_ms"]) <= 2000 and float(row["tpot_ms"]) <= 30
        ]
    most = [0.0] * 40
    for npus in range(1, 40):
        most[npus] = max(
            [most[npus - 1]] + [most[npus - n] + r for n, r in rows if n <= npus]
        )
    assert next(npus for npus in range(40) if most[npus] >= 50) == 35


# Brute force


def random_table(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, PRICE))
        for number in range(chance.randint(2, 5)):
            npus = chance.choice((1, 2, 4, 8, 16))
            npu = chance.choice(("h200-sxm", "h100-sxm", "wafer-9"))
            mode = chance.choice(("aggregated", "disaggregated"))
            ttft, tpot = chance.uniform(100, 900), chance.uniform(5, 40)
            rate = round(npus * chance.uniform(0.6, 1.4), 3)
            price = round(npus * chance.uniform(1, 4), 2)
            row = (f"r{number}", npu, mode, npus, ttft, tpot, rate, "", "", "", "")
            writer.writerow((*row, price))


def best(
    problem: SizingProblem, rows: list[Row], objective: str, most: int = 7
) -> float:
    """Return the best objective over all counts, by trying them; infinite if none."""
    targets = {t.metric: t.at_most for t in problem.traffic[0].targets}
    kept = [
        row
        for row in rows
        if all(row.latencies[metric] <= limit for metric, limit in targets.items())
    ]
    limits = problem.limits
    least = math.inf
    for counts in product(range(most + 1), repeat=len(kept)):
        npus = sum(n * row.npus for n, row in zip(counts, kept, strict=True))
        usd = sum(
            n * (row.usd_per_hour or 0) for n, row in zip(counts, kept, strict=True)
        )
        rate = sum(n * row.rate for n, row in zip(counts, kept, strict=True))
        if rate < problem.traffic[0].demand(problem.headroom) - 1e-9:
            continue
        if limits.npus is not None and npus > limits.npus:
            continue
        if limits.usd_per_hour is not None and usd > limits.usd_per_hour + 1e-9:
            continue
        least = min(least, usd if objective == "cost" else npus)
    return least


@pytest.mark.parametrize("seed", range(30))
def test_plans_are_as_good_as_brute_force(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "table.csv"
    random_table(path, seed)
    chance = random.Random(1000 + seed)
    rows = read_rows(path)
    smallest = min(row.rate for row in rows)
    rate = round(min(smallest * 6, 12.0) * chance.uniform(0.4, 1.0), 2)
    objective = chance.choice(("cost", "npus"))
    limits = chance.choice(
        ({}, {"npus": chance.randint(4, 40)}, {"usd_per_hour": chance.uniform(5, 60)})
    )
    asked = workspace(
        path,
        rate,
        ttft=chance.uniform(0.3, 1.0),
        tpot=chance.uniform(0.01, 0.045),
        objective=objective,
        limits=limits,
        headroom=chance.choice((0.0, 0.1)),
    )
    outcome = asked.solve(OPTIONS)
    expected = best(asked.problem, list(rows), objective)
    if math.isinf(expected):
        assert outcome.status == "infeasible"
        return
    assert isinstance(outcome, Optimal)
    value = (
        outcome.plan.usd_per_hour if objective == "cost" else outcome.plan.total_npus
    )
    assert value == pytest.approx(expected)
    assert violations(asked.problem, read_rows(path), outcome.plan) == []
    for single in singles(asked, outcome.plan, OPTIONS):
        assert single.value >= value * (1 - 1e-9)
        assert violations(asked.problem, read_rows(path), single.plan) == []


def test_whole_hosts_are_paid_whole(tmp_path: Path) -> None:
    # Nine NPUs of instances of eight: two of them, or sixteen NPUs.
    path = tmp_path / "table.csv"
    path.write_text(f"{','.join(COLUMNS)}\na,h200,aggregated,1,1,1,1,,,,\n")
    given = [{"npu": "h200-sxm", "usd_per_hour": 16.0, "npus": 8}]
    outcome = workspace(path, 9.0, prices={"given": given}).solve(OPTIONS)
    assert isinstance(outcome, Optimal)
    assert outcome.plan.usd_per_hour == 32.0
    assert outcome.plan.total_npus == 16
    assert [row.nodes for row in outcome.plan.rows] == [2]


def test_a_replica_of_one_and_a_half_hosts_fills_two(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"{','.join(COLUMNS)}\na,h200,disaggregated,12,1,1,1,,,,\n")
    given = [{"npu": "h200-sxm", "usd_per_hour": 16.0, "npus": 8}]
    outcome = workspace(path, 3.0, prices={"given": given}).solve(OPTIONS)
    assert isinstance(outcome, Optimal)
    assert outcome.plan.usd_per_hour == 3 * 32.0
    assert outcome.plan.total_npus == 48


def test_headroom_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"{','.join(COLUMNS)}\na,h200,aggregated,1,1,1,1,,,,\n")
    plan = solved(workspace(path, 8.0, objective="npus", headroom=0.2))
    assert plan.total_npus == 10


# Explanations

INFEASIBLE: dict[str, dict[str, Any]] = {
    "tpot-alone": {"ttft": 2.0, "tpot": 0.001},
    "ttft-alone": {"ttft": 0.01},
    "npus": {"ttft": 2.0, "tpot": 0.03, "limits": {"npus": 30}},
    "budget": {"ttft": 0.5, "limits": {"usd_per_hour": 100.0}},
    "both": {"ttft": 0.25, "tpot": 0.005, "limits": {"npus": 100}},
    "nothing-of-a-type": {"limits": {"npus_per_type": {"h200-sxm": 0}}},
}


def _only(problem: SizingProblem, kept: Iterator[str]) -> SizingProblem:
    labels = set(kept)
    for requirement in requirements(problem):
        if requirement.label not in labels:
            problem = requirement.moved(problem, None)
    return problem


@pytest.mark.parametrize("name", INFEASIBLE)
def test_conflicts_are_minimal_and_floors_and_relaxations_true(name: str) -> None:
    asked = workspace(EXAMPLE, 50.0, **INFEASIBLE[name])
    assert asked.solve(OPTIONS).status == "infeasible"
    found = explain_given(asked, OPTIONS)
    assert found.complete
    labels = found.conflicts
    assert not asked.has_plan(_only(asked.problem, iter(labels)), OPTIONS)
    for left_out in labels:
        rest = [label for label in labels if label != left_out]
        assert asked.has_plan(_only(asked.problem, iter(rest)), OPTIONS)
    every = {r.label: r for r in requirements(asked.problem)}
    assert [floor.requirement for floor in found.floors] == list(every)
    for floor in found.floors:
        alone = _only(asked.problem, iter([floor.requirement]))
        assert floor.possible is asked.has_plan(alone, OPTIONS)
    for relaxation in found.relaxations:
        assert relaxation.usd_per_hour is not None
        if relaxation.requirement != "traffic":
            free = every[relaxation.requirement].moved(asked.problem, None)
            assert asked.has_plan(free, OPTIONS)


def test_the_floor_of_a_target_is_the_table_s_best_row() -> None:
    asked = workspace(EXAMPLE, 50.0, tpot=0.001)
    (floor,) = explain_given(asked, OPTIONS).floors
    row = min(asked.rows, key=lambda r: r.tpot)
    assert f"row {row.name} (line {row.line})" in floor.reason
    assert float(floor.least.split()[0]) == pytest.approx(row.tpot * 1e3, rel=1e-2)


def test_two_targets_may_give_way_together(tmp_path: Path) -> None:
    # Either target alone leaves the other row's latency: 200 ms or 40 ms.
    path = tmp_path / "table.csv"
    path.write_text(
        f"{','.join(COLUMNS)}\na,h200,aggregated,1,150,30,1,,,,\n"
        "b,h200,aggregated,1,100,60,1,,,,\nc,h200,aggregated,1,500,20,1,,,,\n"
    )
    asked = workspace(path, 1.0, ttft=0.1, tpot=0.02, objective="npus")
    joint = explain_given(asked, OPTIONS).joint
    assert joint is not None
    # Row a is within both at once and a half; each alone needs three or five times.
    assert joint.factor == pytest.approx(1.5, rel=2e-3)
    assert joint.requirements == ("mean TTFT", "mean TPOT")
    assert joint.to == ("150 ms", "30 ms")
    assert joint.npus == 1
