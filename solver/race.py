"""The rates of the deployments that others do not beat, without finding those of all.

A deployment at a setting is beaten where one of as few NPUs, on the same offers and in
no larger pool, takes as much. Whether it holds its targets at the rate that it would
have to take costs one evaluation, a tenth of finding its highest rate; that is found
only of those that do, the most promising ones first, so that the bars rise quickly.
What is dropped is beaten: nothing is lost by it.
"""

from dataclasses import dataclass, field

import numpy as np

from model_ops.opcost import Number
from model_ops.serving.server import Server
from problems.traffic import TrafficClass
from solver.table import Flags, Floats, Indices, Table

POOLS = (1, 2, 4, 8, 16, 32)
"""Replicas behind one router from which on a higher rate of each is tried."""

WORTHWHILE = 0.005
"""Share of a rate that another setting than the default must bring to be tried out."""

_GLANCES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
"""Shares of saturation that tell which options to look at first."""

_LITTLE_ROUNDS = 8
_CROWDED = 8.0
"""Requests that decode where prompts lengthen the steps, over those where none does."""

_HARDLY = 3e-4
"""Share of saturation, below those that are tried for a highest rate."""


@dataclass(frozen=True)
class Entrants:
    """Options at settings, their rates and what they cover; by pool and entrant.

    Parameters
    ----------
    option, setting
        Indices in the table; shaped [entrant].
    rates, capacity
        Of a replica, in each of `POOLS`; 0 where it is of no use. Shaped
        [pool, entrant].
    """

    option: Indices
    setting: Indices
    rates: Floats
    capacity: Floats

    def useful(self, wanted: float) -> "Entrants":
        """Return the same without pools larger than those that cover a demand."""
        pools = np.array(POOLS, dtype=float)[:-1, None]
        enough = np.zeros(self.rates.shape, dtype=bool)
        enough[1:] = self.capacity[:-1] * pools >= wanted
        rates = np.where(enough, 0.0, self.rates)
        return Entrants(self.option, self.setting, rates, self.capacity)

    def joined(self, others: "Entrants") -> "Entrants":
        """Return these and others."""
        return Entrants(
            np.concatenate([self.option, others.option]),
            np.concatenate([self.setting, others.setting]),
            np.concatenate([self.rates, others.rates], axis=1),
            np.concatenate([self.capacity, others.capacity], axis=1),
        )


