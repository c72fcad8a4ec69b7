"""`genz-size size`: what its answer holds, in every format, and its exit codes."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

QUESTION = (
    *("--model", "llama-3.1-8b", "--npu", "l40s", "--npu", "h100-sxm"),
    *("--input-tokens", "1000", "--output-tokens", "200", "--rate", "5 req/s"),
    *("--ttft", "1 s", "--tpot", "50 ms"),
)
IMPOSSIBLE = (
    *("--model", "llama-3.1-70b", "--npu", "h100-sxm", "--npu", "b200-sxm"),
    *("--input-tokens", "1000", "--output-tokens", "200", "--rate", "2 req/s"),
    *("--ttft", "2 s", "--tpot", "1 ms"),
)
PROBLEM = """\
model = "llama-3.1-8b"
[[traffic]]
name = "chat"
input_tokens = 1000
output_tokens = 200
rate = "5 req/s"
targets = [{ metric = "tpot", at_most = "50 ms" }]
[hardware]
npus = ["l40s"]
"""

Genz = Callable[..., Any]

ROW = {
    "npu": str,
    "mode": str,
    "tp": int,
    "pp": int,
    "ep": int,
    "dp": int,
    "batch": int,
    "precision": str,
    "replicas": int,
    "npus": int,
    "nodes": int,
    "usd_per_hour": float,
}
PREDICTED = ("mean", "p50", "p90", "p95", "p99", "low", "high")


def sized(genz: Genz, *arguments: object) -> Any:
    ran = genz("size", *arguments, "--format", "json")
    assert ran.err == ""
    assert ran.code == 0
    return ran.json


def untimed(text: str) -> list[str]:
    """Return the lines of a report but for how long it took."""
    lines = text.splitlines()
    (timed,) = (i for i, line in enumerate(lines) if "solved and verified" in line)
    return lines[:timed]


def _figures(content: Any) -> Iterator[float]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from _figures(each)
    elif isinstance(content, int | float):
        yield content


def test_json_of_a_plan(genz: Genz) -> None:
    answer = sized(genz, *QUESTION)
    assert answer["status"] == "optimal"
    cost = answer["cost"]
    assert cost["usd_per_hour"] > 0
    assert cost["bound_usd_per_hour"] <= cost["usd_per_hour"] * (1 + 1e-9)
    assert cost["gap"] == 0
    assert answer["plan"]
    for row in answer["plan"]:
        for key, kind in ROW.items():
            assert isinstance(row[key], kind), key
        assert row["mode"] == "aggregated"
        assert row["npus"] == row["replicas"] * row["tp"] * row["pp"]
    assert sum(r["usd_per_hour"] for r in answer["plan"]) == pytest.approx(
        cost["usd_per_hour"]
    )
    assert isinstance(answer["total_npus"], int)
    assert answer["total_npus"] >= sum(row["npus"] for row in answer["plan"])
    assert all(math.isfinite(figure) for figure in _figures(answer))
    assert "explanation" not in answer


def test_json_predictions(genz: Genz) -> None:
    answer = sized(genz, *QUESTION)
    (chat,) = answer["predictions"]
    assert chat["traffic"] == "traffic"
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert set(PREDICTED) <= set(chat[metric])
        assert chat[metric]["low"] < chat[metric]["mean"] < chat[metric]["high"]
        percentiles = [chat[metric][name] for name in ("p50", "p90", "p95", "p99")]
        assert percentiles == sorted(percentiles)
        assert chat[metric]["p50"] < chat[metric]["p99"]
    assert chat["ttft_s"]["targets"] == {"mean": 1.0}
    assert chat["tpot_s"]["target_mean"] == 0.05
    assert chat["e2e_s"]["targets"] == {}
    assert chat["ttft_s"]["mean"] <= 1.0 * (1 + 1e-6)
    assert chat["tpot_s"]["mean"] <= 0.05 * (1 + 1e-6)
    assert chat["e2e_s"]["mean"] == pytest.approx(
        chat["ttft_s"]["mean"] + 199 * chat["tpot_s"]["mean"], rel=1e-3
    )
    assert chat["rate_req_per_s"] == pytest.approx(5.0)
    (served,) = chat["deployments"]
    (row,) = answer["plan"]
    assert set(served) == SERVED
    assert [served[key] for key in ("npu", "tp", "pp")] == [
        row[key] for key in ("npu", "tp", "pp")
    ]
    assert row["replicas"] * served["req_per_s_per_replica"] == pytest.approx(5.0)
    for metric in ("ttft", "tpot"):
        mean = chat[f"{metric}_s"]["mean"]
        assert served[f"{metric}_mean_s"] == pytest.approx(mean)
    # Little's law: each decoding request stays for 199 steps. Batch and TPOT are
    # approximated one by one, each to about 1 % at this load.
    assert served["decoding_per_replica"] == pytest.approx(
        served["req_per_s_per_replica"] * 199 * served["tpot_mean_s"], rel=0.02
    )
    assert served["decoding_per_replica"] <= row["mean_batch"]
    assert 0 < served["utilisation"] <= 1


SERVED = {
    "npu",
    "tp",
    "pp",
    "req_per_s_per_replica",
    "decoding_per_replica",
    "utilisation",
    "saturation_share",
    "ttft_mean_s",
    "tpot_mean_s",
    "weak",
}
MIXED = (
    *("--model", "llama-3.1-8b", "--npu", "l40s", "--npu", "h100-sxm"),
    *("--price", "l40s=0.80 USD/h", "--price", "h100-sxm=2.50 USD/h"),
    *("--input-tokens", "1000", "--output-tokens", "200", "--rate", "33 req/s"),
    *("--ttft", "1 s", "--tpot", "50 ms"),
)
"""A question whose plan has deployments on both NPUs."""


def test_each_deployment_has_its_share_and_latencies(genz: Genz) -> None:
    answer = sized(genz, *MIXED)
    (chat,) = answer["predictions"]
    plan, served = answer["plan"], chat["deployments"]
    assert len({row["npu"] for row in plan}) == len(plan) == len(served) == 2
    places = [(row["npu"], row["tp"], row["pp"]) for row in plan]
    assert [(s["npu"], s["tp"], s["pp"]) for s in served] == places
    rates = [
        row["replicas"] * each["req_per_s_per_replica"]
        for row, each in zip(plan, served, strict=True)
    ]
    assert sum(rates) == pytest.approx(33.0)
    assert sum(rates) == pytest.approx(chat["rate_req_per_s"])
    for metric, target in (("ttft", 1.0), ("tpot", 0.05)):
        means = [each[f"{metric}_mean_s"] for each in served]
        assert max(means) <= target
        pooled = sum(m * r for m, r in zip(means, rates, strict=True)) / sum(rates)
        assert chat[f"{metric}_s"]["mean"] == pytest.approx(pooled)
    # The router loads each in proportion to what it can take.
    assert served[0]["utilisation"] == pytest.approx(served[1]["utilisation"])

    table = genz("size", *MIXED, "--format", "csv").out
    for row, each in zip(csv.DictReader(io.StringIO(table)), served, strict=True):
        assert row["npu"] == each["npu"]
        for key in ("req_per_s_per_replica", "ttft_mean_s", "tpot_mean_s"):
            assert float(row[key]) == pytest.approx(each[key])

    text = " ".join(genz("size", *MIXED).out.split())
    for each in served:
        assert (
            f"{each['npu']} tp={each['tp']} pp={each['pp']} for traffic: each replica "
            f"gets {each['req_per_s_per_replica']:.3g} req/s "
            f"({each['decoding_per_replica']:.3g} decoding), "
            f"{each['utilisation']:.0%} of what targets and memory allow"
        ) in text


def test_json_says_what_binds_and_what_it_rests_on(genz: Genz) -> None:
    answer = sized(genz, *QUESTION)
    assert answer["binding"]
    assert all(isinstance(b["requirement"], str) for b in answer["binding"])
    facts = [row["fact"] for row in answer["provenance"]]
    assert all(row["source"] and row["as_of"] for row in answer["provenance"])
    for npu in {row["npu"] for row in answer["plan"]}:
        assert any(fact.startswith(f"price of {npu}") for fact in facts)
        assert f"specification of {npu}" in facts
    assert "architecture of llama-3.1-8b" in facts
    assert answer["timing_s"]["total"] > 0


def test_json_when_infeasible(genz: Genz) -> None:
    ran = genz("size", *IMPOSSIBLE, "--format", "json")
    assert (ran.code, ran.err) == (3, "")
    answer = ran.json
    assert answer["status"] == "infeasible"
    assert answer["plan"] == []
    assert answer["predictions"] == []
    assert answer["total_npus"] == 0
    assert answer["cost"] is None
    explanation = answer["explanation"]
    assert explanation["conflicts"] == ["mean TPOT"]
    floors = {floor["requirement"]: floor for floor in explanation["floors"]}
    assert set(floors) == {"mean TTFT", "mean TPOT"}
    assert floors["mean TTFT"]["possible"]
    assert not floors["mean TPOT"]["possible"]
    (relaxed,) = explanation["relaxations"]
    assert relaxed["requirement"] == "mean TPOT"
    assert relaxed["wanted"] == "1 ms"
    # The relaxation asked for is one that works, at the cost that it names.
    loosened = sized(genz, *IMPOSSIBLE, "--tpot", relaxed["to"])
    assert loosened["cost"]["usd_per_hour"] == pytest.approx(relaxed["usd_per_hour"])
    assert loosened["total_npus"] == relaxed["npus"]
    assert explanation["complete"] is True


@pytest.mark.slow
def test_the_whole_catalogue_cannot_give_a_token_each_millisecond(genz: Genz) -> None:
    ran = genz(
        *("size", "--model", "llama-3.1-70b", "--tpot", "1 ms", "--rate", "1 req/s"),
        *("--input-tokens", "1000", "--output-tokens", "200"),
    )
    assert (ran.code, ran.err) == (3, "")
    assert ran.out.startswith("No plan: ")
    assert "mean TPOT" in ran.out.splitlines()[0]
    assert "least" in ran.out
    assert "What to give up at least" in ran.out


def test_csv(genz: Genz) -> None:
    ran = genz("size", *QUESTION, "--format", "csv")
    assert (ran.code, ran.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    plan = sized(genz, *QUESTION)["plan"]
    assert len(rows) == len(plan)
    for row, deployment in zip(rows, plan, strict=True):
        assert row["status"] == "optimal"
        for key in ROW:
            assert row[key] == str(deployment[key])
        rate = float(row["req_per_s_per_replica"])
        assert deployment["replicas"] * rate == pytest.approx(5.0)
        ttft, tpot, e2e = (
            float(row[f"{metric}_mean_s"]) for metric in ("ttft", "tpot", "e2e")
        )
        assert 0 < ttft <= 1.0
        assert 0 < tpot <= 0.05
        for metric in ("ttft", "tpot"):
            percentiles = [float(row[f"{metric}_p{p}_s"]) for p in (50, 90, 95, 99)]
            assert percentiles == sorted(percentiles)
        assert e2e == pytest.approx(ttft + 199 * tpot)


def test_csv_without_a_plan_is_a_header(genz: Genz) -> None:
    ran = genz("size", *IMPOSSIBLE, "--format", "csv")
    assert (ran.code, ran.err) == (3, "")
    header = ran.out.splitlines()[0]
    assert header.startswith("status,traffic,npu,")
    assert header.endswith(",tpot_p90_s,tpot_p95_s,tpot_p99_s,e2e_mean_s")
    assert ",req_per_s_per_replica,ttft_mean_s,ttft_p50_s,ttft_p90_s," in header
    assert len(ran.out.splitlines()) == 1


def test_text_is_the_default(genz: Genz) -> None:
    ran = genz("size", *QUESTION)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("To serve llama-3.1-8b (5 req/s")
    assert "Proved optimal" in ran.out
    again = genz("size", *QUESTION, "--format", "text").out
    assert untimed(again) == untimed(ran.out)


def test_no_answer_in_time(genz: Genz, monkeypatch: pytest.MonkeyPatch) -> None:
    from sizing import api
    from solver.solve import Certificate, TimedOut

    late = TimedOut(Certificate(seconds={"candidates": 0.1, "solve": 0.1}))
    monkeypatch.setattr(api.Workspace, "solve", lambda *_: late)
    ran = genz("size", *QUESTION)
    assert ran.code == 4
    assert ran.err == ""
    assert "--time-limit" in ran.out
    answer = genz("size", *QUESTION, "--format", "json")
    assert answer.code == 4
    assert answer.json["status"] == "timed_out"
    assert answer.json["plan"] == []


def test_an_unproved_plan_says_so(genz: Genz, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from sizing import api
    from solver.solve import Feasible

    solve = api.Workspace.solve

    def unproved(*arguments: Any) -> Any:
        outcome = solve(*arguments)
        certificate = outcome.certificate
        return Feasible(
            outcome.plan, replace(certificate, gap=0.1, bound=certificate.bound * 0.9)
        )

    monkeypatch.setattr(api.Workspace, "solve", unproved)
    ran = genz("size", *QUESTION)
    assert ran.code == 0
    assert "Not proved optimal" in ran.out
    assert "10.00%" in ran.out
    answer = sized(genz, *QUESTION)
    assert answer["status"] == "feasible"
    assert answer["cost"]["gap"] == pytest.approx(0.1)
    # One of a single type could be better than a plan that is not proved.
    assert answer["runners_up"] == []
    assert "one NPU type only" not in ran.out


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    path = tmp_path / "problem.toml"
    path.write_text(PROBLEM, encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "held"),
    [
        (("--model", "mistral-7b"), lambda a: a["model"] == "mistral-7b"),
        (("--npu", "h100-sxm"), lambda a: a["plan"][0]["npu"] == "h100-sxm"),
        (
            ("--rate", "9 req/s"),
            lambda a: a["predictions"][0]["rate_req_per_s"] == pytest.approx(9),
        ),
        (("--tpot", "40 ms"), lambda a: a["requirements"] == {"mean TPOT": "40 ms"}),
        (
            ("--ttft", "1 s"),
            lambda a: set(a["requirements"]) == {"mean TPOT", "mean TTFT"},
        ),
        (("--minimize", "npus"), lambda a: a["objective"] == "npus"),
        (("--precision", "fp8"), lambda a: a["plan"][0]["precision"] == "fp8"),
        (
            ("--concurrency", "8"),
            lambda a: a["predictions"][0]["rate_req_per_s"] < 5,
        ),
        (
            ("--budget", "500 USD/h"),
            lambda a: a["requirements"].get("budget") == "500.00 USD/h",
        ),
        (("--chunk-tokens", "700"), lambda a: a["plan"][0]["chunk_tokens"] == 700),
        (
            ("--price", "l40s=0.10 USD/h"),
            lambda a: a["cost"]["usd_per_hour"] < 0.5,
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_options_override_the_file(
    genz: Genz, problem: Path, option: tuple[str, str], held: Callable[[Any], bool]
) -> None:
    assert not held(sized(genz, problem))
    assert held(sized(genz, problem, *option))


def test_file_and_options_give_the_same_answer(genz: Genz, problem: Path) -> None:
    by_options = sized(
        genz,
        *("--model", "llama-3.1-8b", "--npu", "l40s", "--rate", "5 req/s"),
        *("--input-tokens", "1000", "--output-tokens", "200", "--tpot", "50 ms"),
    )
    by_file = sized(genz, problem)
    assert by_file["cost"] == by_options["cost"]


def test_identical_input_gives_identical_output(genz: Genz) -> None:
    first, second = (sized(genz, *QUESTION) for _ in range(2))
    first.pop("timing_s"), second.pop("timing_s")
    assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("plan.json", '{\n  "status"'),
        ("plan.csv", "status,traffic"),
        ("plan.txt", "To serve"),
        ("plan", "To serve"),
    ],
)
def test_output_file_takes_its_format_from_its_ending(
    genz: Genz, tmp_path: Path, name: str, start: str
) -> None:
    path = tmp_path / name
    path.write_text("old")
    ran = genz("size", *QUESTION, "-o", path)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert path.read_text(encoding="utf-8").startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_format_option_beats_the_ending(genz: Genz, tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    genz("size", *QUESTION, "-o", path, "--format", "json")
    assert json.loads(path.read_text(encoding="utf-8"))["status"] == "optimal"


def test_a_refused_question_leaves_the_output_file_alone(
    genz: Genz, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    assert genz("size", *QUESTION, "--model", "lama", "-o", path).code == 2
    assert path.read_text() == "old"


def test_llama_405b_takes_two_h100_nodes(genz: Genz) -> None:
    answer = sized(
        genz,
        *("--model", "llama-3.1-405b", "--precision", "bf16", "--npu", "h100-sxm"),
        *("--input-tokens", "1000", "--output-tokens", "200", "--rate", "1 req/s"),
    )
    assert answer["total_npus"] >= 16
    assert all(row["tp"] * row["pp"] >= 16 for row in answer["plan"])


def test_mistral_7b_on_the_whole_catalogue(genz: Genz) -> None:
    answer = sized(
        genz,
        *("--model", "mistral-7b", "--input-tokens", "500", "--output-tokens", "100"),
        *("--rate", "2 req/s"),
    )
    assert answer["plan"]


def test_a_config_of_ones_own(genz: Genz, tmp_path: Path) -> None:
    folder = tmp_path / "nobody-knows-this-llama"
    folder.mkdir()
    path = folder / "config.json"
    config = {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "intermediate_size": 8192,
        "vocab_size": 32000,
        "max_position_embeddings": 8192,
    }
    path.write_text(json.dumps(config))
    for given in (path, folder):
        answer = sized(genz, *QUESTION, "--model", given)
        assert answer["status"] == "optimal"
        assert answer["model"] == str(given)


def test_a_low_price_makes_its_npu_win(genz: Genz) -> None:
    before = sized(genz, *QUESTION)["plan"][0]["npu"]
    other = {"l40s": "h100-sxm", "h100-sxm": "l40s"}[before]
    after = sized(genz, *QUESTION, "--price", f"{other}=0.01 USD/h")
    assert {row["npu"] for row in after["plan"]} == {other}
    assert after["provenance"][0]["source"] == "given with the problem"


def test_a_high_price_makes_its_npu_lose(genz: Genz) -> None:
    before = sized(genz, *QUESTION)["plan"][0]["npu"]
    after = sized(genz, *QUESTION, "--price", f"{before}=999 USD/h")
    assert before not in {row["npu"] for row in after["plan"]}


def test_an_npu_that_is_not_available_is_not_used(genz: Genz) -> None:
    before = sized(genz, *QUESTION)["plan"][0]["npu"]
    after = sized(genz, *QUESTION, "--available", f"{before}=0")
    assert before not in {row["npu"] for row in after["plan"]}


def test_nothing_available_is_explained(genz: Genz) -> None:
    ran = genz(
        *("size", *QUESTION, "--format", "json"),
        *("--available", "l40s=0", "--available", "h100-sxm=0"),
    )
    assert ran.code == 3
    assert set(ran.json["explanation"]["conflicts"]) == {"l40s limit", "h100-sxm limit"}


def test_two_classes_each_get_a_prediction(genz: Genz, tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    start, end = PROBLEM.index("[[traffic]]"), PROBLEM.index("[hardware]")
    traffic = PROBLEM[start:end]
    second = traffic.replace('"chat"', '"batch"').replace("1000", "3000")
    path.write_text(PROBLEM.replace(traffic, traffic + second), encoding="utf-8")
    answer = sized(genz, path)
    assert [p["traffic"] for p in answer["predictions"]] == ["chat", "batch"]
    assert {row["traffic"] for row in answer["plan"]} == {"chat", "batch"}


def test_a_file_saved_with_a_byte_order_mark(genz: Genz, tmp_path: Path) -> None:
    path = tmp_path / "notepad.toml"
    path.write_text(PROBLEM, encoding="utf-8-sig")
    assert genz("size", path).code == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--output-tokens", "1"),
        ("--input-tokens", "20000", "--output-tokens", "2"),
        ("--npu", "tpu-v5e", "--minimize", "power"),
    ],
    ids=["one token", "long prompts", "unpublished power"],
)
def test_memory_is_not_blamed_where_it_suffices(
    genz: Genz, options: tuple[str, ...]
) -> None:
    npu = () if "--npu" in options else ("--npu", "l40s")
    ran = genz("size", *QUESTION[:2], *npu, *QUESTION[6:12], *options)
    assert "does not fit" not in ran.out
    assert ran.code in (0, 2, 3)


def test_a_load_that_estimate_carries_has_a_plan(genz: Genz) -> None:
    load = (
        *("--model", "llama-3.1-8b", "--npu", "l40s", "--rate", "0.1 req/s"),
        *("--input-tokens", "20000", "--output-tokens", "2"),
    )
    assert genz("estimate", *load).code == 0
    assert genz("size", *load).code == 0


def test_unpublished_power_is_said_to_be_unpublished(genz: Genz) -> None:
    ran = genz(
        *("size", "--model", "llama-3.1-8b", "--npu", "tpu-v5e", "--rate", "1 req/s"),
        *("--input-tokens", "1000", "--output-tokens", "200", "--max-power", "1 MW"),
    )
    assert ran.code in (2, 3)
    assert "published" in ran.out + ran.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--rate", "1000000000 req/s"),
        ("--concurrency", "1000000000"),
        ("--rate", "1e-9 req/s"),
        ("--headroom", "0.95"),
        ("--price", "l40s=1e-9 USD/h"),
        ("--price", "l40s=1000000 USD/h"),
        ("--input-tokens", "1", "--output-tokens", "2"),
        ("--input-tokens", "131000", "--output-tokens", "72"),
        (
            "--max-power",
            "1 mW",
        ),
        ("--time-limit", "1e-9"),
    ],
    ids=" ".join,
)
def test_extreme_questions_get_an_answer_or_a_reason(
    genz: Genz, options: tuple[str, ...]
) -> None:
    base = QUESTION[:-4]
    if options[0] == "--concurrency":
        base = base[:-2]
    ran = genz("size", *base, *options)
    assert ran.code in (0, 2, 3, 4), ran.err
    assert "report" not in ran.err
    assert "nan" not in ran.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "code"), [("10000000 req/s", 0), ("10000001 req/s", 2), ("1e8 req/s", 2)]
)
def test_rates_reach_to_ten_million(genz: Genz, rate: str, code: int) -> None:
    ran = genz("size", *QUESTION, "--rate", rate)
    assert ran.code == code, ran.err
    if code:
        assert "--rate" in ran.err
        assert "at most 10,000,000 req/s" in ran.err


def test_without_limits_hardly_any_time_gives_a_plan(genz: Genz) -> None:
    answer = sized(genz, *QUESTION, "--time-limit", "1e-9")
    assert answer["status"] in ("optimal", "feasible")
    cost = answer["cost"]
    assert cost["bound_usd_per_hour"] <= cost["usd_per_hour"]
    assert cost["gap"] == pytest.approx(
        1 - cost["bound_usd_per_hour"] / cost["usd_per_hour"]
    )
    assert answer["plan"]


def test_an_explanation_cut_short_says_so(genz: Genz) -> None:
    question = (*QUESTION, "--tpot", "1 ms", "--time-limit", "1e-9")
    ran = genz("size", *question)
    assert ran.code == 3
    assert "The time was up" in ran.out
    assert "--time-limit" in ran.out
    explanation = genz("size", *question, "--format", "json").json["explanation"]
    assert explanation["complete"] is False


# What reviews found


def test_fp32_over_the_whole_catalogue(genz: Genz) -> None:
    # Some NPUs there have no FP32 arithmetic.
    question = (
        *("--model", "llama-3.1-8b", "--precision", "fp32", "--rate", "5 req/s"),
        *("--input-tokens", "500", "--output-tokens", "200"),
    )
    answer = sized(genz, *question)
    assert {row["precision"] for row in answer["plan"]} == {"fp32"}
    ran = genz("size", *question, "--npu", "gaudi2", "--price", "gaudi2=1 USD/h")
    assert (ran.code, ran.out) == (2, "")
    assert "--precision: no NPU here computes fp32" in ran.err
    assert "fp32" in ran.err


@pytest.mark.slow
def test_long_waits_take_no_place_in_the_batch(genz: Genz) -> None:
    question = (
        *("--model", "llama-3.1-70b", "--npu", "h100-sxm", "--concurrency", "64"),
        *("--input-tokens", "8000", "--output-tokens", "16"),
    )
    answer = sized(genz, *question, "--ttft", "10 s")
    (row,) = answer["plan"]
    estimated = genz(
        *("estimate", *question[:4], "--tp", row["tp"], "--pp", row["pp"]),
        *("--replicas", row["replicas"], *question[4:], "--format", "json"),
    )
    assert estimated.code == 0
    assert estimated.json["ttft_s"]["mean"] <= 10.0
    assert answer["total_npus"] == row["npus"]
    # Those who wait for their first token do not decode: Little's law of either.
    (each,) = answer["predictions"][0]["deployments"]
    writing, reading = (each[f"{m}_mean_s"] for m in ("tpot", "ttft"))
    share = 15 * writing / (15 * writing + reading)
    decoding = each["decoding_per_replica"] * row["replicas"]
    assert decoding == pytest.approx(64 * share, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("npu", ["h100-sxm", "l40s", "*"])
def test_the_ttft_that_is_called_possible_is_possible(genz: Genz, npu: str) -> None:
    question = (
        *("--model", "llama-3.1-8b", "--npu", npu, "--rate", "5 req/s"),
        *("--input-tokens", "500", "--output-tokens", "200"),
    )
    ran = genz("size", *question, "--ttft", "1 us", "--format", "json")
    assert ran.code == 3
    (floor,) = ran.json["explanation"]["floors"]
    seconds = float(floor["least"].removesuffix(" ms")) / 1e3
    above = sized(genz, *question, "--ttft", f"{seconds * 1.01:.6g} s")
    assert above["predictions"][0]["ttft_s"]["mean"] <= seconds * 1.01
    below = genz("size", *question, "--ttft", f"{seconds * 0.99:.6g} s")
    assert below.code == 3


@pytest.mark.slow
@pytest.mark.parametrize("minimize", ["cost", "npus", "power"])
def test_runners_up_are_no_better_than_the_plan(genz: Genz, minimize: str) -> None:
    answer = sized(
        genz,
        *("--model", "llama-3.1-8b", "--rate", "30 req/s", "--minimize", minimize),
        *("--input-tokens", "1000", "--output-tokens", "200", "--tpot", "30 ms"),
    )
    assert answer["runners_up"]
    for runner in answer["runners_up"]:
        assert runner["distance"] >= -1e-9
        if minimize == "cost":
            cost = answer["cost"]["usd_per_hour"]
            assert runner["usd_per_hour"] >= cost * (1 - 1e-9)
            assert runner["distance"] == pytest.approx(
                runner["usd_per_hour"] / cost - 1
            )


def test_real_command(process: Genz) -> None:
    ran = process("size", *QUESTION, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["status"] == "optimal"
    assert process("size", *IMPOSSIBLE, "--format", "csv").code == 3


def test_the_model_is_exported_whole_or_not_at_all(genz: Genz, tmp_path: Path) -> None:
    file = tmp_path / "model.txt"
    assert genz("size", *QUESTION, "--export-model", file).code == 0
    assert "replicas_0" in file.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [file]
    nowhere = genz("size", *QUESTION, "--export-model", tmp_path / "no" / "m.pb")
    assert nowhere.code == 2
    assert "--export-model" in nowhere.err


def test_the_certificate_says_who_proved_what(genz: Genz) -> None:
    report = genz("size", *QUESTION, "--format", "json").json
    certificate = report["certificate"]
    assert certificate["proved_by"] == "CP-SAT"
    assert certificate["bound"] == pytest.approx(report["cost"]["usd_per_hour"])
    assert certificate["variables_before_bound"] >= certificate["variables"] > 0
    assert certificate["constraints_before_bound"] >= certificate["constraints"] > 0


# How near other plans are


@pytest.mark.slow
def test_margins_are_told_and_the_dear_ones_when_asked(genz: Genz) -> None:
    told = sized(genz, *QUESTION)["margins"]
    assert told["sensitivities"] == []
    assert {s["of"] for s in told["switches"]} >= {"traffic", "all times"}
    assert all(s["factor"] > 1 or "price" in s["of"] for s in told["switches"])
    assert len(told["without"]) == 1
    deep = sized(genz, *QUESTION, "--explain")["margins"]
    labels = [s["requirement"] for s in deep["sensitivities"]]
    assert labels == ["mean TTFT", "mean TPOT", "traffic"]
    assert any(s["factor"] < 1 and s["of"] == "traffic" for s in deep["switches"])


@pytest.mark.slow
def test_margins_read_as_sentences(genz: Genz) -> None:
    out = genz("size", *QUESTION, "--explain").out
    assert "How far things may move before this plan is not the best" in out
    assert "What each requirement costs" in out
    assert re.search(r"^traffic, up +5 req/s +[\d.]+ req/s +\+[\d.]+%", out, flags=re.M)
    assert re.search(r"^mean TPOT +50 ms +45 ms: ", out, flags=re.M)


def test_explain_goes_without_check(genz: Genz) -> None:
    ran = genz("size", *QUESTION, "--explain", "--check")
    assert ran.code == 2
    assert "goes without --check" in ran.err
