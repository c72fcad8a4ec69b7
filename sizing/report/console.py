"""Plain text no wider than is good to read, and the tables of our reports."""

import io
from shutil import get_terminal_size

from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

WIDTH, NARROWEST = 100, 60
"""Characters of a line: at most, and at least however narrow the terminal is."""


def new_console() -> Console:
    """Return a console that collects plain text, as wide as the terminal up to `WIDTH`.

    Where there is no terminal, nor the variable COLUMNS, it has `WIDTH`.
    """
    columns = get_terminal_size((WIDTH, 24)).columns
    return Console(
        file=io.StringIO(),
        width=min(max(columns, NARROWEST), WIDTH),
        highlight=False,
        color_system=None,
        emoji=False,
    )


def text_of(console: Console) -> str:
    """Return what a console has collected, without spaces at line ends."""
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


_WHOLE = ("NPU", "npu", "model", "traffic", "row", "mode", "precision", "mostly")
"""Columns of words that are never broken."""

_GAP, _TIGHT = 2, 1
"""Blanks behind a column, and of a table that is too wide with so many."""

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
    usual, least = console.width, sum(map(_least_width, table.columns))
    count = len(table.columns)
    gap = _GAP if least + _GAP * count <= usual else _TIGHT
    table.padding = (0, gap, 0, 0)
    console.width = max(usual, least + gap * count)
    console.print(table)
    console.width = usual


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
