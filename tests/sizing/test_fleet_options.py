"""Options of fleets state what a file would, and are refused in words."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Genz = Callable[..., Any]
QUESTION = (
    *("size", "--model", "llama-3.1-8b", "--npu", "l40s", "--npu", "h100-sxm"),
    *("--input-tokens", "1000", "--output-tokens", "200", "--rate", "5 req/s"),
    *("--tpot", "50 ms", "--format", "json"),
)


def test_options_are_in_the_problem(genz: Genz) -> None:
    asked = (
        *("--owned", "l40s=2", "--owned", "h100=1 node", "--quota", "us-*=64"),
        *("--spare-nodes", "1", "--max-npu-types", "2", "--max-deployment-types", "3"),
    )
    problem = genz(*QUESTION, *asked).json["problem"]
    assert [(o["npu"], o["npus"], o["nodes"]) for o in problem["owned"]] == [
        ("l40s", 2, None),
        ("h100-sxm", None, 1),
    ]
    assert problem["limits"]["quota"][0]["region"] == "us-*"
    assert problem["limits"]["npu_types"] == 2
    assert problem["limits"]["deployment_types"] == 3
    assert problem["redundancy"]["nodes"] == 1


def test_what_quotas_of_regions_do_not_count_is_said(genz: Genz) -> None:
    asked = (*QUESTION[:-2], "--provider", "Lambda")
    said = "Quotas of a region count no NPU whose price states none"
    for quota, outside in ((("--quota", "us-*=0"), True), (("--quota", "*=9"), False)):
        assert (said in genz(*asked, *quota).out) is outside
        found = genz(*asked, *quota, "--format", "json").json
        missed = [p["offer"] for p in found["purchases"]]
        assert found["not_counted_by_quotas"] == (missed if outside else [])


@pytest.mark.slow
def test_a_report_is_what_is_in_use_today(genz: Genz, tmp_path: Path) -> None:
    today = genz(*QUESTION)
    file = tmp_path / "today.json"
    file.write_text(today.out, encoding="utf-8")
    same = genz(*QUESTION, "--current", file, "--max-change", "0").json
    assert same["total_npus"] == json.loads(today.out)["total_npus"]
    more = genz(
        *QUESTION, "--current", file, "--max-change", "0", "--rate", "900 req/s"
    )
    assert more.code == 3
    assert "limit of changed NPUs" in more.json["explanation"]["conflicts"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--owned", "l40s"), "--owned: 'l40s' is not like NAME=VALUE"),
        (("--owned", "l40s=few"), "'few' is not a number of NPUs"),
        (("--quota", "us-*=-1"), "'-1' is not a number of NPUs"),
        (("--owned", "l4o=1"), "--owned: unknown npu 'l4o'"),
        (("--spare-nodes", "-1"), "--spare-nodes: must be at least 0"),
        (("--current", "nowhere.json"), "--current: there is no file"),
        (("--max-change", "3"), "--max-change: goes with --current"),
        (("--available", "l40s=100000000"), "--available: l40s: must be at most"),
    ],
)
def test_bad_options_are_refused(
    genz: Genz, option: tuple[str, ...], said: str
) -> None:
    ran = genz(*QUESTION, *option)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())


def test_what_is_owned_and_not_allowed_is_said(genz: Genz) -> None:
    question = (*QUESTION[:-2], "--owned", "a100=4", "--owned", "h200=2 nodes")
    said = "4 x a100-80gb-sxm of your own are not considered"
    for text in (
        genz(*question).out,
        genz(*question, "--tpot", "1 ms").out,
    ):
        assert said in " ".join(text.split())
        assert "2 nodes of h200-sxm of your own are not" in " ".join(text.split())
    allowed = genz(*question, "--npu", "a100", "--npu", "h200").out
    assert "not considered" not in allowed


def test_the_price_of_what_is_owned_does_not_rise(genz: Genz) -> None:
    # Two owned L40S cannot do it; the H100 that does the rest is rented.
    question = (*QUESTION[:-2], "--rate", "60 req/s", "--owned", "l40s=2")
    answer = genz(*question, "--format", "json").json
    paid = {p["npu"]: p["provider"] for p in answer["purchases"]}
    assert paid["l40s"] == "owned"
    assert paid["h100-sxm"] != "owned"
    moves = {(s["of"], s["factor"] > 1) for s in answer["margins"]["switches"]}
    prices = {move for move in moves if move[0].startswith("price")}
    assert prices == {
        ("price of h100-sxm", True),
        ("price of h100-sxm", False),
        ("price of rented l40s", False),
    }
    left = {each["npu"]: each["owned"] for each in answer["margins"]["without"]}
    assert left == {"l40s": True, "h100-sxm": False}
    assert re.search(r"^l40s +owned +left aside ", genz(*question).out, flags=re.M)
