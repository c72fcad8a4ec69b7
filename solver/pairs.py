"""Disaggregated pairs beside the replicas of an instance that read and answer."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Self

from problems.problem import SizingProblem
from solver.corrections import NO_CORRECTIONS, Corrections
from solver.counted import Pairing
from solver.instance import Instance
from solver.model import SolveOptions, choose
from solver.pool_side import Pair, PoolSide
from solver.pool_table import Pools
from solver.prune import known_cost, least_per_capacity, whole_pairs
from solver.tabulation import Options

_ROUNDING = 1e-9

_FOR_A_KNOWN_PLAN = 5.0
"""Seconds to look for a plan that keeps the limits, before all candidates are known."""


@dataclass(frozen=True)
class Pairs:
    """The pools of all classes, and the candidates that were found of them.

    Parameters
    ----------
    pools
        Per class and precision.
    corrections
        As for `select`.
    """

    pools: tuple[Pools, ...]
    corrections: Corrections = field(default_factory=lambda: NO_CORRECTIONS)
    _found: dict[str, Instance] = field(default_factory=dict)

    @classmethod
    def of(cls, every: Iterable[Options], corrections: Corrections) -> Self:
        """Return the pools of some options."""
        pools = (options.pools for options in every)
        return cls(tuple(each for each in pools if each is not None), corrections)

    def beside(
        self,
        instance: Instance,
        problem: SizingProblem,
        usable: Collection[int],
        npu: str | None = None,
    ) -> Instance:
        """Return an instance with the candidates of pairs besides.

        Parameters
        ----------
        instance
            With the candidates that read and answer, if they may.
        problem
            What is asked.
        usable
            Offers that pairs may stand on.
        npu
            The only NPU type to use; None: all.
        """
        if not self.pools:
            return instance
        told = {"traffic", "headroom", "objective", "limits", "modes"}
        asked = f"{npu} {problem.model_dump_json(include=told)}"
        if asked not in self._found:
            known = _kept if instance.limited else known_cost
            self._found[asked] = _with_pairs(
                instance, self.pools, problem, self.corrections, known, npu
            )
        found = self._found[asked]
        pairs = [
            c for c in found.candidates if c.mode != "aggregated" and c.offer in usable
        ]
        return replace(
            instance,
            candidates=(*instance.candidates, *whole_pairs(pairs)),
            pairings=found.pairings,
            known=found.known,
        )


def _kept(instance: Instance) -> float:
    """Return what a plan costs that keeps the instance's limits; infinite if none."""
    if {c.traffic for c in instance.candidates} < set(range(len(instance.demand))):
        return math.inf
    choice = choose(instance, SolveOptions(time_limit=_FOR_A_KNOWN_PLAN))
    found = choice.status in ("optimal", "feasible")
    return choice.value if found else math.inf


def _with_pairs(
    instance: Instance,
    pools: Sequence[Pools],
    problem: SizingProblem,
    corrections: Corrections,
    known: Callable[[Instance], float],
    npu: str | None = None,
) -> Instance:
    """Return an instance with the candidates of disaggregated pairs besides.

    Parameters
    ----------
    instance
        With the candidates that read and answer, if they may.
    pools
        Per class and precision.
    problem, corrections
        As for `select`.
    known
        Returns what some plan of an instance costs that keeps its limits; infinity if
        none is known.
    npu
        The only NPU type to use; None: all.
    """
    number = {traffic.name: n for n, traffic in enumerate(problem.traffic)}
    sides = [
        PoolSide(instance, tuple(group), problem, number[name], corrections, npu)
        for (name, _), group in groupby(sorted(pools, key=_alike), key=_alike)
    ]
    trial = _joined(instance, (pair for side in sides for pair in side.promising()))
    cost = known(trial)
    most = _most(instance, sides, cost)
    found = (pair for side in sides for pair in side.pairs(most[side.number]))
    return replace(_joined(instance, found), known=cost)


def _joined(instance: Instance, pairs: Iterable[Pair]) -> Instance:
    """Return an instance with further pairings and their candidates."""
    candidates, pairings = list(instance.candidates), list(instance.pairings)
    for traffic, reads, answers in pairs:
        index = len(pairings)
        pairings.append(Pairing(traffic))
        candidates += (replace(c, pairing=index) for c in (*reads, *answers))
    return replace(instance, candidates=tuple(candidates), pairings=tuple(pairings))


def _alike(pools: Pools) -> tuple[str, str]:
    """Return what pools that may meet have in common: class and cache format."""
    return pools.traffic.name, str(pools.prefill.precision.kv_cache)


def _most(instance: Instance, sides: Sequence["PoolSide"], known: float) -> list[float]:
    """Return what each class may cost in a plan no dearer than a known one.

    The other classes cost at least what none undercuts.
    """
    least = [least_per_capacity(instance, n) for n in range(len(instance.demand))]
    for side in sides:
        least[side.number] = min(least[side.number], side.least)
    bound = [d * each for d, each in zip(instance.demand, least, strict=True)]
    if not math.isfinite(known - sum(bound)):
        return [math.inf] * len(bound)
    spare = known - sum(bound)
    return [(each + spare) * (1.0 + _ROUNDING) for each in bound]
