"""``genz-size validate``: rows answered, scores by hand, files in and out."""

import csv
import io
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.pair import Pair
from problems.measured.served import served
from problems.measured.shipped import FOLDER
from problems.measured.tables import read_table
from sizing.points import evaluate
from sizing.validate import finite, mlperf, operators, pools, requests
from sizing.validate import served as serving
from sizing.validate.answers import Answer, figure
from sizing.validate.deployed import Deployed
from sizing.validate.layouts import legal
from sizing.validate.pools import Workers
from sizing.validate.score import score
from sizing.validate.scored import Scored
from sizing.validate.steady import _tail

Genz = Callable[..., Any]

SERVED = {
    "source_id": "x",
    "model": "Llama-3.1-8B",
    "hardware": "H100-SXM-80GB",
    "num_accelerators": "1",
    "tp": "1.0",
    "pp": "1.0",
    "ep": "",
    "dp": "",
    "weight_dtype": "fp8",
    "kv_dtype": "",
    "framework": "vLLM 0.19.0",
    "isl": "1024.0",
    "osl": "128",
    "batch_or_concurrency": "8.0",
    "request_rate": "inf",
    "metric": "tpot_ms",
    "stat": "mean",
    "value": "10.0",
    "notes": "",
    "load_mode": "closed_loop",
    "trust": "B",
    "group_id": "g",
    "model_family": "llama",
    "arch_class": "dense_gqa",
}


