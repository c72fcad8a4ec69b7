"""The NPUs' power stays within what can be supplied."""

from ortools.sat.python import cp_model

from solver.scaling import SLACK, floor
from solver.variables import Variables


def power(model: cp_model.CpModel, variables: Variables) -> None:
    """``power <= limit``, both in the power's scale, the limit rounded down."""
    most = variables.instance.limits.power
    if most is not None:
        allowed = floor(most * (1 + SLACK) * variables.scaled.watts_per)
        model.add(variables.total_watts() <= allowed).with_name("limit_power")
