"""The check of a design: floats, from the design and the operator model alone.

Nothing here knows ladders' tables, boxes or integers: the accelerator is built from its
figures, each use case is estimated on it as `genz-size estimate` would in an open loop,
and what it costs is computed again.
"""

from collections.abc import Iterator

from model_ops.estimate import Estimate, Load, LoadMode, estimate
from problems.design.answer import Design, ServedUseCase, rate_of_each, replica_on
from problems.design.statement import DesignProblem, DesignUseCase

HAIR = 1e-6
"""Relative tolerance: loads are found by bisection, figures are rounded."""


def violations(problem: DesignProblem, design: Design) -> list[str]:
    """Return what a design breaks, one sentence each; none if it holds."""
    found = list(_platform(problem, design))
    if [each.name for each in design.served] != [u.name for u in problem.use_case]:
        return [*found, "it does not serve each use case once"]
    for use_case, served in zip(problem.use_case, design.served, strict=True):
        found += [
            f"{use_case.name}: {broken}"
            for broken in _served(problem, design, use_case, served)
        ]
    limit = problem.limits.npus
    if limit is not None and design.npus > limit:
        found.append(f"{design.npus} NPUs exceed the limit of {limit}")
    return found


def predicted(
    problem: DesignProblem,
    design: Design,
    use_case: DesignUseCase,
    served: ServedUseCase,
) -> Estimate:
    """Return what each replica of a use case does at its share of the rate."""
    replica = replica_on(
        problem, use_case, design.platform, served.precision, served.split
    )
    return estimate(replica, load_of(use_case, served))


def load_of(use_case: DesignUseCase, served: ServedUseCase) -> Load:
    """Return what each replica of a use case is asked for."""
    return Load(
        use_case.shape,
        LoadMode.OPEN_LOOP,
        rate=rate_of_each(use_case, served),
        chunk_tokens=served.chunk_tokens,
    )


def _platform(problem: DesignProblem, design: Design) -> Iterator[str]:
    ladders, figures = problem.ladders, design.platform.figures
    for name, value in figures.items():
        source = ladders.source(name)
        levels = ladders.values(name)
        near = [n for n, level in enumerate(levels) if _same(level, value)]
        if not near:
            yield f"{name} {value:g} is not on its ladder"
        elif source != name and not any(
            _same(ladders.levels[source][n], figures[source]) for n in near
        ):
            yield f"{name} {value:g} does not follow {source}"
    cost, limits = problem.cost_model.parts(design.platform), problem.limits
    least = cost.stacks * problem.stack_least
    if design.platform.memory_capacity < least * (1 - HAIR):
        yield f"its {cost.stacks} memory stacks hold at least {least / 1e9:,.0f} GB"
    for what, has, most in (
        ("W", cost.watts, limits.watts),
        ("mm2 of dies", cost.area_mm2, limits.die_mm2),
        ("memory stacks", float(cost.stacks), float(limits.stacks)),
    ):
        if most is not None and has > most * (1 + HAIR):
            yield f"an NPU has {has:,.0f} {what}, {most:,.0f} are allowed"


def _served(
    problem: DesignProblem,
    design: Design,
    use_case: DesignUseCase,
    served: ServedUseCase,
) -> list[str]:
    """Return what a use case breaks; what cannot run at all is not estimated."""
    return list(_rules(use_case, served)) or [
        *_layout(design, use_case, served),
        *_targets(use_case, served, predicted(problem, design, use_case, served)),
    ]


def _rules(use_case: DesignUseCase, served: ServedUseCase) -> Iterator[str]:
    if served.precision not in [p.name for p in use_case.formats()]:
        yield f"precision {served.precision} is not asked for"
    rule = use_case.arch.rule_broken_by(served.split)
    if rule is not None:
        yield rule
    if served.replicas < 1:
        yield "it has no replica"


def _layout(
    design: Design, use_case: DesignUseCase, served: ServedUseCase
) -> Iterator[str]:
    domain = design.platform.scale_up_npus
    if served.split.tp > domain:
        yield f"tp {served.split.tp} exceeds the domain of {domain} NPUs"
    if use_case.max_npus is not None and served.npus > use_case.max_npus:
        yield f"{served.npus} NPUs exceed its limit of {use_case.max_npus}"


def _targets(
    use_case: DesignUseCase, served: ServedUseCase, found: Estimate
) -> Iterator[str]:
    if found.overloaded:
        finished = float(found.rate) * served.replicas
        yield f"its replicas finish {finished:.4g} of {use_case.rate:.4g} req/s"
    if not found.fits:
        yield "it does not fit in memory"
    for name, limit in use_case.targets.items():
        value = float(getattr(found, name))
        if value > limit * (1 + HAIR):
            yield f"mean {name.upper()} {value:.4g} s exceeds {limit:.4g} s"


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= HAIR * abs(other)
