"""Disaggregated pairs beside the replicas of an instance that read and answer."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Self

from problems.problem import SizingProblem
from solver.corrections import NO_CORRECTIONS, Corrections
from solver.counted import Pairing
from solver.instance import Instance
from solver.leads import kept_cost
from solver.pool_side import Budget, Pair, PoolSide
from solver.pool_table import Pools
from solver.prune import known_cost, least_per_capacity, whole_pairs
from solver.tabulation import Options

_ROUNDING = 1e-9


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
    _sides: dict[str, list[PoolSide]] = field(default_factory=dict)

    @classmethod
    def of(cls, every: Iterable[Options], corrections: Corrections) -> Self:
        """Return the pools of some options."""
        pools = (options.pools for options in every)
        return cls(tuple(each for each in pools if each is not None), corrections)

    def anew(self) -> Self:
        """Return the same pools, of which nothing was found yet: at other prices."""
        return type(self)(self.pools, self.corrections)

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
        told |= {"redundancy", "current"}
        asked = f"{npu} {problem.model_dump_json(include=told)}"
        if asked not in self._found:
            every = self._every(instance, problem)
            sides = [side.within(instance, problem, npu) for side in every]
            self._found[asked] = _with_pairs(instance, sides)
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

    def least(
        self, instance: Instance, problem: SizingProblem, npu: str
    ) -> list[float]:
        """Return what each class's requests per second cost at least, on one NPU type.

        Infinite where no pair of such NPUs may serve a class.
        """
        least = [math.inf] * len(problem.traffic)
        for side in self._every(instance, problem) if self.pools else ():
            least[side.number] = min(least[side.number], side.least_of(npu))
        return least

    def _every(self, instance: Instance, problem: SizingProblem) -> list[PoolSide]:
        """Return the pools of each class and cache format, with what they cost."""
        told = {"traffic", "headroom", "objective"}
        asked = problem.model_dump_json(include=told)
        if asked not in self._sides:
            number = {traffic.name: n for n, traffic in enumerate(problem.traffic)}
            self._sides[asked] = [
                PoolSide(
                    instance, tuple(group), number[name], problem, self.corrections
                )
                for (name, _), group in groupby(
                    sorted(self.pools, key=_alike), key=_alike
                )
            ]
        return self._sides[asked]


def _with_pairs(instance: Instance, sides: Sequence[PoolSide]) -> Instance:
    """Return an instance with the candidates of disaggregated pairs besides.

    A plan that keeps the limits is found first, of aggregated replicas and the most
    promising pairs; what could be in none that is cheaper is not looked for.
    """
    trial = _joined(instance, (pair for side in sides for pair in side.promising()))
    known = kept_cost(trial) if instance.limited else known_cost(trial)
    budgets = _budgets(instance, sides, known)
    found = (pair for side in sides for pair in side.pairs(budgets[side.number]))
    return replace(_joined(instance, found), known=known)


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


def _budgets(
    instance: Instance, sides: Sequence[PoolSide], known: float
) -> list[Budget]:
    """Return what each class may cost in a plan no dearer than a known one.

    The other classes cost at least what none undercuts.
    """
    least = [least_per_capacity(instance, n) for n in range(len(instance.demand))]
    for side in sides:
        least[side.number] = min(least[side.number], side.least)
    bound = [d * each for d, each in zip(instance.demand, least, strict=True)]
    spare = known - sum(bound)
    if not math.isfinite(spare):
        spare = math.inf
    return [
        Budget((own + spare) * (1.0 + _ROUNDING), usual)
        for own, usual in zip(bound, least, strict=True)
    ]
