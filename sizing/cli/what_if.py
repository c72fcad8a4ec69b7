"""``genz-size what-if``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sizing.cli import INFEASIBLE, INTERRUPTED, TIMED_OUT
from sizing.cli.candidates import candidates_option, question_of
from sizing.cli.options import chosen_format, output_options
from sizing.cli.progress import collected
from sizing.cli.proof import answers_of, many_options, proof_options
from sizing.cli.values import assignment

if TYPE_CHECKING:
    from problems.changes import Change
    from problems.problem import SizingProblem
    from sizing.scenarios import Scenario
    from sizing.what_if import Row

_SHORT = ("without", "rate", "ttft", "tpot", "e2e")
"""Options that stand for --set with a key of the same name, in their order."""


@click.command("what-if")
@click.argument("problem_file", metavar="PROBLEM.toml", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "set_",
    multiple=True,
    metavar="KEY=VALUE",
    help="A scenario: a field of the problem changed, to a value with its unit, or "
    "by a factor (2x, +20%, -20%); 'none' drops a limit. E.g. rate=2x, "
    "price.h200=-20%, limits.npus=16, input_tokens=1.5x; repeatable.",
)
@click.option(
    "--without", multiple=True, metavar="NPU", help="One without it; repeatable."
)
@click.option(
    "--rate",
    metavar="VALUE",
    multiple=True,
    help="As --set rate=VALUE, e.g. 2x; repeatable.",
)
@click.option(
    "--ttft", metavar="VALUE", multiple=True, help="As --set ttft=VALUE; repeatable."
)
@click.option(
    "--tpot", metavar="VALUE", multiple=True, help="As --set tpot=VALUE; repeatable."
)
@click.option(
    "--e2e", metavar="VALUE", multiple=True, help="As --set e2e=VALUE; repeatable."
)
@click.option(
    "--together", is_flag=True, help="Make one scenario of all the options above."
)
@click.option(
    "--grid",
    multiple=True,
    metavar="KEY=V1,V2,...",
    help="A scenario for each value; several grids: for each combination.",
)
@click.option(
    "--scenarios",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="More of them: [[scenario]] tables (name, set = {...}) and a [grid].",
)
@candidates_option
@proof_options
@many_options
@output_options("text", "json", "csv")
def command(
    problem_file: Path,
    format_: str | None,
    output: Path | None,
    **stated: Any,
) -> int:
    """Compare a problem with variations of it: plans, costs, what changed and why.

    Each --set, --without, --rate, --ttft, --tpot and --e2e is a variation (a scenario)
    of its own; with --together they are one. Those of --scenarios and --grid come
    after them.

    Exit code 0: every scenario has an answer, and that it has no plan is one; 3: the
    base and all of them have none; 4: one ran out of time; 130: interrupted, after
    the report of what was done.
    """
    from sizing.files import write
    from sizing.report.what_if import FORMATS, Compared
    from sizing.what_if import WhatIf

    base, figures = question_of(problem_file, stated["candidates"])
    asked = _scenarios(base, stated)
    answers = answers_of(stated, figures)
    question = WhatIf(base, asked, answers)
    question.check()
    rows, complete = collected(question.rows(), len(asked) + 1)
    compared = Compared(base, rows, complete, figures.table)
    write(FORMATS[chosen_format(format_, output, FORMATS)](compared), output)
    return _code(rows) if complete else INTERRUPTED


def _changes(stated: Mapping[str, Any]) -> "Iterator[Change]":
    from problems.changes import Change

    yield from (Change.of(text) for text in stated["set_"])
    for key in _SHORT:
        yield from (Change(key, value) for value in stated[key])


def _scenarios(base: "SizingProblem", stated: Mapping[str, Any]) -> "list[Scenario]":
    """Return what the options ask for, in the order of the help."""
    from sizing.scenarios import Scenario, product, read_scenarios

    changes = list(_changes(stated))
    groups = [changes] if stated["together"] and changes else [[c] for c in changes]
    asked = [Scenario.of(base, group) for group in groups]
    if stated["scenarios"] is not None:
        asked += read_scenarios(base, stated["scenarios"])
    pairs = (assignment("--grid", text) for text in stated["grid"])
    asked += product(base, [(key, _values(values)) for key, values in pairs])
    if not asked:
        raise click.UsageError(
            "no scenario is stated: give --set KEY=VALUE, --without NPU, --grid or "
            "--scenarios"
        )
    return asked


def _values(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _code(rows: "Sequence[Row]") -> int:
    status = {row.solved.status for row in rows}
    if "timed_out" in status:
        return TIMED_OUT
    return INFEASIBLE if status == {"infeasible"} else 0
