"""The text report: two goldens, and what must hold in any of them."""

import re
from collections.abc import Callable
from typing import Any

import pytest

Genz = Callable[..., Any]

# Prices are given, so that a new quote in the catalogue changes no golden.
BASE = (
    *("--model", "llama-3.1-8b", "--npu", "l40s", "--npu", "h100-sxm"),
    *("--price", "l40s=0.80 USD/h", "--price", "h100-sxm=2.50 USD/h"),
    *("--input-tokens", "1000", "--output-tokens", "200", "--rate", "5 req/s"),
)
FEASIBLE = (*BASE, "--ttft", "1 s", "--tpot", "50 ms")
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
            r"at a mean batch of [\d.]+ it just holds, at [\d.]+ it does not",
            binding["reason"],
        )


def test_predictions_meet_the_targets_beside_them(feasible: str) -> None:
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
    rows = re.findall(
        r"^traffic\s+(?:TTFT|TPOT)\s+" + r"([\d.]+) (\w+)\s+" * 4, feasible, flags=re.M
    )
    assert len(rows) == 2
    for row in rows:
        mean, low, high, target = (
            float(value) * unit[name]
            for value, name in zip(row[::2], row[1::2], strict=True)
        )
        assert low < mean < high
        assert mean <= target


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
