"""Workspaces of problems that are alike: each table is made once for all of them."""

from dataclasses import dataclass, field, replace
from typing import Any

from problems.offers import Offer, offers
from problems.problem import SizingProblem
from solver.pairs import Pairs
from solver.solve import Workspace

_OF_A_FLEET = frozenset({"owned", "current", "redundancy"})
_NOT_OF_TABLES = _OF_A_FLEET | {
    *("title", "traffic", "hardware", "prices", "limits", "objective", "headroom")
}
_NOT_OF_A_CLASS = frozenset({"rate", "concurrency", "diurnal", "targets", "goodput"})
"""Fields of a problem, and of a class, that tables do not hang on; offers may."""


@dataclass(frozen=True)
class Workspaces:
    """Workspaces, one per model, lengths, arrivals and hardware.

    Problems that differ in targets, rates, limits, prices or what is minimised share
    their tables, and what was read from them.
    """

    _known: dict[str, Workspace] = field(default_factory=dict)
    _pairs: dict[str, Pairs] = field(default_factory=dict)

    def of(self, problem: SizingProblem) -> Workspace:
        """Return the workspace of a problem, with its own prices.

        Raises
        ------
        GenzSizeError
            If the problem names no usable hardware or price.
        """
        available = tuple(offers(problem))
        key = _key(problem, available)
        if key not in self._known:
            self._known[key] = Workspace.of(problem)
        known = self._known[key]
        # Which pairs are of use hangs on prices, and on what is there.
        prices = [offer.usd_per_hour_per_npu for offer in available]
        fleet = problem.model_dump_json(include=set(_OF_A_FLEET))
        pairs = self._pairs.setdefault(repr((key, prices, fleet)), known.pairs.anew())
        return replace(known, problem=problem, offers=available, pairs=pairs)


def _key(problem: SizingProblem, available: tuple[Offer, ...]) -> str:
    """Return what the tables of a problem hang on."""
    classes: list[Any] = [
        (traffic.is_closed, traffic.model_dump_json(exclude=set(_NOT_OF_A_CLASS)))
        for traffic in problem.traffic
    ]
    stands = [(offer.npu.name, offer.host_npus, offer.whole) for offer in available]
    return repr((problem.model_dump_json(exclude=set(_NOT_OF_TABLES)), classes, stands))
