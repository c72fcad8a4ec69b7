"""What a plan may count: deployments at their highest rates on what they stand on.

Per offer those are of use that no smaller replica and no smaller pool matches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_ops.dtypes import Precision
from model_ops.profiler.parallelism import Parallelism
from problems.offers import Offer
from solver.counted import Counted
from solver.race import POOLS, Entrants
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
    for candidate in sorted(candidates, key=simplest_first):
        if not any(
            other.capacity >= candidate.capacity
            and other.least <= candidate.least
            and (other.npus == candidate.npus or not spare)
            for other in kept
        ):
            kept.append(candidate)
    return kept


def simplest_first(candidate: Candidate) -> tuple[float, ...]:
    """Return what sorts candidates by size, then by what they cover."""
    split = candidate.split
    degrees = (split.pp, split.dp, split.ep, split.tp)
    return (
        candidate.npus,
        -candidate.capacity,
        candidate.least,
        *map(float, degrees),
    )