@dataclass
class Race:
    """One class's options on their way to the bars.

    Parameters
    ----------
    table, traffic, wanted
        The options; the class with its targets; and the demand to cover.
    share
        Share of each rate that counts; shaped [setting, option].
    floor
        What an option must cover to be of any use; a number, or shaped [option].
    spare
        Replicas that a plan may have beside those that cover the demand.
    """

    table: Table
    traffic: TrafficClass
    wanted: float
    share: Floats
    floor: Number = 0.0
    spare: int = 0
    sizes: Indices = field(init=False)
    least: Floats = field(init=False)
    scale: Floats = field(init=False)
    stands: Flags = field(init=False)

    def __post_init__(self) -> None:
        npus = np.array([int(split.npus) for split in self.table.splits])
        self.sizes = npus[self.table.split_of]
        self.least = _HARDLY * self.table.saturation
        # What counts for nothing is of no use, and never asked for a rate.
        counts = np.where(self.share > 0, self.share, 1.0)
        self.scale = 1.0 / (self.table.groups * counts)
        self.stands = np.unique(self.table.admitted, axis=0)

    def unbeaten(self) -> Entrants:
        """Return entrants with their rates, among them all that none other beats.

        At the default setting at first; then what was measured is tried at the others,
        which lifts the bars; then all that is left.
        """
        table = self.table
        usable = table.fits & (self.share > 0) & np.isfinite(self.floor)
        everything = np.arange(table.options)
        default = np.zeros_like(usable)
        default[0] = True
        if self.traffic.is_closed:
            known = self.measured(everything, 0 * everything)
            covered = np.where(known.capacity[0] > 0, known.capacity[0], np.inf)
            self.scale = known.rates[0] / covered * self.scale
        else:
            known = self._raced(self._first(usable & default), usable & default)
        if len(table.settings) == 1:
            return known
        tried = np.isin(everything, known.option)
        others = usable & ~default & self._of_use(self.bars(known)[0])
        known = self._raced(known, others & tried)
        return self._raced(known, others & ~tried)

    def _first(self, waiting: Flags) -> Entrants:
        """Return the most promising at a glance; nobody, where a floor tells more."""
        lead = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        if not np.any(self.floor):
            promise = np.where(waiting, self._glance(), 0.0)
            lead = self._leaders(promise, waiting)
        return self.measured(*lead)

    def _raced(self, known: Entrants, waiting: Flags) -> Entrants:
        """Return what is known with those of them that wait who may not be beaten."""
        waiting = waiting.copy()
        waiting[known.setting, known.option] = False
        promise = np.zeros(waiting.shape)
        while True:
            self._drop_beaten(waiting, promise, self.bars(known))
            lead = self._leaders(promise, waiting)
            if not len(lead[0]):
                return known
            known = known.joined(self.measured(*lead))
            waiting[lead[::-1]] = False

    def tabulated(self) -> Entrants:
        """Return all options, their rates alone read roughly.

        With the default batch, and the default, the shortest and the longest steps.
        """
        table, option = self.table, np.arange(self.table.options)
        tried = sorted(range(len(table.settings)), key=self._chunk_of)
        usual = [n for n in tried if table.settings[n].batch == table.settings[0].batch]
        rates = {
            n: self.share[n] * table.tabulated_rate(self.traffic.sized_targets, n)
            for n in {0, usual[0], usual[-1]}
        }
        every = np.stack(list(rates.values()))
        setting = np.array(list(rates))[every.argmax(axis=0)]
        alone = np.zeros((len(POOLS), len(option)))
        alone[0] = every.max(axis=0) * table.groups
        return Entrants(option, setting, alone, self._capacity(option, setting, alone))

    def _chunk_of(self, setting: int) -> int:
        return self.table.settings[setting].chunk_tokens

    def bars(self, known: Entrants) -> Floats:
        """Return what an option must cover not to be beaten; shaped [pool, option].

        The least over the offers that admit it: there it stands for itself.
        """
        table = self.table
        most = np.zeros((len(POOLS), table.options))
        for row, capacity in zip(most, known.capacity, strict=True):
            np.maximum.at(row, known.option, capacity)
        most = np.maximum.accumulate(most, axis=0)
        bars = np.full(most.shape, np.inf)
        for admitted in self.stands:
            best = self._best(np.where(admitted, most, 0.0))
            bars = np.where(admitted, np.minimum(bars, best), bars)
        return np.asarray(np.maximum(bars, self.floor))

    def _best(self, covered: Floats) -> Floats:
        """Return the most that those who may stand in for an option cover.

        Those of no more NPUs; but where replicas may be spare of as many alone, since
        smaller ones lose more where a host fails, and keep fewer NPUs in use.

        Parameters
        ----------
        covered
            By each option; shaped [pool, option].
        """
        sizes, of_size = np.unique(self.sizes, return_inverse=True)
        best = np.zeros((len(covered), len(sizes)))
        for row, own in zip(best, covered, strict=True):
            np.maximum.at(row, of_size, own)
        if not self.spare:
            best = np.maximum.accumulate(best, axis=1)
        return np.asarray(best[:, of_size])

    def _of_use(self, bars: Floats) -> Flags:
        """Return which settings matter to options at bars; shaped as `fits`.

        A batch does that is not below those that decode beside no prompts, by Little's
        law, nor far above them.
        """
        table, scale = self.table, self.scale.min(axis=0)
        rates = np.maximum(bars * scale, self.least)
        server = Server.of(table.engines, table.profile)
        decoding = np.ones_like(server.chunk)
        for _ in range(_LITTLE_ROUNDS):
            step = server.decode_step(np.clip(decoding, 1.0, server.max_sequences))
            decoding = rates[:, None] * server.steps * step
        low, high = decoding[:, 0], _CROWDED * decoding[:, 0]
        usual = table.settings[0].batch
        return np.array(
            [
                (low <= setting.batch) & (setting.batch <= high)
                | (setting.batch == usual)
                for setting in table.settings
            ]
        )

    def _glance(self) -> Floats:
        """Return about what options cover at the default setting; shaped [option]."""
        everything = np.arange(self.table.options)
        rates = self.table.saturation[:, None] * _GLANCES
        over = self.table.excess(self.traffic.sized_targets, everything, rates)
        held = np.max(np.where(over <= 0.0, rates, 0.0), axis=1)
        return np.asarray((held + self.least) / self.scale[0])

    def _leaders(self, promise: Floats, waiting: Flags) -> tuple[Indices, Indices]:
        """Return the most promising that wait, per offer and size: option, setting."""
        setting, option = np.nonzero(waiting)
        order = np.argsort(-promise[setting, option], kind="stable")
        setting, option = setting[order], option[order]
        lead: set[int] = set()
        for admitted in self.stands:
            here = np.nonzero(admitted[option])[0]
            _, first = np.unique(self.sizes[option[here]], return_index=True)
            lead.update(here[first].tolist())
        chosen = np.array(sorted(lead), dtype=np.int64)
        return option[chosen], setting[chosen]

    def _drop_beaten(self, waiting: Flags, promise: Floats, bars: Floats) -> None:
        """Take out of those that wait who misses its targets at every bar.

        First all in the largest pool of use, at the lowest bar: a rate must hold in all
        larger pools, too. What is beaten alone needs as many replicas as what beats it
        or more; and in a pool of more than those, what beats it covers the demand.
        """
        setting, option = np.nonzero(waiting)
        needed = self._needed(bars[0])
        largest = np.searchsorted(POOLS, needed, side="right") - 1
        over = self._excess(option, setting, bars[0], largest[option])
        failed = over > 0.0
        waiting[setting[failed], option[failed]] = False
        setting, option = setting[~failed], option[~failed]
        best = np.full(len(option), np.inf)
        for number in range(len(POOLS)):
            todo = np.nonzero((best > 0.0) & (largest[option] >= number))[0]
            pools = np.full(len(todo), number)
            over = self._excess(option[todo], setting[todo], bars[number], pools)
            best[todo] = np.minimum(best[todo], over)
        promise[setting, option] = -best
        waiting[setting, option] = best <= 0.0

    def _excess(
        self, option: Indices, setting: Indices, bars: Floats, pools: Indices
    ) -> Floats:
        """Return by how much a target is missed at bars shaped [option]; [asked].

        `pools` are places in `POOLS`, shaped [asked].
        """
        if not len(option):
            return np.zeros(0)
        return self.table.excess(
            self.traffic.sized_targets,
            option,
            self._at(option, setting, bars)[:, None],
            np.asarray(POOLS)[pools],
            setting,
        )[:, 0]

    def _at(self, option: Indices, setting: Indices, bars: Floats) -> Floats:
        """Return the rate of a group that takes an entrant to its bar; [asked]."""
        worth = np.where(setting > 0, 1.0 + WORTHWHILE, 1.0)
        rates = worth * bars[option] * self.scale[setting, option]
        return np.maximum(rates, self.least[option])

    @property
    def _pools(self) -> bool:
        """Whether a class has use for pools."""
        traffic = self.traffic
        even = traffic.router != "random" or traffic.arrival_variation > 1
        # Where few answers fit, even arrivals fill all places of a decode pool sooner.
        asked = bool(traffic.sized_targets) or self.table.mode == "decode"
        return asked and even and not traffic.is_closed

    @property
    def _hopeless(self) -> float:
        """Replicas that may help where one covers nothing: bursts may be dealt out."""
        return np.inf if self.traffic.arrival_variation > 1 else 0.0

    def _needed(self, bars: Floats) -> Floats:
        """Return the replicas that cover the demand at bars; 1 where pools are idle."""
        if not self._pools:
            return np.ones_like(bars)
        needed = _replicas(self.wanted, bars, self._hopeless)
        return np.asarray(np.maximum(needed + self.spare, 1.0))

    def measured(self, option: Indices, setting: Indices) -> Entrants:
        """Return entrants with their rates in all pools.

        A rate holds in its pool and in all larger ones, to the largest of use: even
        arrivals make short waits, but a median may rise.
        """
        tried = self._tried(option, setting)
        holding = np.minimum.accumulate(tried[::-1], axis=0)[::-1]
        groups, share = self.table.groups[option], self.share[setting, option]
        rates = np.where(np.isfinite(tried), holding, 0.0)[:-1] * groups * share
        capacity = self._capacity(option, setting, rates)
        # What grows without end at its highest rate is of no use at any.
        useful = np.isfinite(capacity)
        return Entrants(
            option,
            setting,
            np.where(useful, rates, 0.0),
            np.where(useful, capacity, 0.0),
        )

    def _tried(self, option: Indices, setting: Indices) -> Floats:
        """Return the rates of a group in each pool, at last in the largest of use.

        Infinite where a class has no use for such a pool. Bursts that one replica
        cannot take at any rate may be fine for several.
        """
        each = self.table.groups[option] * self.share[setting, option]
        tried = np.full((len(POOLS) + 1, len(option)), np.inf)
        tried[:1] = self._highest(option, setting, np.ones((1, len(option))))
        if not self._pools:
            return tried
        most = _replicas(self.wanted, tried[0] * each, self._hopeless)
        most = np.where(most > 0, most + self.spare, most)
        pools = np.array(POOLS, dtype=float)[1:, None]
        tried[1:-1] = self._highest(
            option, setting, np.where(pools <= most, pools, np.nan)
        )
        for pool, rates in zip(POOLS[1:], tried[1:-1], strict=True):
            first = np.isinf(most) & (rates > 0)
            covering = _replicas(self.wanted, rates * each, np.inf)
            most = np.where(first, np.maximum(covering, pool), most)
        tried[1:-1][pools > most] = np.inf
        several = np.where((most > 1) & np.isfinite(most), most, np.nan)
        tried[-1:] = self._highest(option, setting, several[None])
        return tried

    def _highest(self, option: Indices, setting: Indices, pools: Floats) -> Floats:
        """Return the highest rates of groups in pools shaped [pool, entrant].

        Infinite where no pool is asked for.
        """
        rates = np.full(pools.shape, np.inf)
        row, place = np.nonzero(np.isfinite(pools))
        if len(place):
            rates[row, place] = self.table.known.highest(
                self.table,
                self.traffic.sized_targets,
                option[place],
                pools[row, place],
                setting[place],
            )
        return rates

    def _capacity(self, option: Indices, setting: Indices, rates: Floats) -> Floats:
        """Return what replicas cover of the demand at rates [pool, entrant].

        Requests per second, or by Little's law the requests in flight.
        """
        capacity, some = np.zeros_like(rates), np.nonzero(rates[0] > 0)[0]
        if not self.traffic.is_closed or not len(some):
            return rates
        each = rates[0, some] / self.table.groups[option[some]]
        laws = self.table.laws_at(option[some], each, setting[some])
        capacity[0, some] = rates[0, some] * laws.figure("e2e", "mean")[..., 0]
        return capacity


def _replicas(wanted: float, each: Floats, none: float) -> Floats:
    """Return the replicas that cover a demand; `none` where they cover nothing."""
    return np.where(each > 0, np.ceil(wanted / np.where(each > 0, each, 1.0)), none)
