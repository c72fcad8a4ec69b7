"""Every example is a complete problem that has a proved plan, or a proved design."""

import pytest

from problems.design.statement import read_design
from problems.design.verify import violations as design_violations
from problems.examples import example_names, example_path, example_text
from problems.problem import problem_of, read_toml
from problems.verify import violations
from solver.design.solve import DesignOptimal, DesignWorkspace
from solver.options import SolveOptions
from solver.solve import Optimal, Workspace

EXAMPLES = example_names()
DESIGNS = [name for name in EXAMPLES if name.startswith("design-")]


def test_there_are_examples_with_titles() -> None:
    assert len(EXAMPLES) >= 5
    assert all(len(title) > 10 for title in EXAMPLES.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_explains_itself(name: str) -> None:
    assert example_text(name).startswith("# ")


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EXAMPLES if n not in DESIGNS])
def test_example_has_a_proved_plan(name: str) -> None:
    problem = problem_of(read_toml(example_path(name)), "file")
    outcome = Workspace.of(problem).solve(SolveOptions(workers=1, seed=0))
    assert isinstance(outcome, Optimal)
    assert outcome.certificate.gap == 0
    assert violations(problem, outcome.plan) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_example_has_a_proved_design(name: str) -> None:
    problem = read_design(example_path(name))
    outcome = DesignWorkspace(problem).solve(SolveOptions(workers=1, seed=0))
    assert isinstance(outcome, DesignOptimal)
    assert outcome.certificate.gap == 0
    assert design_violations(problem, outcome.design) == []
