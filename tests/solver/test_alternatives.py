"""What stands next to a plan is true: runners-up, and what binds."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from problems.plan import PlannedDeployment
from problems.problem import SizingProblem
from problems.requirements import requirements
from problems.stations import Station
from problems.verify import violations
from solver import certificate
from solver.alternatives import limit_bindings, runners_up
from solver.binding import Binding, batch_bindings
from solver.model import Choice, SolveOptions
from solver.solve import Feasible, Infeasible, Optimal, Workspace, objective_value
from solver.table import MOST_LOAD

Small = Callable[..., SizingProblem]
OPTIONS = SolveOptions(workers=1, seed=0)
HOPELESS = SolveOptions(time_limit=1e-9)


def chat(*targets: tuple[str, float], **changes: Any) -> dict[str, Any]:
    """Return a class of requests with targets."""
    data = {"name": "chat", "input_tokens": 1000, "output_tokens": 200, "rate": 40.0}
    data["targets"] = [{"metric": m, "at_most": most} for m, most in targets]
    return {k: v for k, v in (data | changes).items() if v is not None}


TWO = [
    chat(("tpot", 0.012), name="fast", rate=3.0),
    chat(name="slow", rate=25.0, input_tokens=3000),
]
WHOLE = {
    "given": [
        {"npu": "h100-sxm", "usd_per_hour": 20.0, "npus": 8},
        {"npu": "l40s", "usd_per_hour": 6.0, "npus": 8},
    ]
}
ALONE = {"npu": "h100-sxm", "usd_per_hour": 2.5, "npus": 1, "whole_instance": True}
PROBLEMS: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    "whole-hosts": {"prices": WHOLE},
    "two-classes": {"traffic": TWO},
    "two-classes-on-whole-hosts": {"traffic": TWO, "prices": WHOLE},
    "catalogue": {"hardware": {}, "prices": {}},
    "catalogue-two-formats": {
        "hardware": {},
        "prices": {},
        "precisions": ["bf16", "fp8"],
        "traffic": TWO,
    },
    "fewest-npus": {"objective": "npus", "hardware": {}, "prices": {}},
    "least-power": {"objective": "power", "hardware": {}, "prices": {}},
    "users": {"traffic": [chat(("tpot", 0.03), rate=None, concurrency=333)]},
    "long-prompts": {"traffic": [chat(("ttft", 5.0), input_tokens=30_000, rate=2.0)]},
    "limits": {"limits": {"npus": 3, "npus_per_type": {"h100-sxm": 8}}},
    "budget": {"objective": "npus", "limits": {"usd_per_hour": 7.0}},
}


class Chosen:
    """A workspace, its proved plan, and what is told beside it."""

    def __init__(self, problem: SizingProblem) -> None:
        self.problem = problem
        self.workspace = Workspace.of(problem)
        outcome = self.workspace.solve(OPTIONS)
        assert isinstance(outcome, Optimal)
        self.plan = outcome.plan
        self.value = objective_value(problem, self.plan)
        self.runners = runners_up(self.workspace, self.plan, OPTIONS)
        self.bindings = [
            *batch_bindings(self.workspace, self.plan),
            *limit_bindings(self.workspace, self.plan, OPTIONS),
        ]

    def only(self, npu: str) -> Any:
        """Return the outcome with one NPU type."""
        hardware = self.problem.hardware.model_copy(update={"npus": (npu,)})
        return Workspace.of(
            self.problem.model_copy(update={"hardware": hardware})
        ).solve(OPTIONS)

    def deployments(self) -> Iterator[tuple[PlannedDeployment, Binding]]:
        """Yield each deployment with what binds its batch."""
        yield from zip(self.plan.deployments, self.bindings, strict=False)


@pytest.fixture(scope="module")
def chosen(small: Small) -> Callable[[str], Chosen]:
    known: dict[str, Chosen] = {}

    def of(name: str) -> Chosen:
        if name not in known:
            known[name] = Chosen(small(**PROBLEMS[name]))
        return known[name]

    return of


# Runners-up


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_runners_up_are_never_better(
    chosen: Callable[[str], Chosen], name: str
) -> None:
    told = chosen(name)
    values = [runner.value for runner in told.runners]
    assert values == sorted(values)
    assert len(told.runners) <= 5
    for runner in told.runners:
        assert runner.distance >= -1e-9
        assert runner.value >= told.value * (1 - 1e-9)
        assert runner.distance == pytest.approx(runner.value / told.value - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_runners_up_solve_the_problem_with_one_type(
    chosen: Callable[[str], Chosen], name: str
) -> None:
    told = chosen(name)
    used = {deployment.npu for deployment in told.plan.deployments}
    for runner in told.runners:
        assert violations(told.problem, runner.plan) == []
        assert {d.npu for d in runner.plan.deployments} == {runner.npu}
        assert used != {runner.npu}
        assert runner.value == objective_value(told.problem, runner.plan)


@pytest.mark.parametrize(
    "name", ["as-it-is", "whole-hosts", "two-classes", "two-classes-on-whole-hosts"]
)
def test_runners_up_are_the_best_of_their_type(
    chosen: Callable[[str], Chosen], name: str
) -> None:
    told = chosen(name)
    used = {deployment.npu for deployment in told.plan.deployments}
    found = {runner.npu: runner.value for runner in told.runners}
    for npu in ("h100-sxm", "l40s"):
        outcome = told.only(npu)
        if used == {npu} or isinstance(outcome, Infeasible):
            assert npu not in found
            continue
        assert found[npu] == pytest.approx(objective_value(told.problem, outcome.plan))


@pytest.mark.slow
def test_runners_up_of_the_catalogue_are_its_best(
    chosen: Callable[[str], Chosen],
) -> None:
    told = chosen("catalogue")
    assert len(told.runners) == 5
    names = {runner.npu for runner in told.runners}
    names |= {deployment.npu for deployment in told.plan.deployments}
    for npu in {offer.npu.name for offer in told.workspace.offers} - names:
        outcome = told.only(npu)
        if isinstance(outcome, Optimal):
            assert outcome.plan.usd_per_hour >= told.runners[-1].value * (1 - 1e-9)


# What binds


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_little_more_load_breaks_what_binds(
    chosen: Callable[[str], Chosen], name: str
) -> None:
    told = chosen(name)
    assert len(told.bindings) >= len(told.plan.deployments)
    for deployment, binding in told.deployments():
        (traffic,) = [t for t in told.problem.traffic if t.name == deployment.traffic]
        assert binding.where == f"{deployment.npu} {deployment.parallelism.text}"
        station = Station.of(told.plan, deployment, traffic)
        if binding.requirement == f"{traffic.name} throughput":
            full = float(station.latencies(deployment.rate).utilisation)
            assert not traffic.targets or full >= MOST_LOAD * 0.999
            continue
        reason = re.match(
            r"at ([\d.e+]+) req/s it holds, at ([\d.e+]+) it does not; ", binding.reason
        )
        assert reason is not None
        assert float(reason[1]) == float(f"{deployment.rate:.3g}")
        (target,) = [
            t
            for t in traffic.targets
            if f"{traffic.name} {t.label}" == binding.requirement
        ]
        assert station.excess(target, deployment.rate) < 2e-3
        assert station.excess(target, float(reason[2]) * 1.005) > 0
        assert float(reason[2]) <= 1.11 * deployment.rate


def test_what_binds_is_told_for_targets_of_every_kind(small: Small) -> None:
    for metric, statistic, seconds in (
        ("ttft", "p99", 0.12),
        ("tpot", "p95", 0.02),
        ("e2e", "mean", 3.0),
    ):
        asked = {"metric": metric, "statistic": statistic, "at_most": seconds}
        problem = small(
            traffic=[chat(targets=[asked])],
            hardware={"npus": ["h100-sxm"]},
            prices={"given": [ALONE]},
        )
        workspace = Workspace.of(problem)
        (binding,) = batch_bindings(workspace, workspace.solve(OPTIONS).plan)
        assert binding.requirement == f"chat {statistic} {metric.upper()}"


def test_without_a_target_throughput_binds(small: Small) -> None:
    workspace = Workspace.of(small(traffic=[chat()]))
    told = batch_bindings(workspace, workspace.solve(OPTIONS).plan)
    assert {binding.requirement for binding in told} == {"chat throughput"}


@pytest.mark.parametrize("name", ["limits", "budget"])
def test_a_limit_that_binds_costs_what_it_says(
    chosen: Callable[[str], Chosen], name: str
) -> None:
    told = chosen(name)
    stated = {b.requirement: b.reason for b in told.bindings if b.where == "plan"}
    assert stated
    for requirement in requirements(told.problem):
        if requirement.target is not None:
            continue
        free = told.workspace.solve(OPTIONS, requirement.moved(told.problem, None))
        assert isinstance(free, Optimal)
        better = objective_value(told.problem, free.plan)
        if better >= told.value * (1 - 1e-9):
            assert requirement.label not in stated
            continue
        (share,) = re.findall(r"([\d.]+)% better", stated[requirement.label])
        assert float(share) / 100 == pytest.approx(1 - better / told.value, abs=6e-4)


# Without time, or without proof


def test_no_time_leaves_out_what_needs_a_search(small: Small) -> None:
    problem = small(limits={"npus": 3})
    workspace = Workspace.of(problem)
    plan = workspace.solve(OPTIONS).plan
    assert runners_up(workspace, plan, HOPELESS) == []
    assert limit_bindings(workspace, plan, HOPELESS) == []
    assert len(batch_bindings(workspace, plan)) == len(plan.deployments)


def test_only_proved_plans_stand_beside_a_plan(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.of(small(limits={"npus": 3}))
    plan = workspace.solve(OPTIONS).plan
    without = Workspace.of(small())
    free = without.solve(OPTIONS).plan
    assert runners_up(without, free, OPTIONS)
    assert any(b.where == "plan" for b in limit_bindings(workspace, plan, OPTIONS))
    real = Workspace.solve_instance

    def unproved(self: Workspace, *arguments: Any) -> Any:
        outcome = real(self, *arguments)
        assert isinstance(outcome, Optimal)
        return Feasible(outcome.plan, outcome.certificate)

    monkeypatch.setattr(Workspace, "solve_instance", unproved)
    assert runners_up(without, free, OPTIONS) == []
    assert all(b.where != "plan" for b in limit_bindings(workspace, plan, OPTIONS))


def known_by_hand(problem: SizingProblem, monkeypatch: pytest.MonkeyPatch) -> Feasible:
    """Return the plan that is known when the search finds none in time."""
    with monkeypatch.context() as patch:
        patch.setattr(certificate, "choose", lambda *_, **__: Choice("timed_out"))
        outcome = Workspace.of(problem).solve(OPTIONS)
    assert isinstance(outcome, Feasible)
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in PROBLEMS if "limits" not in PROBLEMS[n]])
def test_the_plan_known_without_a_search_is_honest(
    small: Small,
    chosen: Callable[[str], Chosen],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    problem = small(**PROBLEMS[name])
    outcome = known_by_hand(problem, monkeypatch)
    assert violations(problem, outcome.plan) == []
    value = objective_value(problem, outcome.plan)
    best = chosen(name).value
    proof = outcome.certificate
    assert proof.bound <= best * (1 + 1e-9)
    assert best <= value * (1 + 1e-9)
    assert proof.gap == pytest.approx(1 - proof.bound / value)
