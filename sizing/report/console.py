"""Plain text of a fixed width, and the tables of our reports."""

import io

from rich.console import Console
from rich.table import Table as RichTable

WIDTH = 100


def new_console() -> Console:
    """Return a console that collects plain text of a fixed width."""
    return Console(
        file=io.StringIO(), width=WIDTH, highlight=False, color_system=None, emoji=False
    )


def text_of(console: Console) -> str:
    """Return what a console has collected, without spaces at line ends."""
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def plain_table(*columns: str) -> RichTable:
    """Return an empty table in the reports' style; ``>`` aligns a column right."""
    table = RichTable(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        if column.startswith(">"):
            table.add_column(column[1:], justify="right", overflow="fold")
        else:
            whole = column in ("NPU", "npu", "model", "traffic", "row", "mode")
            table.add_column(column, overflow="fold", no_wrap=whole)
    return table


def section(console: Console, title: str, table: RichTable) -> None:
    """Print a table under its title, after a blank line."""
    console.print()
    console.print(title)
    console.print(table)
