"""What a plan may count: deployments at their highest rates, without dominated ones.

`select` reads the tables for a problem's targets and keeps, per offer, what no smaller
replica and no smaller pool matches.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_ops.dtypes import Precision
from model_ops.profiler.parallelism import Parallelism
from problems.offers import Offer
from problems.problem import SizingProblem
from problems.survival import domain_hosts
from solver.corrections import NO_CORRECTIONS, Corrections, confirmed
from solver.counted import Counted
from solver.race import POOLS, Entrants, Race
from solver.settings import Setting
from solver.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Counted):
    """Replicas of a deployment, at the highest rate within the targets.

    Parameters
    ----------
    split, precision, setting
        The deployment.
    rate
        Requests per second that a replica takes at most.
    """

    split: Parallelism
    rate: float
    precision: Precision
    setting: Setting


def select(
    tables: Sequence[Table],
    offers: Sequence[Offer],
    problem: SizingProblem,
    *,
    exact: bool = True,
    corrections: Corrections = NO_CORRECTIONS,
) -> list[Candidate]:
    """Return the candidates that meet their class's targets, without dominated ones.

    One is dominated if another on the same offer, for the same class, uses no more
    NPUs (where replicas may be spare, as many), covers as much, and needs no larger
    pool.

    Parameters
    ----------
    tables, offers
        The options, and what they may stand on.
    problem
        The targets; its other parts are those that the tables were made for.
    exact
        Whether rates are found to the last digit, pools tried; else they are read
        from the tables, for a quick answer to what-ifs.
    corrections
        Shares of the rates that count, for pools of any size.
    """
    index = {traffic.name: i for i, traffic in enumerate(problem.traffic)}
    found: dict[tuple[int, int], list[Candidate]] = {}
    spare = spare_replicas(problem, offers)
    for group in _groups(tables, problem, index, together=exact and not corrections):
        numbers = [index[table.traffic.name] for table in group]
        wanted = [problem.traffic[n].demand(problem.headroom) for n in numbers]
        share = confirmed(group[0], corrections)
        traffic = problem.traffic[numbers[0]]
        race = Race(group[0], traffic, max(wanted), share, spare=spare)
        entrants = race.unbeaten() if exact else race.tabulated()
        for table, number, demand in zip(group, numbers, wanted, strict=True):
            several = len(group) > 1 and not spare
            mine = entrants.useful(demand) if several else entrants
            collect(found, table, offers, mine, traffic=number)
    return [
        kept for group in found.values() for kept in undominated(group, spare=spare > 0)
    ]


MANY = 64
"""Classes from which on those that differ in nothing but how many requests they have
are measured together, at the largest demand: so rates hold in all pools of each."""


def _groups(
    tables: Sequence[Table],
    problem: SizingProblem,
    index: Mapping[str, int],
    *,
    together: bool,
) -> list[list[Table]]:
    """Return the tables, with those that may be measured together in one list."""
    groups: dict[Hashable, list[Table]] = {}
    for table in (table for table in tables if table.options):
        number = index[table.traffic.name]
        traffic = problem.traffic[number]
        alike: Hashable = number, table.precision
        if together and len(problem.traffic) > MANY and not traffic.is_closed:
            alike = id(table.engines), traffic.sized_targets
        groups.setdefault(alike, []).append(table)
    return list(groups.values())


def spare_replicas(problem: SizingProblem, offers: Sequence[Offer]) -> int:
    """Return the replicas that a plan may have beside those that cover the demand.

    In hosts that may fail, and on NPUs that are kept to change less.
    """
    redundancy, racks = problem.redundancy, problem.limits.racks
    hosts = (o.host_npus * domain_hosts(redundancy, racks, o) for o in offers)
    kept = problem.limits.changed_npus is not None
    today = sum(each.npus for each in problem.current) if kept else 0
    return today + redundancy.domains * max(hosts, default=0)


def collect(
    found: dict[tuple[int, int], list[Candidate]],
    table: Table,
    offers: Sequence[Offer],
    entrants: Entrants,
    **role: Any,
) -> None:
    """Add a candidate for each entrant with a rate and each offer that admits it.

    Parameters
    ----------
    found
        By class and offer.
    role
        The candidate's `traffic`, and its `mode` if it does not read and answer.
    """
    for pool, place in np.argwhere(entrants.rates > 0):
        option, setting = int(entrants.option[place]), entrants.setting[place]
        split = table.split(option)
        npus = int(split.npus)
        how = (table.traffic.model, role.get("mode"), split, table.precision)
        for at in np.nonzero(table.admitted[:, option])[0].tolist():
            found.setdefault((role["traffic"], at), []).append(
                Candidate(
                    offer=at,
                    split=split,
                    rate=float(entrants.rates[pool, place]),
                    precision=table.precision,
                    setting=table.settings[setting],
                    npus=npus,
                    slot=offers[at].slot(npus),
                    capacity=float(entrants.capacity[pool, place]),
                    least=POOLS[pool],
                    kind=(*how, table.settings[setting]),
                    **role,
                )
            )


def undominated(
    candidates: Sequence[Candidate], *, spare: bool = False
) -> list[Candidate]:
    """Return the candidates of a group that cover more than all smaller ones.

    Where replicas may be `spare`, more than all of as many NPUs: smaller ones lose more
    where a host fails, and keep fewer NPUs in use.
    """
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=_simplest_first):
        if not any(
            other.capacity >= candidate.capacity
            and other.least <= candidate.least
            and (other.npus == candidate.npus or not spare)
            for other in kept
        ):
            kept.append(candidate)
    return kept


def _simplest_first(candidate: Candidate) -> tuple[float, ...]:
    split = candidate.split
    degrees = (split.pp, split.dp, split.ep, split.tp)
    return (
        candidate.npus,
        -candidate.capacity,
        candidate.least,
        *map(float, degrees),
    )
