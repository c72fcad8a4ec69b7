"""What a plan may count: deployments at their highest rates, without dominated ones.

`select` reads the tables for a problem's targets and keeps, per offer, what no smaller
replica and no smaller pool matches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_ops.dtypes import Precision
from model_ops.profiler.parallelism import Parallelism
from problems.offers import Offer
from problems.problem import SizingProblem
from problems.traffic import TrafficClass
from solver.corrections import NO_CORRECTIONS, Corrections, confirmed
from solver.table import Floats, Table

POOLS = (1, 2, 4, 8, 16, 32)
"""Replicas behind one router from which on a higher rate of each is tried."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Replicas that a plan may count.

    Parameters
    ----------
    traffic
        Index of the class served.
    offer
        Index of the offer stood on.
    split, precision
        The deployment.
    rate
        Requests per second that a replica takes at most.
    npus, slot
        NPUs used, and NPUs of a host occupied.
    capacity
        What one replica covers of the class's demand.
    least
        Replicas behind one router that the rate needs; a plan counts none or as many.
    """

    traffic: int
    offer: int
    split: Parallelism
    rate: float
    precision: Precision
    npus: int
    slot: int
    capacity: float
    least: int = 1


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
    NPUs, covers as much, and needs no larger pool.

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
    for table in (table for table in tables if table.options):
        number = index[table.traffic.name]
        traffic = problem.traffic[number]
        share = confirmed(table, corrections)
        for pool, rates in _pooled_rates(table, traffic, problem.headroom, exact):
            _collect(found, table, number, offers, pool, rates * share)
    return [kept for group in found.values() for kept in undominated(group)]


def _pooled_rates(
    table: Table, traffic: TrafficClass, headroom: float, exact: bool
) -> Iterator[tuple[int, Floats]]:
    """Yield pools and the rate of a replica in each; 0 where it is not worth trying.

    A rate holds in its pool and in all larger ones: even arrivals make short waits, but
    a median may rise.
    """
    if not exact:
        yield 1, table.tabulated_rate(traffic.sized_targets) * table.groups
        return
    everything = np.arange(table.options)
    alone = table.highest_rate(traffic.sized_targets, everything)
    tried = [alone]
    if traffic.sized_targets and not traffic.is_closed:
        tried += _in_pools(table, traffic, alone, traffic.demand(headroom))
    holding = np.minimum.accumulate(tried[::-1], axis=0)[::-1]
    for pool, rates in zip(POOLS, holding, strict=False):
        yield pool, np.where(np.isfinite(rates), rates, 0.0) * table.groups


def _in_pools(
    table: Table, traffic: TrafficClass, alone: Floats, wanted: float
) -> Iterator[Floats]:
    """Yield the rates of a group in larger pools, at last in the largest of use.

    Infinite where a class needs no such pool. Bursts that one replica cannot take at
    any rate may be fine for several.
    """
    hopeless = np.inf if traffic.arrival_variation > 1 else 0.0
    most = _replicas(wanted, alone * table.groups, hopeless)
    for pool in POOLS[1:]:
        rates = np.full(table.options, np.inf)
        which = np.nonzero(most >= pool)[0]
        if len(which):
            rates[which] = table.highest_rate(traffic.sized_targets, which, pool)
        first = np.isinf(most) & (rates > 0)
        most = np.where(first, _replicas(wanted, rates * table.groups, np.inf), most)
        yield rates
    rates = np.full(table.options, np.inf)
    which = np.nonzero((most > 1) & np.isfinite(most))[0]
    if len(which):
        rates[which] = table.highest_rate(traffic.sized_targets, which, most[which])
    yield rates


def _replicas(wanted: float, each: Floats, none: float) -> Floats:
    """Return the replicas that cover a demand; `none` where they cover nothing."""
    return np.where(each > 0, np.ceil(wanted / np.where(each > 0, each, 1.0)), none)


def _capacity(table: Table, which: npt.NDArray[np.int64], rate: Floats) -> Floats:
    """Return what a replica covers of the demand at a rate of each of its groups.

    Requests per second, or by Little's law the requests in flight.
    """
    each = rate * table.groups[which]
    if not table.traffic.is_closed:
        return each
    seconds = table.laws_at(which, rate).figure("e2e", "mean")[..., 0]
    return np.asarray(each * seconds)


def _collect(
    found: dict[tuple[int, int], list[Candidate]],
    table: Table,
    number: int,
    offers: Sequence[Offer],
    pool: int,
    rates: Floats,
) -> None:
    """Add a candidate for each option with a rate and each offer that admits it."""
    which = np.nonzero(rates > 0)[0]
    if not len(which):
        return
    each = rates[which] / table.groups[which]
    capacity = _capacity(table, which, each)
    standing: dict[str, list[int]] = {}
    for position, option in enumerate(which):
        standing.setdefault(table.npus[table.npu_of[option]].name, []).append(position)
    for place, offer in enumerate(offers):
        for position in standing.get(offer.npu.name, ()):
            split = table.splits[table.split_of[which[position]]]
            if not offer.admits(split):
                continue
            npus = int(split.npus)
            found.setdefault((number, place), []).append(
                Candidate(
                    traffic=number,
                    offer=place,
                    split=split,
                    rate=float(rates[which[position]]),
                    precision=table.precision,
                    npus=npus,
                    slot=offer.slot(npus),
                    capacity=float(capacity[position]),
                    least=pool,
                )
            )


def undominated(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates of a group that cover more than all smaller ones."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=_simplest_first):
        if not any(
            other.capacity >= candidate.capacity and other.least <= candidate.least
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
