"""Bounds never exceed the optimum, better plans keep every row, and both are used."""

import random
import sys
from typing import Any

import pytest

from solver import model as model_module
from solver.decomposition import decomposed
from solver.instance import Instance
from solver.linear import LinearModel
from solver.mip import SOLVERS, TOLERANCE, multipliers, solved
from solver.model import SolveOptions, build, choose
from solver.neighbourhoods import improved
from solver.objective import expression
from solver.search import BY_CLASSES, CP_SAT, Found, search
from solver.variables import Variables

SEEDS = range(12)


def fleet(toys: Any, seed: int, classes: int = 3, **limits: Any) -> Instance:
    """Return classes that share two NPU types, one of them paid by whole hosts."""
    draw = random.Random(seed)
    offers = [
        toys.offer(8 * draw.randint(100, 300) / 100, 8, whole=True, name="alpha"),
        toys.offer(draw.randint(100, 300) / 100, name="beta"),
    ]
    made = [
        (traffic, number, npus, npus * draw.randint(20, 60) / 10, draw.choice([1, 2]))
        for traffic in range(classes)
        for number in (0, 1)
        for npus in (1, 2, 4)
    ]
    demand = [draw.randint(10, 90) / 2 for _ in range(classes)]
    stock = {"beta": draw.randint(0, 12)}
    return toys.instance(offers, made, demand, npus_per_type=stock, **limits)


def linear_of(instance: Instance) -> tuple[LinearModel, Variables, Any]:
    model, variables = build(instance)
    model.minimize(expression(variables, instance.objective))
    return LinearModel.of(model), variables, model


def optimum(toys: Any, instance: Instance) -> tuple[int, tuple[int, ...]]:
    """Return the least objective in steps, and the values that reach it."""
    _, variables, model = linear_of(instance)
    found = search(model, variables, toys.options)
    assert found.status == "optimal"
    return round(found.value), found.values


@pytest.mark.parametrize("seed", SEEDS)
def test_classes_by_themselves_bound_the_optimum(toys: Any, seed: int) -> None:
    instance = fleet(toys, seed)
    linear, variables, _ = linear_of(instance)
    best, _ = optimum(toys, instance)
    parts = decomposed(linear, variables.owners, multipliers(linear), 60.0)
    assert parts is not None
    assert 0 < parts.bound <= best


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, -1.0])
def test_any_prices_bound_the_optimum(toys: Any, scale: float) -> None:
    instance = fleet(toys, 3)
    linear, variables, _ = linear_of(instance)
    best, _ = optimum(toys, instance)
    prices = [scale * price for price in multipliers(linear)]
    parts = decomposed(linear, variables.owners, prices, 60.0)
    assert parts is not None
    assert parts.bound <= best


def test_classes_with_stock_enough_are_exact_by_themselves(toys: Any) -> None:
    offers = [toys.offer(1.5, name="alpha"), toys.offer(1.1, name="beta")]
    made = [(t, n, 2 + t, 7.0 + n - t) for t in range(4) for n in (0, 1)]
    instance = toys.instance(offers, made, demand=(20.0, 31.0, 9.0, 55.0), npus=1000)
    linear, variables, _ = linear_of(instance)
    parts = decomposed(linear, variables.owners, multipliers(linear), 60.0)
    assert parts is not None
    assert parts.bound == optimum(toys, instance)[0]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_mip_solvers_bound_the_optimum(toys: Any, seed: int, name: str) -> None:
    instance = fleet(toys, seed)
    linear, _, _ = linear_of(instance)
    best, _ = optimum(toys, instance)
    result = solved(linear, name, 20.0)
    assert best * (1 - 3 * TOLERANCE) <= result.bound <= best
    assert linear.admits(result.values)
    assert linear.value(result.values) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_part_admits_what_the_model_does(toys: Any, seed: int) -> None:
    instance = fleet(toys, seed)
    linear, _, _ = linear_of(instance)
    best, values = optimum(toys, instance)
    assert linear.admits(values)
    assert linear.value(values) == best
    assert not linear.admits((0,) * len(values))
    for host in linear_of(instance)[1].hosts:
        if values[host.index] > 0 and instance.offers[host.index - 18].whole:
            fewer = (*values[: host.index], 0, *values[host.index + 1 :])
            assert not linear.admits(fewer)


def test_neighbourhoods_improve_and_keep_every_row(toys: Any) -> None:
    instance = fleet(toys, 5, classes=8)
    linear, variables, _ = linear_of(instance)
    best, values = optimum(toys, instance)
    start = list(values)
    for i, candidate in enumerate(instance.candidates):  # a dear plan to start from
        if candidate.offer == 0 and candidate.npus == 1:
            start[i] = linear.domains[i][-1][1]
    host = variables.hosts[0].index
    start[host] = linear.domains[host][-1][1]
    assert linear.admits(start)
    found = improved(
        linear, variables.owners, start, bound=best, deadline=float("inf"), seed=1
    )
    assert linear.admits(found)
    assert best <= linear.value(found) < linear.value(start)


def hard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CP-SAT give up at once where it is asked first."""
    monkeypatch.setattr("solver.search.FIRST_EFFORT", 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_all_solvers_together_find_the_optimum(
    toys: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    instance = fleet(toys, seed, classes=6)
    alone = choose(instance, toys.options)
    hard(monkeypatch)
    together = choose(instance, toys.options)
    assert together.status == alone.status
    assert together.value == pytest.approx(alone.value)
    assert together.bound == pytest.approx(alone.bound)
    assert together.proved_by in (CP_SAT, BY_CLASSES, *SOLVERS)
    assert choose(instance, toys.options) == together


def test_infeasible_stays_infeasible(
    toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hard(monkeypatch)
    instance = fleet(toys, 1, npus=1)
    assert choose(instance, toys.options).status == "infeasible"


def test_without_mathopt_cp_sat_answers_alone(
    toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = fleet(toys, 2)
    alone = choose(instance, toys.options)
    hard(monkeypatch)
    monkeypatch.setitem(sys.modules, "ortools.math_opt.python", None)
    choice = choose(instance, toys.options)
    assert (choice.status, choice.value) == (alone.status, alone.value)
    assert choice.proved_by == CP_SAT


def test_a_bound_at_the_plans_value_proves_it() -> None:
    found = Found("feasible", (1,), value=100, bound=60)
    assert found.bounded(91.0, "SCIP", step=10).status == "optimal"
    assert found.bounded(89.0, "SCIP", step=10).status == "feasible"
    assert found.bounded(89.0, "SCIP", step=10).bound == 90
    assert found.bounded(50.0, "SCIP") is found
    assert found.bounded(80, "SCIP").planned((0,), 80).status == "optimal"


def test_exported_model_is_the_one_that_is_solved(toys: Any, tmp_path: Any) -> None:
    instance = fleet(toys, 4)
    model_module.export(instance, tmp_path / "model.txt")
    model_module.export(instance, tmp_path / "model.pb")
    _, _, model = linear_of(instance)
    assert "demand_2" in (tmp_path / "model.txt").read_text(encoding="utf-8")
    assert (tmp_path / "model.pb").stat().st_size > 100
    assert str(model.proto).count("constraints {") == (
        tmp_path / "model.txt"
    ).read_text(encoding="utf-8").count("constraints {")


def test_options_seed_the_search(toys: Any) -> None:
    instance = fleet(toys, 6)
    values = {
        choose(instance, SolveOptions(workers=1, seed=seed)).value for seed in (0, 7)
    }
    assert len(values) == 1
