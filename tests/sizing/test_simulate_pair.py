"""`genz-size simulate` of disaggregated deployments: stated, or read back as a plan."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_ops.serving.simulation import Router
from problems.problem import problem_of
from problems.stated import stated_plan
from sizing.plan_file import read_plan
from sizing.simulate import Settings, simulated
from sizing.simulated_traffic import places_of

Genz = Callable[..., Any]

PROBLEM = """\
model = "llama-3.1-8b"
[[traffic]]
name = "chat"
input_tokens = 1000
output_tokens = {{ mean = 100, cv = 0.5 }}
rate = "20 req/s"
targets = [
    {{ metric = "ttft", statistic = "p95", at_most = "{ttft}" }},
    {{ metric = "tpot", at_most = "12 ms" }},
]
[[plan]]
mode = "prefill"
npu = "h100"
replicas = {prefill}
[[plan]]
mode = "decode"
npu = "h100"
replicas = 3
"""
QUICK = ("--requests", "3000", "--runs", "2")


def toml(folder: Path, ttft: str = "200 ms", prefill: int = 2) -> Path:
    path = folder / "problem.toml"
    path.write_text(PROBLEM.format(ttft=ttft, prefill=prefill), encoding="utf-8")
    return path


def test_a_stated_pair_is_simulated(genz: Genz, tmp_path: Path) -> None:
    ran = genz("simulate", toml(tmp_path), *QUICK, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["verdict"] == "pass"
    (chat,) = ran.json["classes"]
    (pair,) = chat["deployments"]
    assert pair["mode"] == "disaggregated"
    assert (pair["prefill"]["replicas"], pair["decode"]["replicas"]) == (2, 3)
    assert pair["req_per_s_per_replica"] == pytest.approx(20)
    assert (pair["queues"], pair["queues_simulated"]) == (1, 1)
    assert [t["verdict"] for t in pair["targets"]] == ["pass", "pass"]
    for metric, within in (("ttft", 0.25), ("tpot", 0.05), ("e2e", 0.05)):
        mean = pair["latencies"][f"{metric}_s"]["mean"]
        assert mean["mean"] == pytest.approx(mean["predicted"], rel=within)
    assert chat["latencies"]["ttft_s"]["mean"]["mean"] > 0


def test_report_as_text(genz: Genz, tmp_path: Path) -> None:
    ran = genz("simulate", toml(tmp_path), *QUICK)
    assert (ran.code, ran.err) == (0, "")
    text = " ".join(ran.out.split())
    assert "2 x h100-sxm tp=1 pp=1 (bf16) for prefill" in text
    assert "3 x h100-sxm tp=1 pp=1 (bf16) for decode: 20 req/s together" in text
    assert "(queues: 2 for prefill, 3 for decode; all simulated)" in text
    assert "TPOT has the transfer in it" in text
    assert "nan" not in text
    assert max(map(len, ran.out.splitlines())) <= 100


def test_a_pool_that_is_too_small_fails(genz: Genz, tmp_path: Path) -> None:
    ran = genz("simulate", toml(tmp_path, ttft="45 ms", prefill=1), *QUICK)
    assert ran.code == 3
    assert "1 of 2 targets fail" in ran.out


def test_a_plan_is_read_back(genz: Genz, tmp_path: Path) -> None:
    stated = {
        "model": "llama-3.1-8b",
        "traffic": [{"input_tokens": 1000, "output_tokens": 100, "rate": "20 req/s"}],
        "kv_bandwidth": "20 GB/s",
    }
    problem = problem_of(stated, "file")
    rows = [{"mode": "prefill", "npu": "h100"}, {"mode": "decode", "npu": "h100"}]
    plan = stated_plan(problem, rows)
    path = tmp_path / "plan.json"
    content = {
        "problem": problem.model_dump(mode="json"),
        "plan": [row.model_dump() for row in plan.deployments],
        "purchases": [bought.model_dump() for bought in plan.purchases],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_plan(path) == (problem, plan)
    ran = genz("simulate", path, *QUICK)
    assert (ran.code, ran.err) == (0, "")
    content["problem"]["traffic"][0] |= {"rate": None, "concurrency": 8}
    path.write_text(json.dumps(content), encoding="utf-8")
    ran = genz("simulate", path, *QUICK)
    assert (ran.code, ran.out) == (2, "")
    assert "not disaggregated" in ran.err


def test_equal_parts_of_a_large_pair_are_simulated_for_all(tmp_path: Path) -> None:
    traffic = {"input_tokens": 500, "output_tokens": 50, "rate": 800.0}
    problem = problem_of(
        {"model": "llama-3.1-8b", "traffic": [traffic]}, source="python"
    )
    rows = [
        {"mode": "prefill", "npu": "h100", "replicas": 20},
        {"mode": "decode", "npu": "h100", "replicas": 30},
    ]
    plan = stated_plan(problem, rows)
    (place,) = places_of(problem, plan, problem.traffic[0], 1500)
    assert place.all_queues == 10
    assert 1 <= place.queues < 10
    assert place.load == pytest.approx(80.0)
    (whole,) = places_of(problem, plan, problem.traffic[0], 10**7)
    assert whole.queues == 10
    found = simulated(problem, plan, Settings(Router.ROUND_ROBIN, 1500, 2))
    (deployment,) = found.deployments
    e2e = deployment.measured.figures["e2e_mean"].mean
    predicted = float(deployment.place.served.latencies.e2e.mean)
    assert e2e == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('mode = "prefill"', 'mode = "prefil"', "plan.0.mode"),
        ('mode = "prefill"', 'mode = "decode"', "without the other"),
        ("replicas = 2", "replicas = 0", "plan.0.replicas"),
        ('rate = "20 req/s"', "concurrency = 8", "not disaggregated"),
        ('npu = "h100"', 'npu = "h100"\ntp = 5', "plan.0"),
    ],
)
def test_bad_plans_are_named(
    genz: Genz, tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = toml(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    ran = genz("simulate", path, *QUICK)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_pools_of_several_kinds_are_simulated_together(
    genz: Genz, tmp_path: Path
) -> None:
    path = toml(tmp_path)
    other = '[[plan]]\nmode = "{}"\nnpu = "h200"\n'
    more = "".join(other.format(mode) for mode in ("prefill", "decode"))
    path.write_text(path.read_text(encoding="utf-8") + more, encoding="utf-8")
    ran = genz("simulate", path, *QUICK, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    (chat,) = ran.json["classes"]
    routes = chat["deployments"]
    assert len(routes) == 4
    rates = [route["req_per_s_per_replica"] for route in routes]
    assert sum(rates) == pytest.approx(20)
    for route in routes:
        for metric, within in (("ttft", 0.3), ("tpot", 0.06), ("e2e", 0.06)):
            mean = route["latencies"][f"{metric}_s"]["mean"]
            assert mean["mean"] == pytest.approx(mean["predicted"], rel=within)
    # Requests that take different ways through the same replicas see the same there.
    by_npus = {(r["prefill"]["npu"], r["decode"]["npu"]): r for r in routes}
    for reads in ("h100-sxm", "h200-sxm"):
        seen = [
            by_npus[reads, answers]["latencies"]["ttft_s"]["mean"]["mean"]
            for answers in ("h100-sxm", "h200-sxm")
        ]
        assert seen[0] == pytest.approx(seen[1], rel=0.15)
    text = " ".join(genz("simulate", path, *QUICK).out.split())
    assert "(queues: 3 for prefill, 4 for decode; all simulated)" in text
