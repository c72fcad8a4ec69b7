"""A use case in the design model: its shape, its times, its replicas.

Times are integers in ticks. For a shape each path through a step is at least every
facet of its operators (`lines.facets`) plus its collectives, of which each takes what
the chosen algorithm says.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from ortools.sat.python import cp_model

from model_ops.errors import SolverError
from solver.design.boxes import Boxes
from solver.design.forms import LINKS, Forms
from solver.design.lines import Line, facets, undominated
from solver.design.platform import FINEST, Platform
from solver.scaling import ceiling, floor

Floats = npt.NDArray[np.float64]

TICKS = 1 << 32
"""Ticks of the longest time that matters."""

SHARES = 1 << 20
"""Integers per one of a share or a weight."""

_HAIR = 1e-9


class UseCase:
    """Variables and constraints of one use case.

    Parameters
    ----------
    platform
        The levels.
    forms
        Shapes of all use cases.
    user
        Which use case.
    most
        NPUs of all use cases at most.

    Attributes
    ----------
    keys, shapes, bounds
        The shapes left (group of forms, position), a literal for each, and what the
        objective is at least with it.
    replicas, npus, limit
        How many, and how many NPUs at most.
    """

    def __init__(
        self, platform: Platform, forms: Sequence[Forms], user: int, most: int
    ) -> None:
        self.platform, self.forms, self.user = platform, forms, user
        self.model = platform.model
        self.use_case = platform.space.problem.use_case[user]
        pairs = platform.boxes.pairs
        self.keys = [
            (group, int(shape))
            for group, (_, shapes) in enumerate(pairs)
            if forms[group].use_case == user
            for shape in np.unique(shapes)
        ]
        self.shapes = [
            self.model.new_bool_var(f"u{user}_shape{key}") for key in self.keys
        ]
        self.model.add_exactly_one(self.shapes)
        self.bounds = [self._bound(platform.boxes, *key) for key in self.keys]
        self.most = min(most, self._most_replicas())
        self.limit = self._most_npus(most)
        self.replicas = self._variable("replicas", 1, self.most)
        self.npus = self._variable("npus", 1, self.limit)
        self.first = self._variable("latency", 0, TICKS * 2)
        self.mixed = self._variable("mixed", 0, TICKS * 2)
        self.plain = self._variable("plain", 0, TICKS * 2)
        self.tpot = self._variable("tpot", 0, TICKS * 2)
        self.collectives: dict[int, cp_model.IntVar] = {}
        self.algorithms: dict[int, dict[int, cp_model.IntVar]] = {}
        for (group, shape), literal in zip(self.keys, self.shapes, strict=True):
            self._add_shape(forms[group], shape, literal)
        for choices in self.algorithms.values():
            self.model.add_exactly_one(choices.values())
        self._allow_boxes()

    def _variable(self, name: str, low: int, high: int) -> cp_model.IntVar:
        return self.model.new_int_var(low, high, f"u{self.user}_{name}")

    # What there is at most.

    @cached_property
    def _slowest(self) -> list[tuple[float, float]]:
        """The longest TTFT and TPOT of each shape on the platforms left."""
        space, levels = self.platform.space, self.platform.levels
        domains = levels[space.domain]
        corners = np.tile([each[0] for each in levels], (len(domains), 1))
        rates, links = space.rates(corners), space.links(corners)
        found = []
        for group, shape in self.keys:
            which = np.full(len(domains), shape)
            ttft, tpot = self.forms[group].latencies(rates, links, domains, which)
            found.append((float(np.max(ttft)), float(np.max(tpot))))
        return found

    @cached_property
    def ticks(self) -> float:
        """Ticks of a second: a nanosecond each, or longer ones for long times."""
        return min(1e9, TICKS / max(max(each) for each in self._slowest))

    def _most_replicas(self) -> int:
        """Return the replicas that any shape needs on any platform left."""
        return max(
            math.ceil(self._tokens * tpot / float(self.forms[g].batch[s])) + 1
            for (g, s), (_, tpot) in zip(self.keys, self._slowest, strict=True)
        )

    def _most_npus(self, most: int) -> int:
        largest = max(int(self.forms[g].npus[s]) for g, s in self.keys)
        return min(most, largest * self.most, self.use_case.max_npus or most)

    @property
    def _tokens(self) -> float:
        """Further tokens per second that are asked for."""
        return self.use_case.rate * float(self.use_case.shape.held_steps)

    # Which shapes go with which boxes.

    @staticmethod
    def _bound(boxes: Boxes, group: int, shape: int) -> float:
        box, shapes = boxes.pairs[group]
        return float(np.min(boxes.bound[box[shapes == shape]]))

    def _allow_boxes(self) -> None:
        """Let a shape run only in the boxes that it is alive in."""
        inside = self.platform.in_box
        if not inside:
            return
        for (group, shape), literal in zip(self.keys, self.shapes, strict=True):
            box, shapes = self.platform.boxes.pairs[group]
            alive = sorted(set(box[shapes == shape].tolist()))
            if len(alive) < len(inside):
                self.model.add_bool_or([inside[b] for b in alive]).only_enforce_if(
                    literal
                )

    # What a shape means.

    def _add_shape(self, forms: Forms, shape: int, literal: cp_model.IntVar) -> None:
        self._add_room(forms, shape, literal)
        network = self._network(forms, shape, literal)
        roles = [(0, self.first, 1)]
        roles += [(path, self.mixed, forms.stages) for path in forms.mixed]
        roles += [(path, self.plain, forms.stages) for path in forms.plain]
        for path, seconds, times in roles:
            links = cp_model.LinearExpr.sum(
                [
                    times * FINEST * int(forms.collective_weights[path, slot]) * each
                    for slot, each in network.items()
                ]
            )
            for facet in facets(self.platform, forms, shape, path):
                self.model.add(
                    FINEST * seconds >= self._ticks(facet, times) + links
                ).only_enforce_if(literal)
        self._add_targets(forms, shape, literal)
        self._add_replicas(forms, shape, literal)

    def _add_room(self, forms: Forms, shape: int, literal: cp_model.IntVar) -> None:
        space = self.platform.space
        held = space.capacities >= forms.memory[shape] * (1 - _HAIR)
        reached = space.domains >= float(forms.splits[shape].tp)
        for position, enough in ((space.capacity, held), (space.domain, reached)):
            levels = [int(n) for n in np.flatnonzero(enough)]
            self.platform.require(position, levels, literal)

    def _ticks(self, line: Line, times: int = 1) -> cp_model.LinearExpr:
        """Return so many times a line, times `FINEST`, rounded up."""
        platform, ticks = self.platform, self.ticks
        terms = [
            times
            * ceiling(value * platform.least(figure) * ticks)
            * platform.reciprocal(figure)
            for figure, value in line.terms
        ]
        constant = times * FINEST * ceiling(line.constant * ticks)
        return cp_model.LinearExpr.sum(terms) + constant

    def _network(
        self, forms: Forms, shape: int, literal: cp_model.IntVar
    ) -> dict[int, cp_model.IntVar]:
        """Return the time of each collective that takes any, by position."""
        found: dict[int, cp_model.IntVar] = {}
        platform, position = self.platform, self.platform.space.domain
        reached = platform.space.domains >= float(forms.splits[shape].tp)
        domains = [d for d in platform.at[position] if reached[d]]
        for slot in range(forms.lines.shape[2]):
            rows = forms.lines[:, shape, slot]
            if not any(np.any(rows[d][np.isfinite(rows[d])]) for d in domains):
                continue
            if slot not in self.collectives:
                name = f"collective{slot}"
                self.collectives[slot] = self._variable(name, 0, TICKS * 2)
            found[slot] = self.collectives[slot]
            alike: dict[bytes, list[int]] = {}
            for domain in domains:
                alike.setdefault(rows[domain].tobytes(), []).append(domain)
            for some in alike.values():
                where = platform.among(position, frozenset(some))
                self._add_lines(slot, rows[some[0]], [literal, *where])
        return found

    def _add_lines(
        self, slot: int, rows: Floats, enforced: list[cp_model.IntVar]
    ) -> None:
        """Add that a collective takes as long as the chosen algorithm says."""
        useful = undominated(self.platform, rows)
        for number, row in enumerate(rows):
            chosen = self._algorithm(slot, number)
            if number not in useful:
                self.model.add_bool_or([each.negated() for each in (*enforced, chosen)])
                continue
            terms = zip(LINKS, map(float, row), strict=True)
            line = Line(tuple((figure, value) for figure, value in terms if value > 0))
            self.model.add(
                FINEST * self.collectives[slot] >= self._ticks(line)
            ).only_enforce_if(*enforced, chosen)

    def _algorithm(self, slot: int, number: int) -> cp_model.IntVar:
        choices = self.algorithms.setdefault(slot, {})
        if number not in choices:
            name = f"u{self.user}_collective{slot}_{number}"
            choices[number] = self.model.new_bool_var(name)
        return choices[number]

    def _add_targets(self, forms: Forms, shape: int, literal: cp_model.IntVar) -> None:
        model, limits = self.model, self.use_case.targets
        waits, share = float(forms.waited[shape]), float(forms.share[shape])
        per = floor(min(float(SHARES), 2.0**28 / max(waits, 1.0)))
        if math.isfinite(limits["ttft"]):
            model.add(
                per * self.first + ceiling(waits * per) * self.mixed
                <= per * floor(limits["ttft"] * self.ticks * (1 + _HAIR))
            ).only_enforce_if(literal)
        model.add(
            SHARES * self.tpot
            >= ceiling(share * SHARES) * self.mixed
            + ceiling((1.0 - share) * SHARES) * self.plain
        ).only_enforce_if(literal)
        if math.isfinite(limits["tpot"]) and self.use_case.shape.decode_steps > 0:
            most = floor(limits["tpot"] * self.ticks * (1 + _HAIR))
            model.add(self.tpot <= most).only_enforce_if(literal)

    def _add_replicas(self, forms: Forms, shape: int, literal: cp_model.IntVar) -> None:
        """Add that the replicas take the rate: R b >= rate x steps x TPOT."""
        per = float(forms.batch[shape]) * self.ticks
        scale = min(2.0**24 / self._tokens, 2.0**60 / (per * self.most))
        if self._tokens * scale < 1024:
            raise SolverError(
                f"use case {self.use_case.name}: its rate and its slowest platforms "
                "are too many times apart for the proof"
            )
        self.model.add(
            floor(per * scale) * self.replicas
            >= ceiling(self._tokens * scale) * self.tpot
        ).only_enforce_if(literal)
        self.model.add(
            self.npus == int(forms.npus[shape]) * self.replicas
        ).only_enforce_if(literal)
