"""No more NPUs or nodes than there are."""

from ortools.sat.python import cp_model

from solver.variables import Variables


def availability(model: cp_model.CpModel, variables: Variables) -> None:
    """Hold the limits on NPUs, on NPUs of a type, and on nodes."""
    limits, offers = variables.instance.limits, variables.instance.offers
    if limits.npus is not None:
        model.add(variables.total_npus() <= limits.npus).with_name("limit_npus")
    for name, most in limits.npus_per_type.items():
        numbers = [n for n, offer in enumerate(offers) if offer.npu.name == name]
        if numbers:
            paid = sum(variables.npus_paid(number) for number in numbers)
            model.add(paid <= most).with_name(f"limit_{name}")
    if limits.nodes is not None:
        nodes = sum(
            offer.nodes_per_host * hosts
            for offer, hosts in zip(offers, variables.hosts, strict=True)
        )
        model.add(nodes <= limits.nodes).with_name("limit_nodes")
