"""The least that a target could be on any hardware, and the physics behind it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.binding import bounds, load_steps
from model_ops.estimate import Load, LoadMode
from model_ops.opcost import Collective
from model_ops.platform.supply import Supply
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.step import Replica, TimedOperator, timed_operators
from model_ops.units import BYTE, SECOND
from problems import catalogue
from problems.problem import SizingProblem
from problems.requirements import Requirement
from problems.stations import QueueStation
from problems.traffic import LatencyTarget
from solver.solve import Workspace
from solver.table import Floats, Table

MEMORY = "memory"
"""What conflicts where a model fits on no replica."""

STOCK = "what is there"
"""What conflicts where more is needed than is there, and nothing is for rent."""

_HARDLY = 5e-4
"""Share of saturation at which next to nobody waits; the solver tries no lower one."""


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
        if not table.options:
            continue
        for setting in range(len(table.settings)):
            seconds = _alone(table, target, setting)
            option = int(seconds.argmin())
            floors.append((float(seconds[option]), table, option, setting))
    least, table, option, setting = min(floors, key=lambda floor: floor[0])
    place = f"{table.npu(option).name} {table.split(option).text}, hardly loaded"
    return Floor(
        requirement=requirement.label,
        wanted=requirement.text(requirement.value),
        least=requirement.text(least),
        possible=least <= target.at_most,
        reason=f"on {place}: {_physics(workspace, table, option, setting, target)}",
    )


def _alone(table: Table, target: LatencyTarget, setting: int) -> Floats:
    """Return a latency where next to nobody else is served; shaped [option]."""
    everything = np.arange(table.options)
    laws = table.laws_at(everything, _HARDLY * table.saturation, setting)
    seconds = laws.figure(target.metric, target.statistic)[..., 0]
    return np.where(table.fits[setting], seconds, np.inf)


def _physics(
    workspace: Workspace,
    table: Table,
    option: int,
    setting: int,
    target: LatencyTarget,
) -> str:
    """Return what a step of the fastest deployment is spent on, and why."""
    arch = catalogue.load_model(workspace.problem.model_of(table.traffic))
    features = workspace.problem.optimisations.features(arch, table.precision)
    replica = Replica(
        arch=arch,
        parallelism=table.split(option),
        precision=table.precision,
        supply=Supply.of(table.npu(option)),
        **features,
    )
    load = Load(
        table.traffic.shape,
        LoadMode.OPEN_LOOP,
        chunk_tokens=table.settings[setting].chunk_tokens,
    )
    mixed, plain = load_steps(replica, load, 1.0)
    step = mixed if target.metric == "ttft" else plain
    operators = timed_operators(replica, step)
    parts = bounds(operators, replica.overhead(step))
    whole = sum(float(seconds) for seconds in parts.values())
    ordered = sorted(parts.items(), key=lambda part: -float(part[1]))
    shares = [
        f"{name} {SECOND.format(float(s))} ({float(s) / whole:.0%})"
        for name, s in ordered
        if s > 0.01 * whole
    ]
    stages = int(replica.parallelism.pp)
    what = f"a step of {SECOND.format(whole)}"
    if stages > 1:
        # Stages work side by side: a request does not wait for all of it.
        what = f"the work of a step, {SECOND.format(whole)} over {stages} stages,"
    demands = f"{_demands(operators)}{_steps(table, setting, target)}"
    return f"{what} is {', '.join(shares)}; {demands}"


def _demands(operators: Sequence[TimedOperator]) -> str:
    """Return what makes a step take so long: the bytes and messages it cannot avoid."""
    weights, messages = 0.0, 0.0
    for timed in operators:
        if isinstance(timed.operator, Collective):
            messages += float(timed.count) * (float(timed.time.network) > 0)
        else:
            weights += float(timed.count) * float(timed.operator.cost().weights)
    reads = f"each rank reads {BYTE.format(weights)} of weights"
    return f"{reads}, in {messages:.0f} collectives" if messages else reads


def _steps(table: Table, setting: int, target: LatencyTarget) -> str:
    """Return how many such steps a prompt takes, where it takes several."""
    tokens = float(table.traffic.shape.new_tokens)
    steps = math.ceil(tokens / table.settings[setting].chunk_tokens)
    return f"; a prompt takes {steps}" if target.metric == "ttft" and steps > 1 else ""


def seconds_at(station: QueueStation, target: LatencyTarget, rate: float) -> float:
    """Return what a target is about, in seconds, at a rate of each replica."""
    figure = station.laws(rate).figure(target.metric, target.statistic)
    return float(np.ravel(figure)[0])


def hardly_loaded(station: QueueStation, target: LatencyTarget, most: float) -> float:
    """Return what a target is about where next to nobody waits, in seconds.

    `most` is the highest rate of a replica, of which a very small share is taken.
    """
    return seconds_at(station, target, _HARDLY * most)


def load_text(
    station: QueueStation, target: LatencyTarget, most: float, rate: float
) -> str:
    """Return what load makes of a latency, in words.

    Parameters
    ----------
    station, target
        The deployment, and the latency meant.
    most, rate
        The highest rate of a replica within its targets, and that of the plan.
    """
    alone = hardly_loaded(station, target, most)
    now = seconds_at(station, target, rate)
    load = {"ttft": "queueing", "tpot": "sharing steps", "e2e": "load"}[target.metric]
    return (
        f"hardly loaded {SECOND.format(alone)}, at this plan's {rate:.3g} req/s "
        f"{SECOND.format(now)}, {max(1.0 - alone / now, 0.0):.0%} of it {load}"
    )


def _weights_of(problem: SizingProblem, model: str) -> float:
    """Return the bytes that a model's weights need at least."""
    arch = catalogue.load_model(model)
    return min(
        float(weight_bytes(arch, arch.shard(Parallelism(), precision)))
        for precision in problem.formats(model)
    )


def memory_floor(workspace: Workspace) -> Floor:
    """Return how much memory the model needs, against the largest replica's."""
    problem = workspace.problem
    needed = max(_weights_of(problem, model) for model in problem.models)
    table = workspace.tables[0]
    pairs = ((npu, split) for npu in table.npus for split in table.splits)
    most, name = max(
        (
            (float(npu.usable_memory * split.npus), f"{split.npus} x {npu.name}")
            for npu, split in pairs
            if any(o.npu.name == npu.name and o.admits(split) for o in workspace.offers)
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
