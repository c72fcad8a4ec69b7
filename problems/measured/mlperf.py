"""MLPerf Inference results: the rate that accelerators sustained within limits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from model_ops.dtypes import Dtype
from model_ops.errors import ProblemError, nearest
from problems import catalogue
from problems.measured import cells
from problems.measured.generations import framework_at
from problems.measured.names import dtype, framework_name, model_name, npu_name
from problems.measured.served import Arrival, Layout, Served
from problems.measured.tables import Row
from problems.measured.workloads import (
    MLPERF,
    Workload,
    mlperf_result,
    mlperf_workload,
)

Limits = tuple[tuple[str, float], ...]
"""Latency and the seconds that its 99th percentile must not exceed."""


@dataclass(frozen=True, slots=True)
class Sustained:
    """A deployment under MLPerf's Poisson arrivals, and the limits it has to keep.

    Parameters
    ----------
    model, npu, framework
        Names in the catalogue.
    layout
        Accelerators and degrees, where they are published.
    weights, kv_cache
        Formats; None: not published.
    requests
        Lengths of the data set's prompts, and of the answers in the log.
    limits
        On the 99th percentiles; none where no requests arrive.
    """

    model: str
    npu: str
    framework: str
    layout: Layout
    weights: Dtype | None
    kv_cache: Dtype | None
    requests: Workload
    limits: Limits


_LIMITS: Mapping[tuple[str, str], Limits] = {
    ("llama2-70b", "server"): (("ttft", 2.0), ("tpot", 0.2)),
    ("llama2-70b", "interactive"): (("ttft", 0.45), ("tpot", 0.04)),
    ("llama2-7b", "server"): (("ttft", 2.0), ("tpot", 0.2)),
    ("llama3.1-70b", "server"): (("ttft", 2.0), ("tpot", 0.2)),
    ("mixtral-8x7b", "server"): (("ttft", 2.0), ("tpot", 0.2)),
    ("llama3.1-8b", "server"): (("ttft", 2.0), ("tpot", 0.1)),
    ("llama3.1-8b", "interactive"): (("ttft", 0.5), ("tpot", 0.03)),
    ("llama3.1-405b", "server"): (("ttft", 6.0), ("tpot", 0.175)),
    ("llama3.1-405b", "interactive"): (("ttft", 4.5), ("tpot", 0.08)),
    ("deepseek-r1", "server"): (("ttft", 2.0), ("tpot", 0.08)),
    ("deepseek-r1", "interactive"): (("ttft", 1.5), ("tpot", 0.015)),
    ("gptj", "server"): (("e2e", 20.0),),
}
"""Limits by benchmark and scenario, as the results' own logs state them (rounds 4.1
and 5.1; DeepSeek-R1 interactive: round 6.0)."""

_COLUMNS = {
    "ttft": "slo_ttft_p99_ms",
    "tpot": "slo_tpot_p99_ms",
    "e2e": "slo_e2e_p99_ms",
}


def sustained(row: Row) -> Sustained:
    """Return what a row of a table of MLPerf results says.

    Raises
    ------
    GenzSizeError
        If a cell is wrong, the data set is not known, or the catalogue lacks the
        model or the accelerator.
    """
    npu = npu_name(row["hardware"])
    limits = {name: cells.finite(row, column) for name, column in _COLUMNS.items()}
    kept = tuple((name, most / 1e3) for name, most in limits.items() if most)
    if not kept:
        raise ProblemError("slo_ttft_p99_ms: no limit is given")
    return Sustained(
        model=model_name(row["model"]),
        npu=npu,
        framework=_framework(
            cells.text(row, "system"), npu, _MONTHS.get(cells.text(row, "round"), "")
        ),
        layout=Layout(
            npus=cells.count(row, "num_accelerators") or 1,
            tp=cells.degree(row, "tp"),
            pp=cells.degree(row, "pp"),
            ep=cells.degree(row, "ep"),
            dp=cells.degree(row, "replicas_dp"),
        ),
        weights=dtype(
            cells.text(row, "weight_dtype"), vendor=catalogue.npu_file(npu).vendor
        ),
        kv_cache=dtype(cells.text(row, "kv_dtype")),
        requests=_requests(row["benchmark"], cells.finite(row, "mean_osl")),
        limits=kept,
    )


def sustained_of(served: Served) -> Sustained:
    """Return the same of a serving result whose notes name an MLPerf result.

    Raises
    ------
    ProblemError
        If they name none, or one whose limits are not known.
    """
    result = mlperf_result(served.notes)
    if result is None:
        raise ProblemError(
            "notes: no MLPerf result is named, so that no limit is known"
        )
    benchmark, scenario = result
    arriving = served.arrival is Arrival.MLPERF_SERVER
    return Sustained(
        model=served.model,
        npu=served.npu,
        framework=served.framework or _framework(served.notes, served.npu, ""),
        layout=served.layout,
        weights=served.weights,
        kv_cache=served.kv_cache,
        requests=_requests(benchmark, served.output_tokens),
        limits=_limits(benchmark, scenario) if arriving else (),
    )


def _limits(benchmark: str, scenario: str) -> Limits:
    names = [
        name for name, _ in _LIMITS if benchmark.replace("_", ".").startswith(name)
    ]
    if not names or (key := (max(names, key=len), scenario)) not in _LIMITS:
        raise ProblemError(f"notes: no limits are known of {benchmark} {scenario}")
    return _LIMITS[key]


_MONTHS: Mapping[str, str] = {
    "v4.0": "2024-03",
    "v4.1": "2024-08",
    "v5.0": "2025-04",
    "v5.1": "2025-09",
    "v6.0": "2026-04",
}
"""Months in which the results of rounds were published (mlcommons.org)."""


def _framework(system: str, npu: str, month: str) -> str:
    """Return what a system's name says that it ran, else its vendor's own engine."""
    for word in re.split(r"[\s_/]+", system.lower()):
        if name := framework_name(word):
            return framework_at(name, month=month)
    nvidia = catalogue.npu_file(npu).vendor.lower() == "nvidia"
    return framework_at("tensorrt-llm" if nvidia else "vllm", month=month)


def _requests(benchmark: str, answer: float | None) -> Workload:
    known = mlperf_workload(benchmark)
    if known is None:
        raise ProblemError(
            f"benchmark: no lengths are known of '{benchmark}'"
            f"{nearest(benchmark, MLPERF)}"
        )
    return known.answering(answer) if answer else known
