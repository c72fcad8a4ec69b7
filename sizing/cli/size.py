"""``genz-size size``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sizing.cli import INFEASIBLE, TIMED_OUT
from sizing.cli.candidates import candidates_option
from sizing.cli.fields import naming_options, overridden
from sizing.cli.files import in_folder
from sizing.cli.fleet_options import fleet_options
from sizing.cli.options import (
    chosen_format,
    optimisation_options,
    output_options,
    problem_options,
)
from sizing.cli.proof import proof_options

if TYPE_CHECKING:
    from problems.problem import SizingProblem
    from solver.instance import Instance
    from solver.model import SolveOptions


@click.command("size")
@click.argument(
    "problem_file",
    metavar="[PROBLEM.toml]",
    required=False,
    type=click.Path(path_type=Path),
)
@problem_options
@fleet_options
@optimisation_options
@candidates_option
@proof_options
@click.option(
    "--check",
    is_flag=True,
    help="Simulate every request of the plan; where a target fails, correct what "
    "replicas take and size again.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Also say what each requirement costs, and where cheaper plans win. It sizes "
    "many times, and takes at most --time-limit longer.",
)
@click.option(
    "--export-model",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=in_folder,
    help="Write the CP-SAT model to this file: text if it ends in .txt, else binary.",
)
@output_options("text", "json", "csv")
def command(
    problem_file: Path | None,
    candidates: Path | None,
    time_limit: float,
    workers: int,
    check: bool,
    format_: str | None,
    output: Path | None,
    **options: Any,
) -> int:
    """Find the cheapest hardware that serves a model within its latency targets.

    State the problem in a TOML file (`genz-size new` writes one), by options, or
    both: an option replaces what the file says. Without a file, --model,
    --input-tokens, --output-tokens and --rate or --concurrency are needed; --ttft,
    --tpot and --e2e are the targets. With --candidates the figures of replicas come
    from a table instead of our model.

    [Brackets] after an option say what holds without it.
    """
    from problems.problem import problem_of, read_toml
    from sizing.api import size
    from sizing.files import write
    from sizing.given import size_given
    from sizing.report.answer import FORMATS
    from sizing.report.given import FORMATS as TABLED
    from solver.model import SolveOptions

    export_model, deep = options.pop("export_model"), options.pop("explain")
    if export_model is not None and check:
        raise click.BadParameter("goes without --check", param_hint="--export-model")
    export = None if export_model is None else partial(_export, export_model)
    solve = SolveOptions(time_limit=time_limit, workers=workers)
    if candidates is not None and check:
        raise click.BadParameter(
            "does not go with --candidates: figures of a table are not simulated",
            param_hint="--check",
        )
    if check and deep:
        raise click.BadParameter("goes without --check", param_hint="--explain")
    data = read_toml(problem_file) if problem_file is not None else {}
    alone, tabled = problem_file is None, candidates is not None
    with naming_options(options, alone=alone, tabled=tabled):
        data = overridden(data, options)
        if candidates is not None:
            chosen = chosen_format(format_, output, TABLED)
            given = size_given(data, candidates, solve, export)
            write(TABLED[chosen](given), output)
            return _CODES.get(given.status, 0)
        problem = problem_of(data, source="file")
        chosen = chosen_format(format_, output, FORMATS)
        if check:
            return _checked(problem, solve, chosen, output)
        answer = size(problem, solve, export=export, deep=deep)
        write(FORMATS[chosen](answer), output)
        return _CODES.get(answer.status, 0)


def _export(output: Path, instance: "Instance") -> None:
    from sizing.files import write_by
    from solver.model import export

    write_by(partial(export, instance), output, "export-model")


_CODES = {"infeasible": INFEASIBLE, "timed_out": TIMED_OUT}


def _checked(
    problem: "SizingProblem", options: "SolveOptions", chosen: str, output: Path | None
) -> int:
    """Write a plan that was simulated, and return the exit code."""
    from sizing.check import checked_size
    from sizing.cli.progress import progress_bar
    from sizing.cli.simulate import MISSED
    from sizing.files import write
    from sizing.report.simulation import CHECKED

    if chosen not in CHECKED:
        raise click.BadParameter(
            f"goes with {' or '.join(CHECKED)}", param_hint="--check"
        )
    with progress_bar("simulating") as progress:
        checked = checked_size(problem, options, progress=progress)
    write(CHECKED[chosen](checked), output)
    return _CODES.get(checked.answer.status, MISSED if checked.failed else 0)
