"""Replicas of each class together cover its demand."""

from ortools.sat.python import cp_model

from solver.variables import Variables


def demand(model: cp_model.CpModel, variables: Variables) -> None:
    """``sum_i capacity_i * replicas_i + sum_p carried_p >= demand`` for each class.

    The first sum is over replicas that read and answer, the second over pairs.
    """
    scaled = variables.scaled
    terms: list[list[cp_model.LinearExpr]] = [[] for _ in scaled.demand]
    for i, candidate in enumerate(variables.instance.candidates):
        if candidate.mode == "aggregated":
            terms[candidate.traffic].append(scaled.capacity[i] * variables.replicas[i])
    for number, pairing in enumerate(variables.instance.pairings):
        terms[pairing.traffic].append(variables.carried[number])
    for traffic, wanted in enumerate(scaled.demand):
        covered = sum(terms[traffic])
        model.add(covered >= wanted).with_name(f"demand_{traffic}")
