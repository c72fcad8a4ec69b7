"""Scenarios: each is what `size` says of the problem edited by hand, and why."""

import csv
import io
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_ops.errors import ProblemError
from problems.changes import Change, changed
from problems.problem import SizingProblem, problem_of
from problems.standing import standing
from problems.verify import violations
from sizing.journal import Journal
from sizing.scenarios import Scenario, product, read_scenarios
from sizing.solved import Answers, Solved, solved
from sizing.what_if import Row, WhatIf
from solver.model import SolveOptions
from solver.solve import Optimal, Workspace
from solver.workspaces import Workspaces

Genz = Callable[..., Any]

STATED = """\
model = "llama-3.1-8b"
chunk_tokens = 2048
max_num_seqs = 256
[[traffic]]
name = "chat"
input_tokens = 1000
output_tokens = 200
rate = "40 req/s"
targets = [
    { metric = "ttft", at_most = "500 ms" },
    { metric = "tpot", at_most = "20 ms" },
]
[hardware]
npus = ["h100-sxm", "l40s"]
[prices]
given = [
    { npu = "h100-sxm", usd_per_hour = "2.5 USD/h" },
    { npu = "l40s", usd_per_hour = "0.9 USD/h" },
]
"""


@pytest.fixture(scope="module", autouse=True)
def plain_npus_here(plain_npus: None) -> None:
    """Let no measurement change what is asked here."""


@pytest.fixture(scope="module")
def base() -> SizingProblem:
    import tomllib

    return problem_of(tomllib.loads(STATED), "file")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "problem.toml"
    path.write_text(STATED, encoding="utf-8")
    return path


def rows_of(base: SizingProblem, *texts: str, **options: Any) -> list[Row]:
    asked = [Scenario.of(base, [Change.of(text)]) for text in texts]
    return list(WhatIf(base, asked, Answers(**options)).rows())


# Each scenario by itself

SPACES = Workspaces()
CHANGES = {
    "rate": st.sampled_from(["0.1x", "1x", "3x", "+25%"]),
    "ttft": st.sampled_from(["100 ms", "1 s", "p99 800 ms", "1 us"]),
    "tpot": st.sampled_from(["12 ms", "2x", "none"]),
    "price.l40s": st.sampled_from(["-40%", "3 USD/h"]),
    "limits.npus": st.sampled_from(["4", "1000"]),
    "without": st.sampled_from(["h100", "l40s"]),
    "headroom": st.sampled_from(["20%", "0"]),
    "input_tokens": st.sampled_from(["1x", "2x"]),
    "objective": st.sampled_from(["cost", "npus", "power"]),
}


@pytest.mark.slow
@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    stated=st.fixed_dictionaries({}, optional=CHANGES).filter(
        lambda stated: len(stated) < 4
    )
)
def test_a_scenario_is_the_edited_problem_sized(
    base: SizingProblem, stated: dict[str, str]
) -> None:
    """Whatever was solved before it in the same workspaces."""
    problem = changed(base, [Change(key, value) for key, value in stated.items()])
    found = solved(SPACES, problem, SolveOptions())
    alone = Workspace.of(problem).solve(SolveOptions())
    if not isinstance(alone, Optimal):
        assert found.status == "infeasible"
        return
    assert found.status == "optimal"
    assert found.plan == alone.plan
    assert found.bound == alone.certificate.bound
    assert violations(problem, alone.plan) == []


@pytest.mark.slow
def test_pairs_are_chosen_anew_at_other_prices(base: SizingProblem) -> None:
    both = changed(base, [Change("modes", "aggregated,disaggregated")])
    spaces = Workspaces()
    for text in ("rate=1x", "price.h100=0.2x", "price.l40s=0.2x", "rate=1x"):
        problem = changed(both, [Change.of(text)])
        alone = Workspace.of(problem).solve(SolveOptions())
        assert isinstance(alone, Optimal)
        assert solved(spaces, problem, SolveOptions()).plan == alone.plan


