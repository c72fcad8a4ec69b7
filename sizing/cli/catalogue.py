"""``genz-size catalogue``."""

import click

from sizing.cli.groups import Suggesting
from sizing.cli.options import output_options

_KINDS = (
    "npus",
    "models",
    "prices",
    "links",
    "efficiencies",
    "frameworks",
    "use_cases",
    "traces",
)


@click.group("catalogue", cls=Suggesting)
def command() -> None:
    """List and show the NPUs, models and prices that genz-size knows."""


@command.command("list")
@click.argument("kind", metavar="KIND", type=click.Choice(_KINDS))
@output_options("text", "json", "csv")
def list_(kind: str, format_: str | None, output: str | None) -> None:
    """List all items of a KIND.

    KIND is npus, models, prices, links, efficiencies, frameworks, use_cases or traces.
    """
    _write(kind, None, format_, output)


@command.command("show")
@click.argument("kind", metavar="KIND", type=click.Choice(_KINDS))
@click.argument("name")
@output_options("text", "json", "csv")
def show(kind: str, name: str, format_: str | None, output: str | None) -> None:
    """Show one item of a KIND with its sources.

    KIND is as for list; NAME is one that list shows, and for prices an NPU.
    """
    _write(kind, name, format_, output)


def _write(
    kind: str, name: str | None, format_: str | None, output: str | None
) -> None:
    from pathlib import Path

    from sizing.cli.options import chosen_format
    from sizing.files import write
    from sizing.report.catalogue import FORMATS, rows_of

    path = Path(output) if output is not None else None
    report = FORMATS[chosen_format(format_, path, FORMATS)]
    write(report(rows_of(kind, name)), path)
