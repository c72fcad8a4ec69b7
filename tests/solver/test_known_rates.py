"""What is known of one problem answers the next as if it had been asked alone."""

from collections.abc import Callable

import pytest

from problems.problem import SizingProblem
from solver.solve import Workspace

Small = Callable[..., SizingProblem]


def at(problem: SizingProblem, rate: float) -> SizingProblem:
    changed = problem.traffic[0].model_copy(update={"rate": rate})
    return problem.model_copy(update={"traffic": (changed,)})


@pytest.mark.slow
@pytest.mark.parametrize("rate", [5.0, 55.0, 400.0])
def test_candidates_are_those_of_a_fresh_workspace(small: Small, rate: float) -> None:
    problem = at(small(chunk_tokens=None, max_num_seqs=None), rate)
    used = Workspace.of(small(chunk_tokens=None, max_num_seqs=None))
    for other in (40.0, 60.0):
        used.instance(at(problem, other))
    fresh = Workspace.of(problem)
    assert used.instance(problem).candidates == fresh.instance(problem).candidates


def test_what_is_known_is_not_asked_again(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = small(chunk_tokens=None, max_num_seqs=None)
    workspace = Workspace.of(problem)
    asked: list[int] = []
    real = type(workspace.tables[0]).highest_rate

    def counted(table, targets, which, pool=1, setting=0):  # type: ignore[no-untyped-def]
        asked.append(len(which))
        return real(table, targets, which, pool, setting)

    monkeypatch.setattr(type(workspace.tables[0]), "highest_rate", counted)
    workspace.instance(problem)
    first, asked[:] = sum(asked), []
    workspace.instance(at(problem, 80.0))
    assert sum(asked) < first / 2
