"""Replay of measured vLLM runs: step times from one half of a run, errors on the other.

Run: ``python tests/benchmarks/replay.py``. Each run is an overload: 300 requests come
within half a minute, and are served in one to three. The simulator gets their lengths
and arrivals. The six numbers of the step time are fitted to the measured times of the
first 150 requests; the table compares the last 150. The scheduler's rules are not
fitted, and none of its limits.

The fit takes the least squares of the times of first and last tokens by a seeded random
search, the best of some starts, within what is physical: memory and arithmetic work at
a share of their peak. The six numbers trade off against each other; their sum is what
the table tests.
"""

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model_ops.serving.engine import Engine
from model_ops.serving.lengths import Floats
from model_ops.serving.simulation import simulate
from model_ops.serving.step_curve import StepCurve
from model_ops.serving.trace import FIGURES, Counters, Trace
from problems.measured.shipped import FOLDER

DATA = FOLDER / "vllm_requests.csv.gz"

WEIGHT_BYTES = 16.06e9
"""Llama-3.1-8B in bf16; its cache takes 131,072 bytes per token."""
CACHE_BYTES = 131_072
FLOP_PER_TOKEN = 2 * 7.5e9
FLOP_PER_PAIR = 4 * 4096 * 32


@dataclass(frozen=True)
class Device:
    """Peak rates of a GPU and the KV cache that vLLM had on it.

    RTX 4090: NVIDIA Ada GPU architecture whitepaper, appendix A (165.2 TFLOP/s in bf16
    with fp32 accumulation, 1008 GB/s). RTX PRO 6000: NVIDIA RTX Blackwell PRO GPU
    architecture whitepaper (503.8 TFLOP/s, 1792 GB/s); its cache was never full.
    """

    flop_per_s: float
    bytes_per_s: float
    cache_tokens: int


DEVICES = {
    "RTX4090/Llama-3.1-8B": Device(165.2e12, 1.008e12, 41_408),
    "RTXPRO6000/Llama-3.1-8B": Device(503.8e12, 1.792e12, 574_608),
}

CHUNK_TOKENS = 2048
MAX_SEQUENCES = 128
"""As the runs' own ``meta.json`` files say."""

START = np.array([1e-3, 0.9, 0.7, 5e-6, 0.8, 0.4])
"""Seconds per step; share of the memory's peak that weights get, and of the
arithmetic's that tokens get; seconds per sequence; shares that cached tokens and pairs
get."""
LOWEST = np.array([1e-4, 0.6, 0.3, 1e-6, 0.3, 0.05])
HIGHEST = np.array([5e-3, 1.0, 1.0, 5e-5, 1.0, 1.0])

STARTS = 4
MOVES = 1_200


def main() -> None:
    """Print the fitted numbers and the table of errors."""
    print("| run | figure | mean | p99 |\n|---|---|---|---|")  # noqa: T201
    notes = []
    for name, device in DEVICES.items():
        measured = load(name)
        fitted = fit(device, measured)
        replayed = replay(device, measured, fitted)
        notes.append(
            f"{name}: {replayed.counters.preemptions} preemptions; "
            "o {:.2e} s, e_w {:.3f}, e_g {:.3f}, r {:.2e} s, e_k {:.3f}, "
            "e_q {:.3f}".format(*fitted)
        )
        for figure in FIGURES:
            mean, p99 = errors(replayed, measured, figure)
            print(f"| {name} | {figure} | {mean:+.1%} | {p99:+.1%} |")  # noqa: T201
    print("\n".join(notes))  # noqa: T201


def load(run: str) -> Trace:
    """Return a measured run, by arrival."""
    with gzip.open(DATA, "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == run]
    rows.sort(key=lambda row: float(row["queued_s"]))

    def column(name: str) -> Floats:
        return np.array([float(row[name]) for row in rows])

    return Trace(
        arrival=column("queued_s"),
        scheduled=column("scheduled_s"),
        first_token=column("first_token_s"),
        finish=column("last_token_s"),
        prompt=column("input_toks").astype(np.int64),
        output=column("output_toks").astype(np.int64),
        counters=Counters(0, 0, 0, 0.0, 0.0, 0),
    )


def replay(device: Device, measured: Trace, numbers: Floats) -> Trace:
    """Simulate a run with a step time of six numbers; see `START`."""
    overhead, of_weights, of_tokens, per_sequence, of_cached, of_pairs = numbers
    curve = StepCurve.line(
        overhead=overhead,
        weights=WEIGHT_BYTES / (of_weights * device.bytes_per_s),
        per_token=FLOP_PER_TOKEN / (of_tokens * device.flop_per_s),
        per_sequence=per_sequence,
        per_cached=CACHE_BYTES / (of_cached * device.bytes_per_s),
        per_pair=FLOP_PER_PAIR / (of_pairs * device.flop_per_s),
        most_tokens=CHUNK_TOKENS,
    )
    engine = Engine(curve, CHUNK_TOKENS, MAX_SEQUENCES, device.cache_tokens)
    return simulate(engine, measured.arrival, measured.prompt, measured.output)


def fit(device: Device, measured: Trace) -> Floats:
    """Return the numbers whose replay is closest to the first half of a run."""
    half = measured.arrival.size // 2

    def loss(numbers: Floats) -> float:
        replayed = replay(device, measured, numbers)
        misses = (
            replayed.first_token - measured.first_token,
            replayed.finish - measured.finish,
        )
        return float(np.square(misses)[:, :half].mean())

    found = [search(loss, np.random.default_rng(seed)) for seed in range(STARTS)]
    return min(found, key=lambda result: result[0])[1]


def search(
    loss: Callable[[Floats], float], rng: np.random.Generator
) -> tuple[float, Floats]:
    """Return the least loss of a random search, and its numbers."""
    best, width = START, 0.3
    least = loss(best)
    for _ in range(MOVES):
        moved = rng.normal(0.0, width, best.size) * (rng.random(best.size) < 0.5)
        tried = np.clip(best * np.exp(moved), LOWEST, HIGHEST)
        found = loss(tried)
        # Wider after a success, narrower otherwise (the one-fifth rule).
        width = min(0.5, width * 1.5) if found < least else max(0.003, width * 0.93)
        if found < least:
            best, least = tried, found
    return least, best


def errors(replayed: Trace, measured: Trace, figure: str) -> tuple[float, float]:
    """Return the relative errors of mean and p99 over the second half."""
    half = measured.arrival.size // 2
    ours, theirs = (getattr(trace, figure)[half:] for trace in (replayed, measured))
    p99 = np.percentile(ours, 99) / np.percentile(theirs, 99)
    return float(ours.mean() / theirs.mean() - 1), float(p99 - 1)


if __name__ == "__main__":
    main()
