"""Nodes stand in racks, each of which holds nodes of one offer."""

from ortools.sat.python import cp_model

from solver.variables import Variables


def racks(model: cp_model.CpModel, variables: Variables) -> None:
    """``nodes_o <= held_o * racks_o`` and ``sum_o racks_o <= racks``.

    No node of an offer where a rack's power is less than that of one node.
    """
    instance = variables.instance
    limit = instance.limits.racks
    if limit is None:
        return
    used = []
    for number, offer in enumerate(instance.offers):
        hosts, each = variables.hosts[number], limit.holds(offer.node_power)
        if not each:
            model.add(hosts == 0).with_name(f"no_rack_{number}")
            continue
        if limit.count is None:
            continue
        count = model.new_int_var(0, limit.count, f"racks_{number}")
        nodes = offer.nodes_per_host * hosts
        model.add(nodes <= each * count).with_name(f"racks_{number}")
        used.append(count)
    if used and limit.count is not None:
        model.add(sum(used) <= limit.count).with_name("limit_racks")
