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


def test_capacity_is_a_rate_or_a_batch(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    (chat, users), (by_rate, by_users) = good_plan.deployments, good_problem.traffic
    state = full_state(good_plan, chat, by_rate)
    # Little's law: 32 sequences, each decoding for 199 further tokens.
    assert capacity(good_plan, chat, by_rate) == pytest.approx(32 / (199 * state.tpot))
    assert capacity(good_plan, users, by_users) == 16


def test_demand_is_split_in_proportion_to_capacity(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    chat = good_plan.deployments[0]
    small = chat.model_copy(update={"batch": 8, "replicas": 1})
    plan = good_plan.model_copy(update={"deployments": (chat, small)})
    traffic = good_problem.traffic[0]
    results = served(good_problem, plan, traffic)
    offered = sum(r.load.rate * r.deployment.replicas for r in results)
    assert offered == pytest.approx(50.0)
    first, second = results
    assert first.utilisation == pytest.approx(second.utilisation)
    assert 0 < first.utilisation < 1
    assert first.load.mode is LoadMode.OPEN_LOOP
    assert first.estimate.rate == pytest.approx(first.load.rate)


def test_users_are_a_closed_loop(good_problem: SizingProblem, good_plan: Plan) -> None:
    (result,) = served(good_problem, good_plan, good_problem.traffic[1])
    assert result.load.mode is LoadMode.CLOSED_LOOP
    assert result.load.concurrency == pytest.approx(32 / 2)
    assert result.utilisation == pytest.approx(1.0)


def test_at_its_share_a_deployment_meets_what_it_meets_when_full(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    traffic = good_problem.traffic[0]
    (result,) = served(good_problem, good_plan, traffic)
    full = full_state(good_plan, result.deployment, traffic)
    assert result.estimate.tpot <= full.tpot
    assert result.estimate.fits
