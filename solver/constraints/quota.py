"""No more NPUs of a type, region and provider than their quota."""

from ortools.sat.python import cp_model

from solver.variables import Variables


def quota(model: cp_model.CpModel, variables: Variables) -> None:
    """``sum of NPUs paid of the offers that it counts <= quota`` for each quota."""
    instance = variables.instance
    for index, each in enumerate(instance.limits.quota):
        paid = [
            variables.npus_paid(number)
            for number, offer in enumerate(instance.offers)
            if each.covers(offer.npu.name, offer.price.region, offer.provider)
        ]
        if paid:
            model.add(sum(paid) <= each.npus).with_name(f"quota_{index}")
