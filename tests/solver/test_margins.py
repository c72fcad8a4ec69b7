"""How near other plans are: by hand, against changed problems, and only as proved."""

import csv
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.deployed import engine_of
from model_ops.serving.step import Replica
from problems import catalogue
from problems.given.problem import given_problem_of
from problems.given.rows import COLUMNS, PRICE
from problems.given.table import CandidatesTable
from problems.offers import offers
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import covered
from problems.stations import Station
from problems.survival import left_of
from solver.given.beside import given_margins
from solver.given.workspace import GivenWorkspace
from solver.margins import Margins, margins
from solver.model import SolveOptions
from solver.sensitivity import scaled
from solver.solve import Optimal, Workspace, objective_value
from solver.switches import Switch
from solver.tolerance import holds, longer, slower

Small = Callable[..., SizingProblem]
OPTIONS = SolveOptions(workers=1, seed=0)
HOPELESS = SolveOptions(time_limit=1e-9)

Replicas = tuple[str, str, int, float, float]
"""Name, NPU, NPUs, requests per second, and price."""


def table(path: Path, rows: list[Replicas]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, PRICE))
        for name, npu, npus, rate, price in rows:
            figures = (name, npu, "aggregated", npus, 100, 10, rate)
            writer.writerow((*figures, "", "", "", "", price))
    return path


def asked(path: Path, rate: float, **changes: Any) -> GivenWorkspace:
    targets = [{"metric": "ttft", "at_most": 1.0}]
    data = {"traffic": [{"rate": rate, "targets": targets}]} | changes
    table = CandidatesTable.read(path)
    return GivenWorkspace.of(given_problem_of(data, table.npus, "python"), table)


def told(workspace: GivenWorkspace, options: SolveOptions = OPTIONS) -> Margins:
    outcome = workspace.solve(OPTIONS)
    assert isinstance(outcome, Optimal)
    return given_margins(workspace, outcome.plan, options)


def prices(workspace: GivenWorkspace) -> list[Switch]:
    """Return the switches that are of prices."""
    return [s for s in told(workspace).switches if s.of.startswith("price")]


# Prices


def test_prices_switch_where_two_types_cost_the_same(tmp_path: Path) -> None:
    # Ten NPUs of either type; at 2 and 3 USD/h they are even at 3, or at 2.
    rows = [("a", "one", 1, 1.0, 2.0), ("b", "two", 1, 1.0, 3.0)]
    dearer, cheaper = prices(asked(table(tmp_path / "t.csv", rows), 10.0))
    assert (dearer.of, dearer.then) == ("price of one", "10 x two")
    assert dearer.factor == pytest.approx(1.5)
    assert dearer.to == "3.00 USD/h"
    assert (cheaper.of, cheaper.then) == ("price of two", "10 x two")
    assert cheaper.factor == pytest.approx(2 / 3)


def test_a_mix_switches_both_ways(tmp_path: Path) -> None:
    # Of 13 req/s: 1 big (10) and 3 small (1 each) for 7 + 3; or 2 big for 14; or 13
    # small for 13. Big: even with 13 small at 10. Small: with 2 big at 7 / 3, and with
    # 13 small at 7 / 10.
    rows = [("big", "one", 1, 10.0, 7.0), ("small", "two", 1, 1.0, 1.0)]
    found = prices(asked(table(tmp_path / "t.csv", rows), 13.0))
    factors = {(s.of, s.factor > 1): (s.factor, s.then) for s in found}
    factor, then = factors["price of one", True]
    assert (factor, then) == (pytest.approx(10 / 7), "13 x two")
    factor, then = factors["price of one", False]
    assert (factor, then) == (pytest.approx(3 / 7), "2 x one")
    factor, then = factors["price of two", True]
    assert (factor, then) == (pytest.approx(7 / 3), "2 x one")
    factor, then = factors["price of two", False]
    assert (factor, then) == (pytest.approx(7 / 10), "13 x two")


