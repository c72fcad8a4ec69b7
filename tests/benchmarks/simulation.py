"""Requests simulated per second, pure Python and compiled.

Run: ``python tests/benchmarks/simulation.py``. The engine is an 8B model on an NPU of
989 TFLOP/s and 3.35 TB/s; the load chat, 512 tokens in and 256 out (lognormal, their
standard deviation as large), at 0.7 of what the replicas can serve. The best of some
passes counts, after one that compiles.
"""

import time
from importlib.util import find_spec

import numpy as np

from model_ops.serving.engine import Engine
from model_ops.serving.lengths import Floats, lognormal
from model_ops.serving.simulation import arrivals, simulate
from model_ops.serving.step_curve import StepCurve
from model_ops.serving.trace import Tokens

FLOP_PER_S, BYTES_PER_S = 0.55 * 989e12, 0.8 * 3.35e12
ENGINE = Engine(
    StepCurve.line(
        overhead=1e-3,
        weights=16.1e9 / BYTES_PER_S,
        per_token=2 * 8e9 / FLOP_PER_S,
        per_sequence=5e-6,
        per_cached=131_072 / BYTES_PER_S,
        per_pair=4 * 4096 * 32 / (0.7 * FLOP_PER_S),
        most_tokens=8192,
    ),
    chunk_tokens=8192,
    max_sequences=256,
    cache_tokens=400_000,
)
LOAD = 0.7
REQUESTS = 60_000
PASSES = 5


def main() -> None:
    """Print a line per kernel and number of replicas."""
    rng = np.random.default_rng(0)
    prompt = lognormal(512, 1.0, 8.0).sample(rng, REQUESTS)
    output = lognormal(256, 1.0, 2.0).sample(rng, REQUESTS)
    kernels = [False, True] if find_spec("numba") else [False]
    capacity = simulate(ENGINE, 0.0, prompt, output).rate
    print(f"capacity of a replica: {capacity:.1f} req/s")  # noqa: T201
    for replicas in (1, 8):
        load = (arrivals(rng, REQUESTS, LOAD * capacity * replicas), prompt, output)
        for fast in kernels:
            seconds, steps = _best(load, replicas, fast)
            print(  # noqa: T201
                f"{'numba' if fast else 'pure Python'}, {replicas} replicas: "
                f"{REQUESTS / seconds:,.0f} requests/s, {steps / seconds:,.0f} steps/s"
            )


def _best(
    load: tuple[Floats, Tokens, Tokens], replicas: int, fast: bool
) -> tuple[float, int]:
    """Return the seconds of the fastest pass, and its steps."""
    seconds, steps = [], 0
    for _ in range(PASSES + 1):
        start = time.perf_counter()
        steps = simulate(ENGINE, *load, replicas=replicas, fast=fast).counters.steps
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:]), steps


if __name__ == "__main__":
    main()
