"""Planned deployments in the model's terms, each at its share of the demand."""

import pytest

from model_ops.estimate import LoadMode
from model_ops.serving.steady_state import steady_state
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import capacity, full_state, replica_of, served


def test_replica_is_the_deployments(good_plan: Plan) -> None:
    replica = replica_of(good_plan, good_plan.deployments[0])
    assert replica.arch.name == "llama-3.1-8b"
    assert (replica.parallelism.tp, replica.parallelism.pp) == (2, 1)
    assert replica.precision.name == "bf16"
    assert [npu.name for npu in replica.supply.npus] == ["h100-sxm"]


def test_full_state_is_the_steady_state_at_the_batch(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    deployment, traffic = good_plan.deployments[0], good_problem.traffic[0]
    short = deployment.model_copy(update={"chunk_tokens": 512})
    expected = steady_state(replica_of(good_plan, short), traffic.shape, 32.0, 512)
    assert full_state(good_plan, short, traffic) == expected
    assert full_state(good_plan, deployment, traffic) != expected


def test_capacity_is_a_rate_or_what_is_in_flight(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    (chat, users), (by_rate, by_users) = good_plan.deployments, good_problem.traffic
    state = full_state(good_plan, chat, by_rate)
    # Little's law: 32 sequences, each decoding for 199 further tokens.
    assert capacity(good_plan, chat, by_rate) == pytest.approx(32 / (199 * state.tpot))
    state = full_state(good_plan, users, by_users)
    # 16 decode, and those wait that arrive during a time to first token.
    in_flight = 16 + state.rate * state.ttft
    assert 16.1 < in_flight < 17
    assert capacity(good_plan, users, by_users) == pytest.approx(in_flight)
    assert state.in_flight == pytest.approx(in_flight)


def test_the_cap_of_the_batch_changes_no_capacity(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    for deployment, traffic in zip(
        good_plan.deployments, good_problem.traffic, strict=True
    ):
        usual = capacity(good_plan, deployment, traffic)
        roomy = deployment.model_copy(update={"batch": 2 * deployment.batch})
        assert capacity(good_plan, roomy, traffic) == usual
        mean = deployment.mean_batch / 2
        emptier = deployment.model_copy(update={"mean_batch": mean})
        assert capacity(good_plan, emptier, traffic) < usual


def test_demand_is_split_in_proportion_to_capacity(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    chat = good_plan.deployments[0]
    less = {"batch": 14, "mean_batch": 8.0, "replicas": 1}
    small = chat.model_copy(update=less)
    plan = good_plan.model_copy(update={"deployments": (chat, small)})
    traffic = good_problem.traffic[0]
    results = served(good_problem, plan, traffic)
    offered = sum(r.load.rate * r.deployment.replicas for r in results)
    assert offered == pytest.approx(50.0)
    first, second = results
    assert first.utilisation == pytest.approx(second.utilisation)
    assert first.load.rate > 2 * second.load.rate
    assert 0 < first.utilisation < 1
    assert first.load.mode is LoadMode.OPEN_LOOP
    assert first.estimate.rate == pytest.approx(first.load.rate)


def test_users_are_a_closed_loop(good_problem: SizingProblem, good_plan: Plan) -> None:
    traffic = good_problem.traffic[1]
    (result,) = served(good_problem, good_plan, traffic)
    assert result.load.mode is LoadMode.CLOSED_LOOP
    assert result.load.concurrency == pytest.approx(32 / 2)
    most = capacity(good_plan, result.deployment, traffic)
    assert result.utilisation == pytest.approx(16 / most)
    assert 0.97 < result.utilisation < 1
    # Of the 16 in flight on a replica, some wait for their first token.
    found = result.estimate
    assert found.batch + found.rate * found.ttft == pytest.approx(16, rel=1e-4)


def test_users_that_fill_a_replica_make_its_mean_batch(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    users, traffic = good_plan.deployments[1], good_problem.traffic[1]
    # A mean batch at which the two are exactly full.
    low, high = 15.0, 16.0
    for _ in range(40):
        mean = (low + high) / 2
        full = users.model_copy(update={"mean_batch": mean})
        enough = capacity(good_plan, full, traffic) >= 16
        low, high = (low, mean) if enough else (mean, high)
    full = users.model_copy(update={"mean_batch": high})
    plan = good_plan.model_copy(update={"deployments": (full,)})
    (result,) = served(good_problem, plan, traffic)
    assert result.utilisation == pytest.approx(1, rel=1e-9)
    assert result.estimate.batch == pytest.approx(high, rel=1e-6)
    assert result.estimate.ttft == pytest.approx(
        full_state(plan, full, traffic).ttft, rel=1e-4
    )


def test_at_its_share_a_deployment_meets_what_it_meets_when_full(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    traffic = good_problem.traffic[0]
    (result,) = served(good_problem, good_plan, traffic)
    full = full_state(good_plan, result.deployment, traffic)
    assert result.estimate.tpot <= full.tpot
    assert result.estimate.fits
