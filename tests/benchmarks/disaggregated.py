"""Prefill and decode pools in closed form against simulation.

Run: ``python tests/benchmarks/disaggregated.py [REQUESTS]``; half a minute with numba.
Llama-3.1-8B on H100, one replica and one, two and three, at three shares of the rate at
which the first pool saturates, under chat, conversation, retrieval, reasoning and fixed
lengths. Each row has the error in per cent of the mean, p95 and p99 of TTFT, TPOT and
E2E; the last one has the largest of each, without sign.
"""

import sys

import numpy as np

from model_ops.dtypes import BF16
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import ALONE
from model_ops.serving.engine import Profile
from model_ops.serving.lengths import fixed, lognormal
from model_ops.serving.pair import Pair, pool_of
from model_ops.serving.pools import first_token_only
from model_ops.serving.simulation import Router, arrivals, simulate_disaggregated
from model_ops.serving.step import Replica
from model_ops.serving.transfer import Link
from problems import catalogue

REQUESTS = 40_000
SHARES = (0.3, 0.6, 0.8)
REPLICAS = ((1, 1), (2, 3))
PROFILES = {
    "chat": Profile(lognormal(512, 1.0, 8), lognormal(256, 1.0, 2)),
    "conversation": Profile(lognormal(1155, 0.96, 8), lognormal(211, 0.77, 2)),
    "fixed": Profile(fixed(2000), fixed(500)),
    "retrieval": Profile(fixed(6000), fixed(300)),
    "reasoning": Profile(lognormal(200, 1.0, 8), lognormal(2000, 0.8, 2)),
}
FIGURES = [(m, s) for m in ("ttft", "tpot", "e2e") for s in ("mean", "p95", "p99")]


def pair_of(profile: Profile, replicas: tuple[int, int]) -> Pair:
    """Return the pools of a load, joined by a fabric's own links."""
    supply = Supply.of(catalogue.load_npu("h100-sxm"))
    replica = Replica(catalogue.load_model("llama-3.1-8b"), ALONE, BF16, supply)
    prefill, decode = (
        pool_of(replica, seen, count, chunk_tokens=8192, max_sequences=256)
        for seen, count in zip(
            (first_token_only(profile), profile), replicas, strict=True
        )
    )
    return Pair(prefill, decode, profile, Link.between(supply, supply, 16))


def errors(pair: Pair, rate: float, requests: int) -> list[float]:
    """Return the closed form over the simulation, less one, of each figure."""
    rng, transfer = np.random.default_rng(0), pair.transfer(rate)
    trace = simulate_disaggregated(
        pair.prefill.engine,
        pair.decode.engine,
        arrivals(rng, requests, rate),
        pair.profile.prompt.sample(rng, requests),
        pair.profile.output.sample(rng, requests),
        prefill_replicas=pair.prefill.replicas,
        decode_replicas=pair.decode.replicas,
        transfer_per_token=transfer.per_token,
        transfer_latency=transfer.latency,
        router=Router.ROUND_ROBIN,
    )
    seen, found = trace.summary().flat(), pair.latencies(rate)
    return [
        float(getattr(getattr(found, metric), statistic))
        / seen[f"{metric}_{statistic}"]
        - 1.0
        for metric, statistic in FIGURES
    ]


def line(words: tuple[str, ...], values: list[float]) -> str:
    """Return a row of the table."""
    head = "  ".join(f"{word:<12}" for word in words)
    return head + "".join(f"{100 * value:+10.0f}" for value in values)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> None:
    """Print the table."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    titles = "".join(f"{f'{m} {s}':>10}" for m, s in FIGURES)
    words = ("load", "replicas", "share")
    _print("  ".join(f"{word:<12}" for word in words) + titles)
    rows = []
    for name, profile in PROFILES.items():
        for replicas in REPLICAS:
            pair = pair_of(profile, replicas)
            for share in SHARES:
                rate = share * min(pair.rates.values())
                rows.append(errors(pair, rate, requests))
                words = (name, f"{replicas[0]} and {replicas[1]}", f"{share:g}")
                _print(line(words, rows[-1]))
    worst = np.abs(np.array(rows)).max(axis=0)
    _print(line(("largest", "", ""), worst.tolist()))


if __name__ == "__main__":
    main()
