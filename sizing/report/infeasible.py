"""Why there is no plan, and what to give up, as text."""

from rich.console import Console

from problems.problem import SizingProblem
from problems.requirements import requirements
from sizing.report.console import plain_table, section
from solver.explain import Explanation, Remedy
from solver.floors import MEMORY, STOCK
from solver.relaxing import is_limit
from solver.ways_out import Joint


def infeasible(
    console: Console,
    problem: SizingProblem,
    explanation: Explanation,
    tried: str = "hardware that these filters allow",
) -> None:
    """Print what clashes, how little each requirement could be, and the ways out.

    `tried` names what was looked through.
    """
    conflicts = explanation.conflicts
    if conflicts == (MEMORY,):
        console.print(
            f"No plan: {' or '.join(problem.models)} does not fit in the memory of any "
            "replica that these NPUs and prices allow."
        )
    elif conflicts == (STOCK,):
        console.print(
            "No plan: all hardware of your own together is too little, and no price of "
            "more passes these filters."
        )
    elif len(conflicts) == 1:
        console.print(f"No plan: {_alone(problem, conflicts[0], tried)}.")
    else:
        console.print(
            f"No plan: {_and(conflicts)} cannot be met together; "
            "without any one of them the others can."
        )
    table = plain_table(
        "requirement", ">asked", ">least", "possible", "where, and what binds"
    )
    for f in explanation.floors:
        possible = "yes" if f.possible else "no"
        table.add_row(f.requirement, f.wanted, f.least, possible, f.reason)
    if explanation.floors:
        section(console, "The least that each could be by itself", table)
    _ways_out(console, problem, explanation)


def _ways_out(
    console: Console, problem: SizingProblem, explanation: Explanation
) -> None:
    if explanation.remedies:
        console.print()
    for remedy in explanation.remedies:
        console.print(f"- {_remedy(remedy)}")
    if explanation.relaxations:
        _relaxations(console, problem, explanation)
    elif len(requirements(problem)) > 1 and explanation.conflicts != (MEMORY,):
        console.print()
        console.print("No single relaxation suffices; more than one must move.")
    if explanation.joint is not None:
        console.print()
        console.print(_joint(explanation.joint))
    if not explanation.complete:
        console.print()
        console.print(
            "The time was up before all was known: the conflict may be smaller, and "
            "more may help. Give more --time-limit."
        )


def _relaxations(
    console: Console, problem: SizingProblem, explanation: Explanation
) -> None:
    table = plain_table("requirement", ">asked", ">needed", ">then USD/h", ">NPUs")
    for relaxed in explanation.relaxations:
        table.add_row(
            relaxed.requirement,
            relaxed.wanted,
            relaxed.to,
            _dollars(relaxed.usd_per_hour),
            f"{relaxed.npus:,}",
        )
    title = "What to give up at least: any one of these alone makes a plan possible"
    section(console, title, table)
    # Near their least, latencies need replicas that are hardly loaded.
    latencies = {r.label for r in requirements(problem) if not is_limit(r)}
    if any(each.requirement in latencies for each in explanation.relaxations):
        console.print()
        console.print(
            "A latency needed is the tightest that any plan keeps, however dear; a "
            "looser one may cost far less (genz-size frontier sets out how much)."
        )


def _joint(joint: Joint) -> str:
    """Return what moves together, and what that costs, in a sentence."""
    moves = tuple(
        f"{requirement} from {wanted} to {to}"
        for requirement, wanted, to in zip(
            joint.requirements, joint.wanted, joint.to, strict=True
        )
    )
    known = joint.usd_per_hour is not None
    cost = f"{_dollars(joint.usd_per_hour)} USD an hour and " if known else ""
    return (
        f"Or move together, each by {joint.factor - 1:.0%}: {_and(moves)}. The "
        f"cheapest plan is then {cost}{joint.npus:,} NPUs."
    )


def _dollars(usd_per_hour: float | None) -> str:
    return "" if usd_per_hour is None else f"{usd_per_hour:,.2f}"


def _remedy(remedy: Remedy) -> str:
    return (
        f"{remedy.requirement} of {remedy.wanted} fails through load: hardly loaded it "
        f"is {remedy.alone}; {remedy.replicas} would meet it."
    )


def _alone(problem: SizingProblem, label: str, tried: str) -> str:
    """Return why a requirement cannot be met even by itself."""
    (broken,) = (r for r in requirements(problem) if r.label == label)
    asked = f"{label} of {broken.text(broken.value)}"
    if broken.target is not None:
        return f"no {tried} reaches a {asked}"
    return f"the {asked} is too small for this traffic, whatever the targets"


def _and(words: tuple[str, ...]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]
