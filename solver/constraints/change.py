"""Few NPUs whose use begins or ends."""

from ortools.sat.python import cp_model

from solver.variables import Variables


def change(model: cp_model.CpModel, variables: Variables) -> None:
    """``sum_type |NPUs used - NPUs in use today| <= limit``."""
    instance = variables.instance
    most = instance.limits.changed_npus
    if most is None:
        return
    today = {each.npu: each.npus for each in instance.current}
    types = {offer.npu.name for offer in instance.offers} | today.keys()
    changed = []
    for name in sorted(types):
        used = [
            variables.npus_used(number)
            for number, offer in enumerate(instance.offers)
            if offer.npu.name == name
        ]
        moved, had = model.new_int_var(0, most, f"changed_{name}"), today.get(name, 0)
        model.add(sum(used) - had <= moved).with_name(f"begun_{name}")
        model.add(had - sum(used) <= moved).with_name(f"ended_{name}")
        changed.append(moved)
    model.add(sum(changed) <= most).with_name("limit_changed")
