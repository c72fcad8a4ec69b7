"""`genz-size design`: files, options, reports and exit codes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from problems.design.parameters import PARAMETERS as FIGURES
from problems.examples import example_path

Genz = Callable[..., Any]

ASKED = (
    "design", "--model", "llama-3-8b", "--input-tokens", "1000", "--output-tokens",
    "100", "--rate", "20 req/s", "--ttft", "300 ms", "--tpot", "20 ms", "--levels", "5",
)  # fmt: skip


def test_the_common_question_needs_no_file(genz: Genz) -> None:
    ran = genz(*ASKED)
    assert (ran.code, ran.err) == (0, "")
    for said in (
        "Proved: none of the",
        "memory bandwidth",
        "scale-up domain",
        "Today's h200-sxm",
        "What one NPU costs",
        "constants",
    ):
        assert said in ran.out
    assert max(len(line) for line in ran.out.splitlines()) <= 100


def test_json_says_all(genz: Genz) -> None:
    found = genz(*ASKED, "--format", "json").json
    assert found["status"] == "optimal"
    assert found["cost"]["gap"] == 0
    cost = found["npu"]["usd_per_hour"] * found["total_npus"]
    assert found["cost"]["usd_per_hour"] == pytest.approx(cost)
    (case,) = found["use_cases"]
    assert case["npus"] == case["replicas"] * case["tp"] * case["pp"]
    assert case["ttft_s"] <= 0.3
    assert case["tpot_s"] <= 0.02
    assert case["estimate"]["ttft_s"] <= case["ttft_s"] * (1 + 1e-6)
    for name, value in found["platform"].items():
        assert any(value == pytest.approx(level) for level in found["ladders"][name])
    assert all(each["source"] for each in found["provenance"].values())
    assert {each["figure"] for each in found["binding"]} <= set(found["ladders"])
    assert found["certificate"]["loss"] < 1e-3
    assert found["today"]["npus"] >= 1


def test_one_figure_varies_and_the_others_stay(genz: Genz) -> None:
    found = genz(*ASKED, "--vary", "hbm-bandwidth=2 TB/s..9 TB/s", "--format", "json")
    platform, today = found.json["platform"], found.json["today"]["figures"]
    changed = {name for name in platform if platform[name] != today[name]}
    assert changed <= {"memory_bandwidth"}
    assert 2e12 <= platform["memory_bandwidth"] <= 9e12


def test_a_figure_is_fixed(genz: Genz) -> None:
    ran = genz(*ASKED, "--fix", "domain=4", "--fix", "compute", "--format", "json")
    platform = ran.json["platform"]
    assert platform["scale_up_npus"] == 4
    assert platform["flop_per_s"] == ran.json["today"]["figures"]["flop_per_s"]


def test_on_chip_memory_varies_by_any_of_its_names(genz: Genz) -> None:
    case = (*ASKED, "--output-tokens", "1", "--fix", "bandwidth=600 GB/s")
    found = genz(*case, "--vary", "sram=1 MB..64 MB", "--format", "json").json
    ladder = found["ladders"]["on_chip_memory"]
    assert (ladder[0], ladder[-1]) == (1e6, 64e6)
    assert found["platform"]["on_chip_memory"] in ladder
    fixed = genz(*case, "--fix", "l2=1 MB", "--format", "json").json
    assert fixed["platform"]["on_chip_memory"] == 1e6
    assert fixed["cost"]["usd_per_hour"] > found["cost"]["usd_per_hour"]
    free = genz(*case, "--vary", "sram", "--set", "mm2_per_mb=0", "--format", "json")
    best = max(free.json["ladders"]["on_chip_memory"])
    assert free.json["platform"]["on_chip_memory"] == best


def test_a_base_of_unknown_on_chip_memory_has_no_such_figure(genz: Genz) -> None:
    found = genz(*ASKED, "--npu", "b300-sxm", "--format", "json").json
    assert "on_chip_memory" not in found["platform"]
    assert "on_chip_memory" not in found["ladders"]
    ran = genz(*ASKED, "--npu", "b300-sxm", "--vary", "l2")
    assert ran.code == 2
    assert "nobody states the on-chip memory of b300-sxm" in ran.err


def test_options_replace_what_a_file_says(genz: Genz, tmp_path: Path) -> None:
    output = tmp_path / "design.json"
    path = example_path("design-chat")
    ran = genz("design", path, "--levels", 4, "--rate", "1 req/s", "--set",
               "markup=8", "-o", output)  # fmt: skip
    assert (ran.code, ran.out) == (0, "")
    import json

    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["problem"]["use_case"][0]["rate"] == 1.0
    assert found["problem"]["cost"]["set"] == {"usd_per_kwh": 0.08, "markup": 8.0}
    assert len(found["ladders"]["flop_per_s"]) == 4


def test_several_use_cases_of_the_catalogue(genz: Genz) -> None:
    ran = genz(
        "design", "--model", "llama-3-8b", "--rate", "5 req/s", "--levels", "4",
        "--use-case", "qa", "--use-case", "code", "--format", "json",
    )  # fmt: skip
    names = [each["name"] for each in ran.json["use_cases"]]
    assert names == ["question-answering", "code-generation"]
    total = sum(each["npus"] for each in ran.json["use_cases"])
    assert ran.json["total_npus"] == total


def test_the_least_change_of_todays_part(genz: Genz) -> None:
    asked = (*ASKED, "--minimize", "distance", "--max-npus", "2", "--format", "json")
    found = genz(*asked).json
    assert found["status"] == "optimal"
    assert found["total_npus"] <= 2
    assert found["certificate"]["bound"] >= 0


def test_what_is_impossible_is_explained(genz: Genz) -> None:
    ran = genz(*ASKED, "--ttft", "1 ms")
    assert ran.code == 3
    assert "No platform" in ran.out
    assert "TTFT cannot be met" in ran.out
    assert "impossible" in ran.out
    found = genz(*ASKED, "--ttft", "1 ms", "--format", "json")
    assert found.code == 3
    assert found.json["status"] == "infeasible"
    floors = found.json["explanation"]["floors"]
    assert [f["target"] for f in floors if f["impossible"]] == ["ttft"]


def test_limits_in_the_way_are_named(genz: Genz) -> None:
    ran = genz(*ASKED, "--rate", "5000 req/s", "--max-npus", "2")
    assert ran.code == 3
    assert "limits on one NPU or on all of them" in " ".join(ran.out.split())
    assert (
        "- NPUs of traffic: at most 2 NPUs, but the least on the ladders is" in ran.out
    )
    (floor,) = (line for line in ran.out.splitlines() if "impossible" in line)
    assert "2 NPUs" in floor


def test_a_limit_that_no_npu_meets_is_named(genz: Genz) -> None:
    ran = genz(*ASKED, "--max-npu-power", "10 W")
    said = " ".join(ran.out.split())
    assert ran.code == 3
    assert "Power of one NPU: at most 10 W, but the least on the ladders is" in said
    (floor,) = (line for line in ran.out.splitlines() if "impossible" in line)
    assert floor.split()[:3] == ["one", "NPU", "power"]
    found = genz(*ASKED, "--max-npu-power", "10 W", "--format", "json").json
    (above,) = (f for f in found["explanation"]["floors"] if f["impossible"])
    assert (above["use_case"], above["target"]) == (None, "watts")
    enough = ("--max-npu-power", f"{above['least'] * 1.001} W")
    allowed = genz(*ASKED, *enough, "--format", "json").json
    impossible = allowed.get("explanation", {"floors": []})["floors"]
    assert not any(floor["impossible"] for floor in impossible)


def test_one_platform_and_one_npu_read_well(genz: Genz) -> None:
    fixed = (word for name in FIGURES for word in ("--fix", name))
    ran = genz(*ASKED, *fixed, "--rate", "1 req/s")
    said = " ".join(ran.out.split())
    assert ran.code == 0
    for sentence in (
        "1 NPU of the accelerator below",
        "Proved: the only platform",
        "would need 1 NPU,",
        "and 1 platform;",
    ):
        assert sentence in said
    assert "1 NPUs" not in said
    assert "1 platforms" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--vary", "flopz"), "unknown parameter 'flopz'"),
        (("--vary", "flops=1..2"), "flop_per_s"),
        (("--vary", "flops=1 PFLOP/s"), "--vary"),
        (("--fix", "domain=lots"), "scale_up_npus"),
        (("--fix", "domain=8", "--vary", "domain"), "'--fix domain=8'; give one"),
        (("--vary", "flops", "--vary", "compute"), "flop_per_s: stated by both"),
        (("--fix", "fp8=1 PFLOP/s", "--fix", "int8"), "flop_per_s_8bit: stated by"),
        (("--set", "usd_per_gb"), "--set"),
        (("--set", "usd_per_gigabyte=3"), "no coefficient"),
        (("--npu", "h300"), "unknown npu"),
        (("--rate", "5"), "has no unit"),
        (("--time-limit", "nan"), "--time-limit"),
        (("--minimize", "distance"), "limits.npus"),
        (("--cost", "cheap"), "--cost: no 'cheap'"),
    ],
)
def test_bad_input_is_named(genz: Genz, arguments: tuple[str, ...], said: str) -> None:
    ran = genz(*ASKED, *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


TIGHT = (
    "design", "--model", "llama-3-70b", "--use-case", "chat", "--rate", "5 req/s",
    "--levels", "2", "--format", "json",
)  # fmt: skip


def test_todays_part_is_what_estimate_says_of_the_same_replicas(genz: Genz) -> None:
    (case,) = genz(*TIGHT).json["today"]["use_cases"]
    found = genz(
        "estimate", "--model", "llama-3-70b", "--npu", "h200-sxm", "--tp", case["tp"],
        "--pp", case["pp"], "--replicas", case["replicas"], "--chunk-tokens",
        case["chunk_tokens"], "--input-tokens", 3000, "--output-tokens", 1000,
        "--beams", 2, "--rate", "5 req/s", "--format", "json",
    ).json  # fmt: skip
    for name in ("ttft_s", "tpot_s"):
        assert case["measured"][name] == pytest.approx(found[name]["mean"], rel=1e-6)
    limits = {"ttft": 0.2, "tpot": 0.01}
    late = {name for name, most in limits.items() if found[f"{name}_s"]["mean"] > most}
    assert set(case["measured"]["misses"]) == late


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--model", "llama-3-8b"), "--input-tokens: required, but missing; --output"),
        (("--use-case", "qa", "--use-case", "code"), "--model: required, but missing"),
        ((*ASKED[1:], "--levels", "1000"), "--levels: must be at most 512"),
        ((*ASKED[1:], "--max-npu-power", "3"), "--max-npu-power: '3' has no unit"),
        ((*ASKED[1:], "--precision", "fp3"), "--precision: unknown precision"),
        ((*ASKED[1:], "--set", "usd_per_gb=-1"), "--set: usd_per_gb: -1"),
        ((*ASKED[1:], "--minimize", "distance"), "needs limits.npus (--max-npus)"),
    ],
)
def test_errors_name_the_options(genz: Genz, given: tuple[str, ...], said: str) -> None:
    ran = genz("design", *given)
    assert ran.code == 2
    assert said in ran.err
    assert "use_case.0" not in ran.err


def test_chunks_below_the_frameworks_own_are_tried(genz: Genz, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[[use_case]]\nname = "chat"\nmodel = "llama-3-70b"\ninput_tokens = 3000\n'
        'output_tokens = 1000\nbeams = 2\nrate = "5 req/s"\nttft = "200 ms"\n'
        'tpot = "10 ms"\nchunk_tokens = [8192]\n'
    )
    kept = genz("design", own, "--levels", "2", "--format", "json").json["today"]
    free = genz(*TIGHT).json["today"]
    assert free["use_cases"][0]["chunk_tokens"] < 8192
    assert free["npus"] < kept["npus"]
