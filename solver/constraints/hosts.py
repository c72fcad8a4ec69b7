"""Replicas fit on the hosts of their offer."""

from ortools.sat.python import cp_model

from solver.variables import Variables


def hosts(model: cp_model.CpModel, variables: Variables) -> None:
    """Hold the packing of slots that divide each other into equal hosts.

    A replica of a host or more fills hosts whole. For each slot size s below,
    replicas of s or more find room only in the ``floor(host / s) * s`` NPUs of a
    host that come in portions of s, so

        ``sum_{slot_i >= s} slot_i * replicas_i
        <= floor(host / s) * s * (hosts - whole hosts)``;

    with sizes that divide each other these conditions suffice (Coffman, Garey and
    Johnson 1987).
    """
    instance = variables.instance
    for number, offer in enumerate(instance.offers):
        size = offer.host_npus
        slots = {i: instance.candidates[i].slot for i in variables.on_offer(number)}
        filled = sum(
            slot // size * variables.replicas[i]
            for i, slot in slots.items()
            if slot >= size
        )
        shared = {i: slot for i, slot in slots.items() if slot < size}
        left = variables.hosts[number] - filled
        model.add(left >= 0).with_name(f"whole_hosts_{number}")
        for least in sorted(set(shared.values())):
            taken = sum(
                slot * variables.replicas[i]
                for i, slot in shared.items()
                if slot >= least
            )
            room = size // least * least
            model.add(taken <= room * left).with_name(f"slots_{number}_{least}")
