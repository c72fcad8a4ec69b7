"""`what-if` and `frontier` with `--candidates`: as `size` answers each question."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_ops.errors import GenzSizeError, ProblemError
from problems.changes import Change, changed, keys
from problems.examples import FOLDER
from problems.given import table as table_module
from problems.given.problem import GivenProblem, given_problem_of
from problems.given.table import CandidatesTable
from problems.given.verify import violations
from sizing.frontier import Frontier
from sizing.given import Tabled
from sizing.journal import Journal
from sizing.scenarios import Scenario, product
from sizing.solved import Answers, Solved
from sizing.what_if import Row, WhatIf
from solver.given.workspace import GivenWorkspace
from solver.model import SolveOptions
from solver.outcome import Infeasible, Optimal

Genz = Callable[..., Any]
EXAMPLE = FOLDER / "candidates.csv"
TABLE = CandidatesTable.read(EXAMPLE)
STATED = """\
[[traffic]]
name = "chat"
rate = "50 req/s"
targets = [
    { metric = "ttft", at_most = "2 s" },
    { metric = "tpot", at_most = "30 ms" },
]
"""


def base(**changes: Any) -> GivenProblem:
    targets = [
        {"metric": "ttft", "at_most": 2.0},
        {"metric": "tpot", "at_most": 0.03},
    ]
    traffic = {"name": "chat", "rate": 50.0, "targets": targets}
    return given_problem_of({"traffic": [traffic]} | changes, TABLE.npus, "python")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "problem.toml"
    path.write_text(STATED, encoding="utf-8")
    return path


def rows_of(problem: GivenProblem, *texts: str, **options: Any) -> list[Row]:
    scenarios = [Scenario.of(problem, [Change.of(text)]) for text in texts]
    question = WhatIf(problem, scenarios, Answers(figures=Tabled(TABLE), **options))
    question.check()
    return list(question.rows())


# Each scenario by itself

FIGURES = Tabled(TABLE)
CHANGES = {
    "rate": st.sampled_from(["0.1x", "1x", "3x", "+25%", "7 req/s"]),
    "ttft": st.sampled_from(["300 ms", "1 s", "1 us", "none"]),
    "tpot": st.sampled_from(["12 ms", "2x", "none"]),
    "price.h200": st.sampled_from(["-40%", "3 USD/h", "2x"]),
    "limits.npus": st.sampled_from(["20", "1000"]),
    "limits.power": st.sampled_from(["40 kW"]),
    "limits.racks.nodes": st.sampled_from(["2"]),
    "redundancy.nodes": st.sampled_from(["1", "2"]),
    "headroom": st.sampled_from(["20%", "0"]),
    "modes": st.sampled_from(["aggregated", "disaggregated"]),
    "objective": st.sampled_from(["cost", "npus", "power"]),
}


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    stated=st.fixed_dictionaries({}, optional=CHANGES).filter(
        lambda stated: len(stated) < 5
    )
)
def test_a_scenario_is_the_edited_problem_sized(stated: dict[str, str]) -> None:
    """Whatever was asked of the same table before."""
    changes = [Change(key, value) for key, value in stated.items()]
    problem = changed(base(owned=[{"npu": "h200", "nodes": 1}]), changes)
    assert isinstance(problem, GivenProblem)
    found = FIGURES.solved(problem, SolveOptions())
    alone = GivenWorkspace.of(problem, CandidatesTable.read(EXAMPLE))
    outcome = alone.solve(SolveOptions())
    assert found.status == outcome.status
    if isinstance(outcome, Infeasible):
        assert found.conflicts
        return
    assert isinstance(outcome, Optimal)
    assert (found.plan, found.bound) == (outcome.plan, outcome.certificate.bound)
    assert violations(problem, TABLE.rows, outcome.plan) == []
    assert Solved.model_validate_json(found.model_dump_json()) == found


def test_the_table_is_read_once_and_once_more_to_verify(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = []
    real = table_module.read_rows

    def counted(path: Path) -> Any:
        read.append(path)
        return real(path)

    monkeypatch.setattr(table_module, "read_rows", counted)
    figures = Tabled(CandidatesTable.read(EXAMPLE))
    scenarios = product(base(), [("rate", ["1x", "2x", "3x"])])
    rows = list(WhatIf(base(), scenarios, Answers(figures=figures)).rows())
    assert len(rows) == 4
    assert len(read) == 2


def test_why_a_plan_changed() -> None:
    texts = {
        "rate=3x": "demand: 50.029 of 150",
        "tpot=11 ms": "mean TPOT: ",
        "price.h200=-1%": "the same replicas",
        "price.h200=2 USD/h": "would do, with 70.00 USD/h",
        "limits.npus=10": "limits.npus: 35 exceeds 10",
        "tpot=9 ms": "disagg-285: 20.333 ms exceed 9 ms",
        "redundancy.nodes=1": "chat redundancy: 1 node lost leave",
        "modes=aggregated": "disaggregated is not allowed",
        "limits.changed_npus=3": "limits.changed_npus",
    }
    first, *others = rows_of(base(), *texts)
    assert first.why == ()
    for row, said in zip(others, texts.values(), strict=True):
        assert said in row.why[0], (row.name, row.why)


def test_relative_prices_scale_those_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "name,npu,mode,npus,ttft_ms,tpot_ms,req_per_s,usd_per_hour\n"
        "w,Wafer-9,aggregated,2,9,1,5,8\nh,h200,aggregated,1,9,1,1,2\n"
    )
    table = CandidatesTable.read(path)
    stated = {"traffic": [{"rate": 10.0}]}
    problem = given_problem_of(stated, table.npus, "python")
    scenarios = product(
        problem,
        [("price", ["1x", "-50%"]), ("price.wafer-9", ["1x", "2x", "40 USD/h"])],
    )
    answers = Answers(figures=Tabled(table))
    found = [answers.of(scenario.problem).usd_per_hour for scenario in scenarios]
    # Two of wafers for 8 each, or ten H200 for 2: at most 20.
    assert found == pytest.approx([16.0, 20.0, 20.0, 8.0, 10.0, 10.0])


def test_without_an_npu_its_rows_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "name,npu,mode,npus,ttft_ms,tpot_ms,req_per_s\n"
        "a,h100,aggregated,2,9,1,5\nb,h200,aggregated,1,9,1,1\n"
    )
    table = CandidatesTable.read(path)
    owned = [{"npu": "h100", "npus": 8}]
    stated = {"traffic": [{"rate": 10.0}], "owned": owned}
    problem = given_problem_of(stated, table.npus, "python")
    scenarios = [Scenario.of(problem, [Change("without", "h100*")])]
    answers = Answers(figures=Tabled(table))
    first, second = WhatIf(problem, scenarios, answers).rows()
    assert first.solved.usd_per_hour == 0.0
    assert second.solved.plan is not None
    assert {p.npu for p in second.solved.plan.purchases} == {"h200-sxm"}
    assert "h100-sxm is not allowed" in second.why[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("precisions=fp8", "precisions: goes with our model"),
        ("confidence=0.9", "confidence: goes with our model"),
        ("burstiness=2", "burstiness: goes with our model"),
        ("input_tokens=4000", "input_tokens: figures of --candidates hold for"),
        ("lengths=azure-2023-conv", "lengths: figures of --candidates hold for"),
        ("model=llama-3.1-8b", "model: figures of --candidates hold for"),
        ("ttft=p99 1 s", "no p99 TTFT"),
        ("e2e=1 s", "no mean E2E"),
        ("without=b200", "no row of the table has 'b200'"),
        ("price.b200=2 USD/h", "no row of the table has 'b200'"),
        ("limits.npus_per_type.h20x=2", "unknown NPU 'h20x'"),
        ("rte=2x", "no such key; did you mean 'rate'"),
        ("npus_of_table=h100", "no such key"),
    ],
)
def test_what_a_table_cannot_follow_is_refused(text: str, said: str) -> None:
    with pytest.raises(GenzSizeError) as error:
        rows_of(base(), text)
    assert said in str(error.value)


def test_keys_are_those_that_say_something() -> None:
    known = keys(base())
    assert {"rate", "price.h200-sxm", "redundancy.nodes", "limits.racks.nodes"} <= {
        *known
    }
    assert not {"confidence", "precisions", "input_tokens", "e2e"} & {*known}


def test_prices_that_are_missing_are_said_before_anything_is_solved(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "name,npu,mode,npus,ttft_ms,tpot_ms,req_per_s\nw,wafer-9,aggregated,2,9,1,5\n"
    )
    table = CandidatesTable.read(path)
    stated = {"traffic": [{"rate": 10.0}], "objective": "npus"}
    problem = given_problem_of(stated, table.npus, "python")
    scenarios = [Scenario.of(problem, [Change("objective", "cost")])]
    question = WhatIf(problem, scenarios, Answers(figures=Tabled(table)))
    with pytest.raises(ProblemError, match="line 2, column npu: unknown npu 'wafer-9'"):
        question.check()
    (row,) = WhatIf(problem, [], Answers(figures=Tabled(table))).rows()
    assert (row.solved.value, row.solved.usd_per_hour) == (4.0, None)


# Kept, and gone on with

ASKED = ("rate=2x", "limits.npus=1", "price=-10%", "redundancy.nodes=1")


def test_a_resumed_run_is_like_one_that_was_not_interrupted(tmp_path: Path) -> None:
    whole = rows_of(base(), *ASKED)
    path = tmp_path / "kept.jsonl"
    scenarios = [Scenario.of(base(), [Change.of(text)]) for text in ASKED]
    answers = Answers(journal=Journal.at(path), figures=Tabled(TABLE))
    running = WhatIf(base(), scenarios, answers).rows()
    assert [next(running) for _ in range(3)] == whole[:3]
    del running
    assert rows_of(base(), *ASKED, journal=Journal.at(path)) == whole
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == len(whole)


def test_another_table_is_another_question(
    genz: Genz, file: Path, tmp_path: Path
) -> None:
    table, kept = tmp_path / "t.csv", tmp_path / "kept.jsonl"
    table.write_text(EXAMPLE.read_text("utf-8"), encoding="utf-8")
    asked = ("what-if", file, "--candidates", table, "--set", "headroom=0")
    asked = (*asked, "--resume", kept, "--format", "json")
    first = genz(*asked).json["base"]["usd_per_hour"]
    assert genz(*asked).json["base"]["usd_per_hour"] == first
    lines = len(kept.read_text("utf-8").splitlines())
    table.write_text(
        EXAMPLE.read_text("utf-8").replace("5.797", "50"), encoding="utf-8"
    )
    assert genz(*asked).json["base"]["usd_per_hour"] < first
    assert len(kept.read_text("utf-8").splitlines()) == 2 * lines


@pytest.mark.slow
def test_many_processes_find_what_one_finds() -> None:
    axes = [("rate", ["1x", "2x", "3x", "4x"]), ("tpot", ["20 ms", "30 ms", "1 us"])]
    problems = [scenario.problem for scenario in product(base(), axes)]
    alone = list(Answers(figures=Tabled(TABLE)).each(problems))
    assert list(Answers(figures=Tabled(TABLE), jobs=2).each(problems)) == alone


# Frontiers


def test_costs_fall_as_targets_loosen() -> None:
    asked = Frontier(base(), "tpot", 0.015, 0.06, points=4)
    points = list(asked.found(Answers(figures=Tabled(TABLE))))
    costs = [point.solved.usd_per_hour for point in points]
    assert None not in costs
    assert costs == sorted(costs, reverse=True)  # type: ignore[type-var]
    for point in points:
        problem = changed(base(), [Change("tpot", f"{point.at!r} s")])
        assert point.solved == FIGURES.solved(problem, SolveOptions())


def test_npus_against_cost_are_a_pareto_set(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    # Ten requests per second: 10 slow ones for 10, 2 fast ones for 16; or between.
    path.write_text(
        "name,npu,mode,npus,ttft_ms,tpot_ms,req_per_s,usd_per_hour\n"
        "slow,h100,aggregated,1,9,1,1,1\nfast,h200,aggregated,1,9,1,5,8\n"
    )
    table = CandidatesTable.read(path)
    problem = given_problem_of({"traffic": [{"rate": 10.0}]}, table.npus, "python")
    found = Frontier(problem, "npus").found(Answers(figures=Tabled(table)))
    pairs = [(point.at, point.solved.usd_per_hour) for point in found]
    assert pairs == [(10, 10.0), (6, 13.0), (2, 16.0)]


def test_power_leaves_out_what_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "name,npu,mode,npus,ttft_ms,tpot_ms,req_per_s,usd_per_hour\n"
        "a,h200,aggregated,1,9,1,1,2\nw,wafer-9,aggregated,1,9,1,9,1\n"
    )
    table = CandidatesTable.read(path)
    problem = given_problem_of({"traffic": [{"rate": 3.0}]}, table.npus, "python")
    found = list(Frontier(problem, "power").found(Answers(figures=Tabled(table))))
    assert [point.solved.usd_per_hour for point in found] == [6.0]


# The commands


def test_what_if_in_every_format(genz: Genz, file: Path) -> None:
    asked = ("what-if", file, "--candidates", EXAMPLE, "--set", "rate=2x")
    asked = (*asked, "--ttft", "1 us")
    text = genz(*asked)
    assert (text.code, text.err) == (0, "")
    first = " ".join(text.out.split())
    assert "by the figures of candidates.csv, not ours, and 2 scenarios." in first
    for said in ("disagg-", "no plan: nothing meets mean TTFT", "demand: 50.0"):
        assert said in text.out
    found = genz(*asked, "--format", "json").json
    assert found["candidates"] == "candidates.csv"
    assert found["base"]["total_npus"] == 35
    twice = found["scenarios"][0]
    assert {"name", "req_per_s_per_replica", "ttft_mean_s"} <= {*twice["plan"][0]}
    assert twice["means"][0]["e2e_s"] is None
    rows = list(csv.DictReader(io.StringIO(genz(*asked, "--format", "csv").out)))
    assert rows[0]["scenario"] == "base"
    assert float(rows[0]["chat_tpot_mean_s"]) <= 0.03
    assert rows[0]["chat_e2e_mean_s"] == ""


def test_resumed_output_is_the_same_to_the_byte(
    genz: Genz, file: Path, tmp_path: Path
) -> None:
    asked = ("what-if", file, "--candidates", EXAMPLE, "--grid", "rate=1x,2x")
    kept = tmp_path / "kept.jsonl"
    for format_ in ("json", "text", "csv"):
        plain = genz(*asked, "--format", format_).out
        assert genz(*asked, "--format", format_, "--resume", kept).out == plain
    assert len(kept.read_text("utf-8").splitlines()) == 2


def test_frontier_in_every_format(genz: Genz, file: Path) -> None:
    asked = ("frontier", file, "--candidates", EXAMPLE, "--along", "rate")
    asked = (*asked, "--from", "10 req/s", "--to", "50 req/s", "--points", "3")
    text = genz(*asked)
    assert text.code == 0
    assert "by the figures of candidates.csv, not ours." in " ".join(text.out.split())
    found = genz(*asked, "--format", "json").json
    assert found["candidates"] == "candidates.csv"
    assert [point["at"] for point in found["points"]] == [10.0, 30.0, 50.0]
    assert found["points"][-1]["total_npus"] == 35
    rows = list(csv.DictReader(io.StringIO(genz(*asked, "--format", "csv").out)))
    assert [row["rate"] for row in rows] == ["10.0", "30.0", "50.0"]


@pytest.mark.parametrize(
    ("along", "said"),
    [
        ("e2e", "no mean E2E"),
        ("ttft.p99", "no p99 TTFT"),
        ("confidence", "confidence: goes with our model"),
        ("concurrency", "concurrency: goes with our model"),
    ],
)
def test_axes_that_a_table_does_not_have_are_refused(
    genz: Genz, file: Path, along: str, said: str
) -> None:
    ends = {"confidence": ("0.6", "0.9"), "concurrency": ("1", "9")}
    low, high = ends.get(along, ("1 s", "2 s"))
    asked = ("frontier", file, "--candidates", EXAMPLE, "--along", along)
    ran = genz(*asked, "--from", low, "--to", high)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_a_report_over_a_table_is_what_is_in_use_today(
    genz: Genz, tmp_path: Path
) -> None:
    question = ("size", "--candidates", EXAMPLE, "--tpot", "30 ms", "--format", "json")
    today = tmp_path / "today.json"
    today.write_text(genz(*question, "--rate", "50 req/s").out, encoding="utf-8")
    asked = (*question, "--current", today)
    same = genz(*asked, "--rate", "50 req/s", "--max-change", "0").json
    text = genz(*question[:-2], "--rate", "60 req/s", "--current", today)
    used = "Beside what is in use today 7 NPUs begin or end to be used."
    assert used in " ".join(text.out.split())
    assert same["total_npus"] == json.loads(today.read_text("utf-8"))["total_npus"]
    more = genz(*asked, "--rate", "80 req/s", "--max-change", "2")
    assert more.code == 3
    assert "limit of changed NPUs" in more.json["explanation"]["conflicts"]
    simulated = genz("simulate", today)
    assert (simulated.code, simulated.err.count("\n")) == (2, 1)
    assert "has figures of a table (candidates.csv)" in simulated.err
    today.write_text('{"candidates": "x.csv", "plan": [{"npu": "h200"}]}', "utf-8")
    ran = genz(*asked, "--rate", "50 req/s")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "plan.0.npus: required" in ran.err
