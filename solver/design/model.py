"""The design problem as CP-SAT constraints, over the boxes and shapes that are left.

Times are integers in ticks and reciprocal rates integers q over a figure's least; every
coefficient rounds up, every limit down, so that what holds in integers holds in floats.
For a shape, what an operator group takes is several linear functions of q, of which the
sum of operators is the largest (`facets`), and one algorithm per collective is chosen.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from ortools.sat.python import cp_model

from model_ops.errors import SolverError
from solver.design.bounds import Choice, Pruned
from solver.design.forms import LINKS, RATES, Forms
from solver.design.space import Space
from solver.scaling import LARGEST_LOSS, ceiling, floor

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Literal = cp_model.IntVar

FINEST = 1 << 17
"""A figure's least reciprocal as an integer: rounding loses less than 1e-5 of it."""

TICKS = 1 << 32
"""Ticks of the longest time that matters."""

SHARES = 1 << 20
"""Integers per one of a share or a weight."""

USD_PER = 1e7
"""Integers per USD/h of one NPU."""

DISTANCE_PER = 1e9
"""Integers per one of a distance."""

PIECES = 24
"""Pieces of the price of dies as a function of their area."""

MOST_BOXES = 256
"""Boxes that the model names one by one; more are held by their hull alone."""


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds as a linear function of reciprocals over today's, by figure."""

    terms: tuple[tuple[str, float], ...]
    constant: float = 0.0


