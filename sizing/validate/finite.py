"""Runs that end before any steady state: bursts, and more arrivals than can be served.

Every request of the run is simulated. Where a source does not say how many there were,
they are as many as vLLM's benchmark sends by default.
"""

import re
from dataclasses import replace
from functools import cache

import numpy as np

from model_ops.arrivals import MAX_SEQUENCES
from model_ops.errors import GenzSizeError, ProblemError
from model_ops.estimate import LoadMode
from model_ops.serving.deployed import engine_of
from model_ops.serving.simulation import arrivals, simulate
from model_ops.serving.steady_state import DEFAULT_CHUNK_TOKENS
from problems.measured.served import Arrival, Served
from sizing.validate.answers import Answer, refused, with_interval
from sizing.validate.deployed import Deployed

_REQUESTS = 1000
"""Default of ``--num-prompts`` in vLLM's benchmarks/benchmark_serving.py."""
_STATED = re.compile(
    r"(?:num_prompts=|completed=)(\d+)|(\d{2,6}) (?:\w+ )?(?:requests|prompts)"
)
_MOST_REQUESTS = 2000
_SEED = 0
_KEEPS_UP = 0.9
"""Share of the arrivals that a run serves whose last requests do not wait for long."""

_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def answer(row: Served) -> Answer:
    """Return the figure of one result of a run that ends."""
    try:
        figures = _figures(replace(row, metric="", statistic="mean"))
    except GenzSizeError as error:
        return refused(error)
    # More than can be served waits as an offline run does, with its errors.
    behind = row.rate is None or figures["req_s"] < _KEEPS_UP * row.rate
    law = LoadMode.OFFLINE if behind else LoadMode.OPEN_LOOP
    if row.metric in figures:
        return with_interval("rate", figures[row.metric], law, row.npu)
    statistic = row.statistic if row.statistic in _STATISTICS else "mean"
    value = 1e3 * figures[f"{row.metric}_{statistic}"]
    return with_interval(row.metric, value, law, row.npu)


def requests_of(row: Served) -> int:
    """Return how many requests a run sent."""
    stated = _STATED.search(row.notes)
    found = row.burst or (int(stated[1] or stated[2]) if stated else _REQUESTS)
    return min(found, _MOST_REQUESTS)


@cache
def _figures(row: Served) -> dict[str, float]:
    """Return statistics of the latencies, and rates, of a run by name."""
    deployed, count = Deployed.of(row), requests_of(row)
    layout, lengths = deployed.layout, deployed.requests
    profile = lengths.profile
    limit = row.concurrency if row.arrival is Arrival.OPEN_LOOP else None
    engine = engine_of(
        deployed.replica(layout.tp or 1, pp=layout.pp or 1),
        profile,
        chunk_tokens=DEFAULT_CHUNK_TOKENS,
        max_sequences=int(limit or MAX_SEQUENCES),
    )
    if engine.cache_tokens < profile.longest:
        raise ProblemError("memory: the model and one request do not fit")
    rng = np.random.default_rng(_SEED)
    burst = row.arrival is Arrival.BURST or row.rate is None
    times = np.zeros(count) if burst else arrivals(rng, count, row.rate or 1.0)
    prompts, outputs = (
        each.sample(rng, count) for each in (profile.prompt, profile.output)
    )
    # Compiling takes longer than these few short runs.
    trace = simulate(
        engine, times, prompts, outputs, replicas=layout.dp or 1, fast=False
    )
    tokens = {"output_tok_s": outputs, "input_tok_s": prompts}
    rates = {name: trace.rate * float(each.mean()) for name, each in tokens.items()}
    rates["total_tok_s"] = sum(rates.values())
    return {**trace.summary(warm_up=0.0).flat(), **rates, "req_s": trace.rate}
