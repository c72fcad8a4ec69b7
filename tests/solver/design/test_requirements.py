"""Every requirement: a design just meets it, and none is possible a little tighter."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model_ops.errors import SolverError
from problems.design.parameters import USUAL
from problems.design.statement import DesignProblem, design_problem_of
from problems.design.verify import violations
from problems.examples import example_path
from problems.problem import read_toml
from solver.design.explain import bindings, todays_part, why_none
from solver.design.solve import (
    DesignInfeasible,
    DesignOptimal,
    DesignTimedOut,
    DesignWorkspace,
)
from solver.options import SolveOptions

Stating = Callable[..., DesignProblem]

FIXED = {"flop_per_s": ["989 TFLOP/s", "1500 TFLOP/s"]}
CASE: dict[str, Any] = {"ttft": 0.5, "tpot": 0.05, "rate": 5.0, "batches": (8,)}


def _solved(problem: DesignProblem) -> Any:
    return DesignWorkspace(problem).solve()


def _floor(problem: DesignProblem, target: str) -> float:
    workspace = DesignWorkspace(problem)
    return next(f.least for f in why_none(workspace).floors if f.target == target)


@pytest.mark.parametrize("target", ["ttft", "tpot"])
def test_a_latency_can_be_its_floor_and_no_less(
    problem_with: Stating, target: str
) -> None:
    loose = {"ttft": 50.0, "tpot": 50.0}
    floor = _floor(problem_with(FIXED, CASE | loose), target)
    met = _solved(problem_with(FIXED, CASE | loose | {target: floor * 1.001}))
    assert isinstance(met, DesignOptimal)
    missed = _solved(problem_with(FIXED, CASE | loose | {target: floor * 0.999}))
    assert isinstance(missed, DesignInfeasible)


def test_memory_must_hold_the_model(problem_with: Stating) -> None:
    case = CASE | {"model": "llama-3-70b", "max_npus": 1, "rate": 0.1, "ttft": 5.0}
    case |= {"tpot": 1.0}
    enough = {"memory_capacity": ["100 GB", "300 GB"]}
    assert isinstance(_solved(problem_with(enough, case)), DesignOptimal)
    short = {"memory_capacity": ["80 GB", "100 GB"]}
    assert isinstance(_solved(problem_with(short, case)), DesignInfeasible)


def test_memory_stacks_cannot_be_smaller_than_the_least(problem_with: Stating) -> None:
    # 4 TB/s are four stacks of 1 TB/s, of 16 GB each or more.
    def platform(*sizes: str) -> dict[str, Any]:
        return {"memory_bandwidth": ["4 TB/s"], "memory_capacity": list(sizes)}

    built = _solved(problem_with(platform("63 GB", "64 GB"), CASE))
    assert isinstance(built, DesignOptimal)
    assert built.design.platform.memory_capacity == 64e9
    short = problem_with(platform("40 GB", "63 GB"), CASE)
    workspace = DesignWorkspace(short)
    assert isinstance(workspace.solve(), DesignInfeasible)
    above = [f for f in why_none(workspace).floors if f.is_above]
    assert [(f.target, f.least, f.limit) for f in above] == [("stacks", 4, 3)]
    free = problem_with(platform("40 GB"), CASE, cost={"set": {"stack_least_gb": 0}})
    found = _solved(free)
    assert isinstance(found, DesignOptimal)
    assert violations(short, found.design) == [
        "its 4 memory stacks hold at least 64 GB"
    ]


def test_todays_memory_can_be_built_whatever_its_stacks(
    problem_with: Stating,
) -> None:
    # By the model two stacks carry its 1 TB/s, of 12 GB each.
    problem = problem_with({"flop_per_s": {"levels": 2}}, CASE, base="rtx-4090")
    assert problem.cost_model.parts(problem.today).stacks == 2
    assert problem.stack_least == pytest.approx(problem.today.memory_capacity / 2)


def test_capacity_binds_where_stacks_are_the_smallest(problem_with: Stating) -> None:
    platform = {"memory_bandwidth": ["4 TB/s"], "memory_capacity": ["50 GB", "70 GB"]}
    workspace = DesignWorkspace(problem_with(platform, CASE))
    outcome = workspace.solve()
    assert isinstance(outcome, DesignOptimal)
    (each,) = bindings(workspace, outcome.choice)
    assert (each.figure, each.misses, each.breaks) == (
        "memory_capacity",
        ("stacks",),
        ("stacks",),
    )


def test_ranks_stay_within_a_domain(problem_with: Stating) -> None:
    case = CASE | {"tpot": 0.005, "ttft": 0.2}
    wide = _solved(problem_with({"scale_up_npus": [1, 8]}, case))
    assert isinstance(wide, DesignOptimal)
    assert wide.design.platform.scale_up_npus == 8
    assert isinstance(
        _solved(problem_with({"scale_up_npus": [1]}, case)), DesignInfeasible
    )


@pytest.mark.parametrize("where", ["limits", "use_case"])
def test_npus_are_limited(problem_with: Stating, where: str) -> None:
    busy = CASE | {"rate": 100.0}
    needed = _solved(problem_with(FIXED, busy)).design.npus

    def limited(most: int) -> Any:
        if where == "use_case":
            return _solved(problem_with(FIXED, busy | {"max_npus": most}))
        return _solved(problem_with(FIXED, busy, limits={"npus": most}))

    assert isinstance(limited(needed), DesignOptimal)
    assert isinstance(limited(1), DesignInfeasible)


@pytest.mark.parametrize("limit", ["watts", "die_mm2", "stacks"])
def test_an_npu_is_limited(problem_with: Stating, limit: str) -> None:
    problem = problem_with(FIXED, CASE)
    cost = problem.cost_model.parts(_solved(problem).design.platform)
    has = {"watts": cost.watts, "die_mm2": cost.area_mm2, "stacks": cost.stacks}[limit]
    as_much = problem_with(FIXED, CASE, limits={limit: has})
    assert isinstance(_solved(as_much), DesignOptimal)
    less = has - 1 if limit == "stacks" else has * 0.999
    short = problem_with(FIXED, CASE, limits={limit: less})
    assert isinstance(_solved(short), DesignInfeasible)


@pytest.mark.parametrize("rate", [1.0, 5.0, 12.0])
@pytest.mark.parametrize("weights", [{}, {"memory_capacity": 0.0, "flops": 3.0}])
def test_todays_part_is_the_least_change_where_it_serves(
    problem_with: Stating, rate: float, weights: dict[str, float]
) -> None:
    case = {"ttft": 0.3, "tpot": 0.02, "rate": rate}
    problem = problem_with(
        {figure: {"levels": 12} for figure in USUAL},
        case,
        objective="distance",
        limits={"npus": 4},
        weights=weights,
    )
    today = todays_part(problem).design
    assert today is not None
    assert today.npus <= 4
    outcome = _solved(problem)
    assert isinstance(outcome, DesignOptimal)
    assert outcome.design.platform == problem.today
    assert outcome.certificate.bound == 0


def test_todays_part_just_so_is_the_least_change(problem_with: Stating) -> None:
    """Integers are stricter than floats; today's part is known before them."""
    loose = problem_with(FIXED, CASE | {"ttft": 50.0, "tpot": 50.0}).as_today()
    case = CASE | {"ttft": 50.0, "tpot": _floor(loose, "tpot")}
    platform = {figure: {"levels": 5} for figure in USUAL}
    problem = problem_with(platform, case, objective="distance", limits={"npus": 100})
    outcome = _solved(problem)
    assert isinstance(outcome, DesignOptimal)
    assert outcome.design.platform == problem.today


