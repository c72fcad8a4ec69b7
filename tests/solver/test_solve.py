"""From problem to outcome: proved, repeatable, monotone, within the limits."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from model_ops.estimate import Load, LoadMode, estimate
from model_ops.platform.supply import Supply
from model_ops.serving.deployed import engine_of
from model_ops.serving.queueing import latencies
from model_ops.serving.step import Replica
from problems import catalogue
from problems.offers import offers
from problems.optimisations import Optimisations
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import capacity
from problems.stations import Station
from problems.verify import violations
from solver.model import SolveOptions
from solver.settings import LARGEST_BATCH
from solver.solve import (
    Feasible,
    Infeasible,
    Optimal,
    TimedOut,
    Workspace,
    objective_value,
)
from solver.table import MOST_LOAD
from solver.tabulation import splits

Small = Callable[..., SizingProblem]


def optimum(problem: SizingProblem) -> Plan:
    """Return the proved plan, verified."""
    outcome = Workspace.of(problem).solve(SolveOptions(workers=1, seed=0))
    assert isinstance(outcome, Optimal)
    assert violations(problem, outcome.plan) == []
    return outcome.plan


def chat(**changes: Any) -> list[dict[str, Any]]:
    """Return one class of requests."""
    data = {"name": "chat", "input_tokens": 1000, "output_tokens": 200, "rate": 40.0}
    data |= changes
    return [{key: value for key, value in data.items() if value is not None}]


def target(metric: str, at_most: float) -> dict[str, Any]:
    return {"metric": metric, "at_most": at_most}


@pytest.fixture(scope="module")
def plain(small: Small) -> Plan:
    return optimum(small())


# Outcomes


@pytest.mark.parametrize("objective", ["cost", "npus", "power"])
def test_optimal_plan_has_no_gap(small: Small, objective: str) -> None:
    problem = small(objective=objective)
    outcome = Workspace.of(problem).solve()
    assert isinstance(outcome, Optimal)
    plan, proof = outcome.plan, outcome.certificate
    value = {"cost": plan.usd_per_hour, "npus": plan.total_npus, "power": plan.power}
    assert proof.gap == 0
    assert proof.bound == pytest.approx(value[objective], rel=1e-9)
    assert violations(problem, plan) == []


def test_certificate_counts_what_was_searched(small: Small) -> None:
    workspace = Workspace.of(small())
    proof = workspace.solve().certificate
    assert proof.points == sum(table.options for table in workspace.tables) > 0
    assert proof.candidates == len(workspace.instance(workspace.problem).candidates)
    assert proof.candidates >= proof.kept > 0
    assert 0 <= proof.loss <= 1e-3
    assert set(proof.seconds) >= {"candidates", "solve"}


def test_impossible_target_is_infeasible(small: Small) -> None:
    problem = small(traffic=chat(targets=[target("tpot", 1e-6)]))
    assert isinstance(Workspace.of(problem).solve(), Infeasible)


def test_impossible_limit_is_infeasible(small: Small) -> None:
    outcome = Workspace.of(small(limits={"npus": 1})).solve()
    assert isinstance(outcome, Infeasible)


@pytest.mark.parametrize("seconds", [1e-9, 1e-3])
def test_hardly_any_time_gives_an_honest_outcome(small: Small, seconds: float) -> None:
    problem = small(
        precisions=["bf16", "fp8"],
        hardware={},
        prices={},
        limits={"npus": 1000, "power": 1e6},
        traffic=[chat(name=f"class {i}", rate=17.0 + 3 * i)[0] for i in range(4)],
    )
    outcome = Workspace.of(problem).solve(SolveOptions(time_limit=seconds))
    if isinstance(outcome, Optimal | Feasible):
        assert violations(problem, outcome.plan) == []
        assert outcome.certificate.bound >= 0
        assert outcome.certificate.bound <= outcome.plan.usd_per_hour * (1 + 1e-9)
    else:
        assert isinstance(outcome, TimedOut)


@pytest.mark.parametrize("objective", ["cost", "npus", "power"])
def test_without_limits_hardly_any_time_gives_a_plan(
    small: Small, objective: str
) -> None:
    problem = small(
        objective=objective,
        precisions=["bf16", "fp8"],
        traffic=[chat(name=f"class {i}", rate=17.0 + 3 * i)[0] for i in range(4)],
    )
    workspace = Workspace.of(problem)
    outcome = workspace.solve(SolveOptions(time_limit=1e-9))
    best = workspace.solve()
    assert isinstance(outcome, Feasible | Optimal)
    assert isinstance(best, Optimal)
    assert violations(problem, outcome.plan) == []
    value = objective_value(problem, outcome.plan)
    least = objective_value(problem, best.plan)
    assert outcome.certificate.bound <= least * (1 + 1e-9)
    assert least <= value * (1 + 1e-9)
    assert outcome.certificate.gap == pytest.approx(
        1 - outcome.certificate.bound / value
    )


def test_same_problem_gives_the_same_plan(small: Small, plain: Plan) -> None:
    assert optimum(small()) == plain


def test_other_seeds_and_workers_give_the_same_cost(small: Small, plain: Plan) -> None:
    workspace = Workspace.of(small())
    for options in (SolveOptions(seed=7), SolveOptions(workers=2, seed=1)):
        outcome = workspace.solve(options)
        assert isinstance(outcome, Optimal)
        assert outcome.plan.usd_per_hour == pytest.approx(plain.usd_per_hour)


def test_deployments_carry_the_purchases_costs(plain: Plan) -> None:
    for purchase in plain.purchases:
        standing = [d for d in plain.deployments if d.offer == purchase.offer]
        shares = sum(deployment.usd_per_hour for deployment in standing)
        assert shares == pytest.approx(purchase.usd_per_hour)
        assert purchase.hosts > 0


# What is asked for more costs no less


def costs(problems: list[SizingProblem]) -> list[float]:
    return [optimum(problem).usd_per_hour for problem in problems]


def is_sorted(values: list[float]) -> bool:
    return all(a <= b * (1 + 1e-9) for a, b in pairwise(values))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "loosest_first"),
    [
        ("tpot", [0.1, 0.03, 0.015, 0.008, 0.005]),
        ("ttft", [2.0, 0.2, 0.05, 0.025, 0.015]),
        ("e2e", [20.0, 6.0, 3.0, 1.5, 0.9]),
    ],
)
def test_tighter_targets_are_never_cheaper(
    small: Small, metric: str, loosest_first: list[float]
) -> None:
    found = costs(
        [
            small(traffic=chat(targets=[target(metric, seconds)]))
            for seconds in loosest_first
        ]
    )
    assert is_sorted(found)
    assert found[-1] > found[0]


def test_higher_rates_are_never_cheaper(small: Small) -> None:
    rates = [0.1, 3.0, 10.0, 11.0, 40.0, 55.5, 200.0]
    found = costs([small(traffic=chat(rate=rate)) for rate in rates])
    assert is_sorted(found)
    assert found[-1] > 10 * found[0]


def test_more_users_are_never_cheaper(small: Small) -> None:
    users = [1, 20, 100, 333, 1000]
    found = costs(
        [small(traffic=chat(rate=None, concurrency=number)) for number in users]
    )
    assert is_sorted(found)
    assert found[-1] > found[0]


def test_more_headroom_is_never_cheaper(small: Small) -> None:
    found = costs([small(headroom=share) for share in (0.0, 0.1, 0.3, 0.6)])
    assert is_sorted(found)
    assert found[-1] > found[0]


def test_more_hardware_is_never_dearer(small: Small) -> None:
    filters = [["l4"], ["l4", "l40s"], ["l4*", "h100*"], ["l4*", "h*", "mi*"], ["*"]]
    problems = [
        small(hardware={"npus": npus}, prices={}, traffic=chat(rate=10.0))
        for npus in filters
    ]
    assert is_sorted(costs(problems)[::-1])


def test_more_precisions_are_never_dearer(small: Small) -> None:
    formats = [["bf16"], ["bf16", "fp8"], ["bf16", "fp8", "int4"]]
    assert is_sorted(costs([small(precisions=each) for each in formats])[::-1])


def test_headroom_is_that_much_more_demand(small: Small) -> None:
    spare = optimum(small(headroom=0.5))
    double = optimum(small(traffic=small_targets(rate=80.0)))
    assert spare.usd_per_hour == pytest.approx(double.usd_per_hour)


def small_targets(**changes: Any) -> list[dict[str, Any]]:
    return chat(targets=[target("ttft", 0.5), target("tpot", 0.02)], **changes)


# Objectives


def test_fewest_npus(small: Small, plain: Plan) -> None:
    plan = optimum(small(objective="npus"))
    assert plan.total_npus < plain.total_npus
    fewer = small(limits={"npus": plan.total_npus - 1})
    assert isinstance(Workspace.of(fewer).solve(), Infeasible)


def test_among_the_fewest_npus_the_cheapest(small: Small) -> None:
    plan = optimum(small(objective="npus"))
    cheapest = optimum(small(limits={"npus": plan.total_npus}))
    assert plan.usd_per_hour == pytest.approx(cheapest.usd_per_hour)


def test_least_power(small: Small, plain: Plan) -> None:
    many = small(objective="power", hardware={"npus": ["*"]}, prices={})
    plan = optimum(many)
    cheapest = optimum(many.model_copy(update={"objective": "cost"}))
    assert plan.power is not None
    assert cheapest.power is None or plan.power < cheapest.power
    assert plan.usd_per_hour >= cheapest.usd_per_hour


# Limits

LIMITS = [
    {"npus": 3},
    {"npus_per_type": {"l40s": 0}},
    {"npus_per_type": {"h100-sxm": 1}},
    {"nodes": 1},
    {"power": 4800.0},
    {"usd_per_hour": 7.0, "npus_per_type": {"h100-sxm": 0}},
]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_limits_are_kept_at_a_price(
    small: Small, plain: Plan, limits: dict[str, Any]
) -> None:
    outcome = Workspace.of(small(limits=limits)).solve()
    if isinstance(outcome, Infeasible):
        # Then none of these plans of one type keeps them either.
        assert violations(small(limits=limits), plain) != []
        return
    assert isinstance(outcome, Optimal)
    plan = outcome.plan
    assert violations(small(limits=limits), plan) == []
    assert plan.usd_per_hour >= plain.usd_per_hour * (1 - 1e-9)
    assert plan.total_npus <= limits.get("npus", plan.total_npus)
    for name, most in limits.get("npus_per_type", {}).items():
        assert sum(p.npus for p in plan.purchases if p.npu == name) <= most
    assert sum(p.hosts for p in plan.purchases) <= limits.get("nodes", 99)
    assert plan.power <= limits.get("power", 1e9)


def test_most_limits_have_a_plan(small: Small) -> None:
    outcomes = [Workspace.of(small(limits=limits)).solve() for limits in LIMITS]
    assert sum(isinstance(outcome, Optimal) for outcome in outcomes) >= 4


def test_budget_of_exactly_the_optimum_suffices(small: Small, plain: Plan) -> None:
    enough = optimum(small(limits={"usd_per_hour": plain.usd_per_hour}))
    assert enough.usd_per_hour == pytest.approx(plain.usd_per_hour)
    less = small(limits={"usd_per_hour": plain.usd_per_hour * 0.999})
    assert isinstance(Workspace.of(less).solve(), Infeasible)


def test_budget_in_months_buys_what_it_pays_for(small: Small) -> None:
    # Three NPUs at 730 USD/month x 1.37 are no whole number of micro-dollars an hour.
    given = [{"npu": "h100-sxm", "usd_per_hour": "1000 USD/month"}]
    plan = optimum(
        small(
            hardware={"npus": ["h100-sxm"]},
            prices={"given": given},
            limits={"usd_per_hour": "3000 USD/month"},
        )
    )
    assert plan.total_npus == 3


def test_power_of_exactly_the_optimum_suffices(small: Small) -> None:
    # An L40S counts for 350 W x 2.17 = 759.5 W, no whole number of watts.
    least = optimum(small(objective="power")).power
    assert least is not None
    assert optimum(small(limits={"power": least})).power == pytest.approx(least)
    less = small(limits={"power": least * 0.99})
    assert isinstance(Workspace.of(less).solve(), Infeasible)


def test_npus_of_unknown_power_are_left_out_under_a_power_limit(small: Small) -> None:
    def problem(**changes: Any) -> SizingProblem:
        hardware = {"npus": ["tpu-v6e", "h100-sxm"]}
        given = [
            {"npu": "tpu-v6e", "usd_per_hour": 0.1},
            {"npu": "h100-sxm", "usd_per_hour": 2.5},
        ]
        return small(hardware=hardware, prices={"given": given}, **changes)

    assert {p.npu for p in optimum(problem()).purchases} == {"tpu-v6e"}
    limited = optimum(problem(limits={"power": 1e5}))
    assert {p.npu for p in limited.purchases} == {"h100-sxm"}
    least = optimum(problem(objective="power"))
    assert {p.npu for p in least.purchases} == {"h100-sxm"}


# Models and demands of other kinds


def test_large_model_spans_nodes(small: Small) -> None:
    # 405 G parameters in 16 bits are 810 GB: more than a node of eight 80 GB NPUs.
    plan = optimum(
        small(
            model="llama-3.1-405b",
            hardware={"npus": ["h100-sxm"]},
            prices={},
            traffic=chat(rate=0.5),
        )
    )
    assert plan.total_npus >= 16
    assert all(d.npus_per_replica >= 16 for d in plan.deployments)
    assert all(d.npus_per_replica % 8 == 0 for d in plan.deployments)


def test_small_instances_host_no_split_replica(small: Small) -> None:
    alone = {"npu": "l40s", "usd_per_hour": 0.9, "npus": 1, "whole_instance": True}
    problem = small(
        hardware={"npus": ["l40s"]}, prices={"given": [alone]}, traffic=chat(rate=30.0)
    )
    plan = optimum(problem)
    assert {d.npus_per_replica for d in plan.deployments} == {1}
    too_large = problem.model_copy(update={"model": "llama-3.1-70b"})
    assert isinstance(Workspace.of(too_large).solve(), Infeasible)


def test_whole_hosts_are_shared_and_paid_whole(small: Small) -> None:
    whole = {"npu": "h100-sxm", "usd_per_hour": 20.0, "npus": 8}
    two = [chat(name="a", rate=10.0)[0], chat(name="b", rate=10.0)[0]]
    plan = optimum(
        small(hardware={"npus": ["h100-sxm"]}, prices={"given": [whole]}, traffic=two)
    )
    assert [(p.hosts, p.npus, p.usd_per_hour) for p in plan.purchases] == [(1, 8, 20.0)]
    assert {d.traffic for d in plan.deployments} == {"a", "b"}


@pytest.mark.parametrize("users", [1, 30, 500])
def test_concurrency_is_covered_by_requests_in_flight(small: Small, users: int) -> None:
    traffic = chat(rate=None, concurrency=users, targets=[target("tpot", 0.03)])
    problem = small(traffic=traffic, headroom=0.2)
    plan = optimum(problem)
    held = 0.0
    for deployment in plan.deployments:
        station = Station.of(plan, deployment, problem.traffic[0])
        found = station.latencies(deployment.rate)
        held += deployment.replicas * deployment.rate * float(found.e2e.mean)
    assert held >= users / 0.8 * (1 - 1e-9)


def test_users_that_just_fill_the_replicas_are_served_by_them(small: Small) -> None:
    # What a replica holds does not depend on how many stand beside it.
    traffic = chat(rate=None, concurrency=100, targets=[target("tpot", 0.03)])
    problem = small(
        traffic=traffic,
        hardware={"npus": ["h100-sxm"]},
        prices={
            "given": [
                {
                    "npu": "h100-sxm",
                    "usd_per_hour": 2.5,
                    "npus": 1,
                    "whole_instance": True,
                }
            ]
        },
    )
    plan = optimum(problem)
    each = capacity(plan, plan.deployments[0], problem.traffic[0])
    for replicas in (1, 2, 3, 7):
        for users, needed in (
            (int(replicas * each), replicas),
            (int(replicas * each) + 1, replicas + 1),
        ):
            asked = problem.traffic[0].model_copy(update={"concurrency": users})
            found = optimum(problem.model_copy(update={"traffic": (asked,)}))
            assert found.total_npus == needed


@pytest.mark.parametrize("load", [{}, {"rate": None, "concurrency": 300}], ids=str)
def test_the_engine_holds_the_bursts_of_a_replicas_batch(
    small: Small, load: dict[str, Any]
) -> None:
    plan = optimum(small(traffic=chat(**load)))
    for deployment in plan.deployments:
        mean = deployment.mean_batch
        assert deployment.batch == LARGEST_BATCH
        assert mean + 2 * math.sqrt(mean) <= LARGEST_BATCH


METRICS = {"ttft": 0.12, "tpot": 0.03, "e2e": 4.5}


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_higher_percentiles_are_never_cheaper(small: Small, metric: str) -> None:
    def problem(statistic: str) -> SizingProblem:
        asked = target(metric, METRICS[metric]) | {"statistic": statistic}
        return small(traffic=chat(rate=100.0, targets=[asked]))

    found = costs([problem(each) for each in ("p50", "p90", "p95", "p99")])
    assert is_sorted(found)
    assert found[-1] > found[0]


@pytest.mark.parametrize("statistic", ["mean", "p50", "p90", "p95", "p99"])
@pytest.mark.parametrize("metric", METRICS)
def test_targets_of_every_kind_hold_at_the_plans_rate_and_no_higher(
    small: Small, metric: str, statistic: str
) -> None:
    asked = target(metric, METRICS[metric]) | {"statistic": statistic}
    problem = small(traffic=chat(targets=[asked]))
    plan = optimum(problem)  # verified there
    (traffic,) = problem.traffic
    for deployment in plan.deployments:
        station = Station.of(plan, deployment, traffic)
        found = getattr(station.latencies(deployment.rate), metric)
        assert getattr(found, statistic) <= METRICS[metric] * 1.003
        # One replica at a time that needs no pool is just as full as may be.
        alone = deployment.model_copy(update={"replicas": 1})
        lone = Station.of(plan, alone, traffic)
        more = deployment.rate * 1.03
        stable = lone.latencies(more).utilisation < MOST_LOAD
        assert not stable or lone.excess(traffic.targets[0], more) > 0


KINDS: dict[str, dict[str, Any]] = {
    "bursts": {"burstiness": 3.0, "targets": [target("ttft", 0.5)]},
    "even": {"burstiness": 0.3, "targets": [target("ttft", 0.5)]},
    "hits": {"prefix_hit": 0.7, "targets": [target("ttft", 0.2)]},
    "beams": {"beams": 4, "targets": [target("e2e", 10.0)]},
    "day": {"diurnal": [1.0] * 12 + [3.0] * 12, "targets": [target("tpot", 0.03)]},
    "lengths": {
        "input_tokens": None,
        "output_tokens": None,
        "lengths": "azure-2023-conv",
        "targets": [target("ttft", 2.0) | {"statistic": "p99"}],
    },
    "users": {
        "rate": None,
        "concurrency": 777,
        "targets": [target("ttft", 1.0) | {"statistic": "p99"}],
    },
    "no-target": {"targets": []},
    "users-without-target": {"rate": None, "concurrency": 777, "targets": []},
    "one-token": {"output_tokens": 1, "rate": 3.0, "targets": []},
}
GUESSING = {"speculation": {"drafter": "ngram", "guessed": 3, "acceptance": 0.6}}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llama-3.1-8b", "mixtral-8x7b"])
@pytest.mark.parametrize(
    ("kind", "optimisations"),
    [
        (kind, used)
        for kind in KINDS
        for used in ({}, GUESSING)
        if used == {} or kind != "beams"
    ],
    ids=lambda part: part if isinstance(part, str) else "+".join(part),
)
def test_traffic_of_every_kind_has_a_plan_that_the_verifier_passes(
    small: Small, kind: str, optimisations: dict[str, Any], model: str
) -> None:
    problem = small(
        model=model,
        hardware={"npus": ["h100-sxm", "mi300x"]},
        prices={},
        traffic=chat(**KINDS[kind]),
        optimisations=optimisations,
    )
    assert optimum(problem).total_npus >= 1


def test_rougher_arrivals_are_never_cheaper(small: Small) -> None:
    asked = [target("ttft", 0.3) | {"statistic": "p99"}]
    found = costs(
        [
            small(traffic=chat(burstiness=burstiness, targets=asked))
            for burstiness in (0.3, 1.0, 2.0, 5.0)
        ]
    )
    assert is_sorted(found)
    assert found[-1] > found[0]


def test_more_prefix_hits_are_never_dearer(small: Small) -> None:
    found = costs(
        [small(traffic=small_targets(prefix_hit=hit)) for hit in (0.9, 0.5, 0.2, 0.0)]
    )
    assert is_sorted(found)
    assert found[-1] > found[0]


def test_a_day_is_bought_for_its_peak_hour(small: Small) -> None:
    # Half the day at one, half at three: the peak is 1.5 times the mean.
    day = optimum(small(traffic=small_targets(diurnal=[1.0] * 12 + [3.0] * 12)))
    peak = optimum(small(traffic=small_targets(rate=60.0)))
    assert day.usd_per_hour == pytest.approx(peak.usd_per_hour)


def test_a_replica_of_groups_takes_what_its_groups_take(small: Small) -> None:
    problem = small(
        model="mixtral-8x7b",
        hardware={"npus": ["h100-sxm"]},
        prices={"given": [{"npu": "h100-sxm", "usd_per_hour": 2.5}]},
        traffic=chat(rate=60.0, targets=[target("tpot", 0.03)]),
    )
    workspace = Workspace.of(problem)
    grouped = [c for c in workspace.instance(problem).candidates if c.split.dp > 1]
    assert grouped
    only = replace(workspace.instance(problem), candidates=tuple(grouped))
    outcome = workspace.solve_instance(problem, only, SolveOptions())
    assert isinstance(outcome, Optimal)  # verified there
    for deployment in outcome.plan.deployments:
        assert deployment.dp > 1
        # Each group is a queue of its own, at its share of the rate.
        station = Station.of(outcome.plan, deployment, problem.traffic[0])
        alone = replace(station, groups=1).latencies(deployment.rate / deployment.dp)
        found = station.latencies(deployment.rate)
        assert float(found.ttft.p99) == float(alone.ttft.p99)
        assert deployment.mean_batch == pytest.approx(
            deployment.dp * float(alone.batch_mean)
        )


@pytest.mark.parametrize(
    "optimisations",
    [
        {},
        {"speculation": {"drafter": "eagle", "guessed": 2, "acceptance": 0.7}},
        {"experts": {"alpha": 1.0, "redundant": 8}, "lora": {"rank": 8, "adapters": 4}},
        {"offload": {"weights": 0.9}},
    ],
    ids=lambda used: "+".join(used) or "none",
)
def test_a_model_of_experts_has_a_plan_that_the_verifier_passes(
    small: Small, optimisations: dict[str, Any]
) -> None:
    problem = small(
        model="mixtral-8x7b",
        hardware={"npus": ["h100-sxm"]},
        prices={"given": [{"npu": "h100-sxm", "usd_per_hour": 2.5}]},
        traffic=chat(rate=20.0, targets=[target("tpot", 0.1)]),
        optimisations=optimisations,
    )
    plan = optimum(problem)  # verified there
    assert plan.optimisations == problem.optimisations
    plain = optimum(problem.model_copy(update={"optimisations": Optimisations()}))
    wrong = {violation.requirement for violation in violations(problem, plain)}
    assert ("optimisations" in wrong) == bool(optimisations)


def closed_loop_npus(problem: SizingProblem, most: int) -> int:
    """Return the fewest NPUs on which `estimate` serves the users in time."""
    arch = catalogue.load_model(problem.model)
    (precision,) = problem.formats()
    (offer,), (traffic,) = offers(problem), problem.traffic
    (ttft,) = traffic.targets
    enough = []
    for split in splits(arch, [offer]):
        npus = split.tp * split.pp
        for replicas in range(1, most // npus + 1):
            replica = Replica(arch, split, precision, Supply.of(offer.npu))
            load = Load(
                traffic.shape,
                LoadMode.CLOSED_LOOP,
                concurrency=traffic.concurrency / replicas,
            )
            result = estimate(replica, load)
            if result.fits and float(result.ttft) <= ttft.at_most:
                enough.append(npus * replicas)
    return min(enough)


@pytest.mark.slow
def test_users_need_no_more_npus_than_estimate_says(small: Small) -> None:
    # Most of the 64 wait for their long prompts: they take no place in the batch.
    problem = small(
        model="llama-3.1-70b",
        hardware={"npus": ["h100-sxm"]},
        prices={"given": [{"npu": "h100-sxm", "usd_per_hour": 2.5}]},
        traffic=chat(
            input_tokens=8000,
            output_tokens=16,
            rate=None,
            concurrency=64,
            targets=[target("ttft", 10.0)],
        ),
    )
    assert closed_loop_npus(problem, most=12) == 8
    assert optimum(problem).total_npus == 8


def test_ttft_just_above_the_floor_has_a_plan(small: Small) -> None:
    arch = catalogue.load_model("llama-3.1-8b")

    def problem(seconds: float) -> SizingProblem:
        return small(
            hardware={"npus": ["h100-sxm"]},
            prices={},
            traffic=chat(input_tokens=500, rate=5.0, targets=[target("ttft", seconds)]),
        )

    asked, npu = problem(1.0), catalogue.load_npu("h100-sxm")
    profile = asked.traffic[0].profile
    floor = min(
        float(latencies(engine, profile, 1e-3).ttft.mean)
        for split in splits(arch, offers(asked))
        for engine in [
            engine_of(
                Replica(arch, split, arch.precision, Supply.of(npu)),
                profile,
                chunk_tokens=asked.chunk_tokens,
                max_sequences=LARGEST_BATCH,
            )
        ]
    )
    optimum(problem(floor * 1.01))
    assert isinstance(Workspace.of(problem(floor * 0.999)).solve(), Infeasible)


def test_workspace_solves_changed_targets_and_limits(small: Small) -> None:
    workspace = Workspace.of(small())
    changed = small(limits={"npus": 3})
    outcome = workspace.solve(problem=changed)
    assert isinstance(outcome, Optimal)
    assert outcome.plan == optimum(changed)


@pytest.mark.parametrize(
    ("prompt", "answer"), [(1000, 1), (8192, 4), (32768, 8)], ids=str
)
def test_long_prompts_with_short_answers_have_a_plan(
    small: Small, prompt: int, answer: int
) -> None:
    # One such request in ten seconds, without a target, on as many NPUs as wanted.
    traffic = chat(input_tokens=prompt, output_tokens=answer, rate=0.1)
    assert optimum(small(traffic=traffic)).total_npus >= 1


def test_very_long_answers_have_a_plan(small: Small) -> None:
    # One request takes an hour or more, so a replica's rate is a small number.
    traffic = chat(output_tokens=100_000, rate=0.01)
    assert optimum(small(traffic=traffic, hardware={}, prices={})).total_npus >= 1
