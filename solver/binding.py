"""What stops the deployments of a plan from taking more."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.serving.pools import AnswerLaws
from problems.pair_stations import PairStation
from problems.plan import Plan, PlannedDeployment
from problems.serve import Served, served
from problems.stations import QueueStation
from problems.traffic import LatencyTarget, TrafficClass
from solver.floors import load_text
from solver.solve import Workspace
from solver.table import MOST_LOAD

KV_TRANSFER = "KV transfer"
"""What binds where the links between two pools do."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A requirement that keeps a plan from being better.

    Parameters
    ----------
    requirement
        What binds.
    where
        The deployment that it binds, or the whole plan.
    reason
        What would happen beyond it.
    """

    requirement: str
    where: str
    reason: str


MORE_LOAD = (0.01, 0.03, 0.1, 0.3)
"""Shares of load on top at which a binding target no longer holds.

Where more replicas stand behind the router than the rate needs, it holds a little more.
"""

FULL = MOST_LOAD * (1 - 1e-3)
"""Utilisation at which the steps, not the targets, are what binds."""

FULL_LINKS = 0.45
"""Utilisation of the links from which on they are said to bind: at half of it caches
travel twice as long as alone."""


def batch_bindings(workspace: Workspace, plan: Plan) -> list[Binding]:
    """Return what stops each deployment from taking more."""
    problem = workspace.problem
    found = [
        binding
        for traffic in problem.traffic
        for each in served(problem, plan, traffic)
        for binding in _of(plan, traffic, each)
    ]
    # Routes share pools: what binds one is told once.
    return list({(b.requirement, b.where): b for b in reversed(found)}.values())[::-1]


def _of(plan: Plan, traffic: TrafficClass, each: Served) -> Iterator[Binding]:
    station, share = each.station(plan, traffic), float(each.estimate.rate)
    targets = traffic.sized_targets
    if each.decode is None or not isinstance(station, PairStation):
        row = each.deployment
        full = float(station.latencies(row.rate).utilisation) > FULL
        yield _binding(station, targets, row, (row.rate, share), full=full)
        return
    taken = share / each.utilisation
    rates = station.pair.rates
    for row, own in ((each.deployment, "ttft"), (each.decode, "tpot")):
        mine = [t for t in targets if t.metric in (own, "e2e")]
        full = taken > FULL * rates[row.mode]
        yield _binding(station, mine, row, (taken, share), full=full)
    links = station.pair.transfer(share)
    if links.utilisation > FULL_LINKS:
        busy = f"{links.utilisation:.0%} of the time"
        reason = f"at {share:.3g} req/s caches keep the links busy {busy}"
        where = f"{_place(each.deployment)} and {_place(each.decode)}"
        yield Binding(KV_TRANSFER, where, reason)


def _binding(
    station: QueueStation,
    targets: Sequence[LatencyTarget],
    row: PlannedDeployment,
    rates: tuple[float, float],
    *,
    full: bool,
) -> Binding:
    """Return what a little more load would break, and what load does to it.

    Parameters
    ----------
    station, targets, row
        A queue, the targets that its deployment keeps, and the deployment.
    rates
        Requests per second that the queue takes within its targets, and gets.
    full
        Whether the queue hardly takes more, whatever the targets.
    """
    (most, share), where = rates, _place(row)
    for extra in MORE_LOAD if targets and not full else ():
        more = most * (1 + extra)
        over = [(_excess(station, target, more), target) for target in targets]
        worst, target = max(over, key=lambda found: found[0])
        if worst > 0:
            reason = f"at {most:.3g} req/s it holds, at {more:.3g} it does not"
            reason += f"; {load_text(station, target, most, share)}"
            return Binding(f"{row.traffic} {target.label}", where, reason)
    if row.mode != "aggregated" and not full:
        reason = f"it could take {MORE_LOAD[-1]:.0%} more; the other pool could not"
        return Binding("nothing", where, reason)
    requirement = f"{row.traffic} throughput"
    return Binding(requirement, where, "more requests would not be finished")


def _excess(station: QueueStation, target: LatencyTarget, rate: float) -> float:
    """Return a number above 0 where a target fails; of a pair in its own pool alone."""
    if not isinstance(station, PairStation) or target.metric == "e2e":
        return station.excess(target, rate)
    laws = station.laws(rate)
    pool = laws.prefill if target.metric == "ttft" else AnswerLaws(laws.decode)
    limit = np.array([[target.at_most]])
    return float(np.ravel(pool.excess(target.metric, target.statistic, limit))[0])


def _place(row: PlannedDeployment) -> str:
    pool = "" if row.mode == "aggregated" else f" {row.mode}"
    return f"{row.npu} {row.parallelism.text}{pool}"
