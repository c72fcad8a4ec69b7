"""`genz-size estimate`: one deployment by options, or a table of them."""

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from problems.catalogue import load_npu
from sizing.points import INPUTS, OUTPUTS

Genz = Callable[..., Any]

DEPLOYMENT = ("--model", "llama-3.1-8b", "--npu", "h100-sxm")
TOKENS = ("--input-tokens", "1000", "--output-tokens", "200")
MODES = {
    "open_loop": ("--rate", "4 req/s"),
    "closed_loop": ("--concurrency", "16"),
    "static_batch": ("--concurrency", "16", "--mode", "static_batch"),
    "offline": ("--mode", "offline"),
}


def estimated(genz: Genz, *options: object) -> Any:
    ran = genz("estimate", *DEPLOYMENT, *TOKENS, *options, "--format", "json")
    assert ran.err == ""
    assert ran.code == 0
    return ran.json


def evaluated(genz: Genz, path: Path, text: str) -> list[dict[str, str]]:
    path.write_text(text, encoding="utf-8")
    ran = genz("estimate", "--points", path)
    assert ran.err == ""
    assert ran.code == 0
    return list(csv.DictReader(io.StringIO(ran.out)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "points.csv"


@pytest.mark.parametrize("mode", MODES)
def test_json(genz: Genz, mode: str) -> None:
    answer = estimated(genz, *MODES[mode])
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert 0 < answer[metric]["low"] < answer[metric]["mean"]
        assert answer[metric]["mean"] < answer[metric]["high"]
    assert answer["output_tokens_per_s"] == pytest.approx(
        200 * answer["requests_per_s"]
    )
    memory = answer["peak_memory_bytes"]
    parts = ("weights", "kv_cache", "activations")
    assert memory["total"] == pytest.approx(sum(memory[part] for part in parts))
    assert memory["total"] <= memory["usable"]


@pytest.mark.parametrize("tp", [1, 4])
def test_breakdown_shares_sum_to_one(genz: Genz, tp: int) -> None:
    answer = estimated(genz, "--tp", tp, "--rate", "4 req/s")
    assert set(answer["steps"]) == {"prompt step", "decode step"}
    for step in answer["steps"].values():
        shares = [operator["share"] for operator in step["operators"]]
        assert sum(shares) == pytest.approx(1)
        assert all(share > 0 for share in shares)
        assert all(operator["seconds"] > 0 for operator in step["operators"])
    decode = answer["steps"]["decode step"]["operators"]
    seconds = sum(operator["seconds"] for operator in decode)
    assert seconds <= answer["tpot_s"]["mean"] * (1 + 1e-9)
    reduces = [operator for operator in decode if operator["link_bytes"]]
    assert bool(reduces) == (tp > 1)


def test_text(genz: Genz) -> None:
    ran = genz("estimate", *DEPLOYMENT, *TOKENS, "--rate", "4 req/s")
    assert (ran.code, ran.err) == (0, "")
    first = ran.out.splitlines()[0]
    assert first.startswith("llama-3.1-8b in bf16 on 1 x (h100-sxm tp=1 pp=1)")
    for word in ("TTFT", "TPOT", "E2E", "output tokens/s", "usable", "decode step"):
        assert word in ran.out


SPECULATION = (
    *("--model", "llama-3.1-70b", "--npu", "h200", "--tp", 4, *TOKENS),
    *("--concurrency", 8, "--speculate", "llama-3.1-8b"),
    *("--guessed", 4, "--acceptance", 0.7),
)


def shares(out: str, row: str) -> list[float]:
    """The percentages of a row, by what a step's time goes to."""
    (line,) = (line for line in out.splitlines() if line.strip().startswith(row))
    return [float(cell[:-1]) for cell in line.split() if cell.endswith("%")]


def test_what_a_steps_time_goes_to(genz: Genz) -> None:
    ran = genz("estimate", *DEPLOYMENT, *TOKENS, "--tp", 2, "--rate", "4 req/s")
    assert (ran.code, ran.err) == (0, "")
    for step in ("prompt step", "decode step"):
        parts = shares(ran.out, step)
        assert len(parts) == 4, "compute, memory bandwidth, network, launch"
        assert sum(parts) == pytest.approx(100, abs=0.3)
        assert parts[2] > 0
    assert "gate_up_proj" not in ran.out, "operators only on request"


def test_breakdown_shows_every_operator(genz: Genz) -> None:
    load = (*DEPLOYMENT, *TOKENS, "--rate", "4 req/s")
    short, long = genz("estimate", *load), genz("estimate", *load, "--breakdown")
    assert (long.code, long.err) == (0, "")
    assert long.out.startswith(short.out)
    answer = estimated(genz, "--rate", "4 req/s")
    for step in answer["steps"].values():
        for operator in step["operators"]:
            assert f"\n{operator['name']} " in long.out
    assert max(map(len, long.out.splitlines())) <= 100


def test_operators_in_json(genz: Genz) -> None:
    answer = estimated(genz, "--tp", 2, "--rate", "4 req/s")
    for step in answer["steps"].values():
        operators = step["operators"]
        seconds = sum(operator["seconds"] for operator in operators)
        assert seconds == pytest.approx(sum(step["bound_s"].values()))
        for one in operators:
            assert one["bound"] in ("compute", "memory", "network", "launch")
            assert (one["intensity"] is None) == (one["bytes"] == 0)
            if one["bytes"]:
                flop = one["intensity"] * one["bytes"]
                assert flop == pytest.approx(one["flop"])
            assert 115 * one["seconds"] <= one["joules"] * (1 + 1e-9)
            assert one["joules"] <= 700 * one["seconds"] * (1 + 1e-9)


def test_a_drafters_operators_are_apart(genz: Genz) -> None:
    ran = genz("estimate", *SPECULATION)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    for step in ("prompt step", "decode step"):
        (at,) = (i for i, line in enumerate(lines) if line.startswith(step))
        assert lines[at + 1].startswith("  its drafter")
        own, drafted = shares(lines[at], step), shares(lines[at + 1], "its drafter")
        assert 0 < sum(drafted) < 100
        assert all(d <= o for d, o in zip(drafted, own, strict=True))
    answer = genz("estimate", *SPECULATION, "--format", "json").json
    runs = {o["name"]: o["count"] for o in answer["steps"]["decode step"]["operators"]}
    assert runs["gate_up_proj"] == 80
    assert runs["draft_gate_up_proj"] == 4 * 32


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # Three dense layers, and shared experts in the others, on 8 ranks.
        (
            "deepseek-v3",
            {"gate_up_proj 7168x4608": 3, "gate_up_proj 7168x512": 58, "norm": 122},
        ),
        # Windowed and full layers are alike but for what they attend to.
        ("gemma-3-27b", {"gate_up_proj": 62, "qkv_proj": 62, "attention_decode": 62}),
        # Pruned layer by layer: too many sizes to tell apart.
        ("nemotron-super-49b", {"gate_up_proj": 80, "qkv_proj": 49, "norm": 129}),
    ],
)
def test_products_of_few_sizes_are_apart(
    genz: Genz, model: str, expected: dict[str, int]
) -> None:
    load = ("--npu", "h200", "--tp", 8, *TOKENS, "--concurrency", 8)
    answer = genz("estimate", "--model", model, *load, "--format", "json").json
    found = answer["steps"]["decode step"]["operators"]
    runs = {operator["name"]: operator["count"] for operator in found}
    assert {name: runs.get(name) for name in expected} == expected
    products = [name for name in runs if name.startswith("gate_up_proj")]
    assert set(products) == {n for n in expected if n.startswith("gate_up_proj")}