def _repriced(rows: list[Replicas], npu: str, factor: float) -> list[Replicas]:
    return [
        (name, type_, npus, rate, price * (factor if type_ == npu else 1.0))
        for name, type_, npus, rate, price in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_prices_switch_there_and_not_before(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sizes = [(npu, npus) for npu in ("one", "two", "three") for npus in (1, 3)]
    rows = []
    for number, (npu, npus) in enumerate(sizes):
        rate, price = (npus * chance.uniform(*span) for span in ((0.5, 1.5), (1, 4)))
        rows.append((f"r{number}", npu, npus, rate, price))
    workspace = asked(table(tmp_path / "t.csv", rows), 17.3)
    plan = workspace.solve(OPTIONS).plan
    assert plan is not None
    paid: dict[str, float] = {}
    for purchase in plan.purchases:
        before = paid.get(purchase.npu, 0.0)
        paid[purchase.npu] = before + purchase.usd_per_hour
    switches = prices(workspace)
    assert switches
    for switch in switches:
        npu = switch.of.removeprefix("price of ")
        own = paid.get(npu, 0.0)

        def cost(factor: float, own: float = own) -> float:
            return plan.usd_per_hour + own * (factor - 1)

        def best(factor: float, npu: str = npu) -> float:
            again = table(tmp_path / "again.csv", _repriced(rows, npu, factor))
            found = asked(again, 17.3).solve(OPTIONS).plan
            assert found is not None
            return found.usd_per_hour

        outwards = 1.01 if switch.factor > 1 else 1 / 1.01
        before = switch.factor**0.9
        assert best(before) == pytest.approx(cost(before))
        if switch.then:
            beyond = switch.factor * outwards
            assert best(beyond) < cost(beyond) * (1 - 1e-6)


def test_one_type_has_no_other_to_switch_to(tmp_path: Path) -> None:
    rows = [("a", "one", 1, 1.0, 2.0), ("b", "one", 2, 2.5, 4.5)]
    workspace = asked(table(tmp_path / "t.csv", rows), 10.0)
    assert prices(workspace) == []
    assert told(workspace).without == ()


def test_prices_are_not_asked_where_npus_are_counted(tmp_path: Path) -> None:
    rows = [("a", "one", 1, 1.0, 2.0), ("b", "two", 1, 1.5, 3.0)]
    workspace = asked(table(tmp_path / "t.csv", rows), 10.0, objective="npus")
    assert prices(workspace) == []


def test_a_budget_does_not_move_with_prices(tmp_path: Path) -> None:
    rows = [("a", "one", 1, 1.0, 2.0), ("b", "two", 1, 1.0, 3.0)]
    limits = {"usd_per_hour": 21.0}
    workspace = asked(table(tmp_path / "t.csv", rows), 10.0, limits=limits)
    dearer, _ = prices(workspace)
    assert dearer.factor == pytest.approx(1.5)


# Without a type, and with requirements moved


def test_without_a_type_the_other_is_taken(tmp_path: Path) -> None:
    rows = [("a", "one", 1, 1.0, 2.0), ("b", "two", 1, 1.0, 3.0)]
    (without,) = told(asked(table(tmp_path / "t.csv", rows), 10.0)).without
    assert without.npu == "one"
    assert without.worth is not None
    assert without.worth.hardware == "10 x two"
    assert without.change == pytest.approx(0.5)


def test_without_a_type_there_may_be_no_plan(tmp_path: Path) -> None:
    rows = [("a", "one", 1, 1.0, 2.0), ("b", "two", 4, 1.0, 1.0)]
    limits = {"npus": 12}
    workspace = asked(table(tmp_path / "t.csv", rows), 10.0, limits=limits)
    known = {w.npu: w.worth for w in told(workspace).without}
    assert known["one"] is None


def test_requirements_cost_what_the_moved_problems_do(tmp_path: Path) -> None:
    # Ten of a for the 10 req/s; the limit of 10 NPUs is met, 9 are not enough.
    rows = [("a", "one", 1, 1.0, 2.0), ("b", "one", 2, 1.0, 1.9)]
    limits = {"npus": 10}
    workspace = asked(table(tmp_path / "t.csv", rows), 10.0, limits=limits)
    known = {s.requirement: s for s in told(workspace).sensitivities}
    assert set(known) == {"mean TTFT", "NPU limit", "traffic"}
    limit = known["NPU limit"]
    assert limit.tighter is not None
    assert limit.looser is not None
    assert (limit.tighter.to, limit.tighter.worth) == ("9", None)
    # Eleven NPUs: nine of a and one of b, for 18 + 1.9 instead of 20.
    assert limit.looser.worth is not None
    assert limit.looser.worth.value == pytest.approx(19.9)
    assert limit.looser.change == pytest.approx(-0.005)
    less = known["traffic"].looser
    assert less is not None
    assert less.to == "9 req/s"
    # Nine NPUs of a; or eight and one of b, ten NPUs, for 17.9.
    assert less.worth is not None
    assert less.worth.value == pytest.approx(17.9)
    assert known["traffic"].tighter is not None
    assert known["traffic"].tighter.worth is None


# Of our own deployments


class Sized:
    """A small problem with its proved plan."""

    def __init__(self, problem: SizingProblem) -> None:
        self.problem = problem
        self.workspace = Workspace.of(problem)
        outcome = self.workspace.solve(OPTIONS)
        assert isinstance(outcome, Optimal)
        self.plan: Plan = outcome.plan
        self.value = objective_value(problem, self.plan)

    def margins(
        self, options: SolveOptions = OPTIONS, *, deep: bool = False
    ) -> Margins:
        near = ("h100-sxm", "l40s")
        return margins(self.workspace, self.plan, near, options, deep=deep)

    def best(self, problem: SizingProblem) -> float:
        outcome = Workspace.of(problem).solve(OPTIONS)
        assert isinstance(outcome, Optimal)
        return objective_value(problem, outcome.plan)


@pytest.fixture(scope="module")
def sized(small: Small) -> Sized:
    return Sized(small())


@pytest.fixture(scope="module")
def deep(sized: Sized) -> Margins:
    return sized.margins(deep=True)


def by_name(switches: tuple[Switch, ...]) -> Mapping[tuple[str, bool], Switch]:
    return {(switch.of, switch.factor > 1): switch for switch in switches}


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_slower_steps_are_shorter_targets_and_more_traffic(factor: float) -> None:
    # Every second k times as long: at rate r all latencies are k times those at k r.
    arch = catalogue.load_model("llama-3.1-8b")
    npu = catalogue.load_npu("h100-sxm")
    traffic = SizingProblem.model_validate(
        {
            "model": "llama-3.1-8b",
            "traffic": [{"input_tokens": 800, "output_tokens": 100, "rate": 5.0}],
        }
    ).traffic[0]

    def station(slow: float) -> Station:
        supply = Supply.of(npu.slower(slow))
        replica = Replica(arch, Parallelism(), arch.precision, supply)
        engine = engine_of(
            replica, traffic.profile, chunk_tokens=2048, max_sequences=256
        )
        return Station(engine, traffic, 1, 1.0)

    changed, usual = (
        station(factor).latencies(6.0),
        station(1.0).latencies(6.0 * factor),
    )
    for metric in ("ttft", "tpot", "e2e"):
        theirs, ours = getattr(usual, metric), getattr(changed, metric)
        for statistic in ("mean", "p50", "p99"):
            expected = factor * float(getattr(theirs, statistic))
            assert float(getattr(ours, statistic)) == pytest.approx(expected, rel=1e-6)


def test_a_plan_bears_what_its_replicas_take(sized: Sized) -> None:
    known = by_name(sized.margins().switches)
    (traffic,) = sized.problem.traffic
    assert known["traffic", True].factor >= covered(sized.plan, traffic) / 40.0 - 1e-3
    for of, changed in (("all times", slower), ("output length", longer)):
        factor = known[of, True].factor
        assert holds(changed(sized.problem, factor), sized.plan)
        assert not holds(changed(sized.problem, factor * 1.002), sized.plan)
        assert known[of, True].then == "mean TPOT no longer holds"


def test_a_redundant_plan_bears_what_is_left_when_a_host_fails(small: Small) -> None:
    sized = Sized(small(redundancy={"nodes": 1}))
    known = by_name(sized.margins().switches)
    available = {offer.key: offer for offer in offers(sized.problem)}
    (traffic,) = sized.problem.traffic
    left = left_of(sized.problem, sized.plan, traffic, available)
    assert left < covered(sized.plan, traffic)
    factor = known["traffic", True].factor
    assert factor == pytest.approx(left / 40.0, rel=5e-3)
    # Sized anew a little beyond it costs more, and within it the same.
    for share, dearer in ((0.995 * factor, False), (1.01 * factor, True)):
        again = sized.best(scaled(sized.problem, share))
        assert (again > sized.value * (1 + 1e-9)) is dearer


@pytest.mark.slow
def test_users_are_counted_whole(small: Small) -> None:
    users = {"name": "chat", "input_tokens": 1000, "output_tokens": 200}
    users |= {"concurrency": 50, "targets": [{"metric": "tpot", "at_most": 0.03}]}
    known = by_name(Sized(small(traffic=[users])).margins().switches)
    switch = known["traffic", True]
    assert switch.now == "50 users"
    count, unit = switch.to.split()
    assert unit == "users"
    assert int(count) == int(50 * switch.factor) > 50


def test_what_is_owned_has_no_price_to_move(small: Small) -> None:
    owned = [{"npu": "h100-sxm", "npus": 1}]
    asked = Sized(small(owned=owned))
    assert any(p.provider == "owned" for p in asked.plan.purchases)
    found = asked.margins()
    prices = [switch for switch in found.switches if "price" in switch.of]
    assert prices
    assert all(not switch.now.startswith("0.00") for switch in prices)


def test_what_is_free_is_compared_with_nothing(small: Small) -> None:
    asked = Sized(small(owned=[{"npu": "h100-sxm", "npus": 64}]))
    assert asked.value == 0
    found = asked.margins(deep=True)
    assert found.without == ()
    assert {switch.of for switch in found.switches} <= {
        "traffic",
        "all times",
        "output length",
    }


@pytest.mark.slow
def test_what_may_fail_can_be_left_out_but_not_moved(small: Small) -> None:
    asked = Sized(small(redundancy={"nodes": 1}))
    known = {s.requirement: s for s in asked.margins(deep=True).sensitivities}
    (label,) = (name for name in known if name.startswith("redundancy"))
    assert known[label].tighter is None
    dropped = known[label].looser
    assert dropped is not None
    assert dropped.to == "none"
    assert dropped.change is not None
    assert dropped.change < 0


@pytest.mark.slow
def test_a_cheaper_plan_wins_below_and_not_above(sized: Sized, deep: Margins) -> None:
    known = by_name(deep.switches)
    for of, changed in (("traffic", None), ("all times", slower)):
        switch = known[of, False]
        assert switch.then

        def at(factor: float, changed: Any = changed) -> float:
            if changed is not None:
                return sized.best(changed(sized.problem, factor))
            (traffic,) = sized.problem.traffic
            moved = {"traffic": (traffic.scaled(factor),)}
            return sized.best(sized.problem.model_copy(update=moved))

        assert at(switch.factor) < sized.value * (1 - 1e-9)
        assert at(switch.factor + 0.01) == pytest.approx(sized.value)


def test_shorter_answers_are_sized_anew(sized: Sized, deep: Margins) -> None:
    switch = by_name(deep.switches)["output length", False]
    assert switch.then
    assert sized.best(longer(sized.problem, switch.factor)) < sized.value


def test_tighter_is_never_cheaper_and_all_is_proved(
    sized: Sized, deep: Margins
) -> None:
    labels = [s.requirement for s in deep.sensitivities]
    assert labels == ["mean TTFT", "mean TPOT", "traffic"]
    for each in deep.sensitivities:
        assert each.looser is not None
        assert each.looser.change is not None
        assert each.looser.change <= 1e-9
        if each.tighter is not None and each.tighter.change is not None:
            assert each.tighter.change >= -1e-9


def test_what_a_target_costs_is_what_the_moved_problem_does(
    sized: Sized, deep: Margins, small: Small
) -> None:
    (tpot,) = [s for s in deep.sensitivities if s.requirement == "mean TPOT"]
    (traffic,) = sized.problem.traffic
    ttft, target = traffic.targets
    moved = target.model_copy(update={"at_most": target.at_most * 0.9})
    changed = traffic.model_copy(update={"targets": (ttft, moved)})
    again = sized.problem.model_copy(update={"traffic": (changed,)})
    assert tpot.tighter is not None
    assert tpot.tighter.worth is not None
    assert tpot.tighter.worth.value == pytest.approx(sized.best(again))


def test_dear_questions_are_left_out_unless_asked_for(sized: Sized) -> None:
    found = sized.margins()
    assert found.sensitivities == ()
    assert all(switch.factor > 1 or "price" in switch.of for switch in found.switches)


def test_nothing_is_claimed_without_the_time_to_prove_it(sized: Sized) -> None:
    found = sized.margins(HOPELESS, deep=True)
    assert found.without == ()
    assert not any("price" in switch.of for switch in found.switches)
    assert all(switch.factor >= 1 for switch in found.switches)
    assert all(
        shift is None
        for each in found.sensitivities
        for shift in (each.tighter, each.looser)
    )


# Prefill and decode apart

PRICES = {"h100-sxm": 2.5, "l40s": 0.9}


def priced(npu: str = "", factor: float = 1.0) -> dict[str, Any]:
    given = [
        {"npu": name, "usd_per_hour": usd * (factor if name == npu else 1.0)}
        for name, usd in PRICES.items()
    ]
    return {"prices": {"given": given}}


@pytest.mark.slow
def test_prices_of_pairs_switch_there_and_not_before(small: Small) -> None:
    modes = {"modes": ["aggregated", "disaggregated"]}
    sized = Sized(small(**modes))
    switches = [
        s
        for s in sized.margins(deep=True).switches
        if s.of.startswith("price") and s.then
    ]
    assert switches

    def cost(npu: str, factor: float) -> float:
        """Return what the plan costs at another price."""
        own = sum(p.usd_per_hour for p in sized.plan.purchases if p.npu == npu)
        return sized.plan.usd_per_hour + own * (factor - 1)

    for switch in switches:
        npu = switch.of.removeprefix("price of ")
        for factor, wins in ((switch.factor**0.9, True), (switch.factor**1.05, False)):
            best = Sized(small(**modes, **priced(npu, factor))).plan.usd_per_hour
            assert best <= cost(npu, factor) * (1 + 1e-6)
            same = best == pytest.approx(cost(npu, factor))
            assert same is wins


def test_what_pairs_would_save_is_told_where_asked(small: Small) -> None:
    together = Sized(small())
    assert together.margins().apart is None
    found = together.margins(deep=True).apart
    both = Sized(small(modes=["aggregated", "disaggregated"]))
    assert found is not None
    assert found.worth.value == pytest.approx(both.plan.usd_per_hour)
    assert found.change == pytest.approx(
        both.plan.usd_per_hour / together.plan.usd_per_hour - 1
    )
