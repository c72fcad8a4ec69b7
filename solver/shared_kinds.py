"""Candidates where few deployment types are allowed: one may serve several classes.

A deployment that is the best of its size for no class may still be the one that serves
all of them. So whole deployments are dropped, not candidates: where another of no more
NPUs, on the same offers, covers as much of every class.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from solver.candidates import Candidate, simplest_first, undominated
from solver.race import POOLS
from solver.table import Flags, Floats


def undominated_kinds(
    candidates: Sequence[Candidate], *, spare: bool
) -> list[Candidate]:
    """Return the candidates of deployments that no other matches for every class.

    Parameters
    ----------
    candidates
        Of one mode and NPU type, of all classes and offers.
    spare
        Whether replicas may be spare: see `undominated`.
    """
    kinds: dict[Hashable, list[Candidate]] = {}
    for candidate in sorted(candidates, key=simplest_first):
        kinds.setdefault(candidate.kind, []).append(candidate)
    groups = list(kinds.values())
    covered = _covered(groups)
    npus = np.array([group[0].npus for group in groups])
    kept: list[Candidate] = []
    for number, group in enumerate(groups):
        if not _matched(number, covered, npus, spare=spare):
            kept += _in_pools(group)
    return kept


def _covered(groups: Sequence[Sequence[Candidate]]) -> Floats:
    """Return what a replica covers at most; shaped [kind, class, offer, and pool]."""
    places: Mapping[tuple[int, int], int] = {
        place: number
        for number, place in enumerate(
            sorted({(c.traffic, c.offer) for group in groups for c in group})
        )
    }
    pools = {size: number for number, size in enumerate(POOLS)}
    covered = np.zeros((len(groups), len(places), len(POOLS)))
    for kind, group in enumerate(groups):
        for c in group:
            at = (kind, places[c.traffic, c.offer], pools[c.least])
            covered[at] = max(covered[at], c.capacity)
    most = np.maximum.accumulate(covered, axis=2)
    return np.asarray(most.reshape(len(groups), -1))


def _matched(number: int, covered: Floats, npus: Floats, *, spare: bool) -> bool:
    """Return whether another kind of no more NPUs covers as much everywhere."""
    able: Flags = npus == npus[number] if spare else npus <= npus[number]
    others = np.flatnonzero(able & np.all(covered >= covered[number], axis=1))
    same = np.all(covered[others] == covered[number], axis=1)
    same &= npus[others] == npus[number]
    # Of those that are alike in all, the first stands.
    return bool(np.any(~same | (others < number)))


def _in_pools(group: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates of a kind that cover more than in smaller pools."""
    places: dict[tuple[int, int], list[Candidate]] = {}
    for c in group:
        places.setdefault((c.traffic, c.offer), []).append(c)
    return [c for own in places.values() for c in undominated(own)]
