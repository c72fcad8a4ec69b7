"""Latencies in closed form against simulation, over twelve regimes of engine and load.

Run: ``python tests/benchmarks/queueing.py [REQUESTS]``; half a minute with numba.
Every load is simulated twice with so many requests, 120 000 if not given, of which the
first tenth is left out; the twelve regimes are five engines (dense models of 8 and 70
billion parameters, a sparse one of 30, on H100, A100, L4) under chat, conversation,
code, retrieval and reasoning, with fixed and lognormal lengths. An engine is six
numbers: seconds of overhead, of the weights, per token, per sequence, per cached token
and per query-key pair.

The first table has the errors of the figures by share of the saturation rate: median,
90th percentile and largest, in per cent. The second has the error of the highest rate:
the targets are the simulated TTFT and TPOT at three rates, tight to loose, so that the
right answer is that rate; too high a rate is unsafe.
"""

import sys
import time
from dataclasses import dataclass

import numpy as np

from model_ops.serving.engine import Engine, Profile
from model_ops.serving.highest_rate import Target, highest_rate
from model_ops.serving.lengths import Floats, Lengths, lognormal
from model_ops.serving.queueing import Metric, Statistic, latencies
from model_ops.serving.saturation import saturation_rate
from model_ops.serving.simulation import arrivals, simulate
from model_ops.serving.step_curve import StepCurve

REQUESTS = 120_000
SEEDS = (1, 2)
BANDS = {
    "0.1-0.5": (0.1, 0.3, 0.5),
    "0.6-0.8": (0.6, 0.7, 0.8),
    "0.85-0.9": (0.85, 0.9),
}
ASKED = {0.5: "tight", 0.7: "medium", 0.85: "loose"}
METRICS: tuple[Metric, ...] = ("ttft", "tpot", "e2e")
STATISTICS: tuple[Statistic, ...] = ("mean", "p95", "p99")


def engine(
    numbers: tuple[float, ...], chunk: int, sequences: int, cache: int
) -> Engine:
    """Return an engine whose step time is six numbers."""
    overhead, weights, per_token, per_sequence, per_cached, per_pair = numbers
    curve = StepCurve.line(
        overhead=overhead,
        weights=weights,
        per_token=per_token,
        per_sequence=per_sequence,
        per_cached=per_cached,
        per_pair=per_pair,
        most_tokens=max(chunk, sequences),
    )
    return Engine(curve, chunk, sequences, cache)


ENGINES = {
    "8B H100": engine(
        (1e-3, 6.007e-3, 2.941e-5, 5e-6, 4.891e-8, 1.377e-9), 8192, 256, 400_000
    ),
    "8B L4": engine(
        (1e-3, 67.08e-3, 2.404e-4, 5e-6, 5.461e-7, 1.125e-8), 2048, 256, 24_000
    ),
    "70B 4xH100": engine(
        (3e-3, 13.15e-3, 7.078e-5, 5e-6, 3.057e-8, 1.893e-9), 2048, 256, 425_000
    ),
    "30B-A3B H100": engine(
        (2e-3, 11.38e-3, 9.529e-6, 5e-6, 3.668e-8, 1.622e-9), 8192, 256, 390_000
    ),
    "8B A100": engine(
        (1e-3, 9.865e-3, 9.324e-5, 5e-6, 8.031e-8, 4.365e-9), 2048, 128, 400_000
    ),
}


def lengths(mean: float, variation: float, least: float) -> Lengths:
    """Return a lognormal length, or a fixed one."""
    return lognormal(mean, variation, least)


LOADS = {
    "chat": Profile(lengths(512, 1.0, 8), lengths(256, 1.0, 2)),
    "chat, fixed": Profile(lengths(512, 0, 8), lengths(256, 0, 2)),
    "conversation": Profile(lengths(1155, 0.96, 8), lengths(211, 0.77, 2)),
    "code": Profile(lengths(2048, 0.95, 8), lengths(28, 1.0, 2)),
    "retrieval, fixed": Profile(lengths(6000, 0, 64), lengths(300, 0, 2)),
    "retrieval": Profile(lengths(6000, 0.5, 64), lengths(300, 0.7, 2)),
    "reasoning": Profile(lengths(200, 1.0, 8), lengths(2000, 0.8, 2)),
    "reasoning, fixed": Profile(lengths(200, 0, 8), lengths(2000, 0, 2)),
}

