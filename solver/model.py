"""Variables, constraints and objective put together, solved level by level."""

import errno
from dataclasses import dataclass
from pathlib import Path

from ortools.sat.python import cp_model

from solver.constraints import CONSTRAINTS
from solver.instance import Instance
from solver.objective import expression, per_unit, tie_breaks
from solver.options import SolveOptions as SolveOptions
from solver.scaling import scale
from solver.search import CP_SAT, Found, cp_sat, search, status_of
from solver.variables import Variables


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
    proved_by
        Who proved the bound.
    size
        Variables and constraints of the model.
    """

    status: str
    replicas: tuple[int, ...] = ()
    hosts: tuple[int, ...] = ()
    bound: float = 0.0
    value: float = 0.0
    loss: float = 0.0
    proved_by: str = CP_SAT
    size: tuple[int, int] = (0, 0)


def build(instance: Instance) -> tuple[cp_model.CpModel, Variables]:
    """Return the CP-SAT model of an instance, without its objective."""
    model = cp_model.CpModel()
    variables = Variables.create(model, instance, scale(instance))
    for constraint in CONSTRAINTS:
        constraint(model, variables)
    return model, variables


def choose(instance: Instance, options: SolveOptions, *, ties: bool = True) -> Choice:
    """Return the best choice of replica and host counts.

    The objective is minimised first and then held while ties are broken, if they are.

    Raises
    ------
    SolverError
        If CP-SAT refuses the model, which is a fault of ours.
    """
    options = options if options.deadline is not None else options.started()
    model, variables = build(instance)
    size = model_size(model)
    model.minimize(expression(variables, instance.objective))
    found = search(model, variables, options)
    loss = variables.scaled.loss
    if not found.values:
        return Choice(found.status, loss=loss, size=size)
    unit = per_unit(variables, instance.objective)
    counts = _counts(found.values, variables)
    if found.status == "optimal" and ties:
        counts = _break_ties(model, variables, found, options)
    return Choice(
        found.status,
        *counts,
        bound=max(found.bound, 0.0) / unit,
        value=found.value / unit,
        loss=loss,
        proved_by=found.proved_by,
        size=size,
    )


def model_size(model: cp_model.CpModel) -> tuple[int, int]:
    """Return the variables and the constraints of a model."""
    return len(model.proto.variables), len(model.proto.constraints)


def export(instance: Instance, path: Path) -> None:
    """Write the CP-SAT model of an instance: as text if the name ends in ``txt``.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    model, variables = build(instance)
    model.minimize(expression(variables, instance.objective))
    if not model.export_to_file(str(path)):
        raise OSError(errno.EIO, "OR-Tools could not write it")


def is_possible(instance: Instance, options: SolveOptions) -> bool:
    """Return whether some choice satisfies every constraint.

    Raises
    ------
    OutOfTimeError
        If neither is known when the time is up.
    """
    model, _ = build(instance)
    left = options.remaining
    status = status_of(cp_sat(options), model) if left else "timed_out"
    if status == "timed_out":
        raise OutOfTimeError
    return status in ("optimal", "feasible")


Counts = tuple[tuple[int, ...], tuple[int, ...]]


_TIE_EFFORT = 1.0
"""Deterministic seconds for each tie to be broken."""


def _break_ties(
    model: cp_model.CpModel,
    variables: Variables,
    found: Found,
    options: SolveOptions,
) -> Counts:
    counts = _counts(found.values, variables)
    held, most = expression(variables, variables.instance.objective), found.value
    for tie_break in tie_breaks(model, variables):
        model.add(held <= round(most)).with_name("hold")
        _hint(model, variables, counts)
        model.minimize(tie_break)
        solver = cp_sat(options, _TIE_EFFORT)
        if status_of(solver, model) not in ("optimal", "feasible"):
            break
        counts = (
            tuple(solver.value(count) for count in variables.replicas),
            tuple(solver.value(count) for count in variables.hosts),
        )
        held, most = tie_break, solver.objective_value
    return counts


def _hint(model: cp_model.CpModel, variables: Variables, counts: Counts) -> None:
    model.clear_hints()  # type: ignore[no-untyped-call]
    for group, values in zip(
        (variables.replicas, variables.hosts), counts, strict=True
    ):
        for variable, value in zip(group, values, strict=True):
            model.add_hint(variable, value)


def _counts(values: tuple[int, ...], variables: Variables) -> Counts:
    return (
        tuple(values[count.index] for count in variables.replicas),
        tuple(values[count.index] for count in variables.hosts),
    )
