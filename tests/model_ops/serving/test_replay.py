"""The simulator against two measured vLLM runs (tests/reference/README.md)."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "replay.py"

FITTED = {
    "RTX4090/Llama-3.1-8B": [2.28e-4, 0.987, 0.713, 1.35e-6, 1.0, 0.970],
    "RTXPRO6000/Llama-3.1-8B": [5.76e-4, 0.673, 0.621, 4.28e-6, 0.769, 0.424],
}
"""What the benchmark fits to the first half of each run; it prints them."""


@pytest.fixture(scope="module")
def benchmark_module() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARK))


@pytest.mark.parametrize("run", list(FITTED))
@pytest.mark.parametrize("figure", ["ttft", "tpot", "e2e"])
def test_second_half_of_a_run(
    benchmark_module: dict[str, Any], run: str, figure: str
) -> None:
    measured = benchmark_module["load"](run)
    device = benchmark_module["DEVICES"][run]
    replayed = benchmark_module["replay"](device, measured, np.array(FITTED[run]))
    mean, p99 = benchmark_module["errors"](replayed, measured, figure)
    assert abs(mean) < 0.03
    # Preempted requests have the longest TPOT, and they are where rules differ most.
    assert abs(p99) < (0.12 if (run[:7], figure) == ("RTX4090", "tpot") else 0.05)