def test_energy(genz: Genz) -> None:
    ran = genz("estimate", *DEPLOYMENT, *TOKENS, "--rate", "4 req/s")
    energy = estimated(genz, "--rate", "4 req/s")["energy"]
    each, watts = energy["joules_per_output_token"], energy["watts_per_npu"]
    assert 115 < watts < 700
    assert each == pytest.approx(watts / 800)  # 4 req/s of 200 tokens
    assert energy["joules_per_request"] == pytest.approx(200 * each)
    words = " ".join(ran.out.split())
    assert f"Energy: {each:.3g} J per output token" in words
    assert f"{watts:.3g} W per NPU of 700 W TDP" in words


def test_replicas_and_ranks_take_energy_each(genz: Genz) -> None:
    one, two = (
        estimated(genz, "--rate", f"{4 * n} req/s", "--replicas", n)["energy"]
        for n in (1, 2)
    )
    # Two replicas take turns: each sees more even arrivals, and a batch a little other.
    assert two == {name: pytest.approx(v, rel=1e-3) for name, v in one.items()}
    wide = estimated(genz, "--tp", 2, "--rate", "4 req/s")["energy"]
    per_token = 2 * wide["watts_per_npu"] / 800
    assert wide["joules_per_output_token"] == pytest.approx(per_token)


