"""Replicas of each class together cover its demand."""

from ortools.sat.python import cp_model

from solver.variables import Variables


def demand(model: cp_model.CpModel, variables: Variables) -> None:
    """``sum_i capacity_i * replicas_i >= demand`` for each class."""
    scaled = variables.scaled
    for traffic, wanted in enumerate(scaled.demand):
        covered = sum(
            scaled.capacity[i] * variables.replicas[i]
            for i, candidate in enumerate(variables.instance.candidates)
            if candidate.traffic == traffic
        )
        model.add(covered >= wanted).with_name(f"demand_{traffic}")
