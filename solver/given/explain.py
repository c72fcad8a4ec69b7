"""Why no rows of a candidates table solve a problem."""

from functools import partial

from problems.problem import SizingProblem
from problems.requirements import Requirement, requirements
from solver.explain import Explanation, exhausted, limit_floor, nothing_helps
from solver.floors import Floor
from solver.given.workspace import GivenWorkspace, meets
from solver.model import SolveOptions
from solver.relaxing import in_time, is_limit, without
from solver.ways_out import clash_of


def explain_given(workspace: GivenWorkspace, options: SolveOptions) -> Explanation:
    """Return why no rows of a table solve a problem."""
    options = options.started()
    every = requirements(workspace.problem)
    bare = without(workspace.problem, every)
    if nothing_helps(workspace, bare, options):
        return exhausted(workspace, options)
    clash, ways_out = clash_of(workspace, every, options)
    parts = (in_time(partial(_floor, workspace, bare, r, options)) for r in every)
    return Explanation(
        conflicts=tuple(r.label for r in clash),
        floors=tuple(floor for floor in parts if floor is not None),
        relaxations=ways_out.relaxations,
        joint=ways_out.joint,
        complete=options.remaining > 0,
    )


def _floor(
    workspace: GivenWorkspace,
    bare: SizingProblem,
    requirement: Requirement,
    options: SolveOptions,
) -> Floor:
    """Return the least of a target in the table, or of a limit by itself."""
    if is_limit(requirement) or requirement.target is None:
        return limit_floor(workspace, bare, requirement, options)
    _, target = requirement.target
    row = min(workspace.rows, key=lambda r: r.latencies[target.metric])
    within = sum(meets(r, target) for r in workspace.rows)
    every = requirements(workspace.problem)
    others = [other for other in every if other.label != requirement.label]
    alone = without(workspace.problem, others)
    if within and not workspace.has_plan(alone, options):
        # There is too little of what they stand on.
        return limit_floor(workspace, alone, requirement, options)
    least = row.latencies[target.metric]
    reason = f"row {row.name} (line {row.line}): {row.text}"
    if within:
        reason += f"; {within:,} of {len(workspace.rows):,} rows are within"
    return Floor(
        requirement=requirement.label,
        wanted=requirement.text(target.at_most),
        least=requirement.text(least),
        possible=within > 0,
        reason=reason,
    )
