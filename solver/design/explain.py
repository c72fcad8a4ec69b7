"""Why a design is as it is, what today's part would need, and why there may be none."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from problems.design.answer import Design
from problems.design.statement import DesignProblem
from solver.design.boxes import highest
from solver.design.evaluate import Choice, Evaluator, cheapest_shapes
from solver.design.solve import DesignWorkspace

Indices = npt.NDArray[np.int64]

WITHOUT = ("ttft", "tpot", "memory", "npus")
"""Requirements of a use case that are dropped in turn."""


@dataclass(frozen=True, slots=True)
class DesignBinding:
    """What one level less of a figure does to a use case, all else as designed.

    Parameters
    ----------
    use_case, figure
        Which.
    level, lower
        The figure as designed, and one level worse.
    misses
        What the same replicas then miss: ``ttft``, ``tpot``, ``memory``, ``rate``,
        ``domain`` (their ranks no longer fit in it) or ``stacks`` (which cannot be as
        small as the capacity asks).
    breaks
        What clashes then whatever the shape: ``ttft``, ``tpot``, ``memory``, ``npus``
        or ``stacks``; empty where it still runs.
    npus, npus_lower
        NPUs as designed, and then; the latter is None where it breaks.
    """

    use_case: str
    figure: str
    level: float
    lower: float
    misses: tuple[str, ...]
    breaks: tuple[str, ...]
    npus: int
    npus_lower: int | None

    @property
    def binds(self) -> bool:
        """Whether the figure is what the use case needs it to be."""
        return self.npus_lower is None or self.npus_lower > self.npus


@dataclass(frozen=True, slots=True)
class TodaysPart:
    """What the base itself would need, by the same model and cost, limits aside.

    Parameters
    ----------
    design
        How each use case runs on it; None where one cannot.
    usd_per_hour
        Of all NPUs; None without a design.
    missing
        Use cases that cannot run on it.
    """

    design: Design | None
    usd_per_hour: float | None
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Floor:
    """The least that any platform of the ladders reaches, of a use case or of itself.

    Parameters
    ----------
    use_case
        Which; None for ``watts``, ``die_mm2`` and ``stacks`` of one NPU, and for
        ``npus`` of all use cases together.
    target
        ``ttft``, ``tpot``, ``memory`` or ``npus`` of a use case, or one of the above.
    least
        Seconds, or bytes per NPU, with all other requirements dropped; NPUs that meet
        them; watts, square millimetres or stacks of the smallest NPU.
    limit
        What is asked; the largest memory on the ladder.
    """

    use_case: str | None
    target: str
    least: float
    limit: float

    @property
    def is_above(self) -> bool:
        """Whether it cannot be reached whatever else is given up."""
        return self.least > self.limit * (1 + 1e-9)


@dataclass(frozen=True, slots=True)
class WhyNone:
    """Why no platform serves all use cases.

    Parameters
    ----------
    floors
        Of every target and limit by itself.
    clashes
        Per use case that cannot run on the best platform: a smallest set of its
        requirements that clash. Empty where each could run there, and only limits on
        the platform or on all NPUs are in the way.
    """

    floors: tuple[Floor, ...]
    clashes: tuple[tuple[str, tuple[str, ...]], ...]


def bindings(workspace: DesignWorkspace, choice: Choice) -> list[DesignBinding]:
    """Return what one level less of each varied figure does to each use case."""
    space, problem = workspace.space, workspace.problem
    found = []
    for k, name in enumerate(space.names):
        levels = problem.ladders.levels[name]
        if choice.levels[k] == 0 or len(levels) == 1:
            continue
        lower = choice.levels.copy()
        lower[k] -= 1
        for user, use_case in enumerate(problem.use_case):
            needed = _npus(workspace.evaluator, lower, user)
            needed = needed if space.built(lower[None])[0] else np.inf
            found.append(
                DesignBinding(
                    use_case=use_case.name,
                    figure=name,
                    level=levels[choice.levels[k]],
                    lower=levels[lower[k]],
                    misses=_misses(workspace, choice, lower, user),
                    breaks=()
                    if np.isfinite(needed)
                    else _breaks(workspace, lower, user),
                    npus=_npus_of(workspace, choice, user),
                    npus_lower=int(needed) if np.isfinite(needed) else None,
                )
            )
    return found


def _misses(
    workspace: DesignWorkspace, choice: Choice, levels: Indices, user: int
) -> tuple[str, ...]:
    """Return what the replicas of a design miss on another platform."""
    group, shape = choice.shapes[user]
    forms, evaluator = workspace.forms[group], workspace.evaluator
    if not workspace.space.built(levels[None])[0]:
        return ("stacks",)
    if forms.tp[shape] > workspace.space.domains[levels[workspace.space.domain]]:
        return ("domain",)
    which = np.array([shape])
    alone = {
        name: tuple(other for other in WITHOUT if other != name)
        for name in ("ttft", "tpot", "memory")
    }
    missed = [
        name
        for name, others in alone.items()
        if not np.isfinite(evaluator.npus(group, levels[None], which, others)[0])
    ]
    npus = float(evaluator.npus(group, levels[None], which, WITHOUT)[0])
    slow = npus > _npus_of(workspace, choice, user)
    return (*missed, *(("rate",) if slow else ()))


def _breaks(workspace: DesignWorkspace, levels: Indices, user: int) -> tuple[str, ...]:
    """Return what clashes on a platform that a use case cannot run on."""
    if not workspace.space.built(levels[None])[0]:
        return ("stacks",)
    return clash(workspace.evaluator, levels, user)


def _npus_of(workspace: DesignWorkspace, choice: Choice, user: int) -> int:
    group, shape = choice.shapes[user]
    return int(workspace.forms[group].npus[shape]) * choice.replicas[user]


def _npus(
    evaluator: Evaluator,
    levels: Indices,
    user: int,
    without: tuple[str, ...] = (),
) -> float:
    """Return the fewest NPUs of a use case on a platform, some requirements dropped."""
    return min(
        (
            float(
                np.min(
                    evaluator.npus(
                        group,
                        np.tile(levels, (forms.shapes, 1)),
                        np.arange(forms.shapes),
                        without=without,
                    )
                )
            )
            for group, forms in enumerate(evaluator.forms)
            if forms.use_case == user
        ),
        default=np.inf,
    )


def clash(evaluator: Evaluator, levels: Indices, user: int) -> tuple[str, ...]:
    """Return a smallest set of requirements that cannot be met together.

    Each is dropped in turn; it stays out if the rest still clash.
    """
    dropped: tuple[str, ...] = ()
    for requirement in WITHOUT:
        tried = (*dropped, requirement)
        if not np.isfinite(_npus(evaluator, levels, user, tried)):
            dropped = tried
    return tuple(name for name in WITHOUT if name not in dropped)


def todays_part(problem: DesignProblem) -> TodaysPart:
    """Return what the base itself would need; links as the model has them."""
    workspace = DesignWorkspace(problem.as_today())
    space, evaluator = workspace.space, workspace.evaluator
    levels = np.zeros(len(space.sizes), dtype=np.int64)
    missing = tuple(
        each.name
        for user, each in enumerate(problem.use_case)
        if not np.isfinite(_npus(evaluator, levels, user))
    )
    choice = None if missing else cheapest_shapes(evaluator, levels)
    if choice is None:
        return TodaysPart(None, None, missing)
    design = workspace.design(choice)
    return TodaysPart(design, design.usd_per_hour(problem), ())


def why_none(workspace: DesignWorkspace) -> WhyNone:
    """Return the floors of all that is asked, and what clashes on the best platform."""
    space, problem, evaluator = workspace.space, workspace.problem, workspace.evaluator
    best = highest(space, limited=False)
    floors: list[Floor] = []
    clashes = []
    for user, use_case in enumerate(problem.use_case):
        floors += _floors(workspace, user)
        domains = [_with(best, space.domain, d) for d in range(len(space.domains))]
        needs = [_npus(evaluator, levels, user) for levels in domains]
        if not np.any(np.isfinite(needs)):
            sets = [clash(evaluator, levels, user) for levels in domains]
            clashes.append((use_case.name, max(sets, key=len)))
    return WhyNone((*floors, *_floors_of_all(workspace)), tuple(clashes))


def _floors_of_all(workspace: DesignWorkspace) -> Iterator[Floor]:
    """Yield the least NPUs of several use cases, and what the smallest NPU has."""
    space, limits = workspace.space, workspace.problem.limits
    users = range(len(workspace.problem.use_case))
    if limits.npus is not None and len(users) > 1:
        best = highest(space, limited=False)
        domains = [_with(best, space.domain, d) for d in range(len(space.domains))]
        least = min(
            sum(_npus(workspace.evaluator, levels, user, ("npus",)) for user in users)
            for levels in domains
        )
        if np.isfinite(least):
            yield Floor(None, "npus", least, float(limits.npus))
    # No term of these falls when a figure gets better.
    smallest = np.zeros((1, len(space.sizes)), dtype=np.int64)
    if limits.watts is not None:
        yield Floor(None, "watts", float(space.watts_of(smallest)[0]), limits.watts)
    yield Floor(None, "die_mm2", float(space.area_of(smallest)[0]), limits.die_mm2)
    stacks = float(space.stacks_of(smallest)[0])
    filled = np.floor(space.capacities[-1] / space.problem.stack_least * (1 + 1e-9))
    yield Floor(None, "stacks", stacks, min(float(limits.stacks), float(filled)))


def _with(levels: Indices, position: int, level: int) -> Indices:
    changed = levels.copy()
    changed[position] = level
    return changed


def _floors(workspace: DesignWorkspace, user: int) -> list[Floor]:
    space, use_case = workspace.space, workspace.problem.use_case[user]
    best = highest(space, limited=False)
    least = {"ttft": np.inf, "tpot": np.inf, "memory": np.inf}
    for forms in workspace.forms:
        if forms.use_case != user:
            continue
        which = np.arange(forms.shapes)
        least["memory"] = min(least["memory"], float(np.min(forms.memory)))
        for domain in range(len(space.domains)):
            levels = np.tile(_with(best, space.domain, domain), (forms.shapes, 1))
            ttft, tpot = forms.latencies(
                space.rates(levels), space.links(levels), levels[:, space.domain], which
            )
            reached = forms.tp <= space.domains[domain]
            if np.any(reached):
                least["ttft"] = min(least["ttft"], float(np.min(ttft[reached])))
                least["tpot"] = min(least["tpot"], float(np.min(tpot[reached])))
    limits = use_case.targets | {"memory": float(space.capacities[-1])}
    found = [
        Floor(use_case.name, target, value, limits[target])
        for target, value in least.items()
        if np.isfinite(limits[target])
    ]
    most = min(use_case.max_npus or np.inf, workspace.problem.limits.npus or np.inf)
    if np.isfinite(most):
        needs = [
            _npus(workspace.evaluator, _with(best, space.domain, d), user, ("npus",))
            for d in range(len(space.domains))
        ]
        if np.isfinite(min(needs)):
            found.append(Floor(use_case.name, "npus", min(needs), float(most)))
    return found
