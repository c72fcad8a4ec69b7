"""How far a long run is, on standard error."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from model_ops.serving.confidence import Progress

Part = TypeVar("Part")


@contextmanager
def progress_bar(doing: str) -> Iterator["Progress"]:
    """Show on standard error how many parts are done, if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing, total=None)

        def show(done: int, wanted: int) -> None:
            bar.update(task, completed=done, total=wanted)

        yield show


def collected(parts: Iterable[Part], wanted: int) -> tuple[list[Part], bool]:
    """Return the parts of a long run, and whether they are all: Ctrl-C ends it.

    Raises
    ------
    Abort
        If it came before the first part.
    """
    found: list[Part] = []
    try:
        with progress_bar("solving") as show:
            for part in parts:
                found.append(part)
                show(len(found), wanted)
    except KeyboardInterrupt:
        if not found:
            raise click.Abort("interrupted, nothing finished yet") from None
        return found, False
    return found, True
