"""``genz-size simulate``."""

from pathlib import Path
from typing import Any

import click

from sizing.cli import INFEASIBLE, TIMED_OUT
from sizing.cli.options import chosen_format, output_options
from sizing.cli.progress import progress_bar

MISSED = 3
"""Exit code where a target fails in the simulation."""


@click.command("simulate")
@click.argument(
    "file", metavar="PLAN.json|PROBLEM.toml", type=click.Path(path_type=Path)
)
@click.option(
    "--router",
    type=click.Choice(["least_loaded", "round_robin", "random"]),
    help="How requests find their replica [as the problem states].",
)
@click.option(
    "--requests",
    type=click.IntRange(100, 10_000_000),
    default=60_000,
    show_default=True,
    help="Requests of each class in a run.",
)
@click.option(
    "--runs",
    type=click.IntRange(2, 1000),
    default=5,
    show_default=True,
    help="Runs, doubled up to three times while a target is undecided.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of all that is random; equal seeds give equal results.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=300.0,
    show_default=True,
    help="Seconds after which no further run begins.",
)
@output_options("text", "json")
def command(
    file: Path, format_: str | None, output: Path | None, **options: Any
) -> int:
    """Simulate every request of a plan, and say which targets hold.

    The plan is what `genz-size size --format json -o PLAN.json` has written; a problem
    is sized first, unless it states a plan itself ([[plan]] tables). Continuous
    batching is followed step by step, as vLLM schedules.

    Exit code 3: a target fails for sure, or there is no plan to simulate.
    """
    if options["time_limit"] != options["time_limit"]:
        raise click.BadParameter(
            "nan is no number of seconds", param_hint="--time-limit"
        )
    from model_ops.serving.confidence import Verdict
    from model_ops.serving.simulation import Router
    from sizing.api import size
    from sizing.files import write
    from sizing.plan_file import holds_plan, read_plan, read_stated
    from sizing.report.answer import FORMATS as ANSWERS
    from sizing.report.simulation import FORMATS
    from sizing.simulate import Settings, simulated
    from solver.solve import Feasible, Optimal

    chosen = chosen_format(format_, output, FORMATS)
    if holds_plan(file):
        problem, plan = read_plan(file)
    else:
        problem, stated = read_stated(file)
        if stated is None:
            answer = size(problem)
            if not isinstance(answer.outcome, Optimal | Feasible):
                write(ANSWERS[chosen](answer), output)
                return INFEASIBLE if answer.status == "infeasible" else TIMED_OUT
            problem, stated = answer.problem, answer.outcome.plan
        plan = stated
    router = options["router"] and Router(options["router"])
    settings = Settings(**options | {"router": router})
    with progress_bar("simulating") as progress:
        found = simulated(problem, plan, settings, progress)
    write(FORMATS[chosen](found), output)
    return MISSED if found.verdict is Verdict.FAIL else 0
