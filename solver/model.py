"""Variables, constraints and objective put together, solved level by level."""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ortools.sat.python import cp_model

from model_ops.errors import SolverError
from solver.constraints import CONSTRAINTS
from solver.instance import Instance
from solver.objective import expression, per_unit, tie_breaks
from solver.scaling import scale
from solver.variables import Variables


@dataclass(frozen=True, slots=True)
class SolveOptions:
    """How to search.

    Parameters
    ----------
    time_limit
        Seconds of wall time for the whole proof.
    workers
        Threads; one makes the search deterministic.
    seed
        Of the search's random choices.
    deadline
        When the time is up, on `time.monotonic`'s clock; None until `started`.
    """

    time_limit: float = 60.0
    workers: int = 1
    seed: int = 0
    deadline: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.time_limit < math.inf:
            raise SolverError(f"time_limit: {self.time_limit} s is no positive time")
        if self.workers < 1:
            raise SolverError(f"workers: {self.workers} must be at least 1")
        if not 0 <= self.seed < 2**31:
            raise SolverError(f"seed: {self.seed} must be from 0 to 2^31 - 1")

    def started(self) -> "SolveOptions":
        """Return options whose time runs from now, for solves that share it."""
        return replace(self, deadline=time.monotonic() + self.time_limit)

    @property
    def remaining(self) -> float:
        """Seconds left; zero once the time is up."""
        if self.deadline is None:
            return self.time_limit
        return max(self.deadline - time.monotonic(), 0.0)


class OutOfTimeError(Exception):
    """The time was up before a question could be answered either way."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The solver's answer to an instance.

    Parameters
    ----------
    status
        ``"optimal"``, ``"feasible"``, ``"infeasible"`` or ``"timed_out"``.
    replicas, hosts
        Counts per candidate and per offer; empty without a plan.
    bound, value
        What no plan can undercut, and the objective, in the objective's unit.
    loss
        Largest relative loss of a capacity by scaling to integers.
    """

    status: str
    replicas: tuple[int, ...] = ()
    hosts: tuple[int, ...] = ()
    bound: float = 0.0
    value: float = 0.0
    loss: float = 0.0


def build(instance: Instance) -> tuple[cp_model.CpModel, Variables]:
    """Return the CP-SAT model of an instance, without its objective."""
    model = cp_model.CpModel()
    variables = Variables.create(model, instance, scale(instance))
    for constraint in CONSTRAINTS:
        constraint(model, variables)
    return model, variables


def choose(instance: Instance, options: SolveOptions) -> Choice:
    """Return the best choice of replica and host counts.

    The objective is minimised first and then held while ties are broken.

    Raises
    ------
    SolverError
        If CP-SAT refuses the model, which is a fault of ours.
    """
    options = options if options.deadline is not None else options.started()
    model, variables = build(instance)
    objective = expression(variables, instance.objective)
    solver = _solver(options)
    model.minimize(objective)
    status = _status(solver, model)
    if status in ("infeasible", "timed_out"):
        return Choice(status, loss=variables.scaled.loss)
    unit = per_unit(variables, instance.objective)
    counts = _counts(solver, variables)
    if status == "optimal":
        counts = _break_ties(model, variables, solver, options, counts)
    return Choice(
        status,
        *counts,
        bound=solver.best_objective_bound / unit,
        value=solver.objective_value / unit,
        loss=variables.scaled.loss,
    )


def is_possible(instance: Instance, options: SolveOptions) -> bool:
    """Return whether some choice satisfies every constraint.

    Raises
    ------
    OutOfTimeError
        If neither is known when the time is up.
    """
    model, _ = build(instance)
    status = _status(_solver(options), model) if options.remaining else "timed_out"
    if status == "timed_out":
        raise OutOfTimeError
    return status in ("optimal", "feasible")


Counts = tuple[tuple[int, ...], tuple[int, ...]]


def _break_ties(
    model: cp_model.CpModel,
    variables: Variables,
    solver: cp_model.CpSolver,
    options: SolveOptions,
    counts: Counts,
) -> Counts:
    held = expression(variables, variables.instance.objective)
    for tie_break in tie_breaks(model, variables):
        model.add(held <= round(solver.objective_value)).with_name("hold")
        _hint(model, variables, counts)
        model.minimize(tie_break)
        solver = _solver(options)
        if _status(solver, model) != "optimal":
            break
        counts = _counts(solver, variables)
        held = tie_break
    return counts


def _hint(model: cp_model.CpModel, variables: Variables, counts: Counts) -> None:
    model.clear_hints()  # type: ignore[no-untyped-call]
    for group, values in zip(
        (variables.replicas, variables.hosts), counts, strict=True
    ):
        for variable, value in zip(group, values, strict=True):
            model.add_hint(variable, value)


def _counts(solver: cp_model.CpSolver, variables: Variables) -> Counts:
    return (
        tuple(solver.value(count) for count in variables.replicas),
        tuple(solver.value(count) for count in variables.hosts),
    )


def _solver(options: SolveOptions) -> cp_model.CpSolver:
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = options.remaining
    solver.parameters.num_workers = options.workers
    solver.parameters.random_seed = options.seed
    solver.parameters.catch_sigint_signal = False
    # A covering problem is proved by its linear relaxation, all of it.
    solver.parameters.linearization_level = 2
    return solver


def _status(solver: cp_model.CpSolver, model: cp_model.CpModel) -> str:
    status = _searched(solver, model)
    names = {
        cp_model.OPTIMAL: "optimal",
        cp_model.FEASIBLE: "feasible",
        cp_model.INFEASIBLE: "infeasible",
        cp_model.UNKNOWN: "timed_out",
    }
    if status not in names:
        raise SolverError(f"CP-SAT refuses the model: {model.validate()}")
    return names[status]


def _searched(
    solver: cp_model.CpSolver, model: cp_model.CpModel
) -> cp_model.CpSolverStatus:
    """Search beside the main thread: CP-SAT would answer Ctrl-C with what it has."""
    with ThreadPoolExecutor(1) as beside:
        try:
            return beside.submit(solver.solve, model).result()
        except KeyboardInterrupt:
            solver.stop_search()
            raise
