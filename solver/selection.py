"""Which candidates a problem leaves: tables read for its targets, none dominated.

What is dropped is in no plan that another does not match.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from problems.offers import Offer
from problems.problem import SizingProblem
from problems.survival import domain_hosts
from solver.candidates import Candidate, collect, undominated
from solver.corrections import NO_CORRECTIONS, Corrections, confirmed
from solver.race import Entrants, Race
from solver.settings import Setting
from solver.shared_kinds import undominated_kinds
from solver.table import Table


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
    pool; where few deployment types may serve several classes, if another type does
    so for all of them.

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
    spare = spare_replicas(problem, offers)
    races = [
        _Raced.of(group, problem, corrections, spare)
        for group in _groups(tables, problem, together=exact and not corrections)
    ]
    found: dict[tuple[int, int], list[Candidate]] = {}
    for raced in races:
        entrants = raced.race.unbeaten() if exact else raced.race.tabulated()
        raced.collect(found, offers, entrants)
    kept = [c for own in found.values() for c in undominated(own, spare=spare > 0)]
    if exact and _are_shared(problem, offers):
        return _of_shared_kinds(races, offers, {c.setting for c in kept}, spare)
    return kept


@dataclass(frozen=True, slots=True)
class _Raced:
    """Tables whose options are measured together, and the classes that they are of.

    Parameters
    ----------
    race, tables
        Of the largest demand; and a table per class.
    numbers, wanted
        Index and demand of each class.
    """

    race: Race
    tables: Sequence[Table]
    numbers: Sequence[int]
    wanted: Sequence[float]

    @classmethod
    def of(
        cls,
        tables: Sequence[Table],
        problem: SizingProblem,
        corrections: Corrections,
        spare: int,
    ) -> Self:
        """Return the race of some tables."""
        index = {traffic.name: i for i, traffic in enumerate(problem.traffic)}
        numbers = [index[table.traffic.name] for table in tables]
        wanted = [problem.traffic[n].demand(problem.headroom) for n in numbers]
        share = confirmed(tables[0], corrections)
        traffic = problem.traffic[numbers[0]]
        race = Race(tables[0], traffic, max(wanted), share, spare=spare)
        return cls(race, tables, numbers, wanted)

    def collect(
        self,
        found: dict[tuple[int, int], list[Candidate]],
        offers: Sequence[Offer],
        entrants: Entrants,
    ) -> None:
        """Add the candidates of each class."""
        several = len(self.tables) > 1 and not self.race.spare
        for table, number, demand in zip(
            self.tables, self.numbers, self.wanted, strict=True
        ):
            mine = entrants.useful(demand) if several else entrants
            collect(found, table, offers, mine, traffic=number)


def _are_shared(problem: SizingProblem, offers: Sequence[Offer]) -> bool:
    """Return whether a limit on deployment types ties classes, or offers, together."""
    types = Counter(offer.npu.name for offer in offers)
    return problem.limits.deployment_types is not None and (
        len(problem.traffic) > 1 or max(types.values(), default=0) > 1
    )


def _of_shared_kinds(
    races: Sequence[_Raced],
    offers: Sequence[Offer],
    settings: Collection[Setting],
    spare: int,
) -> list[Candidate]:
    """Return the candidates of all deployments that may be the best to share.

    At the settings that are the best of some deployment for some class.
    """
    found: dict[tuple[int, int], list[Candidate]] = {}
    for raced in races:
        table = raced.race.table
        tried = [n for n, each in enumerate(table.settings) if each in settings]
        number, option = np.nonzero(table.fits[tried])
        entrants = raced.race.measured(option, np.array(tried, dtype=np.int64)[number])
        raced.collect(found, offers, entrants)
    of_type: dict[str, list[Candidate]] = {}
    for (_, at), own in found.items():
        of_type.setdefault(offers[at].npu.name, []).extend(own)
    return [
        c for own in of_type.values() for c in undominated_kinds(own, spare=spare > 0)
    ]


MANY = 64
"""Classes from which on those that differ in nothing but how many requests they have
are measured together, at the largest demand: so rates hold in all pools of each."""


def _groups(
    tables: Sequence[Table], problem: SizingProblem, *, together: bool
) -> list[list[Table]]:
    """Return the tables, with those that may be measured together in one list."""
    index = {traffic.name: i for i, traffic in enumerate(problem.traffic)}
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
