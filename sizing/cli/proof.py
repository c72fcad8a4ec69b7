"""Options of the search for a proof, and of many of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def proof_options(function: F) -> F:
    """Add ``--time-limit`` and ``--workers``."""
    limit = click.option(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True, max=86_400),
        default=60.0,
        show_default=True,
        callback=_seconds,
        help="Seconds for the proof; of each, where there are several.",
    )
    workers = click.option(
        "--workers",
        type=click.IntRange(1, 64),
        default=1,
        show_default=True,
        help="Threads of the proof; one is deterministic.",
    )
    return limit(workers(function))


def _seconds(_: click.Context, __: click.Parameter, value: float) -> float:
    if value != value:
        raise click.BadParameter("nan is no number of seconds")
    return value


def resume_option(function: F) -> F:
    """Add ``--resume``."""
    return click.option(
        "--resume",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Keep each answer in this file as soon as it is known, and take from it "
        "what is known already.",
    )(function)
