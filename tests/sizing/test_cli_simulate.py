"""`genz-size simulate` and `size --check`: plans read back, verdicts, corrections."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_ops.serving.engine import Engine
from model_ops.serving.simulation import Router, simulate
from model_ops.serving.trace import Trace
from problems.plan import Plan
from problems.problem import SizingProblem, problem_of
from sizing import simulated_serving
from sizing.api import size
from sizing.check import MOST_ROUNDS, checked_size
from sizing.plan_file import read_plan
from sizing.report.simulation import as_dict, as_text
from sizing.simulate import Settings, keeps_targets, simulated
from sizing.simulated_serving import served_by
from sizing.simulated_traffic import Place, Requests, places_of, sent
from solver.solve import Optimal

Genz = Callable[..., Any]

PROBLEM = """\
model = "llama-3.1-8b"
[[traffic]]
name = "chat"
input_tokens = 500
output_tokens = {{ mean = 50, cv = 0.5 }}
rate = "30 req/s"
targets = [
    {{ metric = "ttft", statistic = "p95", at_most = "1 s" }},
    {{ metric = "tpot", at_most = "{tpot}" }},
]
goodput = {{ share = 0.5, tpot = "50 ms" }}
[hardware]
npus = ["l40s"]
"""
QUICK = ("--requests", "3000", "--runs", "2")
FEW = Settings(requests=3000, runs=2)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "problem.toml"
    path.write_text(PROBLEM.format(tpot="50 ms"), encoding="utf-8")
    return path


@pytest.fixture
def plan_json(genz: Genz, toml: Path) -> Path:
    path = toml.with_name("plan.json")
    ran = genz("size", toml, "--format", "json", "-o", path)
    assert (ran.code, ran.err) == (0, "")
    return path


def solved(data: dict[str, Any]) -> tuple[SizingProblem, Plan]:
    answer = size(problem_of(data, source="python"))
    assert isinstance(answer.outcome, Optimal)
    return answer.problem, answer.outcome.plan


def chat(**traffic: Any) -> dict[str, Any]:
    stated: dict[str, Any] = {"input_tokens": 500, "output_tokens": 50, "rate": 30.0}
    stated |= {"targets": [{"metric": "tpot", "at_most": 0.05}]} | traffic
    kept = {name: value for name, value in stated.items() if value is not None}
    return {
        "model": "llama-3.1-8b",
        "traffic": [kept],
        "hardware": {"npus": ["l40s"]},
    }


def place_of(data: dict[str, Any], requests: int = 3000) -> Place:
    problem, plan = solved(data)
    (place,) = places_of(problem, plan, problem.traffic[0], requests)
    return place


def untimed(ran: Any) -> Any:
    content = ran.json
    assert content.pop("seconds") > 0
    return content


def flat(content: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries and lists by their paths."""
    if not isinstance(content, dict | list):
        return {path: content}
    items = content.items() if isinstance(content, dict) else enumerate(content)
    return {k: v for key, each in items for k, v in flat(each, f"{path}.{key}").items()}


@pytest.mark.slow
def test_a_plan_is_read_back_and_simulated_as_its_problem(
    genz: Genz, toml: Path, plan_json: Path
) -> None:
    of_plan = genz("simulate", plan_json, *QUICK, "--format", "json")
    of_problem = genz("simulate", toml, *QUICK, "--format", "json")
    assert (of_plan.code, of_plan.err) == (0, "")
    found, expected = flat(untimed(of_plan)), flat(untimed(of_problem))
    assert found.keys() == expected.keys()
    # Plans in files have twelve digits.
    for path, value in expected.items():
        exact = not isinstance(value, float)
        assert found[path] == (value if exact else pytest.approx(value, rel=1e-6)), path


def test_report_as_json(genz: Genz, plan_json: Path) -> None:
    found = genz("simulate", plan_json, *QUICK, "--format", "json").json
    (chat_class,) = found["classes"]
    (each,) = chat_class["deployments"]
    assert found["verdict"] == "pass"
    assert [t["target"] for t in each["targets"]] == [
        "p95 TTFT",
        "mean TPOT",
        "goodput 50%",
    ]
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        means = [each["latencies"][metric][s]["mean"] for s in ("p50", "p95", "p99")]
        assert means == sorted(means)
    tpot = each["latencies"]["tpot_s"]["mean"]
    assert tpot["half_width"] > 0
    assert tpot["mean"] == pytest.approx(tpot["predicted"], rel=0.2)
    assert 0 < each["cache_used"]["mean"] < 1
    assert each["replicas"] * each["req_per_s_per_replica"] == pytest.approx(30)


def test_report_as_text(genz: Genz, plan_json: Path) -> None:
    ran = genz("simulate", plan_json, *QUICK)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Simulated llama-3.1-8b: every target holds.")
    assert "goodput 50%" in ran.out
    assert "nan" not in ran.out
    assert all(len(line) <= 100 for line in ran.out.splitlines())


