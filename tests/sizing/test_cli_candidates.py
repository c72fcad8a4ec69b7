"""`genz-size size --candidates`: figures of one's own, on the command line."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from problems.examples import FOLDER

Genz = Callable[..., Any]
TABLE = FOLDER / "candidates.csv"
QUESTION = (
    *("--candidates", TABLE, "--rate", "50 req/s"),
    *("--ttft", "2000 ms", "--tpot", "30 ms"),
)
HEADER = "name,npu,mode,npus,ttft_ms,tpot_ms,req_per_s,tp,pp,dp,batch"


def test_json_has_what_a_sizing_has(genz: Genz) -> None:
    ran = genz("size", *QUESTION, "--minimize", "npus", "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    told = ran.json
    assert told["status"] == "optimal"
    assert told["total_npus"] == 35
    assert sum(row["npus"] for row in told["plan"]) == 35
    assert {row["mode"] for row in told["plan"]} <= {"aggregated", "disaggregated"}
    for key in ("npu", "tp", "pp", "ep", "dp", "batch", "precision", "nodes"):
        assert all(key in row for row in told["plan"])
    assert told["cost"]["usd_per_hour"] > 0
    assert told["certificate"]["gap"] == 0
    (predicted,) = told["predictions"]
    assert 0 < predicted["ttft_s"]["mean"] <= predicted["ttft_s"]["worst_row"] <= 2.0
    assert "figures from candidates.csv" in told["provenance"][0]["source"]
    (single,) = told["best_of_one_kind"]
    assert single["total_npus"] == 36


def test_text_says_whose_figures_and_that_they_are_means(genz: Genz) -> None:
    ran = genz("size", *QUESTION, "--model", "qwen3-32b")
    assert ran.code == 0
    flat = " ".join(ran.out.split())
    first = ran.out.splitlines()[0]
    assert first.startswith("By the figures of candidates.csv, taken as given and not")
    assert "not ours: to serve qwen3-32b (50 req/s), rent " in flat
    assert "the table's means" in flat
    assert "one row: " in flat


def test_the_first_line_says_whose_figures_even_without_a_plan(genz: Genz) -> None:
    whose = "By the figures of candidates.csv, taken as given and not ours:"
    for more in ((), ("--max-npus", "30"), ("--time-limit", "1e-9")):
        assert genz("size", *QUESTION, *more).out.startswith(whose), more


def test_fleets_are_asked_about_as_of_our_own_figures(genz: Genz) -> None:
    fleet = ("--owned", "h200=1 node", "--spare-nodes", "1", "--max-npu-types", "1")
    ran = genz("size", *QUESTION, *fleet)
    flat = " ".join(ran.out.split())
    assert "use 8 x NVIDIA H200 141GB SXM of your own and rent " in flat
    assert "Losing 1 node is provided for, however the replicas are placed" in flat
    assert "redundancy of 1 node" in flat
    told = genz("size", *QUESTION, *fleet, "--format", "json").json
    (own,) = (p for p in told["purchases"] if p["provider"] == "owned")
    assert (own["npus"], own["usd_per_hour"]) == (8, 0.0)
    assert told["problem"]["redundancy"]["nodes"] == 1
    assert "npus_of_table" not in told["problem"]
    free = genz("size", *QUESTION, "--owned", "h200=9 nodes", "--format", "json").json
    assert free["cost"]["usd_per_hour"] == 0.0


def test_what_no_plan_could_use_is_noted(genz: Genz, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    rows = "x,wafer-9,aggregated,1,100,5,4,,,,\ny,h200,aggregated,1,100,5,4,,,,\n"
    table.write_text(f"{HEADER}\n{rows}")
    asked = ("size", "--candidates", table, "--rate", "10 req/s")
    asked = (*asked, "--price", "wafer-9=1 USD/h", "--owned", "b200=2")
    ran = genz(*asked, "--max-nodes", "4", "--headroom", "0.1")
    flat = " ".join(ran.out.split())
    assert "wafer-9 was left out: nobody knows its servers" in flat
    assert "b200-sxm of your own stays idle: the table has no row for it." in flat
    table.write_text(f"{HEADER}\n{rows.replace(',5,', ',0.05,')}")
    assert "these look like seconds" in " ".join(genz(*asked).out.split())


def test_the_model_of_a_table_is_exported(genz: Genz, tmp_path: Path) -> None:
    file = tmp_path / "model.txt"
    assert genz("size", *QUESTION, "--export-model", file).code == 0
    assert "demand_0" in file.read_text()


def test_csv_has_a_row_per_deployment(genz: Genz) -> None:
    ran = genz("size", *QUESTION, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert sum(int(row["npus"]) for row in rows) == 35
    assert {row["status"] for row in rows} == {"optimal"}


def test_a_problem_file_may_state_the_rest(genz: Genz, tmp_path: Path) -> None:
    problem = tmp_path / "problem.toml"
    problem.write_text(
        'model = "qwen3-32b"\nobjective = "npus"\n[[traffic]]\ninput_tokens = 4000\n'
        'output_tokens = 1000\nrate = "50 req/s"\ntargets = [{ metric = "ttft", '
        'at_most = "2 s" }, { metric = "tpot", at_most = "30 ms" }]\n'
    )
    ran = genz("size", problem, "--candidates", TABLE, "--format", "json")
    assert ran.json["total_npus"] == 35


def test_what_requirements_cost_is_told_unasked(genz: Genz) -> None:
    ran = genz("size", *QUESTION, "--minimize", "npus", "--format", "json")
    known = {s["requirement"]: s for s in ran.json["margins"]["sensitivities"]}
    assert set(known) == {"mean TTFT", "mean TPOT", "traffic"}
    assert known["traffic"]["tighter"]["to"] == "55 req/s"
    assert known["traffic"]["tighter"]["worth"]["npus"] > 35
    assert known["traffic"]["looser"]["worth"]["npus"] < 35


def test_infeasible_is_explained_with_code_3(genz: Genz) -> None:
    ran = genz("size", *QUESTION, "--max-npus", "30")
    assert ran.code == 3
    assert "mean TPOT and NPU limit cannot be met together" in ran.out
    ran = genz("size", *QUESTION, "--max-npus", "30", "--format", "json")
    assert set(ran.json["explanation"]["conflicts"]) == {"mean TPOT", "NPU limit"}
    needed = {r["requirement"]: r for r in ran.json["explanation"]["relaxations"]}
    assert needed["NPU limit"]["to"] == "35"


def test_what_is_needed_works_when_it_is_typed_back_and_less_does_not(
    genz: Genz, tmp_path: Path
) -> None:
    # Only a reads soon enough, at 12 ms a token.
    table = tmp_path / "mine.csv"
    rows = ("a,h200-sxm,aggregated,1,300,12,2,,,,4", "b,h200-sxm,aggregated,2,1500,9,6")
    table.write_text("\n".join((HEADER, rows[0], rows[1] + ",,,,4")) + "\n")
    asked = ("size", "--candidates", table, "--rate", "43 req/s", "--ttft", "1 s")
    ran = genz(*asked, "--tpot", "10 ms", "--format", "json")
    needed = {r["requirement"]: r["to"] for r in ran.json["explanation"]["relaxations"]}
    assert needed == {"mean TTFT": "1.5 s", "mean TPOT": "12 ms"}
    assert genz(*asked, "--tpot", "12 ms").code == 0
    assert genz(*asked, "--tpot", "11.9 ms").code == 3
    # 22 replicas of an NPU at 4.10 USD/h carry 43 req/s: no cent less will do.
    asked += ("--price", "h200-sxm=4.10 USD/h")
    ran = genz(*asked, "--budget", "50 USD/h", "--format", "json")
    needed = {r["requirement"]: r["to"] for r in ran.json["explanation"]["relaxations"]}
    assert needed["budget"] == "90.20 USD/h"
    assert genz(*asked, "--budget", "90.20 USD/h").code == 0
    assert genz(*asked, "--budget", "90.19 USD/h").code == 3


def test_the_table_s_floor_is_named(genz: Genz) -> None:
    ran = genz("size", "--candidates", TABLE, "--rate", "1 req/s", "--tpot", "1 ms")
    assert ran.code == 3
    assert "no row of the table reaches a mean TPOT of 1 ms" in ran.out


def test_without_prices_npus_are_counted(genz: Genz, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text(f"{HEADER}\nx,wafer-9,aggregated,2,100,5,4,,,,\n")
    asked = ("size", "--candidates", table, "--rate", "10 req/s")
    ran = genz(*asked, "--minimize", "npus", "--format", "json")
    assert (ran.code, ran.json["total_npus"]) == (0, 6)
    assert ran.json["cost"]["usd_per_hour"] is None
    assert ran.json["purchases"][0]["usd_per_hour"] is None
    ran = genz(*asked, "--minimize", "npus")
    assert "of unknown price" in ran.out
    assert "wafer-9 is not in the catalogue" in ran.out
    ran = genz(*asked)
    assert ran.code == 2
    assert "--price 'wafer-9=2 USD/h'" in ran.err
    ran = genz(*asked, "--price", "wafer-9=2 USD/h", "--format", "json")
    assert ran.json["cost"]["usd_per_hour"] == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rate", "5 req/s", "--ttft", "p99 1 s"), "--ttft: a candidates table"),
        (("--concurrency", "5"), "concurrency: goes with our model"),
        (("--rate", "5 req/s", "--confidence", "0.9"), "confidence: goes with"),
        (("--rate", "5 req/s", "--check"), "does not go with --candidates"),
        (("--rate", "5 req/s", "--npu", "b200"), "no row of the table has 'b200'"),
        (("--ttft", "1 s"), "genz-size: --rate: rate is missing"),
        ((), "genz-size: --rate: required, but missing"),
        ((FOLDER / "two-classes.toml",), "figures of one class of requests"),
    ],
)
def test_contradictions_are_one_line_and_code_2(
    genz: Genz, arguments: tuple[str, ...], message: str
) -> None:
    ran = genz("size", "--candidates", TABLE, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1


def test_a_missing_table_is_named(genz: Genz, tmp_path: Path) -> None:
    ran = genz("size", "--candidates", tmp_path / "no.csv", "--rate", "1 req/s")
    assert ran.code == 2
    assert "--candidates: there is no file" in ran.err
