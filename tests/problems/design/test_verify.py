"""The verifier takes what the solver finds, and nothing that was tampered with."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from model_ops.profiler.parallelism import Parallelism
from problems.design.answer import Design
from problems.design.statement import DesignProblem, design_problem_of
from problems.design.verify import violations
from solver.design.solve import DesignOptimal, DesignWorkspace


@pytest.fixture(scope="module")
def problem() -> DesignProblem:
    case = {
        "model": "llama-3-70b",
        "input_tokens": 1500,
        "output_tokens": 200,
        "rate": 30.0,
        "ttft": 0.4,
        "tpot": 0.02,
        "batches": (8, 32),
        "max_npus": 400,
    }
    platform = {
        "memory_bandwidth": {"levels": 12},
        "memory_capacity": {"levels": 12},
        "scale_up_npus": [1, 2, 4, 8],
        "flop_per_s": {"levels": 12},
        "on_chip_memory": {"from": "50 kB", "to": "50 MB", "levels": 12},
    }
    limits = {"watts": 2500.0, "npus": 500}
    stated = {"platform": platform, "use_case": [case], "limits": limits}
    return design_problem_of(stated, "python")


@pytest.fixture(scope="module")
def design(problem: DesignProblem) -> Design:
    outcome = DesignWorkspace(problem).solve()
    assert isinstance(outcome, DesignOptimal)
    return outcome.design


def test_what_the_solver_finds_holds(problem: DesignProblem, design: Design) -> None:
    assert violations(problem, design) == []


def _platform(**changed: Any) -> Callable[[DesignProblem, Design], Design]:
    def tamper(problem: DesignProblem, design: Design) -> Design:
        levels = problem.ladders.levels
        values = {
            name: levels[name][level] if isinstance(level, int) else level
            for name, level in changed.items()
        }
        if "flop_per_s" in values:
            ratio = problem.today.flop_per_s_8bit / problem.today.flop_per_s
            values["flop_per_s_8bit"] = ratio * values["flop_per_s"]
        return replace(design, platform=replace(design.platform, **values))

    return tamper


def _served(**changed: Any) -> Callable[[DesignProblem, Design], Design]:
    def tamper(_: DesignProblem, design: Design) -> Design:
        return replace(design, served=(replace(design.served[0], **changed),))

    return tamper


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_platform(memory_bandwidth=0), "TPOT|req/s"),
        (_platform(flop_per_s=0), "TTFT|TPOT|req/s"),
        (_platform(memory_capacity=0), "memory"),
        (_platform(on_chip_memory=0), "TTFT|TPOT|req/s"),
        (_platform(on_chip_memory=1e9), "on_chip_memory 1e\\+09 is not on its ladder"),
        (_platform(memory_bandwidth=1.234e12), "not on its ladder"),
        (_platform(flop_per_s_8bit=5e15), "8bit"),
        (_platform(flop_per_s=11), "W|mm2"),
        (_platform(memory_bandwidth=11), "stacks"),
        (_served(replicas=1), "req/s"),
        (_served(replicas=0), "no replica"),
        (_served(replicas=100_000), "exceed its limit"),
        (_served(split=Parallelism(tp=3)), "tp"),
        (_served(split=Parallelism(tp=64)), "domain"),
        (_served(precision="fp8"), "not asked for"),
        (_served(name="another"), "each use case"),
    ],
)
def test_what_was_tampered_with_does_not(
    problem: DesignProblem,
    design: Design,
    tamper: Callable[[DesignProblem, Design], Design],
    said: str,
) -> None:
    import re

    broken = violations(problem, tamper(problem, design))
    assert broken
    assert any(re.search(said, each) for each in broken), broken
