"""Prompts and answers on workers of their own, with so many requests in flight.

A request is at one of two stations: a prefill worker, which takes prompts in turn, or a
decode worker, whose requests share its steps. With ``b`` requests on each of D decode
workers, answers of ``n`` steps finish at ``D b / (n tpot(b))`` per second; prompts at
most at the prefill workers' own rate. Little's law closes the loop. The transfer of the
cache is left out: it takes milliseconds where it was measured.
"""

import re
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from model_ops.errors import GenzSizeError
from model_ops.estimate import Estimate, Load, LoadMode, estimate
from model_ops.opcost import Number
from model_ops.profiler.work import RequestShape
from problems.measured.served import Layout, Served
from sizing.validate.answers import Answer, refused, with_interval
from sizing.validate.deployed import Deployed

_POINTS = 48
"""Batches at which decoding is timed, from one request up."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers of one pool, and the degrees of each."""

    count: int
    tp: int
    dp: int
    ep: int


_NAMED = re.compile(
    r"(prefill|decode) (\d+)x\(tp(\d+),\s*attn_dp(\d+),\s*ep(\d+)\)", re.IGNORECASE
)
_RATIO = re.compile(r"(\d+)P:?(\d+)D")


def answer(row: Served) -> Answer:
    """Return the figure of one result of a disaggregated deployment."""
    try:
        figures = _figures(replace(row, metric="", statistic="mean"))
    except GenzSizeError as error:
        return refused(error)
    if row.metric in figures:
        metric = row.metric if row.metric in ("ttft", "tpot", "e2e") else "rate"
        return with_interval(metric, figures[row.metric], LoadMode.CLOSED_LOOP, row.npu)
    return refused(f"metric: {row.metric} of separate pools is not predicted")


def workers_of(row: Served, layout: Layout) -> tuple[Workers, Workers]:
    """Return the pools of prefill and decode workers.

    Notes name them, as ``prefill 2x(tp8,attn_dp1,ep8) decode 1x(...)`` or ``1P3D`` of
    workers that are alike; else the accelerators are halved.
    """
    named = {m[1].lower(): m for m in _NAMED.finditer(row.notes)}
    if {"prefill", "decode"} <= set(named):
        prefill, decode = (
            Workers(*(int(named[pool][i]) for i in (2, 3, 4, 5)))
            for pool in ("prefill", "decode")
        )
        return prefill, decode
    groups = row.layout.dp or 1
    degrees = (layout.tp or 1, groups, layout.ep or 1)
    if ratio := _RATIO.search(row.notes):
        return Workers(int(ratio[1]), *degrees), Workers(int(ratio[2]), *degrees)
    each = max(1, row.layout.npus // (2 * degrees[0] * groups))
    return Workers(each, *degrees), Workers(each, *degrees)


@cache
def _figures(row: Served) -> dict[str, float]:
    deployed = Deployed.of(row)
    lengths = deployed.requests
    prefill, decode = workers_of(row, deployed.layout)
    # One token more than none: a pool that only reads prompts still has a rate.
    steps = max(lengths.output_tokens - 1.0, 1.0)
    shape = RequestShape(lengths.input_tokens, lengths.output_tokens)
    first, reading = _prefilling(deployed, prefill, shape)
    users = row.concurrency or np.inf
    most = _most(deployed, decode, shape)
    batch = np.geomspace(1.0, max(min(users / decode.count, most), 1.0), _POINTS)
    tpot = np.maximum(_decoding(deployed, decode, shape, batch).tpot, 1e-9)
    writing = decode.count * batch / (steps * tpot)
    in_flight = decode.count * batch + writing * first
    enough = (in_flight >= users) | (writing >= reading)
    at = int(np.argmax(enough)) if np.any(enough) else _POINTS - 1
    rate = min(float(writing[at]), reading)
    ttft = first
    if np.isfinite(users):
        ttft = max(first, users / rate - steps * float(tpot[at]))
    return {
        "ttft": 1e3 * ttft,
        "tpot": 1e3 * float(tpot[at]),
        "e2e": 1e3 * (ttft + steps * float(tpot[at])),
        "req_s": rate,
        "output_tok_s": rate * lengths.output_tokens,
        "input_tok_s": rate * lengths.input_tokens,
        "total_tok_s": rate * (lengths.input_tokens + lengths.output_tokens),
    }


def _prefilling(
    deployed: Deployed, workers: Workers, shape: RequestShape
) -> tuple[float, float]:
    """Return the seconds of a prompt, and the prompts per second of all workers."""
    found = _decoding(deployed, workers, shape, float(_groups(deployed, workers)))
    first = float(np.max(found.ttft))
    return first, workers.count * workers.dp / first


def _decoding(
    deployed: Deployed, workers: Workers, shape: RequestShape, batch: Number
) -> Estimate:
    """Return what one worker does with requests that run side by side."""
    replica = deployed.replica(*_degrees(deployed, workers))
    own = batch * _groups(deployed, workers) / workers.dp
    return estimate(replica, Load(shape, LoadMode.STATIC_BATCH, own))


def _most(deployed: Deployed, workers: Workers, shape: RequestShape) -> float:
    """Return the requests that a worker's memory holds."""
    replica = deployed.replica(*_degrees(deployed, workers))
    held = max(1.0, float(np.max(replica.largest_batch(shape, 512))))
    return held * workers.dp / _groups(deployed, workers)


def _degrees(deployed: Deployed, workers: Workers) -> tuple[int, int, int]:
    """Return tp, dp and ep of a worker; groups that share nothing are replicas."""
    groups = _groups(deployed, workers)
    ep = workers.ep if deployed.arch.num_experts else 1
    return workers.tp, groups, ep


def _groups(deployed: Deployed, workers: Workers) -> int:
    """Return the data-parallel groups that share experts: all, where there are any."""
    return workers.dp if deployed.arch.num_experts else 1
