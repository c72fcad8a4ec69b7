"""Users of a prefill pool and a decode pool: by hand, by law, by simulation."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import fixed
from model_ops.serving.pair import Pair, Pool
from model_ops.serving.pair_loop import closed_loop, decode_slots, start_of_users
from model_ops.serving.simulation import Router, simulate_disaggregated
from model_ops.serving.step import Replica
from model_ops.serving.step_curve import StepCurve
from model_ops.serving.trace import Trace
from model_ops.serving.transfer import Link

CURVE = StepCurve.line(
    overhead=1e-3,
    weights=6.007e-3,
    per_token=2.941e-5,
    per_sequence=5e-6,
    per_cached=4.891e-8,
    per_pair=1.377e-9,
    most_tokens=8192,
)
ENGINE = Engine(CURVE, 8192, 256, 400_000)
FAST = Link("wire", send=1e12, receive=1e12, latency=0.0)


def pair_of(
    replica: Replica,
    prompt: float,
    answer: float,
    replicas: tuple[int, int] = (1, 1),
    decode: Engine = ENGINE,
) -> Pair:
    engines = zip((ENGINE, decode), replicas, strict=True)
    pools = (Pool(replica, engine, count, 8192) for engine, count in engines)
    return Pair(*pools, Profile(fixed(prompt), fixed(answer)), FAST)


def simulated(pair: Pair, users: int, each: int) -> Trace:
    """Return what users see: the arrivals that the finishes of a pass say, at rest.

    A request arrives when its user's last one is done: each pass settles a round.
    """
    rng, count = np.random.default_rng(0), users * each
    prompts, answers = (
        rng.integers(int(0.9 * mean), int(1.1 * mean) + 1, count)
        for mean in (pair.profile.prompt.mean, pair.profile.output.mean)
    )
    arriving = np.zeros((each, users))
    for _ in range(3 * each):
        trace = simulate_disaggregated(
            pair.prefill.engine,
            pair.decode.engine,
            arriving.ravel(),
            prompts,
            answers,
            prefill_replicas=pair.prefill.replicas,
            decode_replicas=pair.decode.replicas,
            router=Router.LEAST_LOADED,
        )
        done = trace.finish.reshape(each, users)
        asked = np.vstack([np.zeros(users), done[:-1]])
        if np.allclose(asked, arriving, rtol=0.0, atol=1e-9):
            break
        arriving = asked
    return trace


def test_one_user_by_hand(toy_replica: Replica) -> None:
    pair = pair_of(toy_replica, 1000, 101)
    found = closed_loop(pair, 1)
    reading = 1e-3 + 2.941e-5 * 1000 + 1.377e-9 * 1000**2 / 2
    step = 1e-3 + 6.007e-3 + 5e-6 + 4.891e-8 * 1050
    assert found.tpot == pytest.approx(step, rel=1e-3)
    # A first token is decoded from the next step on: half a step of wait.
    travel = pair.transfer(1.0).seconds(1000)
    assert found.ttft == pytest.approx(reading + travel + step / 2, rel=0.01)
    assert found.rate == pytest.approx(1 / (found.ttft + 100 * found.tpot), rel=1e-6)


@pytest.mark.parametrize("users", [1, 7, 100, 3000])
def test_littles_law(toy_replica: Replica, users: int) -> None:
    pair = pair_of(toy_replica, 2000, 301, (2, 3))
    found = closed_loop(pair, users)
    assert found.rate * (found.ttft + 300 * found.tpot) == pytest.approx(users)
    assert found.batch == pytest.approx(found.rate * 300 * found.tpot)


def test_more_users_wait_for_the_pool_that_binds(toy_replica: Replica) -> None:
    pair = pair_of(toy_replica, 6000, 11)
    assert pair.binding == "prefill"
    few, many = closed_loop(pair, 50), closed_loop(pair, 100)
    assert few.rate == pytest.approx(pair.rates["prefill"], rel=0.01)
    assert many.rate == pytest.approx(few.rate, rel=0.01)
    assert many.ttft - few.ttft == pytest.approx(50 / few.rate, rel=0.05)

    narrow = pair_of(toy_replica, 100, 401, decode=replace(ENGINE, max_sequences=8))
    assert narrow.binding == "decode"
    assert decode_slots(narrow) == 8
    assert closed_loop(narrow, 20).batch == pytest.approx(8)
    assert closed_loop(narrow, 20).rate == pytest.approx(
        closed_loop(narrow, 8).rate, rel=0.01
    )


def test_without_limit_the_least_part_says_the_rate(toy_replica: Replica) -> None:
    pair = pair_of(toy_replica, 2000, 301)
    found = closed_loop(pair, np.inf)
    assert found.rate == pytest.approx(min(pair.rates.values()), rel=0.01)


def test_the_start_of_all_users_by_hand(toy_replica: Replica) -> None:
    pair = pair_of(toy_replica, 1024, 101)
    steady = closed_loop(pair, 64)
    # 64 prompts of 1,024 tokens are eight full steps: the mean one ends after 4.5.
    step = 1e-3 + 2.941e-5 * 8192 + 8 * 1.377e-9 * 1024**2 / 2
    travel = pair.transfer(steady.rate).seconds(1024)
    found = start_of_users(pair, 64, steady)
    assert found == pytest.approx(4.5 * step + travel, rel=0.01)
    mixed = closed_loop(pair, 64, requests_per_user=4)
    assert mixed.ttft == pytest.approx(0.25 * found + 0.75 * steady.ttft)
    assert mixed.tpot == steady.tpot


@pytest.mark.parametrize(
    ("prompt", "answer", "replicas", "users"),
    [
        (2000, 300, (1, 1), 8),
        (2000, 300, (1, 2), 32),
        (6000, 300, (2, 1), 64),
        (6000, 100, (1, 1), 32),
    ],
)
def test_against_simulation(
    toy_replica: Replica,
    prompt: int,
    answer: int,
    replicas: tuple[int, int],
    users: int,
) -> None:
    pair = pair_of(toy_replica, prompt, answer, replicas)
    trace = simulated(pair, users, 10)
    first = np.mean(trace.first_token - trace.arrival)
    whole = np.mean(trace.finish - trace.arrival)
    found = closed_loop(pair, users, 10)
    assert found.ttft == pytest.approx(first, rel=0.2)
    assert found.ttft + (answer - 1) * found.tpot == pytest.approx(whole, rel=0.03)
