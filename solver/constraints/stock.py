"""No more of an offer than there is of it."""

from ortools.sat.python import cp_model

from solver.variables import Variables


def stock(model: cp_model.CpModel, variables: Variables) -> None:
    """``portions_o <= stock_o`` for each offer that has one."""
    for number, offer in enumerate(variables.instance.offers):
        if offer.stock is not None:
            paid = variables.portions(number)
            model.add(paid <= offer.stock).with_name(f"stock_{number}")
