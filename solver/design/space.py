"""The platforms of a design problem as arrays: figures and costs by level."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from problems.design.statement import DesignProblem
from solver.design.forms import LINKS, ON_CHIP, RATES, RELOADS

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

DOMAIN = "scale_up_npus"


@dataclass(frozen=True)
class Space:
    """Every platform: one level of each figure, the slowest first.

    A platform is a row of levels, in the order of `names`. What an NPU costs is a sum
    of tables by level, of the places of its memory stacks, and of its dies, whose price
    is a rising function of their area; a distance is a sum of tables alone.
    """

    problem: DesignProblem

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Figures with levels of their own."""
        return self.problem.ladders.names

    @cached_property
    def sizes(self) -> Indices:
        """Levels of each."""
        return np.array([len(self.problem.ladders.levels[n]) for n in self.names])

    @cached_property
    def domain(self) -> int:
        """Position of the scale-up domain among the names."""
        return self.names.index(DOMAIN)

    @cached_property
    def domains(self) -> Floats:
        """NPUs of a domain by level."""
        return np.array(self.problem.ladders.levels[DOMAIN])

    @cached_property
    def capacities(self) -> Floats:
        """Bytes of memory by level."""
        return np.array(self.problem.ladders.levels["memory_capacity"])

    @cached_property
    def capacity(self) -> int:
        """Position of the memory capacity among the names."""
        return self.names.index("memory_capacity")

    def position(self, figure: str) -> int:
        """Return the position of the name whose level sets a figure."""
        return self.names.index(self.problem.ladders.source(figure))

    @cached_property
    def _slowness(self) -> dict[str, Floats]:
        """Latencies, and reciprocals of rates, over today's, by level."""
        today = self.problem.today.figures
        ladders = self.problem.ladders
        return {
            figure: np.array(ladders.values(figure)) / today[figure]
            if figure.endswith("latency")
            else today[figure] / np.array(ladders.values(figure))
            for figure in (*RATES, *LINKS)
        }

    def slowness(self, figure: str) -> Floats:
        """Return a latency, or the reciprocal of a rate, over today's, by level."""
        return self._slowness[figure]

    def rates(self, levels: Indices) -> Floats:
        """Return the reciprocal rates of platforms, and `RELOADS`; [platform, 5]."""
        found = self._columns(RATES, levels)
        lacking = self.lacking[levels[:, self.on_chip]]
        reloads = [found[:, 2] * lacking**power for power in RELOADS.values()]
        return np.concatenate([found, np.stack(reloads, axis=1)], axis=1)

    @cached_property
    def on_chip(self) -> int:
        """Position of the on-chip memory; of any name where the base's is unknown."""
        return self.names.index(ON_CHIP) if ON_CHIP in self.names else 0

    @cached_property
    def lacking(self) -> Floats:
        """Today's on-chip memory over that of each level; 1 where it is unknown."""
        if ON_CHIP not in self.names:
            return np.ones(int(self.sizes[0]))
        levels = np.array(self.problem.ladders.levels[ON_CHIP])
        return np.asarray(self.problem.today.figures[ON_CHIP] / levels)

    def links(self, levels: Indices) -> Floats:
        """Return the latencies and reciprocal bandwidths; shaped [platform, 4]."""
        return self._columns(LINKS, levels)

    def _columns(self, figures: tuple[str, ...], levels: Indices) -> Floats:
        return np.stack(
            [self._slowness[f][levels[:, self.position(f)]] for f in figures], axis=1
        )

    def table(self, each: Callable[[str, Floats], Floats]) -> list[Floats]:
        """Return the sums over figures of a function of their values, by level."""
        ladders = self.problem.ladders
        found = [np.zeros(size) for size in self.sizes]
        for figure in self.problem.today.figures:
            values = np.array(ladders.values(figure), dtype=float)
            found[self.position(figure)] += each(figure, values)
        return found

    @cached_property
    def usd(self) -> list[Floats]:
        """USD/h of each figure that depend on no other, by level."""
        model = self.problem.cost_model
        capital, watts = self.table(model.capital), self.watts
        pairs = zip(capital, watts, strict=True)
        return [
            model.usd_per_capital * usd + model.usd_per_watt * watt
            for usd, watt in pairs
        ]

    @cached_property
    def usd_fixed(self) -> float:
        """USD/h of an NPU that no figure changes."""
        model = self.problem.cost_model
        fixed = model.usd_per_watt * model.fixed_watts()
        return fixed + model.usd_per_capital * model.server_usd

    @cached_property
    def watts(self) -> list[Floats]:
        """Watts of each figure, by level."""
        return self.table(self.problem.cost_model.watts)

    @cached_property
    def area(self) -> list[Floats]:
        """Square millimetres of each figure, by level."""
        return self.table(self.problem.cost_model.mm2)

    @cached_property
    def stacks(self) -> list[Floats]:
        """Memory stacks that each figure asks for, by level; the most count."""
        model, ladders = self.problem.cost_model, self.problem.ladders
        return [model.stacks(n, np.array(ladders.levels[n])) for n in self.names]

    @cached_property
    def distances(self) -> list[Floats]:
        """Weighted distance of each figure from today's, by level."""
        weights, today = self.problem.weight_of, self.problem.today.figures
        levels = self.problem.ladders.levels
        return [
            weights[n] * np.abs(np.log(np.array(levels[n]) / today[n]))
            for n in self.names
        ]

    @cached_property
    def nearest(self) -> Indices:
        """Levels of the platform nearest to today's, whatever the weights."""
        today, levels = self.problem.today.figures, self.problem.ladders.levels
        ratios = [np.array(levels[n]) / today[n] for n in self.names]
        return np.array([int(np.argmin(np.abs(np.log(each)))) for each in ratios])

    @property
    def is_cost(self) -> bool:
        """Whether NPUs cost, and the objective is their sum."""
        return self.problem.objective == "cost"

    def package(self, stacks: Floats, area: Floats) -> Floats:
        """Return the USD/h of the dies and the stacks' places."""
        model = self.problem.cost_model
        return model.usd_per_capital * model.package_usd(stacks, area)

    def stacks_of(self, levels: Indices) -> Floats:
        """Return the memory stacks of platforms."""
        each = [table[levels[:, k]] for k, table in enumerate(self.stacks)]
        return np.asarray(np.max(each, axis=0))

    def area_of(self, levels: Indices) -> Floats:
        """Return the die area of platforms."""
        model = self.problem.cost_model
        own = model.die_mm2 + _sum(self.area, levels)
        return own + model.mm2_per_stack * self.stacks_of(levels)

    def watts_of(self, levels: Indices) -> Floats:
        """Return the watts of one NPU of platforms."""
        return self.problem.cost_model.fixed_watts() + _sum(self.watts, levels)

    def npu_usd(self, levels: Indices) -> Floats:
        """Return the USD/h of one NPU of platforms; shaped [platform]."""
        package = self.package(self.stacks_of(levels), self.area_of(levels))
        return self.usd_fixed + _sum(self.usd, levels) + package

    def distance(self, levels: Indices) -> Floats:
        """Return the distance of platforms from today's part."""
        return _sum(self.distances, levels)

    def allowed(self, levels: Indices) -> npt.NDArray[np.bool_]:
        """Return whether an NPU of platforms is within the limits; a bound for more."""
        limits = self.problem.limits
        found = np.ones(len(levels), dtype=bool)
        if limits.watts is not None:
            found &= self.watts_of(levels) <= limits.watts * (1 + 1e-9)
        found &= self.area_of(levels) <= limits.die_mm2 * (1 + 1e-9)
        return found & (self.stacks_of(levels) <= limits.stacks)

    def built(self, levels: Indices) -> npt.NDArray[np.bool_]:
        """Return whether memory stacks are as small as the capacity asks of platforms.

        More capacity never hinders, more bandwidth never helps: the largest stack holds
        twice what the smallest does or more.
        """
        held = self.capacities[levels[:, self.capacity]] * (1 + 1e-9)
        return np.asarray(held >= self.problem.stack_least * self.stacks_of(levels))

    def lifted(self, levels: Indices) -> Indices:
        """Return platforms with the memory that their bandwidth's stacks hold at least.

        Where no level is so much they get the largest, and cannot be built.
        """
        least = self.problem.stack_least * self.stacks_of(levels) * (1 - 1e-9)
        needed = np.searchsorted(self.capacities, least)
        found = levels.copy()
        found[:, self.capacity] = np.clip(
            needed, levels[:, self.capacity], len(self.capacities) - 1
        )
        return found

    def possible(self, levels: Indices) -> npt.NDArray[np.bool_]:
        """Return whether platforms can be built and are within the limits."""
        return self.allowed(levels) & self.built(levels)

    def excess(self, levels: Indices) -> Floats:
        """Return by how much platforms are over the limits, as a sum of shares."""
        limits = self.problem.limits
        over = self.area_of(levels) / limits.die_mm2 - 1.0
        found = np.maximum(over, 0.0)
        found += np.maximum(self.stacks_of(levels) / limits.stacks - 1.0, 0.0)
        if limits.watts is not None:
            found += np.maximum(self.watts_of(levels) / limits.watts - 1.0, 0.0)
        return found

    def slowed(self, position: int, level: int) -> float:
        """Return a latency, or the reciprocal of another figure, over the first's."""
        levels = self.problem.ladders.levels[self.names[position]]
        ratio = levels[level] / levels[0]
        return ratio if self.names[position].endswith("latency") else 1.0 / ratio

    def least_distance(self, low: Indices, high: Indices) -> Floats:
        """Return the least distance in boxes of levels."""
        return self.distance(np.clip(self.nearest, low, high))

    def chosen(self, levels: Indices) -> dict[str, int]:
        """Return one platform's levels by name."""
        return {
            name: int(level) for name, level in zip(self.names, levels, strict=True)
        }


def _sum(tables: list[Floats], levels: Indices) -> Floats:
    each = [table[levels[:, k]] for k, table in enumerate(tables)]
    return np.asarray(np.sum(each, axis=0))
