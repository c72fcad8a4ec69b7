"""How far a long run is, on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_ops.serving.confidence import Progress


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
