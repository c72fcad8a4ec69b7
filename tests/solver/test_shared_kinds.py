"""Few deployment types for several classes: none that could serve all is left out."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_ops.profiler.parallelism import Parallelism
from problems.problem import SizingProblem
from problems.verify import violations
from solver import selection
from solver.candidates import Candidate
from solver.leads import MANY, with_known
from solver.model import SolveOptions, choose
from solver.prune import pruned
from solver.race import POOLS, Race
from solver.shared_kinds import undominated_kinds
from solver.solve import Infeasible, Optimal, Workspace

Small = Callable[..., SizingProblem]
OPTIONS = SolveOptions(workers=1, seed=0)


def candidates(toys: Any, *rows: tuple[str, int, int, float]) -> list[Any]:
    """Return candidates of a name, a class, NPUs and what a replica covers."""
    made = toys.instance(
        [toys.offer(1.0)],
        [(traffic, 0, npus, rate) for _, traffic, npus, rate in rows],
        (9.0, 9.0),
    ).candidates
    fields = ("traffic", "offer", "npus", "slot", "capacity", "least")
    how: dict[str, Any] = dict.fromkeys(("rate", "precision", "setting"))
    return [
        Candidate(
            **{name: getattr(c, name) for name in fields},
            kind=row[0],
            split=Parallelism(),
            **how,
        )
        for c, row in zip(made, rows, strict=True)
    ]


def kept(found: list[Candidate]) -> set[Any]:
    return {candidate.kind for candidate in found}


def test_the_second_best_of_all_classes_is_kept(toys: Any) -> None:
    rows = [
        *(("first", 0, 1, 9.0), ("first", 1, 1, 1.0)),
        *(("second", 0, 1, 1.0), ("second", 1, 1, 9.0)),
        *(("both", 0, 1, 8.0), ("both", 1, 1, 8.0)),
        *(("neither", 0, 1, 7.0), ("neither", 1, 1, 8.0)),
        *(("large", 0, 2, 9.0), ("large", 1, 2, 8.0)),
        *(("alike", 0, 1, 8.0), ("alike", 1, 1, 8.0)),
    ]
    found = undominated_kinds(candidates(toys, *rows), spare=False)
    # Of "alike" and "both" one stands for the other.
    assert kept(found) == {"first", "second", "both", "large"}
    # Where a host may fail, smaller replicas do not stand in for larger ones.
    spare = undominated_kinds(candidates(toys, *rows[:8], *rows[8:10]), spare=True)
    assert "large" in kept(spare)


def asked(small: Small, rng: random.Random) -> SizingProblem:
    """Return two or three classes that one or two deployment types must serve."""
    traffic = [
        {
            "name": f"c{number}",
            "input_tokens": rng.choice([200, 1000, 4000, 12000]),
            "output_tokens": rng.choice([50, 200, 600]),
            "rate": rng.choice([1.0, 5.0, 20.0, 60.0]),
            "targets": [
                {"metric": "ttft", "at_most": rng.choice([0.2, 0.5, 2.0])},
                {"metric": "tpot", "at_most": rng.choice([0.01, 0.02, 0.05])},
            ],
        }
        for number in range(rng.choice([2, 3]))
    ]
    return small(traffic=traffic, limits={"deployment_types": rng.choice([1, 2])})


def value(problem: SizingProblem) -> float | None:
    outcome = Workspace.of(problem).solve(OPTIONS)
    if isinstance(outcome, Infeasible):
        return None
    assert isinstance(outcome, Optimal)
    assert violations(problem, outcome.plan) == []
    return outcome.plan.usd_per_hour


@pytest.mark.parametrize(
    "seed",
    [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 24))],
)
def test_no_plan_of_all_deployments_is_cheaper(
    small: Small, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    problem = asked(small, random.Random(seed))
    found = value(problem)
    monkeypatch.setattr(selection, "_are_shared", lambda *_: False)
    monkeypatch.setattr(selection, "undominated", lambda some, **_: list(some))
    monkeypatch.setattr(
        Race, "bars", lambda self, _: np.zeros((len(POOLS), self.table.options))
    )
    assert value(problem) == (None if found is None else pytest.approx(found))


# A plan that keeps the limits


def test_a_known_plan_keeps_the_limits_and_drops_no_better_one(
    toys: Any,
) -> None:
    rng = random.Random(3)
    offers = [toys.offer(1.0), toys.offer(1.3, name="other")]
    rows = [
        (traffic, rng.randrange(2), rng.choice([1, 2, 4, 8]), rng.uniform(1.0, 9.0))
        for traffic in (0, 1)
        for _ in range(MANY // 2 + 20)
    ]
    full = toys.instance(offers, rows, (20.0, 30.0), npus=40)
    kinds = tuple(
        replace(c, kind=(c.npus, i % 160)) for i, c in enumerate(full.candidates)
    )
    full = replace(full, candidates=kinds)
    known = with_known(full, OPTIONS.started())
    best = choose(full, OPTIONS)
    assert best.status == "optimal"
    assert best.value <= known.known * (1 + 1e-6)
    less = pruned(known)
    assert len(less.candidates) < len(full.candidates)
    assert choose(less, OPTIONS).value == pytest.approx(best.value)
