"""A rate that rests on several replicas behind one router needs that many."""

from ortools.sat.python import cp_model

from solver.variables import Variables


def pools(model: cp_model.CpModel, variables: Variables) -> None:
    """``replicas_i = 0`` or ``replicas_i >= least_i`` for each candidate."""
    for i, candidate in enumerate(variables.instance.candidates):
        if candidate.least > 1:
            most = max(variables.scaled.most[i], candidate.least)
            pooled = cp_model.Domain.from_intervals([[0, 0], [candidate.least, most]])
            model.add_linear_expression_in_domain(
                variables.replicas[i], pooled
            ).with_name(f"pool_{i}")
