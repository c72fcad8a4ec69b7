"""The cost stays within the budget."""

from ortools.sat.python import cp_model

from solver.scaling import SLACK, floor
from solver.variables import Variables


def budget(model: cp_model.CpModel, variables: Variables) -> None:
    """``cost <= budget``, both in the cost's scale, the budget rounded down."""
    most = variables.instance.limits.usd_per_hour
    if most is not None:
        allowed = floor(most * (1 + SLACK) * variables.scaled.usd_per)
        model.add(variables.total_usd() <= allowed).with_name("limit_usd_per_hour")
