"""Measured data as it is read: names, cells, kinds of tables, layouts."""

import gzip
from pathlib import Path

import pytest

from model_ops.dtypes import Dtype
from model_ops.errors import CatalogueError, DeploymentError, ProblemError
from problems.measured import cells
from problems.measured.generations import framework_at
from problems.measured.memory import Held, memory_truth
from problems.measured.mlperf import sustained, sustained_of
from problems.measured.names import dtype, framework_name, model_name, npu_name
from problems.measured.requests import measured
from problems.measured.served import Arrival, served
from problems.measured.shipped import FOLDER, shipped
from problems.measured.tables import OPERATORS, read_table
from problems.measured.workloads import MLPERF, UNKNOWN, workload

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
    "metric": "ttft_ms",
    "stat": "unspecified",
    "value": "12.5",
    "load_mode": "closed_loop",
    "notes": "",
}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("H100-80GB", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("h100_pcie", "h100-pcie"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb-sxm"),
        ("AMD Instinct MI300X", "mi300x"),
        ("RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server"),
        ("MI300X+MI325X-mixed", "mi300x"),
    ],
)
def test_npus_as_benchmarks_spell_them(given: str, name: str) -> None:
    assert npu_name(given) == name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("amd/Llama-3.1-405B-Instruct-FP8-KV", "llama-3.1-405b"),
        ("nvidia/DeepSeek-R1-0528-FP4", "deepseek-r1"),
        ("Qwen/Qwen3-32B-FP8", "qwen3-32b-fp8"),
        ("llama2_70b", "llama-2-70b"),
    ],
)
def test_models_as_benchmarks_spell_them(given: str, name: str) -> None:
    assert model_name(given) == name


def test_what_makes_another_model_is_never_cut_off() -> None:
    # Another architecture under the name of its teacher, and a longer context.
    assert model_name("DeepSeek-R1-Distill-Llama-70B") == "llama-3.3-70b"
    with pytest.raises(CatalogueError, match="DeepSeek-R1-Distill-Other"):
        model_name("DeepSeek-R1-Distill-Other-3B")
    with pytest.raises(CatalogueError, match="unknown npu 'V100-SXM-32GB'"):
        npu_name("V100-SXM-32GB")


@pytest.mark.parametrize(
    ("given", "vendor", "form"),
    [
        ("", "", None),
        ("fp8_block", "", Dtype.FP8_BLOCK),
        ("gguf-q4_k_m", "", Dtype.Q4_K_M),
        ("w4a16", "", Dtype.INT4),
        ("w4a16_mxfp4", "", Dtype.MXFP4),
        ("w8a8_fp8", "", Dtype.FP8),
        ("fp4", "NVIDIA", Dtype.NVFP4),
        ("fp4", "AMD", Dtype.MXFP4),
    ],
)
def test_formats(given: str, vendor: str, form: Dtype | None) -> None:
    assert dtype(given, vendor=vendor) is form


def test_a_format_that_is_none() -> None:
    with pytest.raises(DeploymentError, match="unknown dtype 'posit'"):
        dtype("posit")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("trtllm 1.3.0rc1", "tensorrt-llm"),
        ("vLLM-Ascend", "vllm"),
        ("llama.cpp (llama-bench)", "llama-cpp"),
        ("NVIDIA NeMo/TensorRT-LLM (version not stated)", "tensorrt-llm"),
        ("sambaflow", ""),
    ],
)
def test_frameworks_without_their_versions(given: str, name: str) -> None:
    assert framework_name(given) == name


def test_blank_cells_are_not_zero() -> None:
    row = {"a": " ", "b": "inf", "c": "2.0", "d": "2.5", "e": "x", "f": "nan"}
    assert cells.number(row, "a") is None
    assert cells.finite(row, "b") is None
    assert cells.count(row, "c") == 2
    assert cells.number(row, "f") is None
    assert cells.degree(row, "d") is None
    with pytest.raises(ProblemError, match="g: -1 is below zero"):
        cells.finite({"g": "-1"}, "g")
    with pytest.raises(ProblemError, match=r"d: 2\.5 must be a whole number"):
        cells.count(row, "d")
    with pytest.raises(ProblemError, match="e: 'x' is not a number"):
        cells.number(row, "e")
    with pytest.raises(ProblemError, match="a: '' is no measured value"):
        cells.measured(row, "a")


