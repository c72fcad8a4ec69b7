"""Disaggregated pairs in plans: stated, served at their share, verified."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from model_ops.errors import GenzSizeError
from model_ops.serving.deployed import engine_of
from model_ops.serving.pools import first_token_only
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import covered, pair_rate, served
from problems.stated import stated_plan
from problems.stations import PairStation, Station, planned_engine, replica_of
from problems.verify import violations

pytestmark = pytest.mark.usefixtures("plain_npus")

Mutation = Callable[[Plan], Plan]

PREFILL = {"mode": "prefill", "npu": "h100", "replicas": 2}
DECODE = {"mode": "decode", "npu": "h100", "replicas": 3}


def changed(plan: Plan, number: int, **changes: Any) -> Plan:
    """Return a plan with another deployment in a place."""
    rows = list(plan.deployments)
    rows[number] = rows[number].model_copy(update=changes)
    return plan.model_copy(update={"deployments": tuple(rows)})


def with_class(problem: SizingProblem, **changes: Any) -> SizingProblem:
    traffic = problem.traffic[0].model_copy(update=changes)
    return problem.model_copy(update={"traffic": (traffic,)})


def broken(problem: SizingProblem, plan: Plan) -> set[str]:
    return {violation.requirement for violation in violations(problem, plan)}


# Plans


def test_a_pair_is_two_rows(pair_plan: Plan) -> None:
    prefill, decode = pair_plan.deployments
    assert pair_plan.pair("chat") == (prefill, decode)
    assert pair_plan.aggregated("chat") == ()
    assert (prefill.mode, decode.mode) == ("prefill", "decode")
    assert prefill.mean_batch == 0 < decode.mean_batch
    assert Plan.model_validate_json(pair_plan.model_dump_json()) == pair_plan


def test_aggregated_plans_have_none(good_plan: Plan) -> None:
    assert good_plan.pair("chat") is None
    assert good_plan.aggregated("chat") == good_plan.of_class("chat")
    assert {d.mode for d in good_plan.deployments} == {"aggregated"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:1], "without the other"),
        (lambda rows: rows[1:], "without the other"),
        (lambda rows: [*rows, *rows], "more than one prefill row"),
        (lambda rows: [rows[0], rows[1] | {"mean_batch": 0.0}], "mean_batch"),
        (lambda rows: [rows[0] | {"mean_batch": 1.0}, rows[1]], "mean_batch"),
    ],
)
def test_half_a_pair_is_refused(pair_plan: Plan, change: Any, said: str) -> None:
    data = pair_plan.model_dump()
    data["deployments"] = change(data["deployments"])
    with pytest.raises(ValidationError, match=said):
        Plan.model_validate(data)


# Stations


def test_a_prefill_row_sees_answers_of_one_token(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    traffic, (prefill, _) = pair_problem.traffic[0], pair_plan.deployments
    expected = engine_of(
        replica_of(pair_plan, prefill),
        first_token_only(traffic.profile),
        chunk_tokens=1024,
        max_sequences=1024,
    )
    found = planned_engine(pair_plan, prefill, traffic)
    assert float(found.cache_tokens) == float(expected.cache_tokens)
    assert np.array_equal(found.curve.base, expected.curve.base)


def test_a_pair_is_one_station(pair_problem: SizingProblem, pair_plan: Plan) -> None:
    traffic, rows = pair_problem.traffic[0], pair_plan.pair("chat")
    assert rows is not None
    station = PairStation.of(pair_plan, rows, traffic)
    assert station.groups == 1
    assert station.pair.prefill.queues == 2
    assert station.pair.decode.queues == 3
    assert station.saturation == min(station.pair.rates.values())
    assert station.places == (2 + 3) * 1024
    figures = station.latencies(20.0)
    for target in traffic.targets:
        exact = float(getattr(getattr(figures, target.metric), target.statistic))
        for factor, missed in ((0.99, True), (1.01, False)):
            asked = target.model_copy(update={"at_most": exact * factor})
            assert (station.excess(asked, 20.0) > 0) is missed
    # Little's law, over the answers' steps and the prompts.
    in_flight = 20 * float(figures.e2e.mean)
    assert station.in_flight(20.0) == pytest.approx(in_flight)
    steps = 20 * 199 * float(figures.tpot.mean)
    assert 3 * station.mean_batch(20.0) == pytest.approx(steps, rel=0.02)


def test_a_pair_of_equal_parts(pair_problem: SizingProblem) -> None:
    plan = stated_plan(
        pair_problem,
        [PREFILL | {"replicas": 4}, DECODE | {"replicas": 6}],
    )
    rows = plan.pair("chat")
    assert rows is not None
    station = PairStation.of(plan, rows, pair_problem.traffic[0])
    assert station.groups == 2
    assert station.places == (2 + 3) * 1024


def test_the_bandwidth_of_a_plan_is_the_links(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    traffic, rows = pair_problem.traffic[0], pair_plan.pair("chat")
    assert rows is not None
    slow = pair_plan.model_copy(update={"kv_bandwidth": 1e9})
    link = PairStation.of(slow, rows, traffic).pair.link
    assert (link.send, link.receive) == (1e9, 1e9)


def test_instances_that_are_parts_of_a_node_share_no_fabric(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    traffic, rows = pair_problem.traffic[0], pair_plan.pair("chat")
    assert rows is not None
    (purchase,) = pair_plan.purchases
    alone = purchase.model_copy(update={"hosts": purchase.npus})
    parted = pair_plan.model_copy(update={"purchases": (alone,)})
    links = [PairStation.of(p, rows, traffic).pair.link for p in (pair_plan, parted)]
    assert ["NVLink" in link.technology for link in links] == [True, False]


def test_a_pair_at_its_share(pair_problem: SizingProblem, pair_plan: Plan) -> None:
    traffic, rows = pair_problem.traffic[0], pair_plan.pair("chat")
    assert rows is not None
    (found,) = served(pair_problem, pair_plan, traffic)
    assert (found.deployment, found.decode) == rows
    assert found.load.rate == pytest.approx(20.0)
    assert found.utilisation == pytest.approx(20 / pair_rate(rows))
    assert found.stations == 1
    expected = PairStation.of(pair_plan, rows, traffic).latencies(20.0)
    assert float(found.latencies.e2e.p99) == pytest.approx(float(expected.e2e.p99))


def test_a_pair_beside_replicas_that_do_both(pair_problem: SizingProblem) -> None:
    plan = stated_plan(pair_problem, [PREFILL, DECODE, {"npu": "h100"}])
    traffic, rows = pair_problem.traffic[0], plan.pair("chat")
    assert rows is not None
    (both,) = plan.aggregated("chat")
    assert covered(plan, traffic) == pytest.approx(both.rate + pair_rate(rows))
    alone, pair = served(pair_problem, plan, traffic)
    assert alone.load.rate + pair.load.rate == pytest.approx(20.0)
    assert alone.utilisation == pytest.approx(pair.utilisation)
    assert violations(pair_problem, plan) == []


# Stated plans


def test_a_stated_pair_takes_what_its_targets_allow(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    traffic, rows = pair_problem.traffic[0], pair_plan.pair("chat")
    assert rows is not None
    prefill, decode = rows
    rate = pair_rate(rows)
    assert 2 * prefill.rate == pytest.approx(3 * decode.rate)
    station = PairStation.of(pair_plan, rows, traffic)
    worst = [
        max(station.excess(t, r) for t in traffic.targets) for r in (rate, 1.01 * rate)
    ]
    assert worst[0] <= 0 < worst[1]
    assert decode.mean_batch == pytest.approx(station.mean_batch(rate))
    assert [p.npus for p in pair_plan.purchases] == [5]
    assert pair_plan.usd_per_hour == pytest.approx(5 * 2)
    assert (prefill.usd_per_hour, decode.usd_per_hour) == pytest.approx((4, 6))


def test_a_stated_aggregated_plan_solves_its_problem(
    good_problem: SizingProblem,
) -> None:
    # The plan that was worked out by hand, by its counts alone.
    plan = stated_plan(
        good_problem,
        [
            {"traffic": "chat", "npu": "h100", "tp": 2, "replicas": 3, "batch": 256},
            {"traffic": "users", "npu": "l40s", "replicas": 2, "batch": 256},
        ],
    )
    assert violations(good_problem, plan) == []
    assert plan.usd_per_hour == pytest.approx(16 + 2)
    chat = plan.deployments[0]
    station = Station.of(plan, chat, good_problem.traffic[0])
    assert max(station.excess(t, chat.rate) for t in station.traffic.targets) <= 0


def test_where_no_rate_keeps_the_targets_that_of_saturation_stands(
    pair_problem: SizingProblem,
) -> None:
    targets = pair_problem.traffic[0].targets
    hard = targets[1].model_copy(update={"at_most": 1e-4})
    strict = with_class(pair_problem, targets=(hard,))
    plan = stated_plan(strict, [PREFILL, DECODE])
    rows = plan.pair("chat")
    assert rows is not None
    saturation = PairStation.of(plan, rows, strict.traffic[0]).saturation
    assert pair_rate(rows) == pytest.approx(0.99 * saturation)
    assert broken(strict, plan) == {"chat mean TPOT"}


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([], "plan"),
        ([{"npu": "h100", "tpp": 2}], "tpp"),
        ([{"npu": "h1000"}], "did you mean"),
        ([{"npu": "h100", "mode": "prefil"}], "prefill"),
        ([{"npu": "h100", "tp": 0}], "tp"),
        ([{"npu": "h100", "tp": 3}], "plan.0: "),
        ([{"npu": "h100", "tp": 16}], "plan.0: "),
        ([{"npu": "l4"}], "no price of l4"),
        ([{"npu": "h100", "traffic": "chut"}], "'chat'"),
        ([PREFILL], "without the other"),
        ([PREFILL, DECODE, PREFILL, DECODE], "more than one"),
        ([{"npu": "h100", "batch": 900_000}], "room for"),
    ],
)
def test_what_cannot_be_is_refused(
    pair_problem: SizingProblem, tables: list[Any], said: str
) -> None:
    with pytest.raises(GenzSizeError, match=said):
        stated_plan(pair_problem, tables)


def test_users_and_beams_are_not_disaggregated(pair_problem: SizingProblem) -> None:
    for changes in ({"rate": None, "concurrency": 8}, {"beams": 2}):
        asked = with_class(pair_problem, **changes)
        with pytest.raises(GenzSizeError, match="not disaggregated"):
            stated_plan(asked, [PREFILL, DECODE])


# The verifier


def test_the_pair_passes(pair_problem: SizingProblem, pair_plan: Plan) -> None:
    assert violations(pair_problem, pair_plan) == []


def faster(plan: Plan, factor: float) -> Plan:
    """Return a plan whose pair is said to take more."""
    for number, row in enumerate(plan.deployments):
        plan = changed(plan, number, rate=row.rate * factor)
    return plan


CAUGHT: dict[str, tuple[Mutation, set[str]]] = {
    "pools-out-of-balance": (
        lambda p: changed(p, 0, rate=2 * p.deployments[0].rate),
        {"rate"},
    ),
    "batch-understated": (
        lambda p: changed(p, 1, mean_batch=0.9 * p.deployments[1].mean_batch),
        {"mean_batch"},
    ),
    "another-bandwidth": (
        lambda p: p.model_copy(update={"kv_bandwidth": 100e9}),
        {"kv_bandwidth"},
    ),
    "chunk-beyond-the-problems": (
        lambda p: changed(p, 0, chunk_tokens=4096),
        {"chunk_tokens"},
    ),
}


@pytest.mark.parametrize("name", CAUGHT)
def test_each_corruption_is_caught(
    pair_problem: SizingProblem, pair_plan: Plan, name: str
) -> None:
    mutate, expected = CAUGHT[name]
    assert expected <= broken(pair_problem, mutate(pair_plan))


def test_caches_in_two_formats_are_caught(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    both = pair_problem.model_copy(update={"precisions": ("bf16", "fp8-kv8")})
    assert violations(both, pair_plan) == []
    found = violations(both, changed(pair_plan, 1, precision="fp8-kv8"))
    assert any("do not fit each other" in violation.message for violation in found)


def test_a_rate_beyond_the_targets_is_caught(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    found = broken(pair_problem, faster(pair_plan, 1.05))
    assert any(name.startswith("chat ") for name in found)
    assert "rate" in broken(pair_problem, faster(pair_plan, 100.0))


def test_a_demand_beyond_the_pair_is_caught(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    more = with_class(pair_problem, rate=500.0)
    assert broken(more, pair_plan) == {"chat demand"}


def test_links_that_are_too_slow_are_caught(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    slow = pair_problem.model_copy(update={"kv_bandwidth": 1e8})
    plan = pair_plan.model_copy(update={"kv_bandwidth": 1e8})
    assert broken(slow, plan) == {"rate"}


def test_users_before_a_pair_are_caught(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    users = with_class(pair_problem, rate=None, concurrency=8)
    assert "mode" in broken(users, pair_plan)
