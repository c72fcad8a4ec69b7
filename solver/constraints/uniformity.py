"""Few different deployments, few NPU types."""

from collections.abc import Hashable, Iterable

from ortools.sat.python import cp_model

from solver.variables import Variables


def uniformity(model: cp_model.CpModel, variables: Variables) -> None:
    """``replicas_i <= most_i used_g`` for each candidate of g; ``sum used_g <= k``.

    Groups g are of one deployment, or of one NPU type.
    """
    instance, limits = variables.instance, variables.instance.limits
    types = [instance.offers[each.offer].npu.name for each in instance.candidates]
    kinds = [
        (name, each.npus, each.kind)
        for name, each in zip(types, instance.candidates, strict=True)
    ]
    for name, groups, most in (
        ("deployment_types", kinds, limits.deployment_types),
        ("npu_types", types, limits.npu_types),
    ):
        if most is not None:
            used = _used(model, variables, groups, name)
            model.add(sum(used) <= most).with_name(f"limit_{name}")


def _used(
    model: cp_model.CpModel,
    variables: Variables,
    groups: Iterable[Hashable],
    name: str,
) -> list[cp_model.IntVar]:
    """Return for each group whether any of its candidates is counted, or may be."""
    used: dict[Hashable, cp_model.IntVar] = {}
    for i, group in enumerate(groups):
        if group not in used:
            used[group] = model.new_bool_var(f"{name}_{len(used)}")
        most, some = variables.most(i), used[group]
        model.add(variables.replicas[i] <= most * some).with_name(f"{name}_of_{i}")
    return list(used.values())
