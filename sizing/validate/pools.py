"""Results of disaggregated deployments: a prefill pool, a decode pool, users between.

A row's degrees are its decode workers'; its notes name the prefill workers'. Users are
as many as the row says, all start at once and make ten requests each, as InferenceX's
benchmark has them. Engines' limits on requests (``max_batch_size`` of a decode worker)
and speculative decoding are not published, and not guessed.
"""

import re
from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np

from model_ops.arrivals import MAX_SEQUENCES
from model_ops.errors import GenzSizeError
from model_ops.estimate import REQUESTS_PER_USER, LoadMode
from model_ops.serving.engine import Profile
from model_ops.serving.lengths import fixed
from model_ops.serving.pair import Pair, Pool, pool_of
from model_ops.serving.pair_loop import closed_loop, start_of_users
from model_ops.serving.pools import first_token_only
from model_ops.serving.transfer import Link
from problems import catalogue
from problems.catalogue import DEFAULT_FRAMEWORK
from problems.measured.served import Layout, Served
from sizing.validate.answers import Answer, refused, with_interval
from sizing.validate.deployed import Deployed


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
_NODE = re.compile(r"per (\d+)-GPU (prefill|decode) node.*?(\d+)-node")
"""A figure of one node of a pool, in a deployment of so many."""


def answer(row: Served) -> Answer:
    """Return the figure of one result of a disaggregated deployment."""
    try:
        figures = _figures(pair_of(row), row)
    except GenzSizeError as error:
        return refused(error)
    name = f"{row.metric}_{row.statistic}"
    value = figures.get(name, figures.get(row.metric))
    if value is None:
        return refused(f"metric: {row.metric} of separate pools is not predicted")
    metric = row.metric if row.metric in ("ttft", "tpot", "e2e") else "rate"
    return with_interval(metric, value, LoadMode.CLOSED_LOOP, row.npu)


def workers_of(row: Served, layout: Layout) -> tuple[Workers, Workers]:
    """Return the pools of prefill and decode workers.

    Notes name them, as ``prefill 2x(tp8,attn_dp1,ep8) decode 1x(...)`` or ``1P3D`` of
    workers that are alike, or name nodes: most of them decode, as many as deal experts
    evenly. Else the accelerators are halved.
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
    if node := _NODE.search(row.notes):
        npus = int(node[1]) * int(node[3])
        ranks = 2 ** int(np.log2(npus - 1))
        return Workers(1, 1, npus - ranks, npus - ranks), Workers(1, 1, ranks, ranks)
    each = max(1, row.layout.npus // (2 * degrees[0] * groups))
    return Workers(each, *degrees), Workers(each, *degrees)


def pair_of(row: Served) -> Pair:
    """Return the deployment that a row describes.

    Raises
    ------
    GenzSizeError
        If the catalogue lacks something, or the model cannot be split so.
    """
    pools = workers_of(row, Deployed.of(row).layout)
    named = _NAMED.search(row.notes) or _RATIO.search(row.notes)
    notes = "" if named else row.notes
    alike = replace(row, metric="", statistic="", concurrency=None, notes=notes)
    return _pair(alike, *pools)


@cache
def _pair(row: Served, prefill: Workers, decode: Workers) -> Pair:
    deployed = Deployed.of(row)
    lengths = deployed.requests
    # One token more than none: a pool that only reads prompts still has a rate.
    profile = Profile(fixed(lengths.input_tokens), fixed(max(lengths.output_tokens, 2)))
    reads = _pool(deployed, prefill, first_token_only(profile), row.framework)
    writes = _pool(deployed, decode, profile, row.framework)
    ends = (reads.replica.supply, writes.replica.supply)
    return Pair(reads, writes, profile, Link.between(*ends, reads.npus + writes.npus))


def _pool(
    deployed: Deployed, workers: Workers, profile: Profile, framework: str
) -> Pool:
    """Return a pool; what ran although by prediction it does not fit has a cache."""
    experts = deployed.arch.num_experts
    groups = workers.dp if experts else 1
    # Groups that attend alone deal experts out; sources leave that out.
    dealt = workers.ep if workers.dp == 1 or workers.ep > 1 else workers.tp * groups
    replica = deployed.replica(workers.tp, groups, dealt if experts else 1)
    pool = pool_of(
        replica,
        profile,
        workers.count * workers.dp // groups,
        chunk_tokens=catalogue.chunk_tokens_under(framework or DEFAULT_FRAMEWORK),
        max_sequences=MAX_SEQUENCES,
    )
    if pool.engine.cache_tokens >= profile.longest:
        return pool
    return replace(pool, engine=replace(pool.engine, cache_tokens=_ENOUGH))


_ENOUGH = 1e9
"""Tokens of a cache that never runs full."""


def _figures(pair: Pair, row: Served) -> dict[str, float]:
    """Return the figures of a row by name, in its units."""
    if node := _NODE.search(row.notes):
        pool = getattr(pair, node[2])
        share = int(node[1]) / pool.npus
        return _rates(pair, pair.rates[node[2]] * share, node[2])
    if row.rate and not row.concurrency:
        return _arriving(pair, row.rate)
    users = row.concurrency or np.inf
    steady = closed_loop(pair, users)
    loop = closed_loop(pair, users, REQUESTS_PER_USER)
    # The slowest of ten requests is mostly the first: one in a hundred is one in ten.
    slow = steady.ttft
    if np.isfinite(users):
        slow = start_of_users(pair, users, steady, 1.0 - 0.01 * REQUESTS_PER_USER)
    further = (pair.profile.output.mean - 1.0) * loop.tpot
    return {
        "ttft": 1e3 * loop.ttft,
        "ttft_p50": 1e3 * steady.ttft,
        "ttft_p99": 1e3 * max(slow, steady.ttft),
        "tpot": 1e3 * loop.tpot,
        "e2e": 1e3 * (loop.ttft + further),
        **_rates(pair, loop.rate),
    }


def _rates(pair: Pair, rate: float, pool: str = "") -> dict[str, float]:
    """Return what so many requests per second are in tokens, of a pool those it has."""
    prompt = pair.profile.prompt.mean * (pool != "decode")
    answer = pair.profile.output.mean * (pool != "prefill")
    return {
        "req_s": rate,
        "output_tok_s": rate * answer,
        "input_tok_s": rate * prompt,
        "total_tok_s": rate * (prompt + answer),
    }


def _arriving(pair: Pair, rate: float) -> dict[str, float]:
    """Return latencies where requests arrive at random, and the most that may."""
    found = _rates(pair, closed_loop(pair, np.inf).rate)
    latencies = pair.latencies(rate)
    if not latencies.stable:
        return found
    for metric in ("ttft", "tpot", "e2e"):
        figures = asdict(getattr(latencies, metric))
        found |= {f"{metric}_{name}": 1e3 * float(s) for name, s in figures.items()}
    return found
