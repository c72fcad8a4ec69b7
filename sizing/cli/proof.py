"""Options of the search for a proof, and of many of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sizing.solved import Answers, Figures

F = TypeVar("F", bound=Callable[..., Any])


def proof_options(function: F) -> F:
    """Add ``--time-limit`` and ``--workers``."""
    limit = click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True, max=86_400),
        default=60.0,
        show_default=True,
        callback=_seconds,
        help="Seconds for the proof of each problem.",
    )
    workers = click.option(
        "--workers",
        type=click.IntRange(1, 64),
        default=1,
        show_default=True,
        help="Threads of the solver; with one, equal problems get equal plans.",
    )
    return limit(workers(function))


def _seconds(_: click.Context, __: click.Parameter, value: float) -> float:
    if value != value:
        raise click.BadParameter("nan is no number of seconds")
    return value


def many_options(function: F) -> F:
    """Add ``--jobs`` and ``--resume``, for many proofs."""
    jobs = click.option(
        "--jobs",
        type=click.IntRange(1, 256),
        help="Problems that are solved at the same time, in processes of their own; "
        "the answers are the same [as many as processors, up to 8].",
    )
    resume = click.option(
        "--resume",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Keep each answer in this file as soon as it is known, and take from it "
        "those that are known already, so that an interrupted run can go on.",
    )
    return jobs(resume(function))


def answers_of(stated: Mapping[str, Any], figures: "Figures") -> "Answers":
    """Return the answers that the options ask for, some perhaps known already.

    `figures` says where those of replicas come from.

    Raises
    ------
    ProblemError
        If the file of known ones cannot be read or written, or is none of ours.
    """
    from sizing.journal import Journal
    from sizing.parallel import usable_cpus
    from sizing.solved import Answers
    from solver.model import SolveOptions

    options = SolveOptions(time_limit=stated["time_limit"], workers=stated["workers"])
    jobs = stated["jobs"] or usable_cpus()
    return Answers(options, Journal.at(stated["resume"]), jobs, figures)