def _table(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def _answer(**cells: str) -> Answer:
    (found,) = serving.answers([SERVED | cells])
    return found


def _scored(predicted: float, measured: float, group: str, **more: Any) -> Scored:
    answer = Answer(predicted, more.get("low", math.nan), more.get("high", math.nan))
    return Scored({}, "ttft_ms", measured, "A", group, {}, answer)


def test_a_row_is_answered_as_a_point_of_a_points_table() -> None:
    point = {
        "model": "llama-3.1-8b",
        "npu": "h100-sxm",
        "num_npus": "1",
        "tp": "1",
        "weight_dtype": "fp8",
        "framework": "vllm",
        "input_tokens": "1024",
        "output_tokens": "128",
        "concurrency": "8",
        "mode": "closed_loop",
    }
    (cells,) = evaluate([point])
    found = _answer()
    assert found.predicted == pytest.approx(float(cells["tpot_ms"]))
    assert found.low == pytest.approx(float(cells["tpot_ms_low"]))
    assert found.high == pytest.approx(float(cells["tpot_ms_high"]))
    tokens = float(cells["output_tok_s"])
    assert _answer(metric="req_s").predicted == pytest.approx(tokens / 128)
    total = _answer(metric="total_tok_s").predicted
    assert total == pytest.approx(tokens * (1024 + 128) / 128)


def test_a_row_that_cannot_be_answered_says_why_and_the_others_go_on() -> None:
    rows = [SERVED, SERVED | {"model": "Nobody-9B"}, SERVED | {"load_mode": "x"}]
    known, model, load = serving.answers(rows)
    assert known.given
    assert "unknown model 'Nobody-9B'" in model.reason
    assert "load_mode: unknown 'x'" in load.reason


def test_accelerators_beyond_the_degrees_are_replicas() -> None:
    one = _answer(metric="output_tok_s")
    # Four times the users on four replicas: each does what one did, in six digits.
    four = {"num_accelerators": "4", "batch_or_concurrency": "32"}
    assert _answer(metric="output_tok_s", **four).predicted == pytest.approx(
        4 * one.predicted, rel=1e-5
    )


def test_heads_that_do_not_divide_take_fewer_ranks() -> None:
    row = SERVED | {"num_accelerators": "12", "tp": "24", "dp": "1.0"}
    deployed = Deployed.of(served(row))
    # 12 chips of two cores; 32 heads, 8 of them with keys: 8 ranks at most.
    assert legal(deployed.arch, 12) == 8
    assert deployed.layout.tp == 8
    assert serving.answers([row])[0].given


def test_a_static_batch_beyond_the_memory_is_served_in_turn() -> None:
    crowd = {"load_mode": "static_batch", "isl": "8000", "weight_dtype": "bf16"}
    fits = _answer(metric="e2e_ms", batch_or_concurrency="8", **crowd)
    crowded = _answer(metric="e2e_ms", batch_or_concurrency="4000", **crowd)
    # 500 times the requests take longer, but not as long as one batch of eight a time.
    assert fits.predicted < crowded.predicted < 500 * fits.predicted


def test_arrivals_beyond_the_saturation_queue_until_the_last_is_served() -> None:
    overload = {
        "load_mode": "open_loop_overload",
        "request_rate": "500",
        "batch_or_concurrency": "64",
        "isl": "1024",
        "osl": "32",
        "notes": "100 requests",
    }
    assert finite.requests_of(served(SERVED | overload)) == 100
    waited = _answer(metric="ttft_ms", stat="p99", **overload).predicted
    idle = _answer(metric="ttft_ms", **overload | {"request_rate": "0.1"}).predicted
    assert waited > 10 * idle
    served_a_second = _answer(metric="req_s", **overload).predicted
    assert served_a_second < 500


def test_a_burst_takes_as_long_as_its_requests() -> None:
    burst = {"load_mode": "burst_50", "request_rate": "inf", "osl": "8"}
    rate = _answer(metric="req_s", **burst).predicted
    last = _answer(metric="e2e_ms", stat="p99", **burst).predicted
    # The last of fifty finishes when all have: 50 requests over that time.
    assert rate == pytest.approx(50 / (last / 1e3), rel=0.05)


@pytest.mark.parametrize(
    ("notes", "prefill", "decode"),
    [
        (
            "DISAGG prefill 2x(tp4,attn_dp1,ep4) decode 1x(tp1,attn_dp8,ep8)",
            Workers(2, 4, 1, 4),
            Workers(1, 1, 8, 8),
        ),
        ("DISAGG 1P:3D; more", Workers(1, 2, 1, 1), Workers(3, 2, 1, 1)),
        ("nothing", Workers(2, 2, 1, 1), Workers(2, 2, 1, 1)),
        (
            "OUTPUT tok/s per 8-GPU decode node; 12-node deployment",
            Workers(1, 1, 32, 32),
            Workers(1, 1, 64, 64),
        ),
    ],
)
def test_workers_of_a_disaggregated_row(
    notes: str, prefill: Workers, decode: Workers
) -> None:
    more = {"notes": notes, "num_accelerators": "8", "tp": "2"}
    row = served(SERVED | more | {"load_mode": "closed_loop_disagg"})
    assert pools.workers_of(row, row.layout) == (prefill, decode)


def test_groups_that_attend_alone_deal_experts_where_no_one_says_so() -> None:
    def pair(ep: int) -> Pair:
        workers = f"1x(tp1,attn_dp8,ep{ep})"
        notes = f"prefill {workers} decode {workers}"
        more = {"model": "DeepSeek-R1", "notes": notes, "num_accelerators": "16"}
        return pools.pair_of(served(SERVED | DISAGGREGATED | more))

    assert pair(1).decode.replica.parallelism == Parallelism(1, 1, ep=8, dp=8)
    assert pair(2).decode.replica.parallelism == Parallelism(1, 1, ep=2, dp=8)


def test_figures_of_a_node_are_its_share_of_a_pool() -> None:
    notes = "INPUT tok/s per 8-GPU prefill node; 12-node deployment"
    more = DISAGGREGATED | {"notes": notes, "batch_or_concurrency": ""}
    pair = pools.pair_of(served(SERVED | more))
    read = _answer(metric="total_tok_s", **more).predicted
    prompt = pair.profile.prompt.mean
    assert read == pytest.approx(pair.rates["prefill"] * prompt * 8 / 32)


def test_requests_that_arrive_see_the_laws_of_the_pair() -> None:
    more = DISAGGREGATED | {
        "load_mode": "open_loop_disagg",
        "batch_or_concurrency": "",
        "request_rate": "1",
    }
    laws = pools.pair_of(served(SERVED | more)).latencies(1.0)
    for statistic in ("mean", "p99"):
        found = _answer(metric="ttft_ms", stat=statistic, **more).predicted
        assert found == pytest.approx(1e3 * float(getattr(laws.ttft, statistic)))


DISAGGREGATED = {
    "load_mode": "closed_loop_disagg",
    "notes": "DISAGG 1P:1D",
    "num_accelerators": "2",
    "batch_or_concurrency": "64",
}


def test_pools_obey_littles_law() -> None:
    found = {
        name: _answer(metric=name, **DISAGGREGATED).predicted
        for name in ("ttft_ms", "tpot_ms", "e2e_ms", "req_s")
    }
    assert found["e2e_ms"] == pytest.approx(
        found["ttft_ms"] + 127 * found["tpot_ms"], rel=1e-6
    )
    assert found["req_s"] * found["e2e_ms"] / 1e3 == pytest.approx(64, rel=1e-6)


MLPERF = {
    "model": "Llama-2-70B",
    "benchmark": "llama2-70b-99.9",
    "scenario": "Server",
    "hardware": "H200-SXM-141GB",
    "num_accelerators": "8",
    "tp": "1.0",
    "pp": "1.0",
    "replicas_dp": "8.0",
    "weight_dtype": "fp8",
    "slo_ttft_p99_ms": "2000.0",
    "slo_tpot_p99_ms": "200.0",
    "mean_osl": "293",
    "achieved_req_s": "110",
}


def test_tighter_limits_and_fewer_accelerators_sustain_less() -> None:
    rows = [
        MLPERF,
        MLPERF | {"slo_ttft_p99_ms": "450.0", "slo_tpot_p99_ms": "40.0"},
        MLPERF | {"num_accelerators": "4", "replicas_dp": "4.0"},
        MLPERF | {"tp": "", "pp": "", "replicas_dp": ""},
    ]
    loose, tight, fewer, free = (a.predicted for a in mlperf.answers(rows))
    assert tight < loose
    assert fewer < loose < 2.2 * fewer
    # A layout of one's own choice is no worse than a given one.
    assert free >= loose


def test_unpublished_formats_are_those_that_are_fastest() -> None:
    rows = [
        MLPERF | {"weight_dtype": "", "kv_dtype": ""},
        MLPERF | {"kv_dtype": "fp8"},
        MLPERF | {"kv_dtype": "bf16"},
    ]
    unstated, fp8, bf16 = (a.predicted for a in mlperf.answers(rows))
    assert unstated == fp8 > bf16


def test_the_most_offline_is_no_less_than_what_limits_leave() -> None:
    path = "closed/A/8xH200/llama2-70b-99/{}; status=available"
    common = {
        "model": "Llama-2-70B",
        "hardware": "H200-SXM-141GB",
        "num_accelerators": "8",
        "metric": "req_s",
    }
    free, bound = (
        _answer(**common, load_mode=mode, notes=path.format(name), osl="293", isl="")
        for mode, name in (("offline_max", "Offline"), ("poisson_server", "Server"))
    )
    assert free.predicted > bound.predicted
    tokens = _answer(
        **(common | {"metric": "output_tok_s"}),
        load_mode="offline_max",
        notes=path.format("Offline"),
        osl="293",
        isl="",
    )
    assert tokens.predicted == pytest.approx(293 * free.predicted)


def test_beams_take_their_time() -> None:
    path = "closed/A/x/{}/SingleStream; status=available"
    common = {"load_mode": "single_stream", "metric": "e2e_ms", "isl": "778"}
    gptj, mean, late = (
        _answer(**common, model=model, notes=path.format(name), osl="", stat=stat)
        for model, name, stat in (
            ("GPT-J-6B", "gptj-99", "mean"),
            ("Llama-3.1-8B", "llama3_1-8b", "mean"),
            ("GPT-J-6B", "gptj-99", "p99"),
        )
    )
    assert gptj.given
    assert mean.given
    assert late.predicted > gptj.predicted


def test_attention_over_requests_takes_the_same_accelerators() -> None:
    note = {"notes": "max-load; MoE run with enable_attention_dp", "osl": "1000"}
    row = {
        "model": "Qwen3-235B-A22B",
        "hardware": "H200-SXM-141GB",
        "num_accelerators": "8",
        "tp": "8",
        "load_mode": "offline_max",
        "batch_or_concurrency": "",
        "metric": "output_tok_s",
    }
    split = Deployed.of(served(SERVED | row | note)).layout
    assert (split.npus, split.tp, split.ep, split.dp) == (8, 1, 8, 8)
    dense = Deployed.of(served(SERVED | row | note | {"model": "Llama-3.1-70B"})).layout
    assert (dense.tp, dense.ep) == (8, None)
    assert _answer(**row, **note).given


def test_limits_that_nothing_keeps_are_refused() -> None:
    (found,) = mlperf.answers([MLPERF | {"slo_ttft_p99_ms": "0.01"}])
    assert "takes longer" in found.reason


def test_operators_in_the_unit_of_their_table() -> None:
    row = {
        "system": "h100_sxm",
        "framework": "trtllm",
        "version": "1.0.0",
        "gemm_dtype": "bfloat16",
        "m": "8192",
        "n": "8192",
        "k": "8192",
        "latency_ms": "1.5",
    }
    (found,) = operators.answers([row])
    # 2 x 8192^3 FLOP at 989 TFLOP/s take 1.11 ms; kernels reach a share of that rate.
    ideal = 2 * 8192**3 / 989e12 * 1e3
    assert ideal < found.predicted < 2 * ideal
    assert operators.value(row) == "latency_ms"
    (unknown,) = operators.answers([{"system": "h100_sxm", "latency_ms": "1"}])
    assert "no reader" in unknown.reason


def test_a_run_is_replayed_request_by_request() -> None:
    rows = [
        {
            "run": "H100-SXM-80GB/Llama-3.1-8B",
            "input_toks": "512",
            "output_toks": str(tokens),
            "queued_s": str(10.0 * number),
            "first_token_s": "0",
            "last_token_s": "0",
        }
        for number, tokens in enumerate((1, 64, 128))
    ]
    found = requests.answers(rows)
    ttft = [answer.predicted for answer in found["ttft"]]
    # Ten seconds apart, requests meet an empty engine.
    assert ttft == pytest.approx([ttft[0]] * 3, rel=1e-6)
    short, long = found["e2e"][1:]
    per_token = found["tpot"][2].predicted
    assert long.predicted == pytest.approx(ttft[2] + 127 * per_token)
    assert short.predicted < long.predicted
    assert not found["tpot"][0].given


def test_scores_by_hand() -> None:
    rows = [
        _scored(math.e, 1.0, "a", low=2.0, high=3.0),
        _scored(math.e, math.e, "a", low=2.0, high=3.0),
        _scored(1.0, 1.0, "a", low=0.5, high=2.0),
        _scored(1.0, math.exp(2.0), "b", low=1.0, high=9.0),
        Scored({}, "ttft_ms", 1.0, "A", "b", {}, Answer(reason="no")),
    ]
    found = score(rows)
    assert (found.n, found.answered, found.groups) == (5, 4, 2)
    # Group a has errors 1, 0, 0; group b has -2.
    assert found.median_abs_ln_error == pytest.approx((0 + 2) / 2)
    assert found.bias == pytest.approx((0 - 2) / 2)
    assert found.p90 == pytest.approx((0.8 + 2) / 2)
    assert found.coverage == pytest.approx((2 / 3 + 1) / 2)
    nothing = score([rows[-1]])
    assert (nothing.answered_share, nothing.median_abs_ln_error) == (0.0, None)


def test_yes_or_no_is_right_or_off_by_one() -> None:
    assert _scored(0.0, 0.0, "a").error == 0.0
    assert _scored(1.0, 0.0, "a").error == 1.0
    assert _scored(0.0, 1.0, "a").error == -1.0


def test_a_figure_that_is_none_is_refused() -> None:
    assert figure(math.inf).reason == "the model gives inf"
    assert figure(0.0).reason == "the model gives 0"


def test_rows_and_scores_of_a_file(genz: Genz, tmp_path: Path) -> None:
    data = _table(
        tmp_path / "data.csv",
        [
            SERVED,
            SERVED | {"model": "Nobody-9B"},
            SERVED | {"trust": "C"},
            SERVED | {"metric": "ttft_ms", "stat": "p99", "value": ""},
        ],
    )
    output = tmp_path / "rows.csv"
    ran = genz("validate", "--data", data, "-o", output, "--format", "json")
    assert ran.code == 0
    assert "data.csv: 4 rows compared" in ran.err
    first, unknown, loose, blank = csv.DictReader(io.StringIO(output.read_text()))
    assert {name: first[name] for name in SERVED} == SERVED
    predicted = float(first["predicted"])
    assert float(first["error"]) == pytest.approx(math.log(predicted / 10), abs=1e-5)
    assert float(first["low"]) <= predicted <= float(first["high"])
    assert loose["predicted"] == first["predicted"]
    assert (unknown["predicted"], unknown["error"]) == ("", "")
    assert "unknown model" in unknown["reason"]
    assert "value: '' is no measured value" in blank["reason"]
    table = ran.json["tables"]["e2e"]
    assert (table["rows"], table["untrusted"]) == (4, 1)
    metric = table["metrics"]["tpot_ms"]
    assert (metric["n"], metric["answered"], metric["answered_share"]) == (2, 1, 0.5)
    assert metric["median_abs_ln_error"] == pytest.approx(abs(metric["bias"]))
    assert {"p90", "coverage"} <= set(metric)
    assert table["by"]["device"]["H100-SXM-80GB"]["tpot"]["n"] == 2
    assert table["metrics"]["ttft_ms_p99"]["answered"] == 0


def test_text_and_markdown_show_the_same_scores(genz: Genz, tmp_path: Path) -> None:
    rows = [SERVED, SERVED | {"hardware": "H200-SXM-141GB", "group_id": "h"}]
    data = _table(tmp_path / "data.csv", rows)
    text = genz("validate", "--data", data).out
    page = genz("validate", "--data", data, "--format", "markdown").out
    for written in (text, page):
        assert "e2e: 2 measurements" in written
        assert "by device" in written
        assert "H200-SXM-141GB" in written
    assert page.startswith("# Predicted against measured")


def test_laws_of_the_errors(genz: Genz, tmp_path: Path) -> None:
    rows = [
        SERVED | {"value": str(value), "group_id": f"g{value}", "source_id": source}
        for value in (5, 10, 20)
        for source in ("a", "b")
    ]
    rows += [
        SERVED | {"trust": "C"},
        SERVED | {"stat": "p99"},
        SERVED | {"load_mode": "closed_loop_disagg"},
    ]
    data = _table(tmp_path / "data.csv", rows)
    found = tomllib.loads(genz("validate", "--data", data, "--laws").out)["laws"]
    (law,) = (
        law
        for law in found
        if (law["mode"], law["metric"], law["evidence"])
        == ("closed_loop", "tpot", "measured")
    )
    assert (law["rows"], law["groups"]) == (6, 3)
    # The middle one of three values over the prediction.
    middle = 10.0 / _answer().predicted
    assert law["quantiles"][4] == pytest.approx(middle, rel=1e-3)


def test_a_plot_of_predicted_against_measured(genz: Genz, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    data, image = tmp_path / "data.csv", tmp_path / "plot.svg"
    _table(data, [SERVED, SERVED | {"metric": "ttft_ms"}, SERVED | {"trust": "C"}])
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        assert genz("validate", "--data", data, "--plot", image).code == 0
    drawn = image.read_text(encoding="utf-8")
    assert "e2e: tpot (1)" in drawn
    assert "e2e: ttft (1)" in drawn
    _table(data, [SERVED | {"model": "Nobody-9B"}])
    assert (
        "no row has a prediction"
        in genz("validate", "--data", data, "--plot", image).err
    )


def test_a_percentile_of_e2e_is_the_mean_and_the_longer_tail() -> None:
    cells = {"ttft_ms": "100", "ttft_p99_ms": "400", "tpot_ms": "10"}
    assert _tail(cells, "ttft", "p99", 10.0) == 300.0
    assert _tail(cells, "tpot", "p99", 10.0) == 0.0
    assert _tail(cells, "e2e", "p99", 10.0) == 300.0
    longer = cells | {"tpot_p99_ms": "50"}
    assert _tail(longer, "e2e", "p99", 10.0) == 10 * (50 - 10)


@pytest.mark.parametrize(
    ("given", "message"),
    [("absent.csv", "there is no file"), ("other.csv", "no table of measurements")],
)
def test_files_that_cannot_be_scored(
    genz: Genz, tmp_path: Path, given: str, message: str
) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    ran = genz("validate", "--data", tmp_path / given)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


@pytest.mark.slow
def test_every_row_of_the_shipped_results_can_be_answered() -> None:
    rows = read_table(FOLDER / "e2e.csv.gz").rows[::61]
    found = serving.answers(rows)
    assert [answer.reason for answer in found if not answer.given] == []