def test_a_table_is_made_once_for_all_that_share_it(
    base: SizingProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = Workspace.of

    def counted(problem: SizingProblem) -> Workspace:
        made.append(problem)
        return real(problem)

    monkeypatch.setattr(Workspace, "of", counted)
    same = ["rate=2x", "ttft=1 s", "price.l40s=-10%", "limits.npus=50", "headroom=0.1"]
    rows_of(base, *same)
    assert len(made) == 1
    rows_of(base, "input_tokens=2x", "input_tokens=2000", "without=l40s")
    assert len(made) == 1 + 3


def test_hardware_that_costs_nothing_has_scenarios_too(genz: Genz, file: Path) -> None:
    text = file.read_text("utf-8")
    owned = '[[owned]]\nnpu = "h100-sxm"\nnpus = 4\n'
    file.write_text(text + owned, encoding="utf-8")
    asked = ("what-if", file, "--set", "rate=0.5x", "--set", "rate=9x", "--set")
    found = genz(*asked, "redundancy.nodes=1", "--format", "json").json
    assert found["base"]["usd_per_hour"] == 0.0
    half, more, safe = found["scenarios"]
    assert (half["usd_per_hour"], half["relative_to_base"]) == (0.0, None)
    assert (more["usd_per_hour"] > 0.0, more["relative_to_base"]) == (True, None)
    assert safe["usd_per_hour"] > 0.0


# What became of the base's plan


def test_why_a_plan_changed(base: SizingProblem) -> None:
    texts = {
        "rate=3x": "req/s arrive, faster than they finish",
        "tpot=11 ms": "chat mean TPOT",
        "without=l40s": "l40s is not allowed",
        "rate=0.2x": "would do, with",
        "price.h100=-1%": "the same replicas",
        "limits.npus=1": "limits.npus",
    }
    first, *others = rows_of(base, *texts)
    assert first.why == ()
    for row, said in zip(others, texts.values(), strict=True):
        assert said in row.why[0], (row.name, row.why)


def test_why_a_plan_changed_says_what_is_kept_free(base: SizingProblem) -> None:
    _, free, sure = rows_of(base, "headroom=0.9", "confidence=0.95")
    assert "no longer does, with 90% kept free: " in free.why[0]
    assert "no longer does, with times as slow as 95% allow for: " in sure.why[0]


def test_the_plan_of_a_problem_stands_under_it(base: SizingProblem) -> None:
    (row,) = rows_of(base)
    assert row.solved.plan is not None
    stands = standing(row.solved.plan, base, base)
    assert stands.broken == ()
    assert stands.plan is not None
    assert stands.plan.usd_per_hour == pytest.approx(row.solved.plan.usd_per_hour)


@pytest.mark.parametrize("text", ["price.h100=2x", "price=-50%"])
def test_a_standing_plan_costs_what_its_prices_say(
    base: SizingProblem, text: str
) -> None:
    (row,) = rows_of(base)
    after = changed(base, [Change.of(text)])
    plan = row.solved.plan
    assert plan is not None
    moved = standing(plan, base, after).plan
    assert moved is not None
    factor = {"price.h100=2x": {"h100-sxm": 2.0}, "price=-50%": {}}[text]
    usual = 1.0 if "h100" in text else 0.5
    expected = sum(p.usd_per_hour * factor.get(p.npu, usual) for p in plan.purchases)
    assert moved.usd_per_hour == pytest.approx(expected)


def test_users_who_wait_stand_too(base: SizingProblem) -> None:
    closed = changed(base, [Change("concurrency", "200")])
    first, less, more = rows_of(closed, "concurrency=100", "concurrency=2000")
    assert first.solved.status == "optimal"
    assert "would do" in less.why[0]
    assert "no longer does" in more.why[0]


@pytest.mark.parametrize("modes", ["aggregated", "disaggregated"])
def test_redundant_plans_stand_where_nothing_breaks_them(
    base: SizingProblem, modes: str
) -> None:
    safe = changed(base, [Change("redundancy.nodes", "1"), Change("modes", modes)])
    texts = ("price.h100=+1%", "rate=0.6x", "rate=3x")
    first, dearer, less, more = rows_of(safe, *texts)
    assert first.solved.status == "optimal"
    assert dearer.why[0] == "the same replicas"
    assert "would do" in less.why[0] or less.why[0] == "the same replicas"
    assert "no longer does" in more.why[0]


def test_no_plan_is_an_answer_with_its_conflict(base: SizingProblem) -> None:
    _, row = rows_of(base, "limits.npus=1")
    assert row.solved.status == "infeasible"
    assert "NPU limit" in row.solved.clash
    _, row = rows_of(base, "ttft=1 us")
    assert row.solved.clash == "nothing meets mean TTFT"


def test_a_base_without_a_plan_may_have_scenarios_with_one(
    base: SizingProblem,
) -> None:
    tight = changed(base, [Change("limits.npus", "1")])
    first, row = rows_of(tight, "limits.npus=100")
    assert (first.solved.status, row.solved.status) == ("infeasible", "optimal")
    assert row.why == ("the base has no plan",)


# Which scenarios


def test_a_grid_is_a_product(base: SizingProblem) -> None:
    asked = product(base, [("rate", ["1x", "2x"]), ("ttft", ["1 s", "2 s", "3 s"])])
    assert len(asked) == 6
    assert asked[0].name == "rate=1x, ttft=1 s"
    assert asked[-1].problem.traffic[0].rate == 80.0


def test_a_file_has_scenarios_and_a_grid(base: SizingProblem, tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(
        '[[scenario]]\nname = "twice, dearer"\n'
        'set = { rate = "2x", price = { l40s = "+20%" }, "limits.npus" = 64 }\n'
        '[grid]\nrate = ["1x", "2x"]\nlimits.npus = [64, 128]\n',
        encoding="utf-8",
    )
    first, *others = read_scenarios(base, path)
    assert first.name == "twice, dearer"
    assert first.problem.traffic[0].rate == 80.0
    assert first.problem.limits.npus == 64
    assert [s.name for s in others] == [
        "rate=1x, limits.npus=64",
        "rate=1x, limits.npus=128",
        "rate=2x, limits.npus=64",
        "rate=2x, limits.npus=128",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither a [[scenario]] nor a [grid]"),
        ("[grid]\nrate = 2\n", "grid.rate: must be a list"),
        ('[grid]\nrte = ["2x"]\n', "did you mean 'rate'"),
        ('[[scenario]]\nname = "x"\n', "set: required"),
        ('[[scenario]]\nsat = { rate = "2x" }\n', "did you mean 'set'"),
        ("[[scenario]]\nset = { rate = 2.5 }\n", "has no unit"),
        ("[[scenario]\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused(
    base: SizingProblem, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProblemError) as error:
        read_scenarios(base, path)
    assert said in str(error.value)


def test_too_many_scenarios_are_refused_at_once(base: SizingProblem) -> None:
    axis = ["1x"] * 101
    with pytest.raises(ProblemError, match="10,201 scenarios"):
        product(base, [("rate", axis), ("ttft", axis)])
    with pytest.raises(ProblemError, match="'rate' is there twice"):
        product(base, [("rate", axis), ("rate", axis)])


# Kept, and gone on with

ASKED = ("rate=2x", "limits.npus=1", "price.l40s=-10%", "tpot=1.2x")


@pytest.mark.slow
def test_a_resumed_run_is_like_one_that_was_not_interrupted(
    base: SizingProblem, tmp_path: Path
) -> None:
    whole = rows_of(base, *ASKED)
    path = tmp_path / "kept.jsonl"
    asked = [Scenario.of(base, [Change.of(text)]) for text in ASKED]
    running = WhatIf(base, asked, Answers(journal=Journal.at(path))).rows()
    assert [next(running) for _ in range(3)] == whole[:3]
    del running
    # Cut off within a line, as by a crash.
    path.write_text(path.read_text("utf-8") + '["abc", {"solv', encoding="utf-8")
    again = rows_of(base, *ASKED, journal=Journal.at(path))
    assert again == whole
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == len(whole)
    assert all(json.loads(line) for line in lines)


def test_what_is_known_is_not_solved_again(
    base: SizingProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.jsonl"
    whole = rows_of(base, *ASKED, journal=Journal.at(path))

    def fails(*_: Any) -> Solved:
        raise AssertionError

    monkeypatch.setattr("sizing.solved.solved", fails)
    assert rows_of(base, *ASKED, journal=Journal.at(path)) == whole
    # Another question is another answer.
    with pytest.raises(AssertionError):
        rows_of(base, "rate=1.5x", journal=Journal.at(path))


def test_what_ran_out_of_time_is_tried_again(
    base: SizingProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.jsonl"
    monkeypatch.setattr("sizing.solved.solved", lambda *_: Solved(status="timed_out"))
    rows_of(base, "rate=2x", journal=Journal.at(path))
    monkeypatch.undo()
    found = rows_of(base, "rate=2x", journal=Journal.at(path))
    assert [row.solved.status for row in found] == ["optimal", "optimal"]


@pytest.mark.parametrize("text", ["hello", "hello\n", '{"a": 1}\n', STATED])
def test_a_file_of_others_is_not_touched(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProblemError, match="--resume"):
        Journal.at(path)
    assert path.read_text("utf-8") == text


# The command


def test_the_command_in_every_format(genz: Genz, file: Path) -> None:
    asked = ("what-if", file, "--set", "rate=2x", "--without", "l40s", "--ttft", "1 us")
    text = genz(*asked)
    assert (text.code, text.err) == (0, "")
    for said in ("rate=2x", "without=l40s", "no plan: nothing meets mean TTFT", "Why"):
        assert said in text.out
    found = genz(*asked, "--format", "json").json
    assert found["complete"] is True
    assert [s["name"] for s in found["scenarios"]] == [
        "rate=2x",
        "without=l40s",
        "ttft=1 us",
    ]
    twice = found["scenarios"][0]
    change = twice["usd_per_hour"] / found["base"]["usd_per_hour"] - 1
    assert twice["relative_to_base"] == pytest.approx(change)
    assert twice["plan"][0]["traffic"] == "chat"
    rows = list(csv.DictReader(io.StringIO(genz(*asked, "--format", "csv").out)))
    assert rows[0]["scenario"] == "base"
    assert float(rows[1]["usd_per_hour"]) == twice["usd_per_hour"]
    assert rows[3]["status"] == "infeasible"


def test_a_plan_of_several_classes_is_told_class_by_class(
    genz: Genz, file: Path
) -> None:
    text = file.read_text("utf-8")
    start, end = text.index("[[traffic]]"), text.index("[hardware]")
    other = text[start:end].replace('"chat"', '"night"').replace("1000", "2000")
    file.write_text(text[:end] + other + text[end:], encoding="utf-8")
    asked = ("what-if", file, "--set", "traffic.night.rate=2x")
    (scenario,) = genz(*asked, "--format", "json").json["scenarios"]
    rates = {d["traffic"]: 0.0 for d in scenario["plan"]}
    for each in scenario["plan"]:
        rates[each["traffic"]] += each["rate"] * each["replicas"]
    assert rates["night"] >= 80.0
    assert 40.0 <= rates["chat"] < 80.0
    rows = list(csv.DictReader(io.StringIO(genz(*asked, "--format", "csv").out)))
    first, second = rows[1]["plan"].split("; ")
    assert (first.split(":")[0], second.split(":")[0]) == ("chat", "night")
    assert float(rows[1]["night_ttft_mean_s"]) <= 0.5


def test_together_they_are_one(genz: Genz, file: Path) -> None:
    asked = ("what-if", file, "--set", "rate=2x", "--tpot", "2x", "--together")
    (scenario,) = genz(*asked, "--format", "json").json["scenarios"]
    assert scenario["changes"] == ["rate=2x", "tpot=2x"]


@pytest.mark.slow
def test_resumed_output_is_the_same_to_the_byte(
    genz: Genz, file: Path, tmp_path: Path
) -> None:
    asked = ("what-if", file, "--grid", "rate=1x,2x", "--grid", "limits.npus=1,99")
    kept = tmp_path / "kept.jsonl"
    for format_ in ("json", "text", "csv"):
        plain = genz(*asked, "--format", format_).out
        assert genz(*asked, "--format", format_, "--resume", kept).out == plain
    lines = kept.read_text("utf-8").splitlines(keepends=True)
    kept.write_text("".join(lines[:2]), encoding="utf-8")
    output = tmp_path / "out.json"
    genz(*asked, "--resume", kept, "-o", output)
    assert output.read_text("utf-8") == genz(*asked, "--format", "json").out


def test_an_interrupt_reports_what_is_done(
    genz: Genz,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruptible: None,
) -> None:
    real, calls = solved, []

    def interrupted(*arguments: Any) -> Solved:
        calls.append(arguments)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr("sizing.solved.solved", interrupted)
    kept = tmp_path / "kept.jsonl"
    asked = ("what-if", file, "--grid", "rate=2x,3x,4x", "--format", "json")
    ran = genz(*asked, "--resume", kept)
    assert ran.code == 130
    assert (ran.json["complete"], len(ran.json["scenarios"])) == (False, 1)
    monkeypatch.undo()
    again = genz(*asked, "--resume", kept)
    assert again.code == 0
    assert again.out == genz(*asked).out


def test_exit_codes(genz: Genz, file: Path) -> None:
    assert genz("what-if", file, "--ttft", "1 us").code == 0
    text = file.read_text("utf-8").replace('"500 ms"', '"2 us"')
    file.write_text(text, encoding="utf-8")
    assert genz("what-if", file, "--ttft", "1 us").code == 3
    assert genz("what-if", file, "--ttft", "1 s").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no scenario is stated"),
        (("--set", "rte=2x"), "did you mean 'rate'"),
        (("--set", "rate"), "is not like KEY=VALUE"),
        (("--without", "h999"), "unknown npu 'h999'"),
        (("--without", "*"), "leaves no NPU"),
        (("--ttft", "5"), "has no unit"),
        (("--grid", "rate"), "is not like NAME=VALUE"),
        (("--scenarios", "nowhere.toml"), "there is no file"),
        (("--set", "prices.providers=nobody"), "no provider 'nobody'"),
        (("--rate", "2x", "--time-limit", "nan"), "nan is no number"),
    ],
)
def test_bad_input_is_one_message(
    genz: Genz, file: Path, arguments: tuple[str, ...], said: str
) -> None:
    text = file.read_text("utf-8")
    file.write_text(text[: text.index("[prices]")], encoding="utf-8")
    ran = genz("what-if", file, *arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert said in ran.err
    assert ran.err.count("\n") == 1