def test_answers_of_one_token_have_no_tpot() -> None:
    problem, plan = solved(chat(output_tokens=1, targets=[]))
    text = as_text(simulated(problem, plan, FEW))
    assert "there is no target to judge" in text
    assert "mean TTFT" in text
    assert "TPOT" not in text


def test_seeds(genz: Genz, plan_json: Path) -> None:
    runs = [
        untimed(genz("simulate", plan_json, *QUICK, "--seed", seed, "--format", "json"))
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0]["classes"] != runs[2]["classes"]


def test_a_target_that_fails_has_an_exit_code(genz: Genz, plan_json: Path) -> None:
    content = json.loads(plan_json.read_text(encoding="utf-8"))
    content["problem"]["traffic"][0]["targets"][1]["at_most"] = 1e-3
    plan_json.write_text(json.dumps(content), encoding="utf-8")
    ran = genz("simulate", plan_json, *QUICK)
    assert ran.code == 3
    assert "1 of 3 targets fail" in ran.out


@pytest.mark.slow
def test_a_problem_without_a_plan(genz: Genz, tmp_path: Path) -> None:
    path = tmp_path / "hopeless.toml"
    limits = "[limits]\nnodes = 1\n"
    text = PROBLEM.format(tpot="50 ms").replace("30 req/s", "30000 req/s") + limits
    path.write_text(text, encoding="utf-8")
    ran = genz("simulate", path, *QUICK)
    assert ran.code == 3
    assert ran.out.startswith("No plan")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("problem"), "has no problem"),
        (lambda c: c.pop("plan"), "has no deployments"),
        (lambda c: c["plan"][0].update(npu="h1000"), "h1000"),
        (lambda c: c["plan"][0].update(precision="bf17"), "bf17"),
        (lambda c: c["plan"][0].update(tp=5), "tp"),
        (lambda c: c["plan"][0].update(tp=0), "above 0"),
        (lambda c: c["plan"][0].update(traffic="rag"), "no deployment serves chat"),
        (lambda c: c["plan"][0].update(traffic=None), "traffic"),
        (lambda c: c["problem"].update(model="llama-99"), "llama-99"),
    ],
)
def test_plans_that_are_none(
    genz: Genz, plan_json: Path, change: Callable[[Any], Any], said: str
) -> None:
    content = json.loads(plan_json.read_text(encoding="utf-8"))
    change(content)
    plan_json.write_text(json.dumps(content), encoding="utf-8")
    ran = genz("simulate", plan_json, *QUICK)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "internal error" not in ran.err


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_files_that_are_no_plan(genz: Genz, tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="utf-8")
    ran = genz("simulate", path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("genz-size: plan: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--router", "nearest"),
        ("--runs", "1"),
        ("--requests", "0"),
        ("--time-limit", "nan"),
        ("--seed", "-1"),
        ("--format", "csv"),
    ],
)
def test_options_out_of_range(
    genz: Genz, plan_json: Path, arguments: tuple[str, str]
) -> None:
    ran = genz("simulate", plan_json, *arguments)
    assert (ran.code, ran.out) == (2, "")


# What is sent


def test_requests_are_dealt_in_proportion() -> None:
    place = place_of(chat())
    heavy = replace(place, load=3 * place.load)
    first, second = sent([place, heavy], 4000, np.random.default_rng(0))
    # A quarter of 4,000, give or take four standard deviations of 27.
    assert first.prompt.size == pytest.approx(1000, abs=110)
    assert first.prompt.size + second.prompt.size == 4000
    assert (np.diff(first.arrival) >= 0).all()


def test_fewer_queues_where_requests_would_not_fill_them() -> None:
    problem, plan = solved(chat(rate=3000.0))
    (some,) = places_of(problem, plan, problem.traffic[0], 300)
    (more,) = places_of(problem, plan, problem.traffic[0], 30_000)
    assert 1 <= some.queues < more.queues <= more.all_queues
    assert some.load == more.load


@pytest.mark.slow
def test_users_stay_in_flight() -> None:
    """By Little's law the requests of a closed loop are its users at any time."""
    place = place_of(chat(rate=None, concurrency=40))
    (asked,) = sent([place], 4000, np.random.default_rng(0))
    ((trace, _),) = served_by(
        [place], [asked], Router.ROUND_ROBIN, np.random.default_rng(0)
    )
    assert np.mean(trace.e2e) * trace.rate == pytest.approx(40, rel=0.02)


