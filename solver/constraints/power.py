"""The NPUs' power stays within what can be supplied."""

import math

from ortools.sat.python import cp_model

from solver.variables import Variables


def power(model: cp_model.CpModel, variables: Variables) -> None:
    """``power <= limit`` in whole watts, the limit rounded down."""
    most = variables.instance.limits.power
    if most is not None:
        allowed = math.floor(most)
        model.add(variables.total_watts() <= allowed).with_name("limit_power")
