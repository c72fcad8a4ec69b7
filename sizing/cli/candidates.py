"""The option that takes the figures of replicas from a table, not from our model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from problems.problem import SizingProblem
    from sizing.solved import Figures

F = TypeVar("F", bound=Callable[..., Any])


def candidates_option(function: F) -> F:
    """Add ``--candidates``."""
    return click.option(
        "--candidates",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="TABLE.csv",
        help="Size from figures of your own or of another tool: replicas with their "
        "mean TTFT, TPOT and rate.",
    )(function)


def question_of(file: Path, candidates: Path | None) -> "tuple[SizingProblem, Figures]":
    """Return the problem of a file, and where figures of replicas come from.

    Raises
    ------
    GenzSizeError
        If the problem, or the table, cannot be read or is malformed.
    """
    from problems.given.problem import given_problem_of
    from problems.given.table import CandidatesTable
    from problems.problem import problem_of, read_toml
    from sizing.solved import Modelled

    data = read_toml(file)
    if candidates is None:
        return problem_of(data, source="file"), Modelled()
    from sizing.given import Tabled

    table = CandidatesTable.read(candidates)
    return given_problem_of(data, table.npus, source="file"), Tabled(table)
