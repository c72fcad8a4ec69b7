"""Users who wait for answers: where the percentiles of a closed loop come from."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.arrivals import alike_engine, under_users
from model_ops.dtypes import BF16
from model_ops.estimate import Load, LoadMode, estimate, start_of_users
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape
from model_ops.serving.queueing import latencies
from model_ops.serving.saturation import saturation_rate
from model_ops.serving.step import Replica
from problems import catalogue

REPLICA = Replica(
    catalogue.load_model("llama-3.1-8b"),
    Parallelism(),
    BF16,
    Supply.of(catalogue.load_npu("h100-sxm")),
)
LOAD = Load(RequestShape(1000.0, 200.0), LoadMode.CLOSED_LOOP)


def test_requests_are_spread_about_the_mean_as_arrivals_spread_them() -> None:
    engine, profile = alike_engine(REPLICA, LOAD)
    found = latencies(engine, profile, 7.5)
    ttft, tpot = under_users(engine, profile, 7.5, 3.0, 5.0)
    assert ttft == pytest.approx(3.0 + found.ttft.p99 - found.ttft.mean)
    assert tpot == pytest.approx(5.0 + found.tpot.p99 - found.tpot.mean)


def test_a_full_replica_is_spread_as_at_four_fifths_of_saturation() -> None:
    engine, profile = alike_engine(REPLICA, LOAD)
    most = 0.8 * float(saturation_rate(engine, profile))
    for rate in (1.001 * most, 5 * most):
        assert under_users(engine, profile, rate, 3.0, 5.0) == pytest.approx(
            under_users(engine, profile, most, 3.0, 5.0)
        )


def test_rates_are_arrays() -> None:
    engine, profile = alike_engine(REPLICA, LOAD)
    rates = np.array([1.0, 10.0, 100.0])
    together = under_users(engine, profile, rates, rates, 0.0 * rates)
    for number, rate in enumerate(rates):
        alone = under_users(engine, profile, rate, rate, 0.0)
        assert [values[number] for values in together] == pytest.approx(alone)


def test_half_of_those_who_start_together_keep_the_mean() -> None:
    # 64 prompts of 1000 tokens in steps of 2048 less the half that decodes: 31.7
    # steps, of which the mean prompt waits for half and the last for all.
    load = replace(LOAD, concurrency=64)
    steady = estimate(REPLICA, load)
    first, mean, last = (
        float(start_of_users(REPLICA, load, steady, level)) for level in (0, 0.5, 1)
    )
    assert mean == pytest.approx((first + last) / 2)
    outside = REPLICA.supply.request_overhead + REPLICA.supply.host_time * 32
    steps = 64 * 1000 / (2048 - 32)
    assert (last - outside) / (first - outside) == pytest.approx(steps, rel=1e-6)
    started = estimate(REPLICA, replace(load, requests_per_user=10))
    assert started.ttft == pytest.approx(0.1 * mean + 0.9 * float(steady.ttft))
