"""`genz-size requirements`: what any platform must have, before one is chosen."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from problems import catalogue

Genz = Callable[..., Any]
COMMAND = ("requirements", "--model", "llama-2-7b")
STATED = (
    *COMMAND, "--input-tokens", "1000", "--output-tokens", "200", "--beams", "4",
    "--ttft", "200 ms", "--tpot", "10 ms",
)  # fmt: skip


def json_of(genz: Genz, *arguments: object) -> Any:
    ran = genz(*arguments, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    return ran.json


def test_figures_by_hand(genz: Genz) -> None:
    """32 layers of 4 D^2 + 3 D F and a head, int8 but for embedding and head."""
    (found,) = json_of(
        genz, *COMMAND, "--use-case", "qa", "--precision", "int8/int8/kv-int8"
    )
    layers = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    head = 2 * 32000 * 4096
    cache = 2 * 32 * 4096 * (1000 + 4 * 200)
    decode = found["decode"]
    assert decode["memory_bytes_per_s"] == pytest.approx((layers + head + cache) / 0.01)
    assert decode["capacity_bytes"] == layers + 2 * head + cache
    assert decode["flop_by_engine"]["int8"] == 2 * 4 * layers
    assert found["use_case"] == "question-answering"
    assert set(found["least_npus"]) == set(catalogue.names("npus"))


def test_a_use_case_is_its_figures(genz: Genz) -> None:
    (named,) = json_of(genz, *COMMAND, "--use-case", "question-answering")
    (stated,) = json_of(genz, *STATED)
    assert named | {"use_case": None} == stated


def test_options_change_a_use_case(genz: Genz) -> None:
    (plain,) = json_of(genz, *COMMAND, "--use-case", "qa")
    (slower,) = json_of(genz, *COMMAND, "--use-case", "qa", "--tpot", "20 ms")
    assert slower["prefill"] == plain["prefill"]
    ratio = plain["decode"]["flop_per_s"] / slower["decode"]["flop_per_s"]
    assert ratio == pytest.approx(2)


def test_copied_prompts_need_more(genz: Genz) -> None:
    (shared,) = json_of(genz, *STATED)
    (copied,) = json_of(genz, *STATED, "--beams-copy-prompt")
    assert copied["decode"]["cache_bytes"] == pytest.approx(
        shared["decode"]["cache_bytes"] * 4800 / 1800
    )


def test_links_grow_with_the_split_and_are_none_on_one_npu(genz: Genz) -> None:
    (alone,) = json_of(genz, *STATED)
    assert alone["prefill"]["link_bytes_per_s"] == {}
    (found,) = json_of(genz, *STATED, "--tp", 1, "--tp", 2, "--tp", 8)
    for phase in ("prefill", "decode"):
        links = found[phase]["link_bytes_per_s"]
        assert links["tp=1"] == 0
        # An all-reduce sends 2 (n - 1) / n of its payload, a gather half as much.
        assert links["tp=8"] / links["tp=2"] == pytest.approx(7 / 4)


def test_experts_may_be_split_alone(genz: Genz) -> None:
    (found,) = json_of(
        genz, "requirements", "--model", "mixtral-8x7b", "--use-case", "chat",
        "--ep", 2, "--dp", 2,
    )  # fmt: skip
    assert list(found["prefill"]["link_bytes_per_s"]) == ["tp=1 ep=2 dp=2"]


@pytest.mark.parametrize("format_", ["text", "json", "csv"])
def test_every_model_in_every_use_case(genz: Genz, format_: str) -> None:
    models, cases = ("llama-2-7b", "llama-3-70b"), catalogue.names("use_cases")
    ran = genz(
        "requirements", *(w for m in models for w in ("--model", m)),
        *(w for c in cases for w in ("--use-case", c)), "--format", format_,
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    if format_ == "csv":
        rows = list(csv.DictReader(io.StringIO(ran.out)))
        found = [(r["model"], r["use_case"], r["phase"]) for r in rows]
        phases = ("prefill", "decode")
        assert found == [(m, c, p) for m in models for c in cases for p in phases]
    for word in (*models, *cases):
        assert word in ran.out


def test_formats_agree(genz: Genz) -> None:
    (as_json,) = json_of(genz, *STATED, "--tp", 2)
    out = genz(*STATED, "--tp", 2, "--format", "csv").out
    for row in csv.DictReader(io.StringIO(out)):
        figures = as_json[row["phase"]]
        for field in ("flop_per_s", "memory_bytes_per_s", "capacity_bytes"):
            assert float(row[field]) == figures[field]
        links = figures["link_bytes_per_s"]
        assert float(row["link_bytes_per_s tp=2"]) == links["tp=2"]


def test_text_says_what_sets_each_figure(genz: Genz) -> None:
    text = genz(*STATED, "--tp", 2).out
    lines = text.splitlines()
    assert any(line.startswith("prefill ") for line in lines)
    assert any(line.startswith("decode ") for line in lines)
    assert "of which weights" in text
    assert "FLOP/s" in text
    assert "links tp=2" in text
    assert "One NPU is enough for" in text
    assert max(len(line) for line in lines) <= 100


def test_text_names_the_fewest_npus_where_none_is_enough(genz: Genz) -> None:
    text = genz("requirements", "--model", "gpt3-175b", "--use-case", "qa").out
    assert "One NPU is enough for none" in text
    (found,) = json_of(genz, "requirements", "--model", "gpt3-175b", "--use-case", "qa")
    least = min(each["npus"] for each in found["least_npus"].values())
    assert f"fewest: {least} x " in text


def test_context_sets_it_where_it_is_long(genz: Genz) -> None:
    text = genz(
        *COMMAND, "--input-tokens", 200_000, "--output-tokens", 10, "--tpot", "1 s"
    ).out
    assert "of which KV cache read" in text
    assert "of which attention" in text
    assert "Prefill needs no rates: there is no target for it." in text
    assert "llama-2-7b was made for 4,096 tokens" in text


def test_one_answer_token_needs_no_decode(genz: Genz) -> None:
    text = genz(
        *COMMAND, "--input-tokens", 100, "--output-tokens", 1, "--ttft", "1 s"
    ).out
    assert "Decode needs no rates: the prompt's step gives the only token." in text


def test_output_to_a_file(genz: Genz, tmp_path: Path) -> None:
    file = tmp_path / "needs.csv"
    assert genz(*STATED, "-o", file).out == ""
    assert file.read_text().startswith("model,precision,use_case")


BAD = [
    ("no model", ["requirements", "--use-case", "qa"], ["--model"]),
    ("model", ["requirements", "--model", "llama-9", "--use-case", "qa"], ["llama-9"]),
    ("use case", [*COMMAND, "--use-case", "chatt"], ["use case", "'chat'"]),
    ("no tokens", [*COMMAND, "--tpot", "1 s"], ["--input-tokens", "--use-case"]),
    ("no answer", [*COMMAND, "--input-tokens", "9", "--tpot", "1 s"],
     ["--output-tokens"]),
    ("no target", [*COMMAND, "--input-tokens", "9", "--output-tokens", "9"],
     ["--ttft", "--tpot"]),
    ("prompt zero", [*STATED, "--input-tokens", "0"], ["--input-tokens", "0"]),
    ("answer absurd", [*STATED, "--output-tokens", f"{10**12}"], ["--output-tokens"]),
    ("target without unit", [*STATED, "--tpot", "10"], ["--tpot", "unit"]),
    ("target zero", [*STATED, "--ttft", "0 s"], ["--ttft", "above 0"]),
    ("beams zero", [*STATED, "--beams", "0"], ["--beams"]),
    ("batch zero", [*STATED, "--batch", "0"], ["--batch"]),
    ("precision", [*STATED, "--precision", "int9"], ["int9"]),
    ("tp that divides nothing", [*STATED, "--tp", "3"], ["tp 3", "heads"]),
    ("experts of none", [*STATED, "--ep", "2"], ["experts"]),
    ("format", [*STATED, "--format", "xml"], ["--format"]),
    ("output into a missing folder", [*STATED, "-o", "no-such-folder/x"],
     ["--output"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD]
)
def test_bad_input_is_one_line_and_exit_code_2(
    genz: Genz, arguments: list[str], words: list[str]
) -> None:
    ran = genz(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    for word in words:
        assert word in ran.err
