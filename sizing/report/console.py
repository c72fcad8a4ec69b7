"""Plain text of a fixed width, and the tables of our reports."""

import io

from rich.console import Console
from rich.table import Column
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


_WHOLE = ("NPU", "npu", "model", "traffic", "row", "mode", "precision", "mostly")
"""Columns of words that are never broken."""

_GAP = 2
"""Blanks behind a column."""

_LEAST_TEXT = 24
"""Characters of a line that a column of text gets, if it has so many."""


def plain_table(*columns: str) -> RichTable:
    """Return an empty table in the reports' style; ``>`` aligns a column right.

    Numbers and names are never broken; text goes on in the next line.
    """
    table = RichTable(box=None, padding=(0, _GAP, 0, 0))
    for column in columns:
        number = column.startswith(">")
        table.add_column(
            column.removeprefix(">"),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=number or column in _WHOLE,
        )
    return table


def print_table(console: Console, table: RichTable) -> None:
    """Print a table; one of too many columns is wider than the other text."""
    least = sum(_least_width(column) + _GAP for column in table.columns)
    console.width = max(WIDTH, least)
    console.print(table)
    console.width = WIDTH


def _least_width(column: Column) -> int:
    """Return the characters that a column needs."""
    lines = [
        line
        for cell in (column.header, *column.cells)
        for line in str(cell).splitlines()
    ]
    longest = max(map(len, lines), default=0)
    return longest if column.no_wrap else min(longest, _LEAST_TEXT)


def section(console: Console, title: str, table: RichTable) -> None:
    """Print a table under its title, after a blank line."""
    console.print()
    console.print(title)
    print_table(console, table)
