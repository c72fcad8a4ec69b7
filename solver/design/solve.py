"""The design problem solved: bounds prune, CP-SAT proves, the verifier checks."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from model_ops.errors import SolverError
from problems.design.answer import Design, ServedUseCase
from problems.design.statement import DesignProblem
from problems.design.verify import violations
from solver.design.bounds import Pruned, pruned
from solver.design.evaluate import Choice, Evaluator, choice_of
from solver.design.forms import Forms
from solver.design.model import DesignModel
from solver.design.shapes import forms_of
from solver.design.space import Space
from solver.options import SolveOptions
from solver.search import cp_sat, status_of


@dataclass(frozen=True, slots=True)
class DesignCertificate:
    """How far the answer is proved.

    Parameters
    ----------
    bound
        What no platform is below: USD/h, or distance; None if nothing is known.
    gap
        Share by which the answer may be above the optimum.
    loss
        Relative loss by rounding to integers: the proof is up to it.
    points, points_left
        Platforms on the ladders, and those that the bounds left to CP-SAT.
    shapes, shapes_left
        The same of shapes (split, batch, formats).
    forms_s, prune_s, prove_s
        Seconds of building, bounding, and of CP-SAT.
    """

    bound: float | None
    gap: float | None
    loss: float
    points: float
    points_left: float
    shapes: int
    shapes_left: int
    forms_s: float
    prune_s: float
    prove_s: float


@dataclass(frozen=True, slots=True)
class DesignOptimal:
    """The best platform on the ladders, proved."""

    design: Design
    choice: Choice
    certificate: DesignCertificate


@dataclass(frozen=True, slots=True)
class DesignFeasible:
    """A platform that serves all use cases; a better one may exist."""

    design: Design
    choice: Choice
    certificate: DesignCertificate


@dataclass(frozen=True, slots=True)
class DesignInfeasible:
    """No platform on the ladders serves all use cases."""

    certificate: DesignCertificate


@dataclass(frozen=True, slots=True)
class DesignTimedOut:
    """Nothing was found in time, and nothing proved."""

    certificate: DesignCertificate


_MOST_SHAPES = 400
"""Shapes up to which CP-SAT is asked: the model of more takes long to write down."""

_PRUNING = 0.7
"""Share of the time that bounds may take: where they are slow, the proof is slower."""


DesignOutcome: TypeAlias = (
    DesignOptimal | DesignFeasible | DesignInfeasible | DesignTimedOut
)


@dataclass(frozen=True)
class DesignWorkspace:
    """A design problem with its shapes and platforms as arrays."""

    problem: DesignProblem

    @cached_property
    def space(self) -> Space:
        """The platforms."""
        return Space(self.problem)

    @cached_property
    def forms(self) -> list[Forms]:
        """The shapes."""
        return forms_of(self.problem)

    @cached_property
    def evaluator(self) -> Evaluator:
        """What shapes do on platforms."""
        return Evaluator(self.space, self.forms)

    def design(self, choice: Choice) -> Design:
        """Return a choice as a design."""
        ladders = self.problem.ladders
        served = []
        for (group, shape), replicas in zip(
            choice.shapes, choice.replicas, strict=True
        ):
            forms = self.forms[group]
            served.append(
                ServedUseCase(
                    name=self.problem.use_case[forms.use_case].name,
                    split=forms.splits[shape],
                    precision=forms.precision.name,
                    batch=int(forms.batch[shape]),
                    chunk_tokens=forms.chunk_tokens,
                    replicas=replicas,
                )
            )
        platform = ladders.specification(self.space.chosen(choice.levels))
        return Design(platform, tuple(served))

    def solve(
        self, options: SolveOptions | None = None, *, presolve: bool = True
    ) -> DesignOutcome:
        """Return the best platform, with a proof.

        Parameters
        ----------
        options
            Time, threads and seed.
        presolve
            Whether bounds prune platforms and shapes before CP-SAT proves.

        Raises
        ------
        SolverError
            If a design that was found does not pass the verifier.
        """
        options = (options or SolveOptions()).started()
        started = time.monotonic()
        _ = self.forms
        built = time.monotonic()
        left = pruned(
            self.evaluator,
            depth=None if presolve else 0,
            deadline=started + _PRUNING * options.time_limit,
        )
        cut = time.monotonic()
        best, bound, proved, loss = left.best, None, left.boxes.count == 0, 0.0
        if left.boxes.count:
            found, bound, proved, loss = self._prove(left, options)
            if found is not None and (best is None or found.value < best.value):
                best = found
        if best is not None:
            bound = best.value if proved else min(bound or 0.0, best.value)
        certificate = DesignCertificate(
            bound=bound,
            gap=None if best is None or bound is None else _gap(best.value, bound),
            loss=loss,
            points=left.points,
            points_left=left.points_left(),
            shapes=left.shapes,
            shapes_left=left.shapes_left(),
            forms_s=built - started,
            prune_s=cut - built,
            prove_s=time.monotonic() - cut,
        )
        if best is None:
            return (DesignInfeasible if proved else DesignTimedOut)(certificate)
        design = self.design(best)
        broken = violations(self.problem, design)
        if broken:
            raise SolverError("the design does not hold: " + "; ".join(broken))
        found_as = DesignOptimal if proved else DesignFeasible
        return found_as(design, best, certificate)

    def _prove(
        self, left: Pruned, options: SolveOptions
    ) -> tuple[Choice | None, float | None, bool, float]:
        """Return CP-SAT's platform and bound, whether it is proved, and the loss."""
        if left.shapes_left() > _MOST_SHAPES:
            return None, _least(left), False, 0.0
        whole = DesignModel(self.space, self.forms, left)
        if left.best is not None:
            whole.hint(left.best)
        solver = cp_sat(options)
        solver.parameters.linearization_level = 1
        status = status_of(solver, whole.model)
        if status == "infeasible":
            return None, None, True, whole.loss
        # Integers are above what they stand for by no more than this.
        bound = solver.best_objective_bound / whole.per / (1.0 + whole.loss)
        bound = max(bound, _least(left))
        if status == "timed_out":
            return None, bound, False, whole.loss
        found = choice_of(self.evaluator, *whole.read(solver))
        if found is None:
            raise SolverError("CP-SAT's platform does not hold in floats")
        return found, bound, status == "optimal", whole.loss


def _least(left: Pruned) -> float:
    return float(np.min(left.boxes.bound))


def _gap(value: float, bound: float) -> float:
    return max(value - bound, 0.0) / value if value > 0 else 0.0
