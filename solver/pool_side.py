"""The prefill and decode candidates of a class, without those that cost too much.

Finding rates takes most of the time. What either pool costs per request is bounded
before: by saturation, and then by what the other pool was found to cost. A deployment
that would have to take more than it can, to be in a plan as cheap as one that is known,
has no rate looked for.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np

from model_ops.opcost import Number
from problems.plan import Mode
from problems.problem import SizingProblem
from problems.traffic import LatencyTarget
from solver.candidates import Candidate, collect, undominated
from solver.corrections import Corrections, confirmed
from solver.instance import Instance
from solver.pairing import Lane, lanes
from solver.pool_table import DecodeTable, Pools, PoolTable, evenly
from solver.race import Entrants, Race
from solver.selection import spare_replicas
from solver.table import Flags, Floats, Indices

_GLANCES = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
"""Shares of saturation that tell how much a decode deployment takes at most."""

_POOLS = (1, 4096)
"""Replicas behind a router in which no rate is lower than in any pool between: alone,
and with arrivals as even as they ever are. Mostly the latter's are higher, but a median
may rise, and where few answers fit even arrivals fill all places sooner."""

_AT_ONCE, _LEADERS = 16, 2
"""Deployments whose rates are found together; those of a place that are tried first."""

_OTHER: dict[Mode, Mode] = {"prefill": "decode", "decode": "prefill"}
_MODES = tuple(_OTHER)
_ROUNDING = 1e-9


Pair = tuple[int, list[Candidate], list[Candidate]]
"""A class, prefill candidates, and decode candidates that go with any of them."""


class Budget(NamedTuple):
    """What a class may cost at most, and a request per second of it at least.

    Both in the objective, whatever serves the class.
    """

    most: float
    usual: float


ENDLESS = Budget(math.inf, 0.0)


@dataclass(frozen=True)
class Best:
    """The least cost per request of a pool, and where it may be.

    Parameters
    ----------
    least
        Of a request per second, in the objective; no deployment undercuts it.
    costs
        About what it costs of each deployment, but rather less; per precision, shaped
        [setting, option].
    """

    least: float
    costs: tuple[Floats, ...]


@dataclass
class PoolSide:
    """A class's pools of one cache format.

    Parameters
    ----------
    instance
        With the candidates that read and answer, if they may.
    pools, number
        Per precision, and the index of the class.
    problem, corrections
        As for `select`.
    npu
        The only NPU type to use; None: all.
    best
        Of either pool, if it is known.
    """

    instance: Instance
    pools: tuple[Pools, ...]
    number: int
    problem: SizingProblem
    corrections: Corrections
    npu: str | None = None
    best: Mapping[Mode, Best] = field(default_factory=dict)
    _raced: dict[tuple[object, ...], Entrants] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wanted = self.instance.demand[self.number]
        if not self.best:
            self.best = {mode: self._best(mode) for mode in _MODES}

    def within(
        self, instance: Instance, problem: SizingProblem, npu: str | None
    ) -> Self:
        """Return the same for other limits, or one NPU type; nothing is looked up anew.

        Parameters
        ----------
        instance, problem, npu
            As for the class.
        """
        best = self.best if npu is None else {m: self._of(m, npu) for m in _MODES}
        own = (self.pools, self.number, problem, self.corrections)
        return type(self)(instance, *own, npu, best, self._raced)

    def least_of(self, npu: str) -> float:
        """Return the least cost of a request per second on NPUs of one type."""
        return sum(self._of(mode, npu).least for mode in _MODES)

    def _of(self, mode: Mode, npu: str) -> Best:
        """Return what is known of a pool on NPUs of one type."""
        costs = []
        for each, every in zip(self.pools, self.best[mode].costs, strict=True):
            table = each.pool(mode)
            own = np.array([known.name == npu for known in table.npus])
            costs.append(np.where(own[table.npu_of], every, np.inf))
        return Best(min(float(c.min(initial=np.inf)) for c in costs), tuple(costs))

    @property
    def least(self) -> float:
        """What a request per second of a pair costs at least, in the objective."""
        return sum(best.least for best in self.best.values())

    def pairs(self, budget: Budget) -> Iterator[Pair]:
        """Yield candidates that may be in a plan in which the class costs so much."""
        for lane in self._lanes(budget):
            partner = self.best["prefill"].least
            answers = self._candidates(lane, "decode", budget, partner)
            if answers:
                partner = min(self._per_capacity(c) for c in answers)
                reads = self._candidates(lane, "prefill", budget, partner)
                yield from self._placed(reads, answers)

    def promising(self) -> Iterator[Pair]:
        """Yield pairs of a few deployments that cost little per request, everywhere."""
        for lane in self._lanes(ENDLESS):
            pools: dict[Mode, list[Candidate]] = {}
            for mode in _MODES:
                found: dict[tuple[int, int], list[Candidate]] = {}
                for table, costs in zip(
                    lane.tables(self.pools, mode), self.best[mode].costs, strict=True
                ):
                    setting, option = self._leaders(table, costs)
                    entrants = self._race(table, 0.0, 0).measured(option, setting)
                    role = {"traffic": self.number, "mode": mode}
                    collect(found, table, self.instance.offers, entrants, **role)
                pools[mode] = self._usable(c for g in found.values() for c in g)
            yield from (pairs := list(self._placed(pools["prefill"], pools["decode"])))
            if pairs:
                break

    def _lanes(self, budget: Budget) -> list[Lane]:
        """Return the lanes of deployments that may be in a plan that costs so much."""
        useful = {mode: self._useful(mode, budget) for mode in _MODES}
        if not all(any(np.any(each) for each in some) for some in useful.values()):
            return []
        return lanes(self.pools, self.problem.kv_bandwidth, useful)

    def _useful(self, mode: Mode, budget: Budget) -> list[Flags]:
        """Return which deployments could take enough; see `Useful`."""
        partner = self.best[_OTHER[mode]].least
        found = []
        for each, costs in zip(self.pools, self.best[mode].costs, strict=True):
            table = each.pool(mode)
            with np.errstate(divide="ignore", invalid="ignore"):
                rates = self._prices(table) / costs.min(axis=0)
            floor = self._floor(table, budget, partner)
            found.append((rates >= floor) & (rates > 0.0))
        return found

    def _leaders(self, table: PoolTable, costs: Floats) -> tuple[Indices, Indices]:
        """Return the cheapest deployments in each place: settings and options."""
        offers = self.instance.offers
        usable = costs * np.where(np.asarray(table.ceiling) > 0, 1.0, np.inf)
        chosen: set[int] = set()
        for where in dict.fromkeys(offer.place for offer in offers):
            here = [n for n, offer in enumerate(offers) if offer.place == where]
            stands = table.admitted[here].any(axis=0)
            flat = np.where(stands, usable, np.inf).ravel()
            order = np.argsort(flat, kind="stable")[:_LEADERS]
            chosen.update(order[np.isfinite(flat[order])].tolist())
        setting, option = np.unravel_index(sorted(chosen), costs.shape)
        return np.asarray(setting, dtype=np.int64), np.asarray(option, dtype=np.int64)

    def _placed(
        self, reads: Sequence[Candidate], answers: Sequence[Candidate]
    ) -> Iterator[Pair]:
        """Yield candidates place by place: caches travel within one."""
        offers = self.instance.offers
        for where in dict.fromkeys(offers[c.offer].place for c in answers):
            read, answer = (
                [c for c in pool if offers[c.offer].place == where]
                for pool in (reads, answers)
            )
            if read and answer:
                yield self.number, read, answer

    def _candidates(
        self, lane: Lane, mode: Mode, budget: Budget, partner: float
    ) -> list[Candidate]:
        """Return one pool's candidates.

        Parameters
        ----------
        budget
            What the class may cost.
        partner
            What a request per second costs the other pool at least.
        """
        found: dict[tuple[int, int], list[Candidate]] = {}
        spare = spare_replicas(self.problem, self.instance.offers)
        for table in lane.tables(self.pools, mode):
            floor = self._floor(table, budget, partner)
            terms = (
                replace(table.terms, per_token=0.0)
                if mode == "prefill"
                else table.terms
            )
            key = (
                mode,
                id(table.engines),
                terms,
                floor.tobytes(),
                np.asarray(table.ceiling).tobytes(),
                spare,
            )
            if key not in self._raced:
                self._raced[key] = self._race(table, floor, spare).unbeaten()
            role = {"traffic": self.number, "mode": mode}
            collect(found, table, self.instance.offers, self._raced[key], **role)
        return self._usable(
            kept
            for group in found.values()
            for kept in undominated(group, spare=spare > 0)
        )

    def _usable(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return those that need no others, where hosts may fail."""
        safe = self.instance.redundancy.domains > 0
        return [c for c in candidates if not (safe and c.least > 1)]

    def _race(self, table: PoolTable, floor: Number, spare: int) -> Race:
        """Return the race of a pool's deployments."""
        traffic = self.problem.traffic[self.number]
        if isinstance(table, DecodeTable):
            traffic = evenly(traffic)
        share = confirmed(table, self.corrections)
        return Race(table, traffic, self.wanted, share, floor, spare)

    def _floor(self, table: PoolTable, budget: Budget, partner: float) -> Floats:
        """Return what a replica must take if its class may cost so much; [option].

        What it takes saves what the class costs at least, but for the other pool's
        least.
        """
        price = self._prices(table)
        most, usual = budget
        if math.isinf(most):
            return np.zeros_like(price)
        needed = price + self.wanted * usual - most
        return np.asarray((1.0 - _ROUNDING) * _over(needed, usual - partner))

    def _prices(self, table: PoolTable) -> Floats:
        """Return the least that a replica costs, its hosts full; shaped [option]."""
        instance = self.instance
        each = np.array([[instance.unit_cost(offer)] for offer in instance.offers])
        price = np.min(np.where(table.admitted, each, np.inf), axis=0)
        if self.npu is not None:
            own = np.array([npu.name == self.npu for npu in table.npus])
            price = np.where(own[table.npu_of], price, np.inf)
        return np.asarray(price * table.npus_per_group * table.groups)

    def _per_capacity(self, candidate: Candidate) -> float:
        offer = self.instance.offers[candidate.offer]
        return candidate.npus * self.instance.unit_cost(offer) / candidate.capacity

    def _best(self, mode: Mode) -> Best:
        """Return the least cost of a pool's requests, were caches to arrive at once."""
        found = [self._cheapest(each.pool(mode)) for each in self.pools]
        return Best(
            min(least for least, _ in found), tuple(costs for _, costs in found)
        )

    def _cheapest(self, table: PoolTable) -> tuple[float, Floats]:
        """Return the least cost of a request per second, and about that of each option.

        Bounds of rates say where to look first; none is left whose bound is lower.
        """
        price = self._prices(table) / table.groups
        with np.errstate(divide="ignore"):
            costs = np.where(table.fits, price / self._at_most(table), np.inf)
        flat, new = costs.ravel(), np.isfinite(costs).ravel()
        least = math.inf
        while True:
            waiting = np.nonzero(new & (flat < least))[0]
            if not len(waiting):
                return least, costs
            some = waiting[np.argsort(flat[waiting], kind="stable")[:_AT_ONCE]]
            setting, option = np.unravel_index(some, costs.shape)
            rates = np.max(
                [
                    table.highest_rate(self._targets, option, pool, setting)
                    for pool in _POOLS
                ],
                axis=0,
            )
            with np.errstate(divide="ignore"):
                flat[some] = price[option] / rates
            new[some] = False
            least = min(least, float(flat[some].min()))

    @property
    def _targets(self) -> tuple[LatencyTarget, ...]:
        return self.problem.traffic[self.number].sized_targets

    def _at_most(self, table: PoolTable) -> Floats:
        """Return rates of a group that are never exceeded; shaped [setting, option].

        Where all steps read prompts, that of saturation is close enough.
        """
        most = [table.saturation_at(n) for n in range(len(table.settings))]
        rates = table.most_load * np.array(most)
        if not isinstance(table, DecodeTable):
            return rates
        tried, every = table.saturation[:, None] * _GLANCES, np.arange(table.options)
        over = [table.excess(self._targets, every, tried, p) for p in _POOLS]
        missed = np.min(over, axis=0) > 0
        first = np.where(missed, tried, np.inf).min(axis=1, initial=np.inf)
        return np.asarray(np.minimum(first, rates))


def _over(needed: Floats, gain: float) -> Floats:
    """Return the rate at which a gain per request makes up for what is needed."""
    if gain > 0.0 and math.isfinite(gain):
        return np.maximum(needed / gain, 0.0)
    return np.where(needed <= 0.0, 0.0, np.inf)