@pytest.mark.parametrize("limit", ["watts", "die_mm2", "stacks"])
def test_a_limit_below_every_npu_of_the_ladders_is_a_floor(
    problem_with: Stating, limit: str
) -> None:
    platform = {"flop_per_s": ["500 TFLOP/s", "989 TFLOP/s"]}
    problem = problem_with(platform, CASE)
    first = dict.fromkeys(problem.ladders.names, 0)
    least = problem.cost_model.parts(problem.ladders.specification(first))
    has = {"watts": least.watts, "die_mm2": least.area_mm2, "stacks": least.stacks}

    def above(most: float) -> list[tuple[str | None, str, float, float]]:
        limited = problem_with(platform, CASE, limits={limit: most})
        why = why_none(DesignWorkspace(limited))
        assert why.clashes == ()
        return [
            (f.use_case, f.target, f.least, f.limit) for f in why.floors if f.is_above
        ]

    assert above(has[limit]) == []
    low = has[limit] - 1 if limit == "stacks" else has[limit] * 0.999
    assert above(low) == [(None, limit, pytest.approx(has[limit]), low)]


def test_npus_of_all_use_cases_are_a_floor(problem_with: Stating) -> None:
    case = CASE | {"rate": 100.0}
    alone = _solved(problem_with(FIXED, case)).design.npus
    fastest = {"flop_per_s": ["1500 TFLOP/s"]}
    needed = _solved(problem_with(fastest, case)).design.npus
    assert needed <= alone
    limits = {"npus": 2 * needed - 1}
    why = why_none(DesignWorkspace(problem_with(FIXED, case, case, limits=limits)))
    (floor,) = (f for f in why.floors if f.is_above)
    assert (floor.use_case, floor.target) == (None, "npus")
    assert (floor.least, floor.limit) == (2 * needed, 2 * needed - 1)


