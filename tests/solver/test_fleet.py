"""Fleets of real deployments: plans pass the verifier, which sees what is not so."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_ops.errors import GenzSizeError, ProblemError
from problems.offers import OWNED, offers
from problems.plan import Plan
from problems.problem import SizingProblem, problem_of
from problems.requirements import requirements
from problems.survival import left_of, too_little
from problems.verify import violations
from solver.explain import explain
from solver.model import SolveOptions
from solver.solve import Feasible, Infeasible, Optimal, Workspace

Small = Callable[..., SizingProblem]
OPTIONS = SolveOptions(workers=1, seed=0)
REGIONS: dict[str, Any] = {
    "hardware": {"npus": ["h100-sxm", "l40s", "a100-80gb-sxm"]},
    "prices": {},
}
CLASSES = [
    {"name": "chat", "input_tokens": 1000, "output_tokens": 200, "rate": 40.0},
    {"name": "code", "input_tokens": 2000, "output_tokens": 60, "rate": 15.0},
]


def optimum(problem: SizingProblem) -> Plan:
    """Return the proved plan, verified."""
    outcome = Workspace.of(problem).solve(OPTIONS)
    assert isinstance(outcome, Optimal)
    assert violations(problem, outcome.plan) == []
    return outcome.plan


def broken(problem: SizingProblem, plan: Plan) -> set[str]:
    return {violation.requirement for violation in violations(problem, plan)}


# Owned


def test_what_is_owned_is_used_first_and_no_further(small: Small) -> None:
    plain = optimum(small())
    owned = small(owned=[{"npu": "h100", "npus": 1}])
    plan = optimum(owned)
    mine = [p for p in plan.purchases if p.provider == OWNED]
    assert [p.npus for p in mine] == [1]
    assert mine[0].usd_per_hour == 0
    assert plan.usd_per_hour < plain.usd_per_hour


def test_enough_of_ones_own_costs_nothing(small: Small) -> None:
    plan = optimum(small(owned=[{"npu": "l40s", "nodes": 4}]))
    assert plan.usd_per_hour == 0
    assert {p.provider for p in plan.purchases} == {OWNED}
    assert all(p.npus == 8 * p.hosts for p in plan.purchases)


def test_running_costs_count(small: Small) -> None:
    cheap = small(owned=[{"npu": "h100", "npus": 64, "usd_per_hour": "1 USD/h"}])
    plan = optimum(cheap)
    assert plan.usd_per_hour == pytest.approx(1.0 * plan.total_npus)
    dear = small(owned=[{"npu": "h100", "npus": 64, "usd_per_hour": "99 USD/h"}])
    assert optimum(dear) == optimum(small())


def test_more_than_is_owned_is_seen(small: Small) -> None:
    plan = optimum(small(owned=[{"npu": "l40s", "nodes": 4}]))
    hosts = sum(p.hosts for p in plan.purchases)
    fewer = small(owned=[{"npu": "l40s", "nodes": hosts - 1}]) if hosts > 1 else None
    if fewer is not None:
        assert "owned l40s" in broken(fewer, plan)
    assert broken(small(), plan) >= {"hardware"}


# Quotas


def test_quotas_tell_regions_apart(small: Small) -> None:
    free = optimum(small(**REGIONS))
    bought = {(p.npu, p.region, p.provider): p.npus for p in free.purchases}
    (npu, _, provider), count = max(bought.items(), key=lambda item: item[1])
    quota = {"npu": npu, "provider": provider, "npus": count - 1}
    limited = small(**REGIONS, limits={"quota": [quota]})
    plan = optimum(limited)
    assert plan.usd_per_hour >= free.usd_per_hour
    assert f"limits.quota (quota {npu} of {provider})" in broken(limited, free)


def test_offers_under_quotas_hold_the_cheapest_of_each_kind(small: Small) -> None:
    plain = {offer.key for offer in offers(small(**REGIONS))}
    quota = [
        {"provider": next(o.provider for o in offers(small(**REGIONS))), "npus": 8}
    ]
    more = {offer.key for offer in offers(small(**REGIONS, limits={"quota": quota}))}
    assert plain < more


# Redundancy


@pytest.mark.parametrize("kind", [{"nodes": 1}, {"nodes": 2}, {"racks": 1}])
def test_what_is_left_after_a_failure_covers_the_demand(
    small: Small, kind: dict[str, int]
) -> None:
    racks = {"racks": {"nodes": 2}} if "racks" in kind else {}
    problem = small(traffic=CLASSES, redundancy=kind, limits=racks)
    plan = optimum(problem)
    available = {offer.key: offer for offer in offers(problem)}
    for traffic in problem.traffic:
        left = left_of(problem, plan, traffic, available)
        assert left >= traffic.demand(0.0) * (1 - 1e-9)
    plain = small(traffic=CLASSES)
    cheap = optimum(plain)
    assert plan.usd_per_hour > cheap.usd_per_hour
    assert broken(problem, cheap) & {"chat redundancy", "code redundancy"}


def test_survival_by_hand(small: Small) -> None:
    # Replicas that fill one host of eight may all stand there: then nothing is left.
    problem = small(
        hardware={"npus": ["l40s"]}, redundancy={"nodes": 1}, limits={"npus": 200}
    )
    plan = optimum(problem)
    available = {offer.key: offer for offer in offers(problem)}
    (row,) = plan.deployments
    lost = min(row.replicas, 8 // row.npus_per_replica) * row.rate
    left = left_of(problem, plan, problem.traffic[0], available)
    assert left == pytest.approx(row.replicas * row.rate - lost)
    alone = row.model_copy(update={"replicas": 8 // row.npus_per_replica})
    few = plan.model_copy(update={"deployments": (alone,)})
    assert left_of(problem, few, problem.traffic[0], available) == pytest.approx(0)
    # What rounding leaves is nothing.
    (said,) = too_little(problem, problem.traffic[0], 2.0**-52)
    assert "leave 0 of " in said.message


def test_rates_hold_for_the_few_that_are_left(small: Small) -> None:
    problem = small(redundancy={"nodes": 1})
    plan = optimum(problem)
    (first, *rest) = plan.deployments
    faster = first.model_copy(update={"rate": first.rate * 1.05})
    tampered = plan.model_copy(update={"deployments": (faster, *rest)})
    assert any("TPOT" in name or "TTFT" in name for name in broken(problem, tampered))


# Uniformity, racks and change


def test_one_type_of_deployment(small: Small) -> None:
    problem = small(traffic=CLASSES, limits={"deployment_types": 1, "npu_types": 1})
    plan = optimum(problem)
    kinds = {(d.npu, d.parallelism, d.batch, d.chunk_tokens) for d in plan.deployments}
    assert len(kinds) == 1
    mixed = optimum(small(traffic=CLASSES))
    if len({d.npu for d in mixed.deployments}) > 1:
        assert "limits.npu_types" in broken(problem, mixed)


def test_racks_by_power(small: Small) -> None:
    plain = optimum(small())
    per_node = max(o.node_power or 0.0 for o in offers(small()))
    enough = {"racks": {"count": 50, "power": per_node}}
    assert optimum(small(limits=enough)).usd_per_hour == plain.usd_per_hour
    least = min(o.node_power or 0.0 for o in offers(small()))
    weak = {"racks": {"count": 50, "power": least - 1}}
    assert isinstance(Workspace.of(small(limits=weak)).solve(OPTIONS), Infeasible)
    assert "limits.racks" in broken(small(limits=weak), plain)


@pytest.mark.parametrize("most", [0, 1, 2, 4])
def test_change_is_kept_within_its_limit(small: Small, most: int) -> None:
    today = optimum(small())
    used: dict[str, int] = {}
    for row in today.deployments:
        used[row.npu] = used.get(row.npu, 0) + row.npus
    current = [{"npu": npu, "npus": count} for npu, count in used.items()]
    more = small(
        traffic=[{**CLASSES[0], "rate": 60.0}],
        current=current,
        limits={"changed_npus": most},
    )
    outcome = Workspace.of(more).solve(OPTIONS)
    free = optimum(small(traffic=[{**CLASSES[0], "rate": 60.0}]))
    if isinstance(outcome, Infeasible):
        assert "limits.changed_npus" in broken(more, free)
        return
    assert isinstance(outcome, Optimal)
    assert violations(more, outcome.plan) == []
    assert outcome.plan.usd_per_hour >= free.usd_per_hour * (1 - 1e-9)


def test_no_change_keeps_a_plan_as_it_is(small: Small) -> None:
    today = optimum(small())
    current = [{"npu": d.npu, "npus": d.npus} for d in today.deployments]
    same = small(current=current, limits={"changed_npus": 0})
    assert optimum(same).usd_per_hour == pytest.approx(today.usd_per_hour)


# Explanations

CLASHES: dict[str, dict[str, Any]] = {
    "quota": {"limits": {"quota": [{"region": "*", "npus": 1}]}},
    "types-and-budget": {
        "traffic": CLASSES,
        "limits": {"npu_types": 1, "deployment_types": 1, "usd_per_hour": 3.0},
    },
    "racks": {
        "traffic": [{**CLASSES[0], "rate": 900.0}],
        "limits": {"racks": {"count": 1, "nodes": 1}},
    },
    "redundancy-and-npus": {"redundancy": {"nodes": 1}, "limits": {"npus": 8}},
    "change-and-budget": {
        "current": [{"npu": "h100-sxm", "npus": 30}],
        "limits": {"changed_npus": 10, "usd_per_hour": 20.0},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASHES)
def test_conflicts_are_minimal(small: Small, name: str) -> None:
    problem = small(**CLASHES[name])
    workspace = Workspace.of(problem)
    assert isinstance(workspace.solve(OPTIONS), Infeasible)
    told = explain(workspace, OPTIONS)
    every = {r.label: r for r in requirements(problem)}
    assert told.complete
    assert len(told.conflicts) > 0

    def feasible(kept: set[str]) -> bool:
        asked = problem
        for label, requirement in every.items():
            if label not in kept:
                asked = requirement.moved(asked, None)
        outcome = workspace.solve(OPTIONS, asked)
        assert isinstance(outcome, Optimal | Infeasible)
        return isinstance(outcome, Optimal)

    conflict = set(told.conflicts)
    assert not feasible(conflict)
    for label in conflict:
        assert feasible(conflict - {label})
    assert told.relaxations


# Bad input

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "owned-nothing": ({"owned": [{"npu": "h100"}]}, "state one of them"),
    "owned-unknown": ({"owned": [{"npu": "h1000", "npus": 1}]}, "owned.npu"),
    "owned-twice": (
        {"owned": [{"npu": "h100", "npus": 1}, {"npu": "h100-sxm", "npus": 2}]},
        "two entries for h100-sxm",
    ),
    "owned-excluded": (
        {
            "owned": [{"npu": "h100", "npus": 2}],
            "hardware": {"exclude": ["h100*"]},
        },
        "owned: h100-sxm is owned, but hardware.exclude",
    ),
    "quota-of-nothing": (
        {"limits": {"quota": [{"npu": "zx*", "npus": 1}]}},
        "limits.quota.npu",
    ),
    "racks-of-nothing": ({"limits": {"racks": {"count": 3}}}, "nodes or power"),
    "racks-unknown": ({"redundancy": {"racks": 1}}, "limits.racks.nodes"),
    "both": ({"redundancy": {"racks": 1, "nodes": 1}}, "state one of them"),
    "current-twice": (
        {"current": [{"npu": "l40s", "npus": 1}, {"npu": "l40s", "npus": 2}]},
        "two entries for l40s",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_fleets_are_refused_in_words(small: Small, name: str) -> None:
    changes, said = BAD[name]
    with pytest.raises(ProblemError, match=said.replace("*", r"\*")):
        small(**changes)


@pytest.mark.parametrize(
    ("quota", "said"),
    [
        ({"region": "mars"}, "limits.quota.region: there is no region 'mars'; "),
        ({"region": "us-eats*"}, "limits.quota.region: there is no region 'us-eats*'"),
        ({"provider": "nebiu"}, "provider 'nebiu'; did you mean 'Nebius'"),
    ],
)
def test_quotas_of_nowhere_are_refused(
    small: Small, quota: dict[str, Any], said: str
) -> None:
    problem = small(**REGIONS, limits={"quota": [quota | {"npus": 0}]})
    with pytest.raises(ProblemError, match=re.escape(said)):
        offers(problem)


@pytest.mark.parametrize("quota", [{"region": "us-east*"}, {"provider": "given"}])
def test_quotas_may_count_none_of_the_offers_in_use(
    small: Small, quota: dict[str, Any]
) -> None:
    prices = {"providers": ["nebius"]}
    limits = {"quota": [quota | {"npus": 0}]}
    hardware = {"npus": ["h100-sxm"]}
    kept = offers(small(hardware=hardware, prices=prices, limits=limits))
    free = offers(small(hardware=hardware, prices=prices))
    assert [offer.key for offer in kept] == [offer.key for offer in free]


def test_a_price_of_two_regions_is_there_where_a_quota_ends_in_one(
    small: Small,
) -> None:
    quota = {"region": "eu-*", "npus": 0}
    asked = {"hardware": {"npus": ["h100-sxm"]}, "prices": {"providers": ["nebius"]}}
    found = offers(small(**asked, limits={"quota": [quota]}))
    regions = {offer.price.region: offer.usd_per_hour_per_npu for offer in found}
    assert regions["us-central1"] == regions["eu-north1"]
    plan = optimum(small(**asked, limits={"quota": [quota]}))
    assert {purchase.region for purchase in plan.purchases} == {"us-central1"}


# Properties


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, Any]:
    """Return what a problem asks of its fleet, at random."""
    limits: dict[str, Any] = {}
    asked: dict[str, Any] = {"limits": limits}
    if draw(st.booleans()):
        limits["quota"] = [{"npu": "h*", "npus": draw(st.sampled_from([1, 7]))}]
    if draw(st.booleans()):
        limits["racks"] = {"count": draw(st.integers(1, 4)), "nodes": 2}
    if draw(st.booleans()):
        limits["deployment_types"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        asked["owned"] = [{"npu": "l40s", draw(st.sampled_from(["npus", "nodes"])): 2}]
    if draw(st.booleans()):
        asked["redundancy"] = {"nodes": draw(st.integers(1, 2))}
    if draw(st.booleans()):
        asked["current"] = [{"npu": "h100-sxm", "npus": draw(st.integers(1, 12))}]
        limits["changed_npus"] = draw(st.integers(1, 30))
    asked["objective"] = draw(st.sampled_from(["cost", "npus", "power"]))
    return asked


@pytest.fixture(scope="module")
def spaces() -> dict[str, Workspace]:
    """What was evaluated already, by what is offered."""
    return {}


ANY = list(HealthCheck)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=ANY)
@given(asked=fleets(), rate=st.sampled_from([8.0, 60.0]))
def test_no_plan_that_the_verifier_rejects(
    small: Small, spaces: dict[str, Workspace], asked: dict[str, Any], rate: float
) -> None:
    classes = [{**CLASSES[0], "rate": rate}, {**CLASSES[1], "rate": rate / 4}]
    problem = small(traffic=classes, **asked)
    offered = repr((asked.get("owned"), asked["limits"].get("quota")))
    if offered not in spaces:
        spaces[offered] = Workspace.of(problem)
    # Solving raises where the verifier rejects a plan.
    outcome = spaces[offered].solve(replace(OPTIONS, time_limit=5.0), problem)
    if isinstance(outcome, Optimal | Feasible):
        assert violations(problem, outcome.plan) == []
        assert 0 <= outcome.certificate.gap < 1


def test_a_problem_is_read_again_as_it_was_written(small: Small) -> None:
    problem = small(
        owned=[{"npu": "l40s", "nodes": 2}],
        current=[{"npu": "h100", "npus": 3}],
        redundancy={"nodes": 1},
        limits={"quota": [{"region": "us-*", "npus": 3}], "racks": {"nodes": 2}},
    )
    assert problem_of(problem.model_dump(mode="json"), "python") == problem


# Several models

MODELS = [
    {**CLASSES[0], "targets": [{"metric": "tpot", "at_most": 0.03}]},
    {**CLASSES[1], "model": "qwen3-32b", "rate": 4.0},
]


def test_each_class_has_its_model(small: Small) -> None:
    problem = small(traffic=MODELS)
    plan = optimum(problem)
    assert {(d.traffic, d.model) for d in plan.deployments} == {
        ("chat", "llama-3.1-8b"),
        ("code", "qwen3-32b"),
    }
    for name, traffic in (("llama-3.1-8b", MODELS[0]), ("qwen3-32b", MODELS[1])):
        alone = small(model=name, traffic=[{**traffic, "model": None}])
        assert optimum(alone).usd_per_hour <= plan.usd_per_hour


def test_two_models_cost_what_each_costs_alone(small: Small) -> None:
    both = optimum(small(traffic=MODELS)).usd_per_hour
    alone = [
        optimum(small(traffic=[MODELS[0]])),
        optimum(small(model="qwen3-32b", traffic=[{**MODELS[1], "model": None}])),
    ]
    assert both == pytest.approx(sum(plan.usd_per_hour for plan in alone))


def test_another_model_than_the_classs_is_seen(small: Small) -> None:
    problem = small(traffic=MODELS)
    plan = optimum(problem)
    rows = tuple(
        row.model_copy(update={"model": "llama-3.1-8b"}) for row in plan.deployments
    )
    assert "model" in broken(problem, plan.model_copy(update={"deployments": rows}))


def test_an_unknown_model_of_a_class_is_named(small: Small) -> None:
    with pytest.raises(GenzSizeError, match=r"llama-3\.1-9b"):
        small(traffic=[{**CLASSES[0], "model": "llama-3.1-9b"}])


def test_classes_alike_share_what_is_evaluated(small: Small) -> None:
    many = [{**CLASSES[0], "name": f"c{i}", "rate": 10.0 + i} for i in range(6)]
    workspace = Workspace.of(small(traffic=many))
    assert len({id(table.engines) for table in workspace.tables}) == 1
    assert [t.traffic.name for t in workspace.tables] == [f"c{i}" for i in range(6)]
    others = [{**CLASSES[0], "name": "b", "burstiness": 2.0}, *many[:1]]
    assert len({id(t.engines) for t in Workspace.of(small(traffic=others)).tables}) == 2


def test_classes_that_share_have_the_candidates_of_each_alone(small: Small) -> None:
    many = [{**CLASSES[0], "name": f"c{i}", "rate": 10.0 + 30 * i} for i in range(3)]
    together = small(traffic=many)
    found = Workspace.of(together).instance(together).candidates
    for number, each in enumerate(many):
        alone = small(traffic=[each])
        expected = Workspace.of(alone).instance(alone).candidates
        mine = [replace(c, traffic=0) for c in found if c.traffic == number]
        assert sorted(map(repr, mine)) == sorted(map(repr, expected))


def test_many_classes_alike_cost_hardly_more_measured_together(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = (3.0, 21.0, 90.0)
    many = [{**MODELS[0], "name": f"c{i}", "rate": r} for i, r in enumerate(rates)]
    alone = optimum(small(traffic=many))
    monkeypatch.setattr("solver.selection.MANY", 1)
    together = optimum(small(traffic=many))
    assert together.usd_per_hour >= alone.usd_per_hour * (1 - 1e-9)
    assert together.usd_per_hour <= alone.usd_per_hour * 1.02


# Whole racks


def test_a_rack_is_bought_whole_and_fails_whole(small: Small) -> None:
    rack = {"npu": "gb200-nvl72", "npus": 72, "usd_per_hour": 300.0}
    racks = {"hardware": {"npus": ["gb200-nvl72"]}, "prices": {"given": [rack]}}
    traffic = [{**CLASSES[0], "model": "llama-3.1-70b", "rate": 20.0}]
    (one,) = optimum(small(**racks, traffic=traffic)).purchases
    assert (one.hosts, one.npus, one.usd_per_hour) == (1, 72, 300.0)
    spare = optimum(small(**racks, traffic=traffic, redundancy={"nodes": 1}))
    assert [purchase.hosts for purchase in spare.purchases] == [2]
    assert sum(row.npus for row in spare.deployments) <= 2 * 72
