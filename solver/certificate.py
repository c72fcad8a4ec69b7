"""What stands behind an outcome, and how a choice is come to."""

import math
from dataclasses import dataclass, field, replace

from solver.instance import Instance
from solver.leads import with_known
from solver.model import Choice, SolveOptions, build, choose, model_size
from solver.prune import known_plan, lower_bound, pruned


@dataclass(frozen=True, slots=True)
class Certificate:
    """What stands behind an outcome.

    Parameters
    ----------
    bound, gap
        What no plan can undercut, in the objective's unit, and the relative
        distance of the plan from it.
    points, candidates, kept
        Deployment points evaluated, candidates left by targets and dominance,
        and those left by the bound.
    loss
        Largest relative loss of a capacity by scaling to integers.
    proved_by
        Which solver, and how, proved the bound.
    size, size_before
        Variables and constraints of the model, and of one of all candidates.
    seconds
        Wall time by phase.
    """

    bound: float = 0.0
    gap: float = 0.0
    points: int = 0
    candidates: int = 0
    kept: int = 0
    loss: float = 0.0
    proved_by: str = ""
    size: tuple[int, int] = (0, 0)
    size_before: tuple[int, int] = (0, 0)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, full: Instance, instance: Instance, choice: Choice) -> "Certificate":
        """Return the same of a choice from an instance, which the full one became."""
        same = instance is full
        return replace(
            self,
            bound=choice.bound,
            kept=len(instance.candidates),
            loss=choice.loss,
            proved_by=choice.proved_by,
            size=choice.size,
            size_before=choice.size if same else model_size(build(full)[0]),
        )


def decided(
    full: Instance, options: SolveOptions, *, ties: bool = True
) -> tuple[Instance, Choice]:
    """Return a choice, and the instance without what no optimal plan can use.

    Among equal plans the one that `choose` says, unless `ties` may stay as they are.
    """
    instance = pruned(with_known(full, options))
    choice = choose(instance, options, ties=ties)
    if choice.status == "timed_out" and not instance.limited:
        # Without limits a plan is known before the search.
        choice = replace(
            choice,
            status="feasible",
            replicas=known_plan(instance),
            bound=lower_bound(instance),
            value=math.inf,
            proved_by="least cost per capacity",
        )
    return instance, choice
