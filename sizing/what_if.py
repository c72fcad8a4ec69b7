"""Variations of a problem beside it: what each costs, what changed, and why."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from model_ops.units import WATT
from problems.given.plan import GivenPlan
from problems.problem import SizingProblem
from sizing.scenarios import Scenario
from sizing.solved import Answers, AnyPlan, Figures, Record, Solved
from solver.outcome import objective_value

BASE = "base"
"""The name of the problem as it is."""

Answered: TypeAlias = tuple[SizingProblem, Solved]
"""A problem and its answer."""

_CLOSE = 1e-9
"""Relative distance within which two objectives are one."""


class Row(Record):
    """A scenario's answer.

    Parameters
    ----------
    name, changes
        Which scenario.
    solved
        Its answer.
    why
        What became of the base's plan, and so why this one is another.
    """

    name: str
    changes: tuple[str, ...] = ()
    solved: Solved
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class WhatIf:
    """A question: a problem and its variations.

    Parameters
    ----------
    problem, scenarios
        The base, and what it is compared with.
    answers
        How they are solved, and what is known already.
    """

    problem: SizingProblem
    scenarios: Sequence[Scenario]
    answers: Answers = field(default_factory=Answers)

    def check(self) -> None:
        """Look at every scenario before the first is solved.

        Raises
        ------
        GenzSizeError
            If one names no usable hardware or price.
        """
        seen = set()
        for scenario in self.scenarios:
            market = {"hardware", "prices", "limits", "objective", "framework"}
            asked = scenario.problem.model_dump_json(include=market)
            if asked not in seen:
                self.answers.figures.offers(scenario.problem)
                seen.add(asked)

    def rows(self) -> Iterator[Row]:
        """Yield the base, and then each scenario in turn.

        Raises
        ------
        GenzSizeError
            If what was found cannot be kept.
        """
        base = Row(name=BASE, solved=self.answers.of(self.problem))
        yield base
        every = self.answers.each(scenario.problem for scenario in self.scenarios)
        for scenario, found in zip(self.scenarios, every, strict=True):
            yield Row(
                name=scenario.name,
                changes=tuple(change.text for change in scenario.changes),
                solved=found,
                why=reasons(
                    self.answers.figures,
                    (self.problem, base.solved),
                    (scenario.problem, found),
                ),
            )


def reasons(figures: Figures, before: Answered, after: Answered) -> tuple[str, ...]:
    """Return why a scenario's plan is what it is, beside the base's."""
    base, found = before[1], after[1]
    if "timed_out" in (base.status, found.status):
        return ()
    if base.plan is None:
        return () if found.plan is None else ("the base has no plan",)
    stands = figures.standing(base.plan, before[0], after[0])
    if stands.broken:
        broken = "; ".join(dict.fromkeys(map(str, stands.broken)))
        return (f"the base's plan no longer does{_spare(after[0])}: {broken}",)
    assert stands.plan is not None
    if found.plan is None:  # the targets hold only as closely as the verifier asks
        return ()
    return (_compared(after[0], stands.plan, found.plan),)


def _spare(problem: SizingProblem) -> str:
    """Return what is kept free, and how much slower NPUs are taken to be."""
    kept, sure = problem.headroom, problem.confidence
    parts = [
        *([f"with {kept:.0%} kept free"] if kept else []),
        *([f"with times as slow as {sure:.0%} allow for"] if sure is not None else []),
    ]
    return "".join(f", {part}" for part in parts)


def _compared(problem: SizingProblem, theirs: AnyPlan, ours: AnyPlan) -> str:
    """Return how the base's plan, which would do, compares with the best."""
    if replicas(theirs) == replicas(ours):
        return "the same replicas"
    figures = {
        "cost": f"{theirs.usd_per_hour:,.2f} USD/h",
        "npus": f"{theirs.total_npus:,} NPUs",
        "power": WATT.format(theirs.power or 0.0),
    }
    said = f"the base's plan would do, with {figures[problem.objective]}"
    best = objective_value(problem, ours)
    more = objective_value(problem, theirs) / best - 1 if best else 0.0
    return f"{said}: {more:.1%} more than this one" if more > _CLOSE else said


def replicas(plan: AnyPlan) -> Counter[tuple[Any, ...]]:
    """Return how many replicas of what a plan has, however they are scheduled."""
    counts: Counter[tuple[Any, ...]] = Counter()
    if isinstance(plan, GivenPlan):
        for row in plan.rows:
            counts[(row.name,)] += row.replicas
        return counts
    for each in plan.deployments:
        what = (each.traffic, each.npu, each.mode, each.parallelism, each.precision)
        counts[what] += each.replicas
    return counts
