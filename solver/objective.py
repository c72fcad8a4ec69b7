"""What is minimised, and how ties are broken."""

from collections.abc import Iterator

from ortools.sat.python import cp_model

from problems.problem import Objective
from solver.variables import Variables

_HOST = 1_000
_NPU = 1_000_000
"""Weights of the last tie-break: an NPU outweighs hosts, a host deployment types."""


def expression(variables: Variables, objective: Objective) -> cp_model.LinearExpr:
    """Return an objective's expression, in integers."""
    return {
        "cost": variables.total_usd,
        "npus": variables.total_npus,
        "power": variables.total_watts,
    }[objective]()


def per_unit(variables: Variables, objective: Objective) -> float:
    """Return how many integer steps one unit (USD/h, NPU, W) of an objective is."""
    scaled = variables.scaled
    return {"cost": scaled.usd_per, "power": scaled.watts_per, "npus": 1.0}[objective]


def tie_breaks(
    model: cp_model.CpModel, variables: Variables
) -> Iterator[cp_model.LinearExpr]:
    """Yield what decides among equal plans: cost, then NPUs, hosts and types."""
    if variables.instance.objective != "cost":
        yield variables.total_usd()
    used = []
    for i, replicas in enumerate(variables.replicas):
        some = model.new_bool_var(f"used_{i}")
        most = variables.scaled.most[i]
        model.add(replicas <= most * some).with_name(f"used_{i}")
        used.append(some)
    yield cp_model.LinearExpr.weighted_sum(
        [variables.total_npus(), *variables.hosts, *used],
        [_NPU, *(_HOST for _ in variables.hosts), *(1 for _ in used)],
    )