def test_looser_targets_are_never_dearer(problem_with: Stating) -> None:
    platform = {"memory_bandwidth": {"levels": 6}, "flop_per_s": {"levels": 6}}
    values = [
        _solved(problem_with(platform, CASE | {"tpot": tpot, "rate": 60.0}))
        for tpot in (0.006, 0.01, 0.03)
    ]
    costs = [o.certificate.bound for o in values if isinstance(o, DesignOptimal)]
    assert len(costs) == 3
    assert costs == sorted(costs, reverse=True)


def test_more_to_choose_from_is_never_dearer(problem_with: Stating) -> None:
    few = {"memory_bandwidth": ["4 TB/s", "8 TB/s"]}
    more = {"memory_bandwidth": ["4 TB/s", "6 TB/s", "8 TB/s"]}
    busy = CASE | {"rate": 60.0}
    costs = [
        _solved(problem_with(platform, busy)).certificate.bound
        for platform in (few, more, {**more, "flop_per_s": {"levels": 6}})
    ]
    assert costs[1] <= costs[0]
    assert costs[2] <= costs[1] * (1 + 1e-3)


def test_one_platform_for_two_is_no_cheaper_than_one_for_each(
    problem_with: Stating,
) -> None:
    platform = {"memory_bandwidth": {"levels": 6}, "flop_per_s": {"levels": 6}}
    reading = CASE | {"input_tokens": 8000, "output_tokens": 20, "ttft": 1.0}
    writing = CASE | {"input_tokens": 100, "output_tokens": 800, "rate": 30.0}
    alone = [_solved(problem_with(platform, c)) for c in (reading, writing)]
    both = _solved(problem_with(platform, reading, writing))
    apart = sum(each.certificate.bound for each in alone)
    assert both.certificate.bound >= apart * (1 - 1e-9)


def test_the_same_question_has_the_same_answer(problem_with: Stating) -> None:
    platform = {"memory_bandwidth": {"levels": 9}, "scale_up_npus": [1, 2, 4]}
    problem = problem_with(platform, CASE | {"rate": 40.0})
    first, second = (DesignWorkspace(problem).solve() for _ in range(2))
    assert isinstance(first, DesignOptimal)
    assert isinstance(second, DesignOptimal)
    assert first.design == second.design


def test_nothing_is_claimed_without_time(problem_with: Stating) -> None:
    platform = {"memory_bandwidth": {"levels": 9}, "flop_per_s": {"levels": 9}}
    problem = problem_with(platform, CASE | {"rate": 40.0})
    options = SolveOptions(time_limit=1e-3)
    outcome = DesignWorkspace(problem).solve(options, presolve=False)
    assert not isinstance(outcome, DesignInfeasible)
    if isinstance(outcome, DesignTimedOut):
        assert outcome.certificate.gap is None


def test_on_chip_memory_is_worth_npus_where_memory_is_slow() -> None:
    stated = read_toml(example_path("design-prefill"))
    problem = design_problem_of(stated, "file")
    chosen = _solved(problem)
    assert isinstance(chosen, DesignOptimal)
    assert chosen.design.platform.on_chip_memory > problem.today.on_chip_memory
    assert violations(problem, chosen.design) == []
    del stated["platform"]["on_chip_memory"]
    as_today = _solved(design_problem_of(stated, "file"))
    assert isinstance(as_today, DesignOptimal)
    assert chosen.design.npus < as_today.design.npus
    assert chosen.design.value(problem) < 0.97 * as_today.design.value(problem)
    bound = bindings(DesignWorkspace(problem), chosen.choice)
    (own,) = (each for each in bound if each.figure == "on_chip_memory")
    assert own.binds


def test_levels_too_far_apart_for_integers_are_named(problem_with: Stating) -> None:
    wide = {"on_chip_memory": {"from": "1 B", "to": "1 TB", "levels": 3}}
    case, limits = CASE | {"ttft": None, "tpot": None}, {"die_mm2": 1e6}
    workspace = DesignWorkspace(problem_with(wide, case, limits=limits))
    with pytest.raises(SolverError, match=r"platform\.on_chip_memory.*apart"):
        workspace.solve(presolve=False)


def test_a_base_of_unknown_on_chip_memory_is_bound_by_none(
    problem_with: Stating,
) -> None:
    problem = problem_with({"flop_per_s": {"levels": 3}}, CASE, base="b300-sxm")
    workspace = DesignWorkspace(problem)
    assert all(not np.any(f.tiles) and not np.any(f.sweeps) for f in workspace.forms)
    outcome = workspace.solve()
    assert isinstance(outcome, DesignOptimal)
    assert outcome.design.platform.on_chip_memory is None
