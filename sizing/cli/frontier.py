"""``genz-size frontier``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sizing.cli import INFEASIBLE, INTERRUPTED, TIMED_OUT
from sizing.cli.candidates import candidates_option, question_of
from sizing.cli.files import image
from sizing.cli.options import chosen_format, output_options
from sizing.cli.progress import collected
from sizing.cli.proof import answers_of, many_options, proof_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sizing.frontier import Point


@click.command("frontier")
@click.argument("problem_file", metavar="PROBLEM.toml", type=click.Path(path_type=Path))
@click.option(
    "--along",
    required=True,
    metavar="FIGURE",
    help="What cost is drawn over: ttft, tpot, e2e (or ttft.p99, ...), rate, "
    "concurrency, headroom, confidence; or npus, power.",
)
@click.option(
    "--from",
    "low",
    metavar="VALUE",
    help="Where it begins, with its unit, e.g. '20 ms'.",
)
@click.option("--to", "high", metavar="VALUE", help="Where it ends, with its unit.")
@click.option(
    "--points",
    type=click.IntRange(2, 1000),
    help="How many points [9]; along npus and power at most so many [all that there "
    "are].",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=image,
    help="Draw the points into this file (.png or .svg).",
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
    """Draw the least cost of a problem over a target, its rate, NPUs or power.

    Along a target or a rate the problem is solved at evenly spaced values; along npus
    and power each point is the next plan that uses fewer: the cheapest of all those.
    Points that another one beats are marked.

    Exit code 0: there are plans; 3: there are none; 4: a point ran out of time; 130:
    interrupted, after the report of what was done.
    """
    from sizing.files import write
    from sizing.frontier import Frontier, axis_of, marked
    from sizing.report.frontier import FORMATS, Drawn

    axis = axis_of(stated["along"])
    ends = {
        name: None if stated[name] is None else axis.parse(stated[name], option)
        for name, option in (("low", "--from"), ("high", "--to"))
    }
    if stated["plot"] is not None:
        from sizing.report import frontier_plot
    problem, figures = question_of(problem_file, stated["candidates"])
    asked = Frontier(problem, stated["along"], **ends, points=stated["points"])
    answers = answers_of(stated, figures)
    points, complete = collected(asked.found(answers), asked.wanted)
    drawn = Drawn(asked, marked(points, axis), complete, figures.table)
    if stated["plot"] is not None:
        frontier_plot.save(drawn, stated["plot"])
    write(FORMATS[chosen_format(format_, output, FORMATS)](drawn), output)
    return _code(points) if complete else INTERRUPTED


def _code(points: "Sequence[Point]") -> int:
    status = {point.solved.status for point in points}
    if "timed_out" in status:
        return TIMED_OUT
    return INFEASIBLE if status <= {"infeasible"} else 0
