"""Plans: sums over purchases, and the way to JSON and back."""

import pytest
from pydantic import ValidationError

from model_ops.profiler.parallelism import Parallelism
from problems.plan import Plan


def test_json_round_trip(good_plan: Plan) -> None:
    assert Plan.model_validate_json(good_plan.model_dump_json()) == good_plan


def test_sums_are_those_of_the_purchases(good_plan: Plan) -> None:
    assert good_plan.usd_per_hour == pytest.approx(16 + 2)
    assert good_plan.total_npus == 8 + 2
    assert good_plan.power == pytest.approx(8 * 1730 + 2 * 350 * 2.17)


def test_power_is_unknown_where_one_npus_is(good_plan: Plan) -> None:
    first, second = good_plan.purchases
    unknown = first.model_copy(update={"power": None})
    plan = good_plan.model_copy(update={"purchases": (unknown, second)})
    assert plan.power is None


def test_deployments_of_a_class(good_plan: Plan) -> None:
    chat, users = good_plan.deployments
    assert good_plan.of_class("chat") == (chat,)
    assert good_plan.of_class("users") == (users,)
    assert good_plan.of_class("none") == ()


def test_npus_of_a_replica(good_plan: Plan) -> None:
    split = good_plan.deployments[0].model_copy(update={"tp": 4, "pp": 3})
    assert split.npus_per_replica == 12
    # Experts live on the ranks of the other degrees.
    wide = split.model_copy(update={"ep": 8, "dp": 2, "cp": 3})
    assert wide.npus_per_replica == 4 * 3 * 2 * 3
    assert wide.parallelism == Parallelism(4, 3, 8, 2, 3)


def test_mean_batch_may_be_a_fraction_and_must_be_said(good_plan: Plan) -> None:
    data = good_plan.model_dump()
    data["deployments"][0]["mean_batch"] = 0.25
    assert Plan.model_validate(data).deployments[0].mean_batch == 0.25
    del data["deployments"][0]["mean_batch"]
    with pytest.raises(ValidationError, match="mean_batch"):
        Plan.model_validate(data)


def test_the_rate_that_targets_allow_must_be_said(good_plan: Plan) -> None:
    data = good_plan.model_dump()
    data["deployments"][0]["rate"] = 0.01
    assert Plan.model_validate(data).deployments[0].rate == 0.01
    del data["deployments"][0]["rate"]
    with pytest.raises(ValidationError, match="rate"):
        Plan.model_validate(data)


def test_expert_data_and_context_parallel_are_one_unless_said(good_plan: Plan) -> None:
    for deployment in good_plan.deployments:
        assert (deployment.ep, deployment.dp, deployment.cp) == (1, 1, 1)
        assert deployment.npus_per_replica == deployment.tp * deployment.pp


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 0},
        {"tp": 0},
        {"batch": -1},
        {"mean_batch": 0.0},
        {"mean_batch": -1.0},
        {"mean_batch": None},
        {"rate": 0.0},
        {"rate": -1.0},
        {"rate": None},
        {"ep": 0},
        {"ep": -2},
        {"ep": 1.5},
        {"dp": 0},
        {"dp": None},
        {"cp": 0},
        {"mode": "disaggregated"},
        {"usd_per_hour": -1.0},
        {"surprise": 1},
    ],
)
def test_nonsense_is_refused(good_plan: Plan, change: dict[str, object]) -> None:
    data = good_plan.model_dump()
    data["deployments"] = [data["deployments"][0] | change]
    with pytest.raises(ValidationError, match=next(iter(change))):
        Plan.model_validate(data)


def test_plan_of_nothing_is_refused(good_plan: Plan) -> None:
    with pytest.raises(ValidationError, match="deployments"):
        Plan.model_validate(good_plan.model_dump() | {"deployments": []})