def test_an_npu_without_a_tdp_has_no_energy(genz: Genz) -> None:
    load = ("--model", "llama-3.1-8b", "--npu", "tpu-v5p", *TOKENS, "--concurrency", 4)
    ran = genz("estimate", *load, "--breakdown")
    assert (ran.code, ran.err) == (0, "")
    assert "Energy: unknown, the TDP of tpu-v5p is not published." in ran.out
    answer = genz("estimate", *load, "--format", "json").json
    assert answer["energy"] is None
    operators = answer["steps"]["decode step"]["operators"]
    assert {operator["joules"] for operator in operators} == {None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml version")]
)
def test_plot(genz: Genz, tmp_path: Path, ending: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    path, again = tmp_path / f"one.{ending}", tmp_path / f"two.{ending}"
    load = (*DEPLOYMENT, *TOKENS, "--rate", "4 req/s")
    ran = genz("estimate", *load, "--plot", path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == genz("estimate", *load).out, "the report is printed as well"
    assert path.read_bytes().startswith(start)
    assert genz("estimate", *load, "--plot", again).code == 0
    assert again.read_bytes() == path.read_bytes()


def test_plot_names_operators_and_roofs(genz: Genz, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    path = tmp_path / "plot.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        assert genz("estimate", *SPECULATION, "--plot", path).code == 0
    text = path.read_text(encoding="utf-8")
    for words in (
        *("prompt step: ", "decode step: ", "bf16 989 TFLOP/s", "slope 4.8 TB/s"),
        *("gate_up_proj ", "attention_prefill ", "draft_lm_head ", "mostly compute"),
    ):
        assert f">{words}" in text or words in text, words
    assert "all_reduce" not in text, "a collective has no place under a roofline"


@pytest.mark.parametrize("name", ["plot.jpg", "plot", "plot.png.gz"])
def test_a_plot_of_another_ending_is_refused(genz: Genz, name: str) -> None:
    ran = genz("estimate", *DEPLOYMENT, *TOKENS, "--plot", name)
    assert (ran.code, ran.out) == (2, "")
    assert "--plot" in ran.err
    assert f"'{name}' must end in .png or .svg" in ran.err


def test_a_plot_that_cannot_be_written(genz: Genz, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "nowhere" / "plot.png"
    ran = genz("estimate", *DEPLOYMENT, *TOKENS, "--concurrency", 4, "--plot", path)
    assert (ran.code, ran.out) == (2, "")
    assert f"cannot write {path}: there is no folder {path.parent}" in ran.err


def test_without_matplotlib(
    genz: Genz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("matplotlib", "matplotlib.axes", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("sizing.report.roofline_plot", "sizing.report.image"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    path = tmp_path / "plot.png"
    ran = genz("estimate", *DEPLOYMENT, *TOKENS, "--concurrency", 4, "--plot", path)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert "pip install matplotlib" in ran.err
    assert not path.exists()


def test_only_a_plot_imports_matplotlib() -> None:
    code = (
        "import sys; from sizing.cli import _run;"
        "_run(['estimate', '--model', 'llama-3.1-8b', '--npu', 'l40s',"
        " '--input-tokens', '9', '--output-tokens', '9', '--breakdown']);"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_rate_is_what_arrives(genz: Genz) -> None:
    answer = estimated(genz, "--rate", "4 req/s", "--replicas", 2)
    assert answer["requests_per_s"] == pytest.approx(4)


def test_ideal_kernels_are_faster(genz: Genz) -> None:
    real, ideal = (
        estimated(genz, "--concurrency", 1, *extra) for extra in ((), ("--ideal",))
    )
    assert ideal["tpot_s"]["mean"] < real["tpot_s"]["mean"]


def test_twice_the_replicas_at_twice_the_load_are_as_fast(genz: Genz) -> None:
    one = estimated(genz, "--concurrency", 16)
    two = estimated(genz, "--concurrency", 32, "--replicas", 2)
    assert two["tpot_s"]["mean"] == pytest.approx(one["tpot_s"]["mean"])
    assert two["output_tokens_per_s"] == pytest.approx(2 * one["output_tokens_per_s"])


def test_one_output_token_is_no_overload(genz: Genz) -> None:
    load = ("--input-tokens", "1000", "--output-tokens", "1", "--rate", "1 req/s")
    ran = genz("estimate", *DEPLOYMENT, *load)
    assert ran.code == 0 or "output" in ran.err, ran.err
    assert "0 us" not in ran.out, "one token has no time per further token"


def test_end_to_end_takes_longer_than_the_first_token(genz: Genz) -> None:
    answer = estimated(genz, "--input-tokens", "20000", "--output-tokens", "2")
    for side in ("low", "mean", "high"):
        assert answer["e2e_s"][side] >= answer["ttft_s"][side] * (1 - 1e-9), side


def test_output_file(genz: Genz, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    ran = genz("estimate", *DEPLOYMENT, *TOKENS, "-o", path)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert path.read_text(encoding="utf-8").startswith("{")


HEADER = "model,npu,input_tokens,output_tokens,concurrency,request_rate,mode\n"
PLACE = "llama-3.1-8b,h100-sxm,1000,200"


def test_points_keep_rows_order_and_columns(genz: Genz, path: Path) -> None:
    rows = evaluated(
        genz,
        path,
        "npu,model,tp,input_tokens,output_tokens,concurrency\n"
        "h100-sxm,llama-3.1-8b,1,1000,200,4\n"
        "l40s,mistral-7b,1,300,50,2\n"
        "h100-sxm,llama-3.1-8b,2,1000,200,4\n"
        "h100-sxm,llama-3.1-8b,1,500,100,4\n",
    )
    assert list(rows[0]) == [*INPUTS, *OUTPUTS]
    assert [row["npu"] for row in rows] == ["h100-sxm", "l40s", "h100-sxm", "h100-sxm"]
    assert [row["tp"] for row in rows] == ["1", "1", "2", "1"]
    assert [row["input_tokens"] for row in rows] == ["1000", "300", "1000", "500"]
    for row in rows:
        assert row["error"] == ""
        assert row["bound_by"]
        for metric in ("ttft", "tpot"):
            assert float(row[f"{metric}_p99_ms"]) >= float(row[f"{metric}_ms"])
        for metric in ("ttft_ms", "tpot_ms", "e2e_ms", "output_tok_s"):
            assert float(row[f"{metric}_low"]) < float(row[metric])
            assert float(row[metric]) < float(row[f"{metric}_high"])


def test_points_of_closed_loops_have_percentiles_row_by_row(
    genz: Genz, path: Path
) -> None:
    # Of one array or of another: a row's figures are its own.
    lines = [
        f"{PLACE},4,,\n",
        f"{PLACE.replace('200', '500')},4,,\n",
        f"{PLACE},300,,closed_loop\n",
        f"{PLACE.replace('200', '1')},4,,\n",
        f"{PLACE},4000,,\n",
    ]
    rows = evaluated(genz, path, HEADER + "".join(lines))
    for line, row in zip(lines, rows, strict=True):
        (alone,) = evaluated(genz, path, HEADER + line)
        for metric in ("ttft_p99_ms", "tpot_p99_ms"):
            assert float(alone[metric]) == pytest.approx(float(row[metric]), rel=1e-5)
    few, _, many, one_token, crowd = rows
    assert float(one_token["tpot_p99_ms"]) == 0
    assert float(few["tpot_p99_ms"]) < float(many["tpot_p99_ms"])
    # Of a crowd that starts at once the slowest are late already.
    assert float(crowd["ttft_p99_ms"]) > float(many["ttft_p99_ms"])


def test_points_that_start_together_have_no_percentiles(genz: Genz, path: Path) -> None:
    rows = evaluated(
        genz, path, HEADER + f"{PLACE},4,,static_batch\n" + f"{PLACE},,,offline\n"
    )
    for row in rows:
        assert row["error"] == ""
        assert row["ttft_p99_ms"] == row["tpot_p99_ms"] == "", "predicts means alone"


def test_an_error_in_one_row_leaves_the_others(genz: Genz, path: Path) -> None:
    rows = evaluated(
        genz,
        path,
        HEADER
        + f"{PLACE},4,,\n"
        + f"{PLACE.replace('8b', '9b')},4,,\n"
        + f"{PLACE.replace('h100-sxm', 'h101-sxm')},4,,\n"
        + f"{PLACE.replace('1000', '0')},4,,\n"
        + f"{PLACE.replace('1000', 'many')},4,,\n"
        + f"{PLACE.replace('1000', '')},4,,\n"
        + f"{PLACE.replace('8b', '405b')},4,,\n"
        + f"{PLACE},,1000,\n"
        + f"{PLACE},,,closed\n"
        + f"{PLACE},,,static_batch\n"
        + f"{PLACE},nan,,\n"
        + f"{PLACE},-3,,\n"
        + f"{PLACE},4,,\n",
    )
    words = [
        "",
        "'llama-3.1-8b'",
        "'h100-sxm'",
        "input_tokens",
        "'many'",
        "input_tokens",
        "memory",
        "request_rate",
        "'closed_loop'",
        "concurrency",
        "concurrency",
        "concurrency",
        "",
    ]
    for row, word in zip(rows, words, strict=True):
        assert word in row["error"]
        assert bool(row["error"]) == bool(word), row["error"]
        assert bool(row["tpot_ms"]) == (not word)
    assert rows[0] == rows[-1]


def test_a_row_longer_than_the_model_was_made_for_is_predicted(
    genz: Genz, path: Path
) -> None:
    # Measured tables have such rows: time and memory do not depend on training.
    (row,) = evaluated(genz, path, HEADER + f"{PLACE.replace('1000', '200000')},4,,\n")
    assert row["error"] == ""
    assert float(row["ttft_ms"]) > 0


def test_blank_cells_take_defaults(genz: Genz, path: Path) -> None:
    header = (
        "model,npu,num_npus,tp,pp,ep,dp,weight_dtype,kv_dtype,framework,"
        "input_tokens,output_tokens,concurrency,request_rate,mode\n"
    )
    start = "llama-3.1-8b,h100-sxm"
    blank, stated, spread, named = evaluated(
        genz,
        path,
        header
        + f"{start},,,,,,,,,1000,200,16,,\n"
        + f"{start},1,1,1,1,1,bf16,bf16,vllm,1000,200,16,,closed_loop\n"
        + f"{start},4,,,,,,,,1000,200,16,,\n"
        + f"{start},4,4,1,1,1,,,,1000,200,16,,\n",
    )
    for name in OUTPUTS:
        assert blank[name] == stated[name]
        assert spread[name] == named[name]
    assert blank["tpot_ms"] != spread["tpot_ms"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tp", [1, 2])
def test_points_agree_with_the_single_command(
    genz: Genz, path: Path, mode: str, tp: int
) -> None:
    options = dict(zip(MODES[mode][::2], MODES[mode][1::2], strict=True))
    rate = options.get("--rate", "").removesuffix(" req/s")
    (row,) = evaluated(
        genz,
        path,
        HEADER.replace("\n", ",tp\n")
        + f"{PLACE},{options.get('--concurrency', '')},{rate},{mode},{tp}\n",
    )
    one = estimated(genz, *MODES[mode], "--tp", tp)
    assert row["error"] == ""
    for metric in ("ttft", "tpot", "e2e"):
        for column, key in (("", "mean"), ("_low", "low"), ("_high", "high")):
            assert float(row[f"{metric}_ms{column}"]) == pytest.approx(
                one[f"{metric}_s"][key] * 1e3, rel=1e-4
            )
    assert float(row["output_tok_s"]) == pytest.approx(
        one["output_tokens_per_s"], rel=1e-4
    )
    # The table says what a measurement shows: with what the driver takes.
    used = one["peak_memory_bytes"]["total"] + load_npu("h100-sxm").runtime_reserve
    assert float(row["memory_gb"]) == pytest.approx(used / 1e9, rel=1e-4)


def test_replicas_share_the_concurrency(genz: Genz, path: Path) -> None:
    one, four = evaluated(
        genz,
        path,
        "model,npu,num_npus,tp,input_tokens,output_tokens,concurrency\n"
        "llama-3.1-8b,h100-sxm,1,1,1000,200,8\n"
        "llama-3.1-8b,h100-sxm,4,1,1000,200,32\n",
    )
    assert one["tpot_ms"] == four["tpot_ms"]
    assert float(four["output_tok_s"]) == pytest.approx(
        4 * float(one["output_tok_s"]), rel=1e-4
    )


def test_results_can_be_evaluated_again(genz: Genz, path: Path, tmp_path: Path) -> None:
    path.write_text(HEADER + f"{PLACE},4,,\n", encoding="utf-8")
    again = tmp_path / "again.csv"
    ran = genz("estimate", "--points", path, "-o", again)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert genz("estimate", "--points", again).out == again.read_text(encoding="utf-8")


def test_a_table_saved_by_a_spreadsheet(genz: Genz, path: Path) -> None:
    path.write_text(HEADER + f"{PLACE},4,,\n", encoding="utf-8-sig", newline="\r\n")
    ran = genz("estimate", "--points", path)
    assert (ran.code, ran.err) == (0, "")
    assert "\r" not in ran.out
    (row,) = csv.DictReader(io.StringIO(ran.out))
    assert row["error"] == ""


def test_a_table_of_a_header_alone(genz: Genz, path: Path) -> None:
    assert evaluated(genz, path, HEADER) == []


@pytest.mark.slow
def test_twenty_thousand_rows(process: Genz, path: Path, tmp_path: Path) -> None:
    rows = (
        f"llama-3.1-8b,{npu},{tokens},{answer},{users},,\n"
        for npu in ("h100-sxm", "l40s", "a100-80gb-sxm", "mi300x")
        for tokens in range(100, 1100, 10)
        for answer in range(10, 510, 100)
        for users in range(1, 11)
    )
    path.write_text(HEADER + "".join(rows), encoding="utf-8")
    out = tmp_path / "out.csv"
    ran = process("estimate", "--points", path, "-o", out)
    assert (ran.code, ran.err) == (0, "")
    with out.open(encoding="utf-8", newline="") as file:
        results = list(csv.DictReader(file))
    assert len(results) == 20_000
    assert not any(row["error"] for row in results)
    assert [r["input_tokens"] for r in results[:60:50]] == ["100", "110"]
