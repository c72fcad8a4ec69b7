"""The text report: two goldens, and what must hold in any of them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sizing.report.console import new_console, plain_table, section, text_of

pytestmark = pytest.mark.usefixtures("plain_npus")

Genz = Callable[..., Any]

# Prices are given, so that a new quote in the catalogue changes no golden.
BASE = (
    *("--model", "llama-3.1-8b", "--npu", "l40s", "--npu", "h100-sxm"),
    *("--price", "l40s=0.80 USD/h", "--price", "h100-sxm=2.50 USD/h"),
    *("--input-tokens", "1000", "--output-tokens", "200", "--rate", "5 req/s"),
)
FEASIBLE = (*BASE, "--ttft", "1 s", "--tpot", "50 ms")
# Two H100 are loaded close to saturation, and no latency forbids it.
CROWDED = (*BASE, "--npu", "h100-sxm", "--rate", "49 req/s", "--max-npus", "2")
TOO_FEW = (
    *(*BASE, "--npu", "h100-sxm", "--rate", "45 req/s", "--max-npus", "2"),
    *("--ttft", "p99 100 ms", "--tpot", "50 ms"),
)
INFEASIBLE = (*BASE, "--ttft", "1 s", "--tpot", "1 ms", "--budget", "10 USD/h")


def untimed(text: str) -> str:
    """Return a report with a fixed text for its last paragraph: how long it took."""
    return re.sub(
        r"^[\d,]+ deployment points in .*\Z", "(timing)\n", text, flags=re.M | re.S
    )


@pytest.fixture
def feasible(genz: Genz) -> str:
    ran = genz("size", *FEASIBLE)
    assert (ran.code, ran.err) == (0, "")
    return str(ran.out)


@pytest.fixture
def infeasible(genz: Genz) -> str:
    ran = genz("size", *INFEASIBLE)
    assert (ran.code, ran.err) == (3, "")
    return str(ran.out)


def test_golden_of_a_plan(feasible: str, golden: Callable[[str, str], None]) -> None:
    assert "(timing)" in untimed(feasible)
    golden("feasible.txt", untimed(feasible))


def test_golden_of_no_plan(infeasible: str, golden: Callable[[str, str], None]) -> None:
    golden("infeasible.txt", untimed(infeasible))


def test_text_and_json_of_a_plan_state_the_same(genz: Genz, feasible: str) -> None:
    answer = genz("size", *FEASIBLE, "--format", "json").json
    sentence = " ".join(feasible.split("Proved optimal")[0].split())
    cost = answer["cost"]
    assert f"{cost['usd_per_hour']:,.2f} USD an hour" in sentence
    assert f"{cost['usd_per_month']:,.2f} USD a month" in sentence
    assert f"{cost['usd_per_million_output_tokens']:,.2f} USD per million" in sentence
    assert f"{answer['certificate']['points_evaluated']:,} deployments" in feasible
    for row in answer["plan"]:
        cells = (row["traffic"], row["replicas"], row["npu"], row["tp"], row["pp"])
        pattern = r"\s+".join(re.escape(str(cell)) for cell in cells)
        assert re.search(rf"^{pattern}\s", feasible, flags=re.M)
    for metric in ("ttft", "tpot", "e2e"):
        assert re.search(rf"^traffic\s+{metric.upper()}\s", feasible, flags=re.M)
    for row in answer["provenance"]:
        assert row["as_of"] in feasible
    lines = " ".join(feasible.split())
    for served in answer["predictions"][0]["deployments"]:
        rate = f"{served['req_per_s_per_replica']:.3g} req/s"
        assert f"each replica gets {rate}" in lines
    for binding in answer["binding"]:
        assert f"{binding['requirement']} ({binding['reason']})" in lines
        assert re.fullmatch(
            r"at [\d.]+ req/s it holds, at [\d.]+ it does not; hardly loaded "
            r"[\d.]+ m?s, at this plan's [\d.]+ req/s [\d.]+ m?s, \d+% of it "
            r"(queueing|sharing steps|load)",
            binding["reason"],
        )


UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def predicted(text: str) -> dict[str, list[float]]:
    """Return mean, low, high, p50, p95 and p99 seconds of each latency."""
    rows = re.findall(
        r"^traffic\s+(TTFT|TPOT|E2E)\s+" + r"([\d.]+) (\w+)\s+" * 6, text, flags=re.M
    )
    return {
        name: [float(v) * UNIT[u] for v, u in zip(row[::2], row[1::2], strict=True)]
        for name, *row in rows
    }


def test_predictions_meet_the_targets_beside_them(feasible: str) -> None:
    figures = predicted(feasible)
    assert set(figures) == {"TTFT", "TPOT", "E2E"}
    for mean, low, high, p50, p95, p99 in figures.values():
        assert low < mean < high
        assert p50 < p95 < p99
    assert figures["TTFT"][0] <= 1.0
    assert figures["TPOT"][0] <= 0.05
    assert re.search(r"^traffic\s+TTFT\s.*mean 1 s", feasible, flags=re.M)
    assert re.search(r"^traffic\s+TPOT\s.*mean 50 ms", feasible, flags=re.M)


def test_several_targets_of_one_latency_are_all_shown(genz: Genz) -> None:
    question = (
        *BASE,
        "--ttft",
        "p99 400 ms",
        "--ttft",
        "200 ms",
        "--tpot",
        "p95 60 ms",
    )
    text = genz("size", *question).out
    assert re.search(r"^traffic\s+TTFT\s.*p99 400 ms", text, flags=re.M)
    assert re.search(r"^\s+mean 200 ms\s*$", text, flags=re.M)
    figures = predicted(text)
    assert figures["TTFT"][0] <= 0.2
    assert figures["TTFT"][5] <= 0.4
    assert figures["TPOT"][4] <= 0.06
    answer = genz("size", *question, "--format", "json").json
    assert answer["predictions"][0]["ttft_s"]["targets"] == {"p99": 0.4, "mean": 0.2}
    # Only what was asked for as a mean is called one.
    assert answer["predictions"][0]["tpot_s"]["target_mean"] is None


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("--ttft", "1 s"), "Targets on means say nothing of the slowest requests"),
        (("--ttft", "p99 1 s"), "Percentiles hold for random arrivals"),
        (("--ttft", "p99 1 s", "--tpot", "50 ms"), "Percentiles hold"),
        ((), "No latency is asked for"),
    ],
    ids=["means", "percentiles", "both", "none"],
)
def test_what_targets_leave_to_spare_capacity(
    genz: Genz, targets: tuple[str, ...], said: str
) -> None:
    text = " ".join(genz("size", *BASE, *targets, "--headroom", "0.2").out.split())
    assert said in text
    assert "need spare capacity: 20% of it is kept free" in text


def test_a_plan_says_how_likely_its_targets_hold(genz: Genz) -> None:
    question = (*BASE, "--tpot", "p95 50 ms")
    answer = genz("size", *question, "--format", "json").json
    assert answer["predictions"][0]["tpot_s"]["p95"] <= 0.05
    text = " ".join(genz("size", *question).out.split())
    found = re.search(r"meet the targets, .*: p95 TPOT of traffic (\d+)%\.", text)
    # Half of the measurements are below what is predicted.
    assert found
    assert 50 <= int(found[1]) <= 99
    assert "(--confidence 0.9)" in text


def test_near_saturation_is_said_and_widens_the_interval(genz: Genz) -> None:
    answer = genz("size", *CROWDED, "--format", "json").json
    (chat,) = answer["predictions"]
    (each,) = chat["deployments"]
    assert each["saturation_share"] > 0.9
    assert each["weak"][0] == "near_saturation"
    # Times what the model's own error is.
    assert chat["ttft_s"]["high"] / chat["ttft_s"]["mean"] == pytest.approx(1.5 * 1.7)
    assert chat["tpot_s"]["high"] / chat["tpot_s"]["mean"] == pytest.approx(1.5 * 1.2)
    assert chat["e2e_s"]["high"] / chat["e2e_s"]["mean"] == pytest.approx(1.5 * 1.3)
    text = " ".join(genz("size", *CROWDED).out.split())
    assert (
        "Its figures are less certain, their intervals wider (TTFT x 1.7, TPOT x "
        "1.2, E2E x 1.3): close to saturation a little more load is a long wait"
    ) in text
    calm = genz("size", *FEASIBLE, "--format", "json").json["predictions"][0]
    assert calm["deployments"][0]["weak"] == []
    assert calm["ttft_s"]["high"] / calm["ttft_s"]["mean"] == pytest.approx(1.5)
    assert "less certain" not in genz("size", *FEASIBLE).out.split("No kernel")[0]


def test_memory_in_use_is_within_what_there_is(genz: Genz) -> None:
    for question in (FEASIBLE, CROWDED):
        answer = genz("size", *question, "--format", "json").json
        (memory,) = answer["memory"]
        assert 0 < memory["kv_cache_mean_bytes"] <= memory["kv_cache_room_bytes"]
        held = ("weights_bytes", "activations_bytes", "kv_cache_room_bytes")
        assert sum(memory[key] for key in held) == pytest.approx(memory["usable_bytes"])
    # By Little's law, each of those that decode holds its prompt and half its answer:
    # 2 x 32 layers x 8 heads x 128 x 2 bytes per token.
    (each,) = answer["predictions"][0]["deployments"]
    tokens = each["decoding_per_replica"] * (1000 + 200 / 2)
    assert memory["kv_cache_mean_bytes"] == pytest.approx(tokens * 131_072, rel=0.05)


OWNED = {
    "nodes": (
        ("--owned", "l40s=1 node"),
        r"use (\d+) x NVIDIA L40S of your own \((\d+) of them idle\): 0\.00 USD",
    ),
    "some": (
        ("--owned", "l40s=1", "--rate", "9 req/s"),
        r"use (1) x NVIDIA L40S of your own and rent \d+ x NVIDIA \S+ .*?"
        r"\(at your price\)(): ",
    ),
}


@pytest.mark.parametrize("name", OWNED)
def test_what_is_owned_is_used_and_the_rest_rented(genz: Genz, name: str) -> None:
    owned, said = OWNED[name]
    text = " ".join(genz("size", *FEASIBLE, *owned).out.split())
    found = re.search(said, text)
    assert found, text
    answer = genz("size", *FEASIBLE, *owned, "--format", "json").json
    if found[2]:
        used = sum(row["npus"] for row in answer["plan"])
        assert int(found[1]) - int(found[2]) == used


@pytest.mark.slow
def test_a_target_that_fails_through_load_names_a_remedy(genz: Genz) -> None:
    ran = genz("size", *TOO_FEW, "--format", "json")
    assert ran.code == 3
    explanation = ran.json["explanation"]
    assert set(explanation["conflicts"]) == {"p99 TTFT", "NPU limit"}
    (remedy,) = explanation["remedies"]
    assert remedy["requirement"] == "p99 TTFT"
    assert float(remedy["alone"].removesuffix(" ms")) < 100.0
    # It is the plan without the limit.
    free = [a for a in TOO_FEW if a not in ("--max-npus", "2")]
    answer = genz("size", *free, "--format", "json").json
    (row,), (each,) = answer["plan"], answer["predictions"][0]["deployments"]
    assert remedy["replicas"] == (
        f"{row['replicas']} x {row['npu']} tp={row['tp']} pp={row['pp']} at "
        f"{each['saturation_share']:.0%} of saturation"
    )
    text = " ".join(genz("size", *TOO_FEW).out.split())
    assert (
        f"p99 TTFT of 100 ms fails through load: hardly loaded it is {remedy['alone']};"
        f" {remedy['replicas']} would meet it."
    ) in text


def test_replicas_of_several_classes_are_told_with_their_class(
    genz: Genz, tmp_path: Path
) -> None:
    classes = "".join(
        f'[[traffic]]\nname = "{name}"\ninput_tokens = 1000\noutput_tokens = 100\n'
        f'rate = "{rate} req/s"\n'
        for name, rate in (("chat", 9), ("code", 1))
    )
    problem = tmp_path / "two.toml"
    head = 'model = "llama-3.1-8b"\nhardware.npus = ["l40s", "h100-sxm"]\n'
    problem.write_text(head + classes, encoding="utf-8")
    text = genz("size", problem).out
    _, _, runners = text.partition("The best plans with one NPU type only")
    assert re.search(r"chat: \d x \(tp=1 pp=1\), code: \d x \(tp=1 pp=1\)", runners)
    for name in ("chat", "code"):
        assert re.search(rf"Mean memory of \S+ tp=1 pp=1 for {name} per NPU", text)


def test_no_remedy_where_no_hardware_is_fast_enough(genz: Genz) -> None:
    explanation = genz("size", *INFEASIBLE, "--format", "json").json["explanation"]
    assert explanation["conflicts"] == ["mean TPOT"]
    assert explanation["remedies"] == []


def test_text_and_json_of_no_plan_state_the_same(genz: Genz, infeasible: str) -> None:
    explanation = genz("size", *INFEASIBLE, "--format", "json").json["explanation"]
    assert infeasible.startswith("No plan: ")
    for conflict in explanation["conflicts"]:
        assert conflict in infeasible.split("\n\n")[0]
    for floor in explanation["floors"]:
        pattern = rf"^{re.escape(floor['requirement'])}\s.*{re.escape(floor['wanted'])}"
        assert re.search(pattern, infeasible, flags=re.M)
    for relaxed in explanation["relaxations"]:
        assert relaxed["to"] in infeasible
        row = (relaxed["to"], f"{relaxed['usd_per_hour']:,.2f}", f"{relaxed['npus']:,}")
        pattern = r"\s+".join(re.escape(cell) for cell in row)
        assert re.search(pattern + "$", infeasible, flags=re.M)


@pytest.mark.parametrize("name", ["feasible", "infeasible"])
def test_lines_fit_a_terminal(request: pytest.FixtureRequest, name: str) -> None:
    for line in request.getfixturevalue(name).splitlines():
        assert len(line) <= 100
        assert line == line.rstrip()


@pytest.mark.parametrize("name", ["feasible", "infeasible"])
def test_no_name_is_broken_in_two(request: pytest.FixtureRequest, name: str) -> None:
    text = request.getfixturevalue(name)
    assert "h100-sxm" in text
    for word in ("h100-sxm", "l40s", "llama-3.1-8b"):
        assert len(re.findall(word, text)) == len(
            re.findall(word, re.sub(r"\n\s*", "", text))
        )


def test_sources_that_are_left_out_are_shown_by_the_command_that_is_named(
    genz: Genz, feasible: str
) -> None:
    whole = genz("size", *FEASIBLE, "--format", "json").json["provenance"]
    text = " ".join(feasible.split("Where the figures come from")[1].split())
    named = re.findall(r"and (\d+) more: genz-size (catalogue show \w+ \S+)", text)
    assert named
    for more, command in named:
        shown = genz(*command.split(), "--format", "json").json
        sources = [row["value"] for row in shown if row["field"] == "sources"]
        assert len(sources) == int(more) + 1
        assert any(row["source"] == "; ".join(sources) for row in whole)


@pytest.mark.parametrize("width", [1, 40, 99, 100, 101, 400])
def test_numbers_and_names_are_never_broken(width: int) -> None:
    console, long = new_console(), "n" * width
    table = plain_table("NPU", ">replicas", "then")
    table.add_row(long, "1" * 20, "some words " * 9)
    section(console, "A table", table)
    text = text_of(console)
    assert long in text
    assert "1" * 20 in text
    assert "replicas" in text
    assert all(len(line) <= max(100, width + 50) for line in text.splitlines())
    console.print("words " * 40)
    assert max(map(len, text_of(console).splitlines()[-3:])) <= 100


@pytest.mark.parametrize(
    ("columns", "width"), [("80", 80), ("100", 100), ("300", 100), ("9", 60), ("", 100)]
)
def test_text_is_as_wide_as_the_terminal_and_no_wider_than_is_good_to_read(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    console = new_console()
    console.print("word " * 100)
    lines = text_of(console).splitlines()
    assert width - 5 < max(map(len, lines)) <= width


def test_pools_that_were_not_tried_are_offered_where_they_may_be(genz: Genz) -> None:
    offered = "--mode aggregated --mode disaggregated"
    assert offered in " ".join(genz("size", *FEASIBLE).out.split())
    closed = ("--model", "llama-3.1-8b", "--npu", "l40s", "--concurrency", "8")
    lengths = ("--input-tokens", "1000", "--output-tokens", "200")
    assert offered not in " ".join(genz("size", *closed, *lengths).out.split())
    refused = genz("size", *closed, *lengths, "--mode", "disaggregated")
    assert refused.code == 2
    assert (
        "--mode: traffic has a concurrency, which is not disaggregated" in refused.err
    )