class DesignModel:
    """Variables and constraints of a pruned design problem.

    Parameters
    ----------
    space, forms, left
        The problem, its shapes, and the boxes and shapes that may hold the optimum.
    """

    def __init__(self, space: Space, forms: Sequence[Forms], left: Pruned) -> None:
        self.space, self.forms, self.left = space, forms, left
        self.problem = space.problem
        self.model = cp_model.CpModel()
        self.loss = 1.0 / FINEST
        self._add_levels()
        self._add_boxes()
        self._add_costs()
        self.users = [self._add_use_case(u) for u in range(len(self.problem.use_case))]
        self._add_objective()

    # -- the platform ------------------------------------------------------------------

    @cached_property
    def levels(self) -> list[Indices]:
        """Levels of each figure that some box has."""
        boxes = self.left.boxes
        found = []
        for k in range(len(self.space.sizes)):
            seen = np.zeros(int(self.space.sizes[k]) + 1, dtype=np.int64)
            np.add.at(seen, boxes.low[:, k], 1)
            np.add.at(seen, boxes.high[:, k] + 1, -1)
            found.append(np.flatnonzero(np.cumsum(seen)[:-1] > 0))
        return found

    def _add_levels(self) -> None:
        model = self.model
        self.at: list[dict[int, Literal]] = []
        for name, levels in zip(self.space.names, self.levels, strict=True):
            literals = {int(n): model.new_bool_var(f"{name}={n}") for n in levels}
            model.add_exactly_one(literals.values())
            self.at.append(literals)
        self.q = {figure: self._reciprocal(figure) for figure in (*RATES, *LINKS)}

    def least(self, figure: str) -> float:
        """Return the least of a figure's reciprocals over today's that is left."""
        levels = self.levels[self.space.position(figure)]
        return float(np.min(self.space.slowness(figure)[levels]))

    def _reciprocal(self, figure: str) -> cp_model.IntVar:
        slowness, least = self.space.slowness(figure), self.least(figure)
        at = self.at[self.space.position(figure)]
        values = {n: ceiling(FINEST * slowness[n] / least) for n in at}
        found = self.model.new_int_var(
            min(values.values()), max(values.values()), f"q_{figure}"
        )
        self.model.add(found == sum(values[n] * literal for n, literal in at.items()))
        return found

    def _add_boxes(self) -> None:
        boxes = self.left.boxes
        self.in_box: list[Literal] = []
        if boxes.count > MOST_BOXES:
            return
        model = self.model
        self.in_box = [model.new_bool_var(f"box{b}") for b in range(boxes.count)]
        model.add_exactly_one(self.in_box)
        for b, inside in enumerate(self.in_box):
            for k, at in enumerate(self.at):
                allowed = [
                    literal
                    for n, literal in at.items()
                    if boxes.low[b, k] <= n <= boxes.high[b, k]
                ]
                if len(allowed) < len(at):
                    model.add_bool_or(allowed).only_enforce_if(inside)

    # -- what an NPU costs -------------------------------------------------------------

    def _add_costs(self) -> None:
        space, model = self.space, self.model
        self._add_limits()
        if not space.is_cost:
            tables = space.distances
            self.unit = None
            self.distance = self._sum(tables, DISTANCE_PER)
            return
        flat = self._sum(space.usd, USD_PER) + ceiling(space.usd_fixed * USD_PER)
        package = self._add_package()
        low, high = self._unit_range()
        self.unit = model.new_int_var(low, high, "npu_usd")
        model.add(self.unit >= flat + package)

    def _unit_range(self) -> tuple[int, int]:
        boxes = self.left.boxes
        low = float(np.min(self.space.npu_usd(boxes.low)))
        high = float(np.max(self.space.npu_usd(boxes.high)))
        return floor(low * USD_PER), ceiling(high * USD_PER * 1.01) + 100

    def _sum(self, tables: Sequence[Floats], per: float) -> cp_model.LinearExprT:
        return sum(
            ceiling(float(table[n]) * per) * literal
            for table, at in zip(tables, self.at, strict=True)
            for n, literal in at.items()
            if table[n] > 0
        )

    def _stack_counts(self) -> dict[int, Literal]:
        """Return a literal per number of stacks; levels ask for at least so many."""
        space, model = self.space, self.model
        needs = [
            {n: int(table[n]) for n in at}
            for table, at in zip(space.stacks, self.at, strict=True)
        ]
        least = max(min(need.values()) for need in needs)
        counts = sorted(
            {v for need in needs for v in need.values() if v >= least} | {least}
        )
        literals = {c: model.new_bool_var(f"stacks={c}") for c in counts}
        model.add_exactly_one(literals.values())
        for need, at in zip(needs, self.at, strict=True):
            for n, literal in at.items():
                if need[n] > least:
                    enough = [z for c, z in literals.items() if c >= need[n]]
                    model.add_bool_or(enough).only_enforce_if(literal)
        return literals

    def _add_package(self) -> cp_model.IntVar:
        """Add the price of dies and stacks: straight pieces above a function of area."""
        space, model = self.space, self.model
        own = space.problem.cost_model
        per = 100.0
        area = self._sum(space.area, per) + ceiling(own.die_mm2 * per)
        boxes = self.left.boxes
        low = float(np.min(space.area_of(boxes.low)))
        high = float(np.max(space.area_of(boxes.high))) + 1.0
        counts = self._stack_counts()
        total = model.new_int_var(floor(low * per), ceiling(high * per) + 1, "mm2")
        model.add(
            total
            >= area
            + sum(ceiling(own.mm2_per_stack * c * per) * z for c, z in counts.items())
        )
        knots = np.linspace(low - 0.02, high + 0.02, PIECES + 1)
        pieces = [model.new_bool_var(f"area{i}") for i in range(PIECES)]
        model.add_exactly_one(pieces)
        most = float(np.max(space.package(np.array([max(counts)]), np.array([high + 1]))))
        price = model.new_int_var(0, ceiling(most * USD_PER * 1.1) + 1, "package_usd")
        for i, piece in enumerate(pieces):
            model.add(total <= floor(knots[i + 1] * per)).only_enforce_if(piece)
            for c, z in counts.items():
                slope, start = self._chord(float(c), knots[i], knots[i + 1])
                steep = ceiling(slope * USD_PER / per * SHARES)
                model.add(
                    SHARES * price
                    >= steep * total
                    + ceiling((start - slope * knots[i]) * USD_PER * SHARES)
                ).only_enforce_if(piece, z)
        return price

    def _chord(self, stacks: float, low: float, high: float) -> tuple[float, float]:
        """Return slope and start of a line above the price between two areas."""
        areas = np.linspace(low, high, 17)
        prices = self.space.package(np.full(17, stacks), areas)
        slope = float((prices[-1] - prices[0]) / (high - low))
        line = prices[0] + slope * (areas - low)
        over = float(np.max(prices - line))
        line = line + max(over, 0.0)
        floor_usd = float(np.min(self.space.npu_usd(self.left.boxes.low)))
        self.loss = max(self.loss, float(np.max(line - prices)) / floor_usd)
        return slope, float(line[0])

    def _add_limits(self) -> None:
        limits, space, model = self.problem.limits, self.space, self.model
        boxes, per = self.left.boxes, 1000.0
        if limits.watts is not None:
            fixed = self.problem.cost_model.fixed_watts()
            watts = self._sum(space.watts, per) + ceiling(fixed * per)
            model.add(watts <= floor(limits.watts * per * (1 + 1e-9)))
        if not np.all(space.allowed(boxes.high)):
            counts = self._stack_counts()
            own = self.problem.cost_model
            model.add(
                self._sum(space.area, per)
                + ceiling(own.die_mm2 * per)
                + sum(ceiling(own.mm2_per_stack * c * per) * z for c, z in counts.items())
                <= floor(limits.die_mm2 * per * (1 + 1e-9))
            )
            for c, z in counts.items():
                if c > limits.stacks:
                    model.add(z == 0)

    # -- the use cases -----------------------------------------------------------------

    def _add_use_case(self, user: int) -> "_User":
        return _User(self, user)

    def _add_objective(self) -> None:
        model, left = self.model, self.left
        best = left.best
        most = min(self.most_npus, sum(user.limit for user in self.users))
        npus = model.new_int_var(len(self.users), most, "npus")
        self.npus = npus
        model.add(npus == sum(user.npus for user in self.users))
        if self.unit is None:
            self.per = DISTANCE_PER
            self.total = self.distance
            if best is not None:
                model.add(self.total <= ceiling(best.value * self.per * 1.000001) + 100)
            self._add_cuts()
            model.minimize(self.total)
            return
        self.per = USD_PER
        low = floor(float(np.min(left.boxes.bound)) * self.per)
        high = most * self._unit_range()[1]
        if best is not None:
            high = min(high, ceiling(best.value * self.per * (1 + LARGEST_LOSS)))
        if high > 1 << 60:
            raise SolverError("the design problem's costs are too many times apart")
        self.total = model.new_int_var(min(low, high), high, "usd")
        model.add_multiplication_equality(self.total, [npus, self.unit])
        self._add_cuts()
        model.minimize(self.total)

    @cached_property
    def most_npus(self) -> int:
        """NPUs of all use cases that a platform worth having needs at most."""
        limits = [1 << 24]
        if self.problem.limits.npus is not None:
            limits.append(self.problem.limits.npus)
        if self.left.best is not None and self.space.is_cost:
            cheapest = float(np.min(self.space.npu_usd(self.left.boxes.low)))
            limits.append(ceiling(self.left.best.value / cheapest * 1.001) + 1)
        return min(limits)

    def _add_cuts(self) -> None:
        """Add the bound of every box, and of every shape, as what the total is at least."""
        if not self.space.is_cost:
            return
        for inside, bound in zip(self.in_box, self.left.boxes.bound, strict=False):
            self.model.add(self.total >= floor(bound * self.per)).only_enforce_if(inside)
        for user in self.users:
            for number, literal in enumerate(user.shapes):
                bound = user.bounds[number]
                self.model.add(self.total >= floor(bound * self.per)).only_enforce_if(
                    literal
                )

    def hint(self, choice: Choice) -> None:
        """Hint at a known platform and its shapes."""
        for k, at in enumerate(self.at):
            for n, literal in at.items():
                self.model.add_hint(literal, int(n == choice.levels[k]))
        for user, key, replicas in zip(
            self.users, choice.shapes, choice.replicas, strict=True
        ):
            for other, literal in zip(user.keys, user.shapes, strict=True):
                self.model.add_hint(literal, int(other == key))
            self.model.add_hint(user.replicas, replicas)

    def read(self, value: "cp_model.CpSolver") -> tuple[Indices, tuple[tuple[int, int], ...]]:
        """Return the levels and shapes of a solution."""
        levels = np.array(
            [
                next(n for n, literal in at.items() if value.boolean_value(literal))
                for at in self.at
            ]
        )
        shapes = tuple(
            next(
                key
                for key, literal in zip(user.keys, user.shapes, strict=True)
                if value.boolean_value(literal)
            )
            for user in self.users
        )
        return levels, shapes


