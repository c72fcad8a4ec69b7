"""``genz-size new``."""

from pathlib import Path

import click

from problems.examples import example_names, example_text
from sizing.cli.options import output_only


@click.command("new")
@click.argument("example", default="chat", required=False)
@output_only
@click.option("--list", "list_", is_flag=True, help="List the examples and exit.")
def command(example: str, output: Path | None, list_: bool) -> None:
    """Write an example problem file to start from.

    EXAMPLE is one of those that --list shows; without it, a chat assistant.
    """
    from model_ops.errors import ProblemError, nearest
    from sizing.files import write

    if list_:
        lines = (f"{name}: {title}" for name, title in example_names().items())
        write("\n".join(lines) + "\n", output)
        return
    if example not in example_names():
        raise ProblemError(
            f"example: no '{example}'{nearest(example, example_names())}"
        )
    if output is not None and output.exists():
        raise ProblemError(f"--output: {output} exists; choose another name")
    write(example_text(example), output)
