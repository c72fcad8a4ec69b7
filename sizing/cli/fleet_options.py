"""Options that state what a fleet has, may have and must survive."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from model_ops.errors import ProblemError
from sizing.cli.values import assignment

F = TypeVar("F", bound=Callable[..., Any])

FIELDS = {
    "max_npu_types": ("limits", "npu_types"),
    "max_deployment_types": ("limits", "deployment_types"),
    "max_change": ("limits", "changed_npus"),
    "spare_nodes": ("redundancy", "nodes"),
}
"""Table and field of a problem that each option states as it is."""


def fleet_options(function: F) -> F:
    """Add the options."""
    options = (
        click.option(
            "--available",
            multiple=True,
            metavar="NPU=N",
            help="NPUs of a type, at most, e.g. 'h200=16'; repeatable.",
        ),
        click.option(
            "--owned",
            multiple=True,
            metavar="NPU=N",
            help="NPUs that are yours already and cost nothing, e.g. 'a100-80gb=16', "
            "or whole nodes, 'h100=2 nodes'; repeatable.",
        ),
        click.option(
            "--quota",
            multiple=True,
            metavar="REGION=N",
            help="NPUs in a region (name or glob), at most; repeatable.",
        ),
        click.option(
            "--spare-nodes",
            type=int,
            help="Nodes that may fail while all traffic is still served in time [0].",
        ),
        click.option("--max-npu-types", type=int, help="Different NPU types, at most."),
        click.option(
            "--max-deployment-types",
            type=int,
            help="Different kinds of replicas (NPU, split, settings), at most.",
        ),
        click.option(
            "--current",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="PLAN.json",
            help="What is in use today: a report of genz-size size as JSON.",
        ),
        click.option(
            "--max-change",
            type=int,
            help="NPUs that may be added to --current or given up, at most.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def stated_fleet(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a problem that the options state.

    By field: ``owned`` and ``current``; of the limits ``npus_per_type`` and ``quota``.

    Raises
    ------
    ProblemError
        If an option is not written as its help says, or the plan cannot be read.
    """
    found: dict[str, Any] = {}
    if "available" in given:
        stated = [_counted("--available", text) for text in given["available"]]
        found["npus_per_type"] = dict(stated)
        for npu in found["npus_per_type"]:
            if sum(name == npu for name, _ in stated) > 1:
                raise ProblemError(f"--available: two counts for {npu}")
    if "owned" in given:
        found["owned"] = [_owned(text) for text in given["owned"]]
    if "quota" in given:
        pairs = (_counted("--quota", text) for text in given["quota"])
        found["quota"] = [{"region": region, "npus": most} for region, most in pairs]
    if "current" in given:
        found["current"] = _current(given["current"])
    return found


def _owned(text: str) -> dict[str, Any]:
    whole = text.removesuffix("s").endswith(" node")
    plain = text.removesuffix("s").removesuffix(" node") if whole else text
    npu, count = _counted("--owned", plain)
    return {"npu": npu, "nodes" if whole else "npus": count}


def _counted(option: str, text: str) -> tuple[str, int]:
    name, count = assignment(option, text)
    if not count.isdecimal():
        raise ProblemError(f"{option}: '{count}' is not a number of NPUs")
    return name, int(count)


def _current(path: Path) -> list[dict[str, Any]]:
    from sizing.plan_file import read_fleet

    return [{"npu": npu, "npus": count} for npu, count in read_fleet(path).items()]