class _User:
    """One use case: its shape, its times, its replicas."""

    def __init__(self, whole: DesignModel, user: int) -> None:
        self.whole, self.user = whole, user
        self.use_case = whole.problem.use_case[user]
        self.keys = [
            (group, int(shape))
            for group, (_, shapes) in enumerate(whole.left.boxes.pairs)
            if whole.forms[group].use_case == user
            for shape in np.unique(shapes)
        ]
        model = whole.model
        self.shapes = [model.new_bool_var(f"u{user}_shape{k}") for k in self.keys]
        model.add_exactly_one(self.shapes)
        self.bounds = [self._bound(key) for key in self.keys]
        self.ticks = self._tick_rate()
        slowest = TICKS * 2
        self.first = model.new_int_var(0, slowest, f"u{user}_latency")
        self.mixed = model.new_int_var(0, slowest, f"u{user}_mixed")
        self.plain = model.new_int_var(0, slowest, f"u{user}_plain")
        self.tpot = model.new_int_var(0, slowest, f"u{user}_tpot")
        most = whole.most_npus
        self.most = min(most, self._most_replicas())
        self.replicas = model.new_int_var(1, self.most, f"u{user}_replicas")
        self.limit = self._limit(most)
        self.npus = model.new_int_var(1, self.limit, f"u{user}_npus")
        self.collectives: dict[int, cp_model.IntVar] = {}
        self.algorithms: dict[tuple[int, int], Literal] = {}
        for key, literal in zip(self.keys, self.shapes, strict=True):
            self._add_shape(whole.forms[key[0]], key[1], literal)
        for slot in self.collectives:
            model.add_exactly_one(
                [lit for (s, _), lit in self.algorithms.items() if s == slot]
            )
        self._allow_boxes()

    def _limit(self, most: int) -> int:
        """Return the NPUs that the use case has at most."""
        forms = self.whole.forms
        largest = max(int(forms[g].npus[s]) for g, s in self.keys) * self.most
        return min(most, largest, self.use_case.max_npus or most)

    def _bound(self, key: tuple[int, int]) -> float:
        """Return the least objective of the boxes that a shape is alive in."""
        boxes = self.whole.left.boxes
        group, shape = key
        box, shapes = boxes.pairs[group]
        return float(np.min(boxes.bound[box[shapes == shape]]))

    def _allow_boxes(self) -> None:
        """A shape runs only in the boxes that it is alive in."""
        whole = self.whole
        if not whole.in_box:
            return
        pairs = whole.left.boxes.pairs
        for (group, shape), literal in zip(self.keys, self.shapes, strict=True):
            box, shapes = pairs[group]
            alive = set(box[shapes == shape].tolist())
            if len(alive) < len(whole.in_box):
                inside = [whole.in_box[b] for b in sorted(alive)]
                whole.model.add_bool_or(inside).only_enforce_if(literal)

    @cached_property
    def _slowest(self) -> list[tuple[float, float]]:
        """Return the longest TTFT and TPOT of each shape on the platforms left."""
        whole, found = self.whole, []
        corner = np.array([[levels[0] for levels in whole.levels]])
        rates, links = whole.space.rates(corner), whole.space.links(corner)
        for group, shape in self.keys:
            each = [
                whole.forms[group].latencies(
                    rates, links, np.array([domain]), np.array([shape])
                )
                for domain in whole.levels[whole.space.domain]
            ]
            found.append(
                (max(float(t[0]) for t, _ in each), max(float(t[0]) for _, t in each))
            )
        return found

    def _tick_rate(self) -> float:
        """Return the ticks of a second: a nanosecond each, or longer for long times."""
        longest = max(max(each) for each in self._slowest)
        return min(1e9, TICKS / longest)

    def _most_replicas(self) -> int:
        """Return the replicas that any shape needs on any platform left."""
        return max(
            math.ceil(self._tokens * tpot / float(self.whole.forms[g].batch[s])) + 1
            for (g, s), (_, tpot) in zip(self.keys, self._slowest, strict=True)
        )

    @property
    def _tokens(self) -> float:
        """Further tokens per second that the use case asks for."""
        return self.use_case.rate * float(self.use_case.shape.held_steps)

    def _add_shape(self, forms: Forms, shape: int, literal: Literal) -> None:
        whole, model = self.whole, self.whole.model
        self._add_room(forms, shape, literal)
        roles = {0: [self.first]}
        for path in forms.mixed:
            roles.setdefault(path, []).append(self.mixed)
        for path in forms.plain:
            roles.setdefault(path, []).append(self.plain)
        network = self._network(forms, shape, literal)
        for path, variables in roles.items():
            links = sum(
                int(weight) * network[slot]
                for slot, weight in enumerate(forms.collective_weights[path])
                if weight and slot in network
            )
            for facet in facets(whole, forms, shape, path):
                for variable in variables:
                    times = 1 if variable is self.first else forms.stages
                    model.add(
                        FINEST * variable
                        >= times * self._ticks(facet) + times * FINEST * links
                    ).only_enforce_if(literal)
        self._add_targets(forms, shape, literal)
        self._add_replicas(forms, shape, literal)

    def _add_room(self, forms: Forms, shape: int, literal: Literal) -> None:
        whole, space = self.whole, self.whole.space
        for position, enough in (
            (
                space.capacity,
                space.capacities >= forms.memory[shape] * (1 - 1e-9),
            ),
            (space.domain, space.domains >= float(forms.splits[shape].tp)),
        ):
            at = whole.at[position]
            allowed = [at[n] for n in at if enough[n]]
            if len(allowed) < len(at):
                whole.model.add_bool_or(allowed).only_enforce_if(literal)

    def _ticks(self, line: Line) -> cp_model.LinearExprT:
        """Return a line times `FINEST`, rounded up."""
        whole = self.whole
        return ceiling(line.constant * self.ticks) * FINEST + sum(
            ceiling(value * whole.least(figure) * self.ticks) * whole.q[figure]
            for figure, value in line.terms
        )

    def _network(
        self, forms: Forms, shape: int, literal: Literal
    ) -> dict[int, cp_model.IntVar]:
        """Return the time of each collective that takes any, by position."""
        whole, model = self.whole, self.whole.model
        found: dict[int, cp_model.IntVar] = {}
        domains = whole.levels[whole.space.domain]
        for slot in range(forms.lines.shape[2]):
            kinds = [
                (int(d), forms.lines[d, shape, slot]) for d in domains
            ]
            if not any(np.any(rows[np.isfinite(rows)]) for _, rows in kinds):
                continue
            if slot not in self.collectives:
                self.collectives[slot] = model.new_int_var(
                    0, TICKS * 2, f"u{self.user}_collective{slot}"
                )
            found[slot] = self.collectives[slot]
            for domain, rows in kinds:
                self._add_lines(slot, rows, (literal, whole.at[whole.space.domain][domain]))
        return found

    def _add_lines(
        self, slot: int, rows: Floats, enforced: tuple[Literal, Literal]
    ) -> None:
        """Add that a collective takes as long as the chosen algorithm says."""
        model = self.whole.model
        useful = _undominated(self.whole, rows)
        for number in range(len(rows)):
            chosen = self._algorithm(slot, number)
            if number not in useful:
                model.add_bool_or([e.negated() for e in (*enforced, chosen)])
                continue
            line = Line(tuple(zip(LINKS, map(float, rows[number]), strict=True)))
            literals = (*enforced, chosen) if len(useful) > 1 else enforced
            model.add(
                FINEST * self.collectives[slot] >= self._ticks(line)
            ).only_enforce_if(*literals)

    def _algorithm(self, slot: int, number: int) -> Literal:
        key = (slot, number)
        if key not in self.algorithms:
            name = f"u{self.user}_collective{slot}_{number}"
            self.algorithms[key] = self.whole.model.new_bool_var(name)
        return self.algorithms[key]

    def _add_targets(self, forms: Forms, shape: int, literal: Literal) -> None:
        model, limits = self.whole.model, self.use_case.targets
        waits = float(forms.waited[shape])
        per = floor(min(float(SHARES), 2.0**28 / max(waits, 1.0)))
        share = float(forms.share[shape])
        if math.isfinite(limits["ttft"]):
            model.add(
                per * self.first + ceiling(waits * per) * self.mixed
                <= per * floor(limits["ttft"] * self.ticks * (1 + 1e-9))
            ).only_enforce_if(literal)
        model.add(
            SHARES * self.tpot
            >= ceiling(share * SHARES) * self.mixed
            + ceiling((1.0 - share) * SHARES) * self.plain
        ).only_enforce_if(literal)
        if math.isfinite(limits["tpot"]) and self.use_case.shape.decode_steps > 0:
            model.add(self.tpot <= floor(limits["tpot"] * self.ticks * (1 + 1e-9))).only_enforce_if(
                literal
            )

    def _add_replicas(self, forms: Forms, shape: int, literal: Literal) -> None:
        """Add that the replicas take the rate: R b >= rate x steps x TPOT."""
        model = self.whole.model
        tokens = self._tokens
        per = float(forms.batch[shape]) * self.ticks
        scale = min(2.0**24 / tokens, 2.0**60 / (per * self.most))
        if tokens * scale < 1024:
            raise SolverError("the design problem's rates are too many times apart")
        model.add(
            floor(per * scale) * self.replicas >= ceiling(tokens * scale) * self.tpot
        ).only_enforce_if(literal)
        model.add(
            self.npus == int(forms.npus[shape]) * self.replicas
        ).only_enforce_if(literal)


