"""Planned deployments in the model's terms, each at its share of the demand."""

from typing import Any

import numpy as np
import pytest

from model_ops.estimate import LoadMode
from model_ops.serving.deployed import engine_of
from model_ops.serving.queueing import latencies
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import capacity, served
from problems.stations import Station, gap_variation, planned_engine, replica_of
from problems.traffic import TrafficClass

pytestmark = pytest.mark.usefixtures("plain_npus")


def test_replica_is_the_deployments(good_plan: Plan) -> None:
    replica = replica_of(good_plan, good_plan.deployments[0])
    assert replica.arch.name == "llama-3.1-8b"
    assert (replica.parallelism.tp, replica.parallelism.pp) == (2, 1)
    assert replica.precision.name == "bf16"
    assert [npu.name for npu in replica.supply.npus] == ["h100-sxm"]


def test_engine_is_the_deployments(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    deployment, traffic = good_plan.deployments[0], good_problem.traffic[0]
    short = deployment.model_copy(update={"chunk_tokens": 512, "batch": 64})
    found = planned_engine(good_plan, short, traffic)
    expected = engine_of(
        replica_of(good_plan, short),
        traffic.profile,
        chunk_tokens=512,
        max_sequences=64,
    )
    assert (found.chunk_tokens, found.max_sequences) == (512, 64)
    assert float(found.cache_tokens) == float(expected.cache_tokens)
    assert np.array_equal(found.curve.base, expected.curve.base)


def test_beams_are_the_classs(good_problem: SizingProblem, good_plan: Plan) -> None:
    deployment, traffic = good_plan.deployments[0], good_problem.traffic[0]
    searched = traffic.model_copy(update={"beams": 4})
    one = planned_engine(good_plan, deployment, traffic)
    four = planned_engine(good_plan, deployment, searched)
    assert np.all(four.curve.decoding > one.curve.decoding)
    assert four.cache_tokens < one.cache_tokens


# How requests reach a replica


def of_rate(**changes: Any) -> TrafficClass:
    data = {"input_tokens": 100, "output_tokens": 10, "rate": 1.0} | changes
    return TrafficClass(**{k: v for k, v in data.items() if v is not None})


@pytest.mark.parametrize(
    ("traffic", "replicas", "groups", "expected"),
    [
        (of_rate(), 1, 1, 1.0),
        (of_rate(), 4, 1, 1 / 4),
        (of_rate(), 4, 2, 1 / 8),
        (of_rate(burstiness=3.0), 2, 1, 9 / 2),
        (of_rate(rate=None, concurrency=8), 4, 2, 1.0),
        (of_rate(router="least_loaded"), 4, 2, 1 / 8),
        (of_rate(router="random"), 4, 2, 1.0),
        (of_rate(router="random", burstiness=3.0), 4, 1, 1 + 8 / 4),
        (of_rate(router="random", burstiness=0.5), 4, 1, 1.0),
    ],
)
def test_a_router_makes_arrivals_even_but_users_do_not(
    traffic: TrafficClass, replicas: int, groups: int, expected: float
) -> None:
    assert float(gap_variation(traffic, replicas, groups)) == pytest.approx(expected)
    many = gap_variation(traffic, np.array([replicas, replicas]), groups)
    assert np.shape(many) == (2,)
    assert np.asarray(many) == pytest.approx([expected, expected])


def test_station_is_one_group_of_a_replica(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    deployment, traffic = good_plan.deployments[0], good_problem.traffic[0]
    station = Station.of(good_plan, deployment, traffic)
    assert (station.groups, station.variation) == (1, pytest.approx(1 / 3))
    expected = latencies(
        planned_engine(good_plan, deployment, traffic),
        traffic.profile,
        18.0,
        arrival_variation=1 / 3,
    )
    found = station.latencies(18.0)
    assert found.ttft == expected.ttft
    assert found.e2e == expected.e2e
    # The same requests dealt to two groups that never meet.
    pair = Station(station.engine, traffic, 2, station.variation)
    assert pair.latencies(36.0).tpot == expected.tpot
    assert pair.mean_batch(36.0) == pytest.approx(2 * station.mean_batch(18.0))
    assert pair.in_flight(36.0) == pytest.approx(2 * station.in_flight(18.0))


def test_excess_is_above_0_where_a_target_is_missed(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    deployment, traffic = good_plan.deployments[0], good_problem.traffic[0]
    station = Station.of(good_plan, deployment, traffic)
    figures = station.latencies(18.0)
    for target in traffic.targets:
        for statistic in ("mean", "p50", "p90", "p95", "p99"):
            exact = float(getattr(getattr(figures, target.metric), statistic))
            for factor, missed in ((0.99, True), (1.01, False)):
                asked = target.model_copy(
                    update={"statistic": statistic, "at_most": exact * factor}
                )
                assert (station.excess(asked, 18.0) > 0) is missed, asked


def test_in_flight_is_littles_law(good_problem: SizingProblem, good_plan: Plan) -> None:
    users, traffic = good_plan.deployments[1], good_problem.traffic[1]
    station = Station.of(good_plan, users, traffic)
    figures = station.latencies(5.6)
    assert station.in_flight(5.6) == pytest.approx(5.6 * float(figures.e2e.mean))
    # Those that decode, and those that wait for their first token, but for the
    # closed form's own error.
    waiting = 5.6 * float(figures.ttft.mean)
    decoding = station.mean_batch(5.6)
    assert station.in_flight(5.6) == pytest.approx(decoding + waiting, rel=0.02)


# Capacity


def test_capacity_is_a_rate_or_what_is_in_flight(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    (chat, users), (by_rate, by_users) = good_plan.deployments, good_problem.traffic
    assert capacity(good_plan, chat, by_rate) == 18.0
    station = Station.of(good_plan, users, by_users)
    assert capacity(good_plan, users, by_users) == station.in_flight(5.6)
    assert 16 < station.in_flight(5.6) < 17


@pytest.mark.parametrize("number", [0, 1])
def test_capacity_does_not_depend_on_the_replicas(
    good_problem: SizingProblem, good_plan: Plan, number: int
) -> None:
    deployment, traffic = good_plan.deployments[number], good_problem.traffic[number]
    more = deployment.model_copy(update={"replicas": 7 * deployment.replicas})
    assert capacity(good_plan, more, traffic) == capacity(
        good_plan, deployment, traffic
    )
    slower = deployment.model_copy(update={"rate": deployment.rate / 2})
    assert capacity(good_plan, slower, traffic) <= 0.5 * capacity(
        good_plan, deployment, traffic
    )


# At its share


def test_demand_is_split_in_proportion_to_capacity(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    chat = good_plan.deployments[0]
    small = chat.model_copy(update={"rate": 6.0, "mean_batch": 7.6, "replicas": 1})
    plan = good_plan.model_copy(update={"deployments": (chat, small)})
    first, second = served(good_problem, plan, good_problem.traffic[0])
    # 3 x 18 and 6 make 60 req/s of capacity for 50.
    assert first.load.rate == pytest.approx(15.0)
    assert second.load.rate == pytest.approx(5.0)
    assert first.utilisation == second.utilisation == pytest.approx(5 / 6)
    assert first.load.mode is LoadMode.OPEN_LOOP
    assert first.estimate.rate == first.load.rate


def test_headroom_is_not_served(good_problem: SizingProblem, good_plan: Plan) -> None:
    wary = good_problem.model_copy(update={"headroom": 0.05})
    plain = served(good_problem, good_plan, good_problem.traffic[0])
    (spare,) = served(wary, good_plan, wary.traffic[0])
    assert spare.load.rate == plain[0].load.rate == pytest.approx(50 / 3)


def test_what_is_served_is_the_stations(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    traffic = good_problem.traffic[0]
    (result,) = served(good_problem, good_plan, traffic)
    station = Station.of(good_plan, result.deployment, traffic)
    figures = station.latencies(50 / 3)
    assert float(result.latencies.ttft.p99) == pytest.approx(float(figures.ttft.p99))
    assert result.estimate.ttft == pytest.approx(float(figures.ttft.mean))
    assert result.estimate.tpot == pytest.approx(float(figures.tpot.mean))
    assert result.estimate.batch == pytest.approx(station.mean_batch(50 / 3))
    assert result.estimate.fits


def test_users_are_a_closed_loop(good_problem: SizingProblem, good_plan: Plan) -> None:
    traffic = good_problem.traffic[1]
    (result,) = served(good_problem, good_plan, traffic)
    assert result.load.mode is LoadMode.CLOSED_LOOP
    assert result.load.concurrency == pytest.approx(32 / 2)
    most = capacity(good_plan, result.deployment, traffic)
    assert result.utilisation == pytest.approx(16 / most)
    assert 0.95 < result.utilisation < 1
    # The rate is that at which 16 are in flight.
    found = result.estimate
    assert found.rate * float(result.latencies.e2e.mean) == pytest.approx(16, rel=1e-9)
    assert found.rate < result.deployment.rate


def test_users_that_fill_a_replica_arrive_at_its_rate(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    users, traffic = good_plan.deployments[1], good_problem.traffic[1]
    station = Station.of(good_plan, users, traffic)
    low, high = 5.4, 5.6
    for _ in range(60):
        rate = (low + high) / 2
        low, high = (rate, high) if station.in_flight(rate) < 16 else (low, rate)
    full = users.model_copy(update={"rate": high})
    plan = good_plan.model_copy(update={"deployments": (full,)})
    (result,) = served(good_problem, plan, traffic)
    assert result.utilisation == pytest.approx(1, rel=1e-9)
    assert result.estimate.rate == pytest.approx(high, rel=1e-9)


def test_at_its_share_a_deployment_meets_what_it_meets_when_full(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    traffic = good_problem.traffic[0]
    (result,) = served(good_problem, good_plan, traffic)
    station = Station.of(good_plan, result.deployment, traffic)
    full = station.latencies(result.deployment.rate)
    for metric in ("ttft", "tpot", "e2e"):
        for statistic in ("mean", "p50", "p90", "p95", "p99"):
            here = getattr(getattr(result.latencies, metric), statistic)
            assert here <= getattr(getattr(full, metric), statistic), metric