def test_a_serving_result() -> None:
    read = served(SERVED)
    assert (read.model, read.npu, read.framework) == (
        "llama-3.1-8b",
        "h100-sxm",
        "vllm",
    )
    assert (read.arrival, read.concurrency, read.rate) == (Arrival.CLOSED_LOOP, 8, None)
    assert (read.input_tokens, read.output_tokens) == (1024, 128)
    assert (read.metric, read.statistic) == ("ttft", "mean")
    assert not read.disaggregated


def test_lengths_drawn_below_the_nominal_one() -> None:
    notes = "random lengths uniform in [0.8,1.0]x nominal (mean 0.9x)"
    read = served(SERVED | {"notes": notes})
    assert read.input_tokens == pytest.approx(0.9 * 1024)
    assert read.output_tokens == pytest.approx(0.9 * 128)


def test_degrees_that_count_cores() -> None:
    # 24 NeuronCores on 12 chips: two each.
    read = served(SERVED | {"num_accelerators": "12", "tp": "24.0", "dp": "1.0"})
    assert read.layout.tp == 12
    # 8 ranks on 16 chips are 8 ranks.
    assert served(SERVED | {"num_accelerators": "16", "tp": "8"}).layout.tp == 8


@pytest.mark.parametrize(
    ("given", "arrival", "burst", "split"),
    [
        ("burst_500", Arrival.BURST, 500, False),
        ("closed_loop_disagg", Arrival.CLOSED_LOOP, None, True),
        ("offline_max", Arrival.OFFLINE, None, False),
        ("single_stream", Arrival.STATIC_BATCH, None, False),
        ("open_loop_poisson", Arrival.OPEN_LOOP, None, False),
    ],
)
def test_loads(given: str, arrival: Arrival, burst: int | None, split: bool) -> None:
    read = served(SERVED | {"load_mode": given})
    assert (read.arrival, read.burst, read.disaggregated) == (arrival, burst, split)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("load_mode", "closed_lop", "load_mode: unknown 'closed_lop'.*closed_loop"),
        ("metric", "ttft", "metric: unknown 'ttft'.*ttft_ms"),
        ("num_accelerators", "1.5", "num_accelerators: 1.5 must be a whole number"),
    ],
)
def test_a_wrong_cell_is_named(column: str, cell: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        served(SERVED | {column: cell})


def test_percentiles() -> None:
    assert served(SERVED | {"stat": "p50_of_2_runs"}).statistic == "p50"
    assert served(SERVED | {"stat": "p99"}).statistic == "p99"
    assert served(SERVED | {"stat": "makespan"}).statistic == "mean"


def test_an_mlperf_result_and_the_same_as_a_serving_result() -> None:
    row = {
        "model": "Llama-2-70B",
        "benchmark": "llama2-70b-99.9",
        "scenario": "Interactive",
        "hardware": "H200-SXM-141GB",
        "num_accelerators": "8",
        "tp": "1.0",
        "replicas_dp": "8.0",
        "weight_dtype": "fp8",
        "slo_ttft_p99_ms": "450.0",
        "slo_tpot_p99_ms": "40.0",
        "mean_osl": "293",
    }
    result = sustained(row)
    assert result.limits == (("ttft", 0.45), ("tpot", 0.04))
    assert result.requests.output_tokens == 293
    path = "closed/NVIDIA/8xH200/llama2-70b-99.9/Interactive; status=available"
    cells_ = {"load_mode": "poisson_server", "notes": path, "isl": "", "osl": "293"}
    same = SERVED | row | cells_ | {"pp": "", "dp": "8.0", "framework": "TensorRT 10"}
    assert sustained_of(served(same)) == result
    with pytest.raises(ProblemError, match="no MLPerf result is named"):
        sustained_of(served(same | {"notes": "some page"}))


def test_the_engine_of_a_round_and_a_vendor() -> None:
    row = {
        "model": "Llama-2-70B",
        "benchmark": "llama2-70b-99",
        "hardware": "H200-SXM-141GB",
        "num_accelerators": "8",
        "slo_ttft_p99_ms": "2000",
        "system": "8xH200_TRT",
        "round": "v5.1",
    }
    late, early, named, other = (
        sustained(row | cells).framework
        for cells in (
            {},
            {"round": "v4.1"},
            {"system": "xd670_h200_x8_vllm_092"},
            {"system": "8xMI325X", "hardware": "MI325X-256GB"},
        )
    )
    assert early == "tensorrt-llm-v0"
    assert late == framework_at("tensorrt-llm", month="2025-09")
    assert late != early
    assert named == other == framework_at("vllm", month="2025-09")


def test_nothing_limits_requests_that_are_all_there() -> None:
    path = "closed/NVIDIA/8xH200/llama2-70b-99.9/Offline; status=available"
    row = SERVED | {"load_mode": "offline_max", "notes": path, "osl": "", "isl": ""}
    found = sustained_of(served(row | {"model": "Llama-2-70B"}))
    assert found.limits == ()
    assert found.requests.output_tokens == 294


def test_attention_is_split_over_requests_where_notes_say_so() -> None:
    note = {"notes": "MoE run with enable_attention_dp in this doc"}
    assert served(SERVED | note).attention_dp
    assert not served(SERVED).attention_dp


def test_no_request_of_a_data_set_is_longer_than_it_says() -> None:
    for known in MLPERF.values():
        profile = known.profile
        assert profile.prompt.tokens[-1] <= known.longest_input
        assert profile.output.tokens[-1] <= known.longest_output
        assert profile.prompt.mean == pytest.approx(known.input_tokens, rel=0.01)
        assert profile.output.mean == pytest.approx(known.output_tokens, rel=0.01)


def test_workloads() -> None:
    assert workload("500 ShareGPT requests").output_tokens == 180
    assert workload("closed/A/b/llama3_1-405b/Offline; x").input_tokens == 9400
    assert workload("nothing") is UNKNOWN


def test_memory() -> None:
    row = {
        "model": "Llama-3.1-8B",
        "hardware": "RTX4090-24GB",
        "num_accelerators": "1",
        "tp": "1",
        "framework": "vLLM 0.19.0",
        "gpu_memory_utilization": "0.9",
        "kind": "gpu_memory_used",
        "unit": "GB (as printed)",
    }
    truth = memory_truth(row)
    assert (truth.held, truth.usable, truth.unit) == (Held.USED, 0.9, 2**30)
    with pytest.raises(ProblemError, match=r"kind: unknown 'fit'.*fits"):
        memory_truth(row | {"kind": "fit"})


def test_latencies_of_a_request() -> None:
    row = {
        "queued_s": "1.0",
        "first_token_s": "1.5",
        "last_token_s": "3.5",
        "output_toks": "5",
    }
    assert measured(row, "ttft") == pytest.approx(0.5)
    assert measured(row, "tpot") == pytest.approx(2.0 / 4)
    assert measured(row, "e2e") == pytest.approx(2.5)
    with pytest.raises(ProblemError, match="no token after the first"):
        measured(row | {"output_toks": "1"}, "tpot")


def test_kinds_of_tables_are_told_by_their_columns() -> None:
    found = {path.name: read_table(path).kind for path in shipped()}
    assert found["e2e.csv.gz"] == "e2e"
    assert found["mlperf_slo.csv.gz"] == "mlperf_slo"
    assert found["memory_truths.csv.gz"] == "memory_truths"
    assert found["vllm_requests.csv.gz"] == "vllm_requests"
    for path in FOLDER.glob("operators/*.csv.gz"):
        assert found[path.name] == OPERATORS


def test_what_is_shipped_is_small_and_without_loose_checks() -> None:
    assert sum(path.stat().st_size for path in shipped()) < 1.5e6
    rows = read_table(FOLDER / "e2e.csv.gz").rows
    assert {row["trust"] for row in rows} == {"A", "B"}
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for source in {row["source_id"] for row in rows}:
        assert source in readme


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n", "no table of measurements; for"),
        (b"model,model\n1,2\n", "has the column 'model' twice"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (gzip.compress(b"model,hardware\n" * 99, mtime=0)[:30], "is damaged"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(ProblemError, match=message):
        read_table(path)
    with pytest.raises(ProblemError, match="there is no file"):
        read_table(tmp_path / "absent.csv")
