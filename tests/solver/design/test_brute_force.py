"""The solver's design is the best of all platforms and shapes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from problems.design.statement import DesignProblem
from problems.design.verify import violations
from solver.design.solve import (
    DesignFeasible,
    DesignInfeasible,
    DesignOptimal,
    DesignWorkspace,
)
from solver.options import SolveOptions

LOSS = 1e-3
"""By how much integers may be stricter than floats; a design may be so much dearer."""

FIGURES = (
    "flop_per_s",
    "flop_per_s_8bit",
    "memory_bandwidth",
    "memory_capacity",
    "scale_up_bandwidth",
    "scale_up_npus",
    "scale_up_latency",
    "scale_out_bandwidth",
    "scale_out_latency",
    "on_chip_memory",
)

SCARCE = {"from": "20 kB", "to": "2 MB", "levels": 3}
"""On-chip memory that makes products wait for their tiles on any platform."""


def _drawn(
    problem_with: Callable[..., DesignProblem], seed: int, *, scarce: bool = False
) -> DesignProblem:
    rng = np.random.default_rng(seed)
    varied = rng.choice(FIGURES, 2, replace=False)
    platform: dict[str, Any] = {
        str(name): [1, 2, 8] if name == "scale_up_npus" else {"levels": 3}
        for name in varied
    }
    if scarce:
        platform = {str(varied[0]): platform[str(varied[0])]}
        platform |= {"memory_bandwidth": {"levels": 3}, "on_chip_memory": SCARCE}
    model = str(rng.choice(["llama-3-8b", "olmoe-1b-7b", "llama-3.1-70b-fp8"]))
    cases = [
        {
            "model": model,
            "ttft": float(rng.choice([0.1, 0.3, 1.0])),
            "tpot": float(rng.choice([0.01, 0.02, 0.05])),
            "rate": float(rng.choice([2, 20, 100])),
            "input_tokens": int(rng.choice([200, 2000])),
            "output_tokens": int(rng.choice([1, 50, 400])),
        }
        for _ in range(rng.integers(1, 3))
    ]
    more: dict[str, Any] = {}
    if seed % 4 == 0:
        more = {"objective": "distance", "limits": {"npus": int(rng.choice([4, 30]))}}
    elif seed % 4 == 1:
        more = {"limits": {"watts": float(rng.choice([1300.0, 2000.0])), "npus": 40}}
    return problem_with(platform, *cases, **more)


DRAWN = [
    *((seed, False) for seed in range(8)),
    *((seed, True) for seed in range(100, 112)),
]


@pytest.mark.parametrize(("seed", "scarce"), DRAWN)
def test_the_design_is_the_best_of_all(
    problem_with: Callable[..., DesignProblem],
    enumerated: Callable[..., Any],
    seed: int,
    scarce: bool,
) -> None:
    problem = _drawn(problem_with, seed, scarce=scarce)
    exact = enumerated(problem)
    outcome = DesignWorkspace(problem).solve()
    if isinstance(outcome, DesignInfeasible):
        assert exact.tight is None
        return
    assert isinstance(outcome, DesignOptimal)
    found = outcome.design.value(problem)
    assert found >= exact.value * (1 - 1e-9) - 1e-12
    assert exact.tight is None or found <= exact.tight * (1 + LOSS) + 1e-9
    assert outcome.certificate.bound <= found * (1 + 1e-12)
    assert outcome.certificate.loss < LOSS
    assert violations(problem, outcome.design) == []


@pytest.mark.parametrize("seed", range(200, 206))
def test_memory_stacks_are_as_large_as_they_come(
    problem_with: Callable[..., DesignProblem],
    enumerated: Callable[..., Any],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    case = {
        "model": str(rng.choice(["llama-3-8b", "olmoe-1b-7b"])),
        "tpot": float(rng.choice([0.004, 0.008, 0.02])),
        "rate": float(rng.choice([2, 20, 100])),
        "chunk_tokens": (2048,),
    }
    platform = {
        "memory_bandwidth": {"from": "1 TB/s", "to": "9 TB/s", "levels": 5},
        "memory_capacity": {"from": "20 GB", "to": "200 GB", "levels": 5},
    }
    problem = problem_with(platform, case)
    exact = enumerated(problem)
    outcomes = [
        DesignWorkspace(problem).solve(presolve=presolve) for presolve in (True, False)
    ]
    for outcome in outcomes:
        assert isinstance(outcome, DesignOptimal)
        chosen = outcome.design.platform
        stacks = problem.cost_model.parts(chosen).stacks
        assert chosen.memory_capacity >= stacks * 16e9
        found = outcome.design.value(problem)
        assert found >= exact.value * (1 - 1e-9)
        assert found <= exact.tight * (1 + LOSS)
    small = problem_with(platform, case, cost={"set": {"stack_least_gb": 0}})
    cheaper = enumerated(small).value
    assert cheaper <= exact.value


@pytest.mark.parametrize(
    ("seed", "scarce"),
    [(2, False), (3, False), (4, False), (101, True), (102, True), (103, True)],
)
def test_bounds_take_nothing_that_the_proof_alone_would_find(
    problem_with: Callable[..., DesignProblem], seed: int, scarce: bool
) -> None:
    workspace = DesignWorkspace(_drawn(problem_with, seed, scarce=scarce))
    pruned = workspace.solve()
    alone = workspace.solve(SolveOptions(time_limit=0.5), presolve=False)
    if isinstance(pruned, DesignInfeasible):
        assert not isinstance(alone, DesignOptimal | DesignFeasible)
        return
    assert isinstance(pruned, DesignOptimal)
    best = pruned.design.value(workspace.problem)
    assert not isinstance(alone, DesignInfeasible)
    assert alone.certificate.bound is None or alone.certificate.bound <= best + 1e-9
    if isinstance(alone, DesignOptimal):
        value = alone.design.value(workspace.problem)
        assert value == pytest.approx(best, rel=LOSS, abs=1e-9)
