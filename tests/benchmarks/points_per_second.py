"""Deployment points evaluated per second on one core, TTFT, TPOT and rate each.

Run: ``python tests/benchmarks/points_per_second.py [MODEL]``. A point is one NPU,
tensor and pipeline degree and batch under one load. The first pass is not counted.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
import time

import numpy as np

from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import stacked
from model_ops.serving.steady_state import steady_state
from model_ops.serving.step import Replica
from problems import catalogue
from problems.offers import Offer, offers
from problems.problem import problem_of
from solver.tabulation import splits

PASSES = 7

BATCHES = np.concatenate([np.geomspace(0.01, 1, 41)[:-1], np.geomspace(1, 960, 188)])
"""Mean batches, the same for every deployment."""

POINTS_AT_ONCE = 40_000
"""Points per array: small enough for the arrays to stay in the processor's cache."""


def main(model: str) -> None:
    """Print the points and the rate of each pass."""
    arch = catalogue.load_model(model)
    traffic = {"input_tokens": 2000, "output_tokens": 500, "rate": "10 req/s"}
    problem = problem_of({"model": model, "traffic": [traffic]}, source="python")
    available: list[Offer] = offers(problem)
    npus = list({offer.npu.name: offer.npu for offer in available}.values())
    axes = splits(arch, available)
    parallelism = stacked(axes, point_axes=1)
    shape = problem.traffic[0].shape
    at_once = max(1, POINTS_AT_ONCE // (len(axes) * len(BATCHES)))
    points = len(npus) * len(axes) * len(BATCHES)
    rates = []
    for _ in range(PASSES + 1):
        start = time.perf_counter()
        for first in range(0, len(npus), at_once):
            supply = Supply.stack(npus[first : first + at_once], axes=2)
            replica = Replica(arch, parallelism, arch.precision, supply)
            steady_state(replica, shape, BATCHES)
        rates.append(points / (time.perf_counter() - start))
    rates = sorted(rates[1:])
    print(  # noqa: T201 - a benchmark prints
        f"{model}: {points:,} points of [NPU {len(npus)} x split {len(axes)} x "
        f"batch {len(BATCHES)}]; points/s on one core: min {rates[0]:,.0f}, "
        f"median {rates[PASSES // 2]:,.0f}, max {rates[-1]:,.0f}"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "llama-3.1-70b")
