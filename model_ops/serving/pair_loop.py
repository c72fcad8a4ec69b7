"""Users who wait for their answers, served by a prefill pool and a decode pool.

A request goes round: it is read, its cache travels, it is answered, and its user asks
again. With b requests on each of D decode queues, answers of n steps of t(b) seconds
end at the rate X = D b / (n t(b)). Little's law over the circle says which b it is::

    users = X (reading + travel + t(b) / 2) + D b

What an arrival meets is the load that the other users make, X (1 - 1 / users) (arrival
theorem: M. Reiser and S. Lavenberg, JACM 27, 1980; P. Schweitzer's approximation).
Users beyond what a pool or the links take wait for it, as long as the law says.
"""

from dataclasses import dataclass, replace

import numpy as np

from model_ops.serving.lengths import Floats
from model_ops.serving.pair import Pair
from model_ops.serving.pools import first_token_only
from model_ops.serving.queueing import Laws
from model_ops.serving.server import RARE_PREEMPTION, Server
from model_ops.units import RequestsPerSecond, Seconds

_POINTS, _GRIDS = 24, 4
"""Grids that close in on the batch: together finer than 1 in 10,000."""

_LEAST_BATCH = 1e-3


@dataclass(frozen=True)
class PairLoop:
    """Means of a pair whose users each wait for one answer before they ask again.

    Parameters
    ----------
    rate
        Requests per second.
    ttft
        Seconds until the user has the first token. It comes through the decode pool, as
        in vLLM, SGLang and TensorRT-LLM: transfer and wait for a slot are part of it.
    tpot
        Seconds per further token.
    batch
        Requests that decode, of the whole pool.
    """

    rate: RequestsPerSecond
    ttft: Seconds
    tpot: Seconds
    batch: float


def closed_loop(
    pair: Pair, users: float, requests_per_user: float = np.inf
) -> PairLoop:
    """Return the means under so many users that are never idle.

    Parameters
    ----------
    pair
        The deployment.
    users
        Requests in flight; infinite for as many as it takes: TTFT is then a prompt's
        own.
    requests_per_user
        Requests that each makes, all users starting at once; the mean TTFT includes
        that start, and so does the rate. Infinite for the steady state alone.
    """
    steady = _steady(pair, users)
    if np.isinf(users) or np.isinf(requests_per_user):
        return steady
    first = 1.0 / requests_per_user
    start = start_of_users(pair, users, steady)
    ttft = first * start + (1.0 - first) * steady.ttft
    slower = 1.0 / (1.0 + (ttft - steady.ttft) * steady.rate / users)
    return replace(
        steady, ttft=ttft, rate=steady.rate * slower, batch=steady.batch * slower
    )


def _steady(pair: Pair, users: float) -> PairLoop:
    server = Server.of(pair.decode.engine, pair.profile)
    queues, steps = pair.decode.queues, float(server.steps[..., 0])
    high = min(users / queues, decode_slots(pair) / queues)
    low = min(_LEAST_BATCH, high / 2.0)
    for _ in range(_GRIDS):
        batch = np.geomspace(low, high, _POINTS)
        step = server.decode_step(np.maximum(batch, 1.0))
        rate = queues * batch / (steps * step)
        ttft = _unhindered(pair, rate, users) + step / 2.0
        enough = rate * ttft + queues * batch >= users
        enough |= rate >= min(pair.rates["prefill"], pair.rates["transfer"])
        at = int(np.argmax(enough)) if enough.any() else _POINTS - 1
        low, high = float(batch[max(at - 1, 0)]), float(batch[at])
    seen = float(ttft[at])
    if np.isfinite(users):
        seen = float(users / rate[at] - steps * step[at])
    return PairLoop(
        rate=float(rate[at]),
        ttft=seen,
        tpot=float(step[at] / server.tokens_per_step[..., 0]),
        batch=float(queues * batch[at]),
    )


def decode_slots(pair: Pair) -> float:
    """Return the requests that the decode pool may run at once."""
    server = Server.of(pair.decode.engine, pair.profile)
    own = float(server.slot_cap(RARE_PREEMPTION)[..., 0])
    return float(pair.decode.queues * max(np.floor(own), 1.0))


def start_of_users(
    pair: Pair, users: float, steady: PairLoop, level: float = 0.5
) -> Seconds:
    """Return the TTFT that a share of users keeps who all ask at once.

    Half of them keep the mean. Each prefill queue reads its prompts in full steps: of n
    prompts in k steps, the mean one ends with step (k + 1) / 2. The host takes requests
    in turn. Users beyond the decode pool's slots wait for whole answers besides.
    """
    pool, alone = pair.prefill, first_token_only(pair.profile)
    server = Server.of(pool.engine, alone)
    own = max(users / pool.queues, 1.0) * server.load.prompt_tokens
    many = own / float(server.chunk[..., 0])
    tokens = np.minimum(own, server.chunk)
    step = server.curve.base_at(tokens) + tokens * server.pairs_per_token
    reading = float(step[..., 0]) * (1.0 + level * max(many - 1.0, 0.0))
    host = float(pool.replica.supply.host_time) * level * users / pool.queues
    host += float(pool.engine.request_overhead)
    answers = level * max(users / decode_slots(pair) - 1.0, 0.0)
    whole = pair.profile.output.mean * steady.tpot
    return reading + host + _handover(pair, steady.rate) + answers * whole


def _unhindered(pair: Pair, rate: Floats, users: float) -> Floats:
    """Return the seconds from a question to the decode pool, at rates it can take."""
    met = rate * max(1.0 - 1.0 / users, _LEAST_BATCH)
    queues = pair.prefill.queues
    most = 0.999 * pair.rates["prefill"]
    laws = Laws.of(
        pair.prefill.engine,
        first_token_only(pair.profile),
        np.minimum(met, most) / queues,
        pair.variation(queues, 1.0),
    )
    travel = np.array([_handover(pair, each) for each in met])
    return np.asarray(laws.ttft.mean[..., 0] + travel)


def _handover(pair: Pair, rate: RequestsPerSecond) -> Seconds:
    """Return the seconds of a cache's travel, and outside the decode pool's steps."""
    travel = pair.transfer(rate).seconds(pair.profile.prompt.mean)
    return travel + float(pair.decode.engine.request_overhead)
