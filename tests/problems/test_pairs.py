"""Disaggregated pairs in plans: stated, served at their share, verified."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from model_ops.errors import GenzSizeError
from model_ops.serving.deployed import engine_of
from model_ops.serving.pools import first_token_only
from problems.pair_stations import PairStation
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import covered, served
from problems.stated import stated_plan
from problems.stations import Station, planned_engine, replica_of
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
    (pair,) = pair_plan.pairs("chat")
    assert pair.routes == ((prefill, decode),)
    assert pair.share(prefill) == pair.share(decode) == 1.0
    assert pair_plan.aggregated("chat") == ()
    assert (prefill.mode, decode.mode) == ("prefill", "decode")
    assert prefill.mean_batch == 0 < decode.mean_batch
    assert Plan.model_validate_json(pair_plan.model_dump_json()) == pair_plan


def test_aggregated_plans_have_none(good_plan: Plan) -> None:
    assert good_plan.pairs("chat") == ()
    assert good_plan.aggregated("chat") == good_plan.of_class("chat")
    assert {d.mode for d in good_plan.deployments} == {"aggregated"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:1], "without the other"),
        (lambda rows: rows[1:], "without the other"),
        (lambda rows: [*rows, *rows], "the same row twice"),
        (lambda rows: [rows[0] | {"pair": 1}, rows[1]], "without the other"),
        (lambda rows: [*rows, rows[1] | {"mode": "aggregated", "pair": 1}], "none"),
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
    traffic, (pair,) = pair_problem.traffic[0], pair_plan.pairs("chat")
    station = PairStation.of(pair_plan, pair, pair.routes[0], traffic)
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
    (pair,) = plan.pairs("chat")
    station = PairStation.of(plan, pair, pair.routes[0], pair_problem.traffic[0])
    assert station.groups == 2
    assert station.places == (2 + 3) * 1024


def test_the_bandwidth_of_a_plan_is_the_links(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    traffic, (pair,) = pair_problem.traffic[0], pair_plan.pairs("chat")
    slow = pair_plan.model_copy(update={"kv_bandwidth": 1e9})
    link = PairStation.of(slow, pair, pair.routes[0], traffic).pair.link
    assert (link.send, link.receive) == (1e9, 1e9)


def test_instances_that_are_parts_of_a_node_share_no_fabric(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    traffic, (pair,) = pair_problem.traffic[0], pair_plan.pairs("chat")
    (purchase,) = pair_plan.purchases
    alone = purchase.model_copy(update={"hosts": purchase.npus})
    parted = pair_plan.model_copy(update={"purchases": (alone,)})
    links = [
        PairStation.of(p, pair, pair.routes[0], traffic).pair.link
        for p in (pair_plan, parted)
    ]
    assert ["NVLink" in link.technology for link in links] == [True, False]


def test_a_pair_at_its_share(pair_problem: SizingProblem, pair_plan: Plan) -> None:
    traffic, (pair,) = pair_problem.traffic[0], pair_plan.pairs("chat")
    (found,) = served(pair_problem, pair_plan, traffic)
    assert (found.deployment, found.decode) == pair.routes[0]
    assert found.load.rate == pytest.approx(20.0)
    assert found.utilisation == pytest.approx(20 / pair.rate)
    assert found.stations == 1
    expected = PairStation.of(pair_plan, pair, pair.routes[0], traffic).latencies(20.0)
    assert float(found.latencies.e2e.p99) == pytest.approx(float(expected.e2e.p99))


def test_a_pair_beside_replicas_that_do_both(pair_problem: SizingProblem) -> None:
    plan = stated_plan(pair_problem, [PREFILL, DECODE, {"npu": "h100"}])
    traffic, (pair,) = pair_problem.traffic[0], plan.pairs("chat")
    (both,) = plan.aggregated("chat")
    assert covered(plan, traffic) == pytest.approx(both.rate + pair.rate)
    alone, route = served(pair_problem, plan, traffic)
    assert alone.load.rate + route.load.rate == pytest.approx(20.0)
    assert alone.utilisation == pytest.approx(route.utilisation)
    assert violations(pair_problem, plan) == []


# Stated plans


def test_a_stated_pair_takes_what_its_targets_allow(
    pair_problem: SizingProblem, pair_plan: Plan
) -> None:
    traffic, (pair,) = pair_problem.traffic[0], pair_plan.pairs("chat")
    prefill, decode = pair.rows
    rate = pair.rate
    assert 2 * prefill.rate == pytest.approx(3 * decode.rate)
    station = PairStation.of(pair_plan, pair, pair.routes[0], traffic)
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
    (pair,) = plan.pairs("chat")
    saturation = PairStation.of(
        plan, pair, pair.routes[0], strict.traffic[0]
    ).saturation
    assert pair.rate == pytest.approx(0.99 * saturation)
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
        ([PREFILL, DECODE, PREFILL, DECODE], "same row twice"),
        ([PREFILL, DECODE | {"pair": 2}], "without the other"),
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


# Pools of several kinds


OTHER = {"npu": "h200", "replicas": 1}


@pytest.fixture
def mixed_problem(pair_problem: SizingProblem) -> SizingProblem:
    """The same, and h200 besides."""
    prices = [("h100-sxm", 2.0), ("h200-sxm", 3.0)]
    given = [{"npu": npu, "usd_per_hour": usd} for npu, usd in prices]
    hardware = {"npus": [npu for npu, _ in prices]}
    stated = pair_problem.model_dump() | {"hardware": hardware}
    return SizingProblem.model_validate(stated | {"prices": {"given": given}})


@pytest.fixture
def mixed_plan(mixed_problem: SizingProblem) -> Plan:
    """Two kinds of replicas that read, and two that answer."""
    rows = [PREFILL, PREFILL | OTHER, DECODE, DECODE | OTHER]
    return stated_plan(mixed_problem, rows)


def test_a_mixed_pool_deals_requests_by_what_its_rows_take(
    mixed_problem: SizingProblem, mixed_plan: Plan
) -> None:
    (pair,) = mixed_plan.pairs("chat")
    assert [len(pool) for pool in (pair.prefill, pair.decode)] == [2, 2]
    assert len(pair.routes) == 4
    assert sum(pair.share(*route) for route in pair.routes) == pytest.approx(1.0)
    for pool in (pair.prefill, pair.decode):
        assert sum(row.replicas * row.rate for row in pool) == pytest.approx(pair.rate)
        slow, fast = pool
        assert fast.rate > slow.rate
    assert violations(mixed_problem, mixed_plan) == []
    # A little more breaks a target on some route.
    assert broken(mixed_problem, faster(mixed_plan, 1.02))


def test_routes_through_a_mixed_pair_share_its_pools(
    mixed_problem: SizingProblem, mixed_plan: Plan
) -> None:
    traffic = mixed_problem.traffic[0]
    found = served(mixed_problem, mixed_plan, traffic)
    assert sum(float(each.load.rate) for each in found) == pytest.approx(20.0)
    by_route = {(s.deployment.npu, s.rows[-1].npu): s for s in found}
    assert len(by_route) == 4
    # The same replicas read, whoever answers: TTFT is the same.
    ttft = {key: float(each.estimate.ttft) for key, each in by_route.items()}
    for reads in ("h100-sxm", "h200-sxm"):
        assert ttft[reads, "h100-sxm"] == pytest.approx(ttft[reads, "h200-sxm"])
    assert ttft["h100-sxm", "h100-sxm"] != ttft["h200-sxm", "h100-sxm"]
    # A replica that answers decodes as many requests, whoever has read them.
    for answers in ("h100-sxm", "h200-sxm"):
        batches = [
            float(by_route[r, answers].estimate.batch) for r in ("h100-sxm", "h200-sxm")
        ]
        assert batches[0] == pytest.approx(batches[1])


def test_a_mix_of_equals_is_a_plain_pair(pair_problem: SizingProblem) -> None:
    # Rows that differ in a cap that is never reached: the links see the same.
    few = {"replicas": 1, "batch": 1023}
    rows = [PREFILL | {"replicas": 1}, PREFILL | few, DECODE | {"replicas": 2}]
    mixed = stated_plan(pair_problem, [*rows, DECODE | few])
    plain = stated_plan(pair_problem, [PREFILL, DECODE])
    traffic, (pair,) = pair_problem.traffic[0], plain.pairs("chat")
    whole = PairStation.of(plain, pair, pair.routes[0], traffic).pair
    (several,) = mixed.pairs("chat")
    for route in several.routes:
        way = PairStation.of(mixed, several, route, traffic).pair
        rate = 20.0 * several.share(*route)
        seen, moved = way.transfer(rate), whole.transfer(20.0)
        assert seen.utilisation == pytest.approx(moved.utilisation, rel=1e-3)
        assert seen.per_token == pytest.approx(moved.per_token, rel=1e-3)


def test_links_carry_the_caches_of_all_routes(
    mixed_problem: SizingProblem, mixed_plan: Plan
) -> None:
    # Each NPU of a pool sends all that its rows read; bytes are those of the answers'
    # format, split over the decode group's NPUs: here one each.
    slow = mixed_plan.model_copy(update={"kv_bandwidth": 25e9})
    traffic, (pair,) = mixed_problem.traffic[0], slow.pairs("chat")
    for route in pair.routes:
        way = PairStation.of(slow, pair, route, traffic).pair
        moved = way.transfer(20.0 * pair.share(*route))
        for row, seen in zip(route, (moved.sent, moved.received), strict=True):
            requests = 20.0 * pair.share(row) / row.replicas
            assert seen == pytest.approx(requests * way.bytes_per_request)


def test_two_pairs_of_a_class(mixed_problem: SizingProblem) -> None:
    rows = [row | {"pair": n} for n in (1, 2) for row in (PREFILL, DECODE)]
    rows[2] = rows[2] | {"npu": "h200-sxm"}
    plan = stated_plan(mixed_problem, rows)
    traffic, pairs = mixed_problem.traffic[0], plan.pairs("chat")
    assert [pair.prefill[0].npu for pair in pairs] == ["h100-sxm", "h200-sxm"]
    assert covered(plan, traffic) == pytest.approx(sum(p.rate for p in pairs))
    assert len(served(mixed_problem, plan, traffic)) == 2
    assert violations(mixed_problem, plan) == []


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
