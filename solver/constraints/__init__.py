"""The structural constraints of a plan, one per file."""

from collections.abc import Callable

from ortools.sat.python import cp_model

from solver.constraints.availability import availability
from solver.constraints.budget import budget
from solver.constraints.change import change
from solver.constraints.demand import demand
from solver.constraints.hosts import hosts
from solver.constraints.pairs import pairs
from solver.constraints.pools import pools
from solver.constraints.power import power
from solver.constraints.quota import quota
from solver.constraints.racks import racks
from solver.constraints.redundancy import redundancy
from solver.constraints.stock import stock
from solver.constraints.uniformity import uniformity
from solver.variables import Variables

Constraint = Callable[[cp_model.CpModel, Variables], None]

CONSTRAINTS: tuple[Constraint, ...] = (
    demand,
    pairs,
    pools,
    hosts,
    availability,
    stock,
    quota,
    racks,
    budget,
    power,
    uniformity,
    change,
    redundancy,
)
"""Every constraint of the model; a plan satisfies them all."""