REGIMES = (
    ("8B H100", "chat"),
    ("8B H100", "chat, fixed"),
    ("8B H100", "conversation"),
    ("8B L4", "chat"),
    ("8B L4", "chat, fixed"),
    ("70B 4xH100", "conversation"),
    ("70B 4xH100", "retrieval"),
    ("70B 4xH100", "retrieval, fixed"),
    ("30B-A3B H100", "reasoning"),
    ("30B-A3B H100", "reasoning, fixed"),
    ("8B A100", "code"),
    ("8B A100", "chat"),
)

Figures = dict[tuple[Metric, Statistic], float]


@dataclass(frozen=True)
class Simulated:
    """A regime's figures by share of the saturation rate."""

    name: str
    engine: Engine
    profile: Profile
    most: float
    figures: dict[float, Figures]


def simulated(name: tuple[str, str], requests: int) -> Simulated:
    """Return what simulation says of a regime."""
    served, profile = ENGINES[name[0]], LOADS[name[1]]
    most = float(saturation_rate(served, profile))
    shares = [share for band in BANDS.values() for share in band]
    figures = {
        share: _mean([_once(served, profile, share * most, requests, s) for s in SEEDS])
        for share in shares
    }
    return Simulated(", ".join(name), served, profile, most, figures)


def _once(
    served: Engine, profile: Profile, rate: float, requests: int, seed: int
) -> Figures:
    rng = np.random.default_rng(seed)
    times = arrivals(rng, requests, rate)
    prompts = profile.prompt.sample(rng, requests)
    outputs = np.maximum(profile.output.sample(rng, requests), 2)
    summary = simulate(served, times, prompts, outputs).summary()
    flat = summary.flat()
    return {(m, s): flat[f"{m}_{s}"] for m in METRICS for s in STATISTICS}


def _mean(runs: list[Figures]) -> Figures:
    return {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}


def errors(regime: Simulated, key: tuple[Metric, Statistic]) -> dict[float, float]:
    """Return the relative error of one figure by share of the saturation rate."""
    shares = np.array(list(regime.figures))
    found = latencies(regime.engine, regime.profile, shares * regime.most)
    values = getattr(getattr(found, key[0]), key[1])
    truth = [figures[key] for figures in regime.figures.values()]
    return dict(zip(shares.tolist(), (values / truth - 1.0).tolist(), strict=True))


def rate_error(regime: Simulated, share: float, statistic: Statistic) -> float:
    """Return the relative error of the highest rate with the figures at a share."""
    figures = regime.figures[share]
    targets = [Target(m, statistic, figures[m, statistic]) for m in METRICS[:2]]
    found = highest_rate(regime.engine, regime.profile, targets)
    return float(found) / (share * regime.most) - 1.0


def main() -> None:
    """Print the tables."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    regimes = [simulated(name, requests) for name in REGIMES]
    keys = [(metric, statistic) for metric in METRICS for statistic in STATISTICS]
    _print("load", *(f"{metric.upper()} {statistic}" for metric, statistic in keys))
    _print(*["---"] * (len(keys) + 1))
    table = {key: [errors(regime, key) for regime in regimes] for key in keys}
    for band, shares in BANDS.items():
        cells = [
            _cell(np.array([each[share] for each in table[key] for share in shares]))
            for key in keys
        ]
        _print(band, *cells)
    _print("")
    _print("targets", *(f"{of} {kind}" for of in STATISTICS for kind in ASKED.values()))
    _print(*["---"] * 10)
    rates = {
        (statistic, share): [rate_error(one, share, statistic) for one in regimes]
        for statistic in STATISTICS
        for share in ASKED
    }
    for row, regime in enumerate(regimes):
        _print(regime.name, *(f"{100 * found[row]:+.1f}" for found in rates.values()))
    for statistic in STATISTICS:
        found = np.concatenate([rates[statistic, share] for share in ASKED])
        high = np.mean(found > 0.1)
        _print(statistic, f"{_cell(found)}; more than 10 % too high: {high:.0%}")
    started = time.perf_counter()
    for regime in regimes:
        latencies(
            regime.engine, regime.profile, np.linspace(0.1, 0.9, 40) * regime.most
        )
    spent = (time.perf_counter() - started) / (40 * len(regimes))
    _print(f"{1e6 * spent:.0f} us for all figures at one rate")


def _cell(found: Floats) -> str:
    sizes = 100 * np.abs(found)
    high = np.quantile(sizes, 0.9)
    return f"{np.median(sizes):.1f} ({high:.0f}, {sizes.max():.0f})"


def _print(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |" if len(cells) > 1 else cells[0])  # noqa: T201


if __name__ == "__main__":
    main()
