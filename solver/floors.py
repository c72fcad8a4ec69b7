"""The least that a target could be on any hardware, and the physics behind it."""

from dataclasses import dataclass

import numpy as np

from model_ops.estimate import Load, LoadMode, bounds, load_steps
from model_ops.platform.supply import Supply
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.step import Replica, timed_operators
from model_ops.units import BYTE
from problems import catalogue
from problems.problem import LatencyTarget
from problems.requirements import Requirement
from solver.candidates import Table
from solver.solve import Workspace

MEMORY = "memory"
"""What conflicts where a model fits on no replica."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The least that a requirement could be, were it the only one.

    Parameters
    ----------
    requirement, wanted, least
        What was asked for, and what is possible.
    possible
        Whether it can be met by itself.
    reason
        Where the least is reached, and what binds there.
    """

    requirement: str
    wanted: str
    least: str
    possible: bool
    reason: str


def latency_floor(
    workspace: Workspace,
    requirement: Requirement,
    number: int,
    target: LatencyTarget,
) -> Floor:
    """Return the least latency of a class on any deployment that fits in memory."""
    traffic = workspace.problem.traffic[number]
    tables = [t for t in workspace.tables if t.traffic.name == traffic.name]
    floors = []
    for table in tables:
        possible = table.feasible(()) & table.admitted(workspace.offers)[:, :, None]
        seconds = np.where(possible, table.latency(target.metric), np.inf)
        where = np.unravel_index(seconds.argmin(), seconds.shape)
        floors.append((float(seconds[where]), table, where))
    least, table, where = min(floors, key=lambda floor: floor[0])
    npu, split, batch = (int(index) for index in where)
    size = f"{table.batches[split, batch]:.3g}"
    place = f"{table.npus[npu].name} {table.splits[split].text}, mean batch {size}"
    return Floor(
        requirement=requirement.label,
        wanted=requirement.text(requirement.value),
        least=requirement.text(least),
        possible=least <= target.at_most,
        reason=f"on {place}: {_physics(workspace, table, where, target)}",
    )


def _physics(
    workspace: Workspace,
    table: Table,
    where: tuple[np.intp, ...],
    target: LatencyTarget,
) -> str:
    """Return what a step of the fastest deployment is spent on, largest first."""
    npu, split, batch = (int(index) for index in where)
    arch = catalogue.load_model(workspace.problem.model)
    features = workspace.problem.optimisations.features(arch, table.precision)
    replica = Replica(
        arch=arch,
        parallelism=table.splits[split],
        precision=table.precision,
        supply=Supply.of(table.npus[npu]),
        **features,
    )
    load = Load(
        table.traffic.shape,
        LoadMode.OPEN_LOOP,
        chunk_tokens=workspace.problem.chunk_tokens,
    )
    mixed, plain = load_steps(replica, load, table.batches[split, batch])
    step = mixed if target.metric == "ttft" else plain
    parts = bounds(timed_operators(replica, step), replica)
    whole = sum(float(seconds) for seconds in parts.values())
    ordered = sorted(parts.items(), key=lambda part: -float(part[1]))
    shares = [
        f"{name} {float(s) / whole:.0%}" for name, s in ordered if s > 0.01 * whole
    ]
    return "a step is " + ", ".join(shares)


def memory_floor(workspace: Workspace) -> Floor:
    """Return how much memory the model needs, against the largest replica's."""
    problem = workspace.problem
    arch = catalogue.load_model(problem.model)
    shards = (arch.shard(Parallelism(), precision) for precision in problem.formats())
    needed = min(float(weight_bytes(arch, shard)) for shard in shards)
    table = workspace.tables[0]
    admitted = table.admitted(workspace.offers)
    most, name = max(
        (
            (float(npu.usable_memory * split.npus), f"{split.npus} x {npu.name}")
            for row, npu in zip(admitted, table.npus, strict=True)
            for possible, split in zip(row, table.splits, strict=True)
            if possible
        ),
        default=(0.0, "no replica that these prices allow"),
    )
    return Floor(
        requirement=MEMORY,
        wanted=f"weights of {BYTE.format(needed)} and the requests' KV cache",
        least=f"{BYTE.format(most)} usable at most",
        possible=False,
        reason=f"on {name}",
    )
