"""Workspaces of problems that are alike: each table is made once for all of them."""

from dataclasses import dataclass, field, replace
from typing import Any

from problems.offers import Offer, offers
from problems.problem import SizingProblem
from solver.solve import Workspace

_OF_TABLES = frozenset(
    {
        "model",
        "precisions",
        "chunk_tokens",
        "max_num_seqs",
        "framework",
        "confidence",
        "optimisations",
        "kv_bandwidth",
    }
)
_NOT_OF_TABLES = frozenset({"rate", "concurrency", "diurnal", "targets", "goodput"})
"""Fields of a problem that tables hang on, and of a class those that they do not."""


@dataclass(frozen=True)
class Workspaces:
    """Workspaces, one per model, lengths, arrivals and hardware.

    Problems that differ in targets, rates, limits, prices or what is minimised share
    their tables, and what was read from them.
    """

    _known: dict[str, Workspace] = field(default_factory=dict)

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
        return replace(self._known[key], problem=problem, offers=available)


def _key(problem: SizingProblem, available: tuple[Offer, ...]) -> str:
    """Return what the tables of a problem hang on."""
    classes: list[Any] = [
        (traffic.is_closed, traffic.model_dump_json(exclude=set(_NOT_OF_TABLES)))
        for traffic in problem.traffic
    ]
    stands = [(offer.npu.name, offer.host_npus, offer.whole) for offer in available]
    return repr((problem.model_dump_json(include=set(_OF_TABLES)), classes, stands))