def _undominated(whole: DesignModel, rows: Floats) -> list[int]:
    """Return the algorithms that are fastest somewhere: lines compared at all corners."""
    ranges = []
    for figure in LINKS:
        levels = whole.levels[whole.space.position(figure)]
        slowness = whole.space.slowness(figure)[levels]
        ranges.append((float(np.min(slowness)), float(np.max(slowness))))
    corners = np.array(list(itertools.product(*ranges)))
    possible = [n for n in range(len(rows)) if np.all(np.isfinite(rows[n]))]
    at = {n: corners @ rows[n] for n in possible}
    return [
        n
        for n in possible
        if not any(
            np.all(at[o] <= at[n]) and (o < n or np.any(at[o] < at[n]))
            for o in possible
            if o != n
        )
    ]


def facets(whole: DesignModel, forms: Forms, shape: int, path: int) -> Iterator[Line]:
    """Yield the linear functions of which a path's operators together take the largest.

    A sum of n maxima of two is the largest of 2^n sums; where all operators share one
    rate of arithmetic, only n + 1 of them count: sorted by intensity, those above a
    ratio of the rates are bound by compute, those below by memory. Operators that every
    platform left binds alike are no choice.
    """
    weights = forms.operator_weights[path]
    wide = weights * forms.compute[shape]
    narrow = weights * forms.compute_8bit[shape]
    memory = weights * forms.traffic[shape]
    fixed = np.array([0.0, 0.0, float(forms.streamed[path, shape])])
    apart = whole.space.position(RATES[0]) != whole.space.position(RATES[1])
    groups: dict[tuple[bool, int], list[int]] = {}
    for k in np.flatnonzero(weights):
        lead = _gap(whole, (wide[k], narrow[k], -memory[k]))
        if lead[0] >= 0:
            fixed += (wide[k], narrow[k], 0.0)
        elif lead[1] <= 0:
            fixed[2] += memory[k]
        else:
            both = int(k) if apart and wide[k] > 0 and narrow[k] > 0 else -1
            groups.setdefault((apart and narrow[k] > 0, both), []).append(int(k))
    cuts = []
    for group in groups.values():
        intensity = [(wide[k] + narrow[k]) / memory[k] for k in group]
        order = [group[i] for i in np.argsort(intensity)[::-1]]
        cuts.append([(order[:n], order[n:]) for n in range(len(order) + 1)])
    for chosen in itertools.product(*cuts):
        busy = [k for above, _ in chosen for k in above]
        moved = [k for _, below in chosen for k in below]
        total = fixed + (wide[busy].sum(), narrow[busy].sum(), memory[moved].sum())
        yield Line(
            tuple((f, float(v)) for f, v in zip(RATES, total, strict=True) if v > 0),
            float(forms.constants[path, shape]),
        )


def _gap(whole: DesignModel, line: tuple[float, float, float]) -> tuple[float, float]:
    """Return the least and the greatest value of a line over the platforms left."""
    low = high = 0.0
    grouped: dict[int, Floats] = {}
    for figure, value in zip(RATES, line, strict=True):
        position = whole.space.position(figure)
        levels = whole.levels[position]
        seconds = value * whole.space.slowness(figure)[levels]
        grouped[position] = grouped.get(position, 0.0) + seconds
    for seconds in grouped.values():
        low += float(np.min(seconds))
        high += float(np.max(seconds))
    return low, high
