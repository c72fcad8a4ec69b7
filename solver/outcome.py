"""What is known of a problem once it was solved, wherever its candidates come from.

A plan exists only where it can, and has passed its verifier.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, Literal, TypeAlias, TypeVar

from model_ops.errors import SolverError
from problems.plan import Bought
from problems.problem import SizingProblem
from problems.violation import Violation
from solver.certificate import Certificate, decided
from solver.instance import Instance
from solver.model import Choice, OutOfTimeError, SolveOptions, is_possible
from solver.relaxing import Worth
from solver.scaling import LARGEST_LOSS

Status = Literal["optimal", "feasible", "infeasible", "timed_out"]
PlanT = TypeVar("PlanT", bound=Bought)


@dataclass(frozen=True, slots=True)
class Optimal(Generic[PlanT]):
    """A plan, and the proof that none is better."""

    status: ClassVar[Status] = "optimal"
    plan: PlanT
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Feasible(Generic[PlanT]):
    """A plan, and how much better another might be."""

    status: ClassVar[Status] = "feasible"
    plan: PlanT
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Infeasible:
    """No plan meets every requirement."""

    status: ClassVar[Status] = "infeasible"
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class TimedOut:
    """No plan was found in time, and none was ruled out."""

    status: ClassVar[Status] = "timed_out"
    certificate: Certificate


Outcome: TypeAlias = Optimal[PlanT] | Feasible[PlanT] | Infeasible | TimedOut


def outcome_of(
    problem: SizingProblem,
    full: Instance,
    options: SolveOptions,
    found: Certificate,
    planned: Callable[[Instance, Choice], PlanT],
    violations: Callable[[PlanT], Sequence[Violation]],
) -> Outcome[PlanT]:
    """Return the outcome of a problem whose choice is an instance.

    Parameters
    ----------
    found
        What is known of the choice before.
    planned, violations
        The plan that a choice of counts describes, and what its verifier says of it.

    Raises
    ------
    SolverError
        If the plan does not pass the verifier, which is a fault of ours.
    """
    start = time.perf_counter()
    if not serves_all(full):
        return Infeasible(_timed(found, start))
    instance, choice = decided(full, options)
    certificate = _timed(found.of(full, instance, choice), start)
    if choice.status == "infeasible":
        return Infeasible(certificate)
    if choice.status == "timed_out":
        return TimedOut(certificate)
    plan = planned(instance, choice)
    broken = violations(plan)
    if broken:
        raise SolverError(
            "the plan does not pass verification; please report this: "
            + "; ".join(str(violation) for violation in broken)
        )
    proved = _proved(certificate, choice, objective_value(problem, plan))
    return (Optimal if choice.status == "optimal" else Feasible)(plan, proved)


def has_any(instance: Instance, options: SolveOptions) -> bool:
    """Return whether an instance leaves any plan.

    Raises
    ------
    OutOfTimeError
        If that is not known when the time is up.
    """
    if not serves_all(instance):
        return False
    return not instance.limited or is_possible(instance, options)


def serves_all(instance: Instance) -> bool:
    """Return whether each class has a candidate."""
    classes = set(range(len(instance.demand)))
    return {candidate.traffic for candidate in instance.candidates} == classes


def _timed(certificate: Certificate, start: float) -> Certificate:
    solve = time.perf_counter() - start
    return replace(certificate, seconds=certificate.seconds | {"solve": solve})


def objective_value(problem: SizingProblem, plan: Bought) -> float:
    """Return what the problem minimises, in USD/h, NPUs or W."""
    if problem.objective == "cost":
        return plan.usd_per_hour
    if problem.objective == "npus":
        return float(plan.total_npus)
    return plan.power or 0.0


def worth(problem: SizingProblem, plan: Bought) -> Worth:
    """Return what a plan of a problem is worth."""
    value = objective_value(problem, plan)
    return Worth(plan.usd_per_hour_if_known, plan.total_npus, value, plan.hardware)


def best_of(problem: SizingProblem, outcome: Outcome[PlanT]) -> Worth | None:
    """Return what an outcome's proved plan is worth; None if there can be none.

    Raises
    ------
    OutOfTimeError
        If neither is known.
    """
    if isinstance(outcome, Infeasible):
        return None
    if not isinstance(outcome, Optimal):
        raise OutOfTimeError
    return worth(problem, outcome.plan)


def found_of(problem: SizingProblem, outcome: Outcome[PlanT]) -> Worth | None:
    """Return what an outcome's plan is worth, proved or not; None without a plan."""
    if isinstance(outcome, Optimal | Feasible):
        return worth(problem, outcome.plan)
    return None


def _proved(certificate: Certificate, choice: Choice, value: float) -> Certificate:
    """Return what stands behind a plan whose objective is `value` in floats.

    Raises
    ------
    SolverError
        If the solver's own figure is another, which is a fault of ours.
    """
    off = choice.status == "optimal" and value < choice.value * (1 - LARGEST_LOSS)
    if off or value > choice.value * (1 + LARGEST_LOSS):
        raise SolverError(
            f"the plan's objective is {value}, the solver's {choice.value}; "
            "please report this"
        )
    bound = value if choice.status == "optimal" else min(choice.bound, value)
    # A plan that costs nothing is as good as any.
    gap = (value - bound) / value if value else 0.0
    return replace(certificate, bound=bound, gap=gap)