def test_recorded_requests_come_at_their_own_times(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rng = np.random.default_rng(0)
    times = np.round(np.cumsum(rng.exponential(0.1, 500)), 3)
    rows = [f"{t},{300 + i},{20 + i % 7}" for i, t in enumerate(times)]
    path.write_text("\n".join(["t,p,o", *rows]), encoding="utf-8")
    trace = {"path": str(path), "input": "p", "output": "o", "time": "t"}
    stated = chat(input_tokens=None, output_tokens=None, rate=None, trace=trace)
    place = place_of(stated)
    (asked,) = sent([place], 3000, np.random.default_rng(1))
    assert asked.arrival == pytest.approx(times - times[0])
    assert (asked.prompt == np.arange(300, 800)).all()
    (fewer,) = sent([place], 50, np.random.default_rng(1))
    assert np.ptp(fewer.arrival) == pytest.approx(np.min(times[49:] - times[:-49]))


def test_speculation_saves_steps() -> None:
    """Of 1 + 100 tokens, 2.5 per step: 40 steps, as 1 + 40 tokens take one by one."""
    place = place_of(chat())
    guessing = replace(place.station.engine, tokens_per_step=2.5)
    fast = replace(place, station=replace(place.station, engine=guessing))
    rng = np.random.default_rng
    long = Requests(np.zeros(1), np.array([500]), np.array([101]))
    short = Requests(np.zeros(1), np.array([500]), np.array([41]))
    ((guessed, _),) = served_by([fast], [long], Router.RANDOM, rng(0))
    ((plain, _),) = served_by([place], [short], Router.RANDOM, rng(0))
    assert guessed.e2e == plain.e2e
    assert guessed.tpot == pytest.approx(plain.tpot / 2.5)


def test_a_lighter_load_keeps_what_a_heavier_one_does_not() -> None:
    targets = [{"metric": "ttft", "at_most": 1.0}, {"metric": "tpot", "at_most": 0.05}]
    place = place_of(chat(targets=targets))
    kept = [keeps_targets([place], FEW, share) for share in (0.5, 4.0)]
    assert kept == [True, False]


# Size, and check


def test_a_check_that_finds_nothing_changes_nothing(genz: Genz) -> None:
    problem = problem_of(chat(), source="python")
    checked = checked_size(problem, settings=FEW)
    alone = size(problem).outcome
    assert checked.corrections == ()
    assert not checked.failed
    assert isinstance(checked.answer.outcome, Optimal)
    assert isinstance(alone, Optimal)
    assert checked.answer.outcome.plan == alone.plan


def slowed(by: float) -> Callable[..., Trace]:
    """Return a simulator of engines that are slower than the formulas know."""

    def run(engine: Engine, *arguments: Any, **options: Any) -> Trace:
        curve = engine.curve
        slower = replace(
            curve,
            base=by * curve.base,
            decoding=by * curve.decoding,
            per_cached=by * curve.per_cached,
            per_pair=by * curve.per_pair,
        )
        return simulate(replace(engine, curve=slower), *arguments, **options)

    return run


def test_a_check_corrects_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(chat(), source="python")
    before = size(problem).outcome
    monkeypatch.setattr(simulated_serving, "simulate", slowed(1.3))
    assert isinstance(before, Optimal)
    assert simulated(problem, before.plan, FEW).failed
    checked = checked_size(problem, settings=FEW)
    assert 1 <= len(checked.corrections) <= MOST_ROUNDS
    for correction in (c for found in checked.corrections for c in found):
        assert correction.confirmed < correction.predicted
        assert correction.missed == ("mean TPOT",)
    assert not checked.failed
    after = checked.answer.outcome
    assert isinstance(after, Optimal)
    assert after.plan.usd_per_hour > before.plan.usd_per_hour


def test_a_check_of_what_no_rate_repairs(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(chat(), source="python")
    monkeypatch.setattr(simulated_serving, "simulate", slowed(50.0))
    checked = checked_size(problem, settings=FEW)
    assert checked.corrections
    no_plan = checked.answer.status == "infeasible"
    assert no_plan or checked.failed


def test_check_as_text_and_json(
    genz: Genz, toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizing.check.Settings", lambda: FEW)
    text = genz("size", toml, "--check")
    assert (text.code, text.err) == (0, "")
    assert "\nChecked by simulation\nSimulated llama-3.1-8b" in text.out
    found = genz("size", toml, "--check", "--format", "json").json
    assert found["check"]["rounds"] == 0
    assert found["check"]["simulation"]["verdict"] == "pass"
    assert genz("size", toml, "--check", "--format", "csv").code == 2


def test_a_checked_plan_is_read_back(
    genz: Genz, toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sizing.check.Settings", lambda: FEW)
    path = tmp_path / "checked.json"
    assert genz("size", toml, "--check", "-o", path).code == 0
    problem, plan = read_plan(path)
    assert plan.deployments[0].traffic == problem.traffic[0].name


def test_each_class_is_simulated_with_its_router_unless_told_otherwise() -> None:
    problem, plan = solved(chat(rate=150.0, router="random"))
    few = Settings(requests=3000, runs=2)
    stated, told = (
        as_dict(simulated(problem, plan, settings))
        for settings in (few, replace(few, router=Router.ROUND_ROBIN))
    )
    assert (stated["router"], told["router"]) == ("random", "round_robin")
    assert stated["classes"] != told["classes"]
