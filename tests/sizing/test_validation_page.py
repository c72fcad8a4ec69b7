"""The page that `genz-size validate --format markdown` writes keeps its shape."""

import re
from pathlib import Path

from problems.measured.shipped import shipped
from problems.measured.tables import read_table
from sizing.report.validation import HEADER
from sizing.report.validation_markdown import _PREFACE

PAGE = Path(__file__).parents[2] / "docs" / "validation.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_it_starts_as_the_command_writes_it() -> None:
    assert TEXT.startswith(_PREFACE)


def test_every_kind_that_is_shipped_has_its_tables() -> None:
    kinds = dict.fromkeys(read_table(path).kind for path in shipped())
    found = re.findall(r"^## (\w+): \d+ measurements", TEXT, flags=re.M)
    assert found == list(kinds)
    assert TEXT.count("### by metric") == len(kinds)


def test_every_line_of_a_table_has_its_columns() -> None:
    columns = 0
    for line in TEXT.splitlines():
        if not line.startswith("|"):
            columns = 0
            continue
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        columns = columns or len(cells)
        assert len(cells) == columns, line


def test_figures_stand_under_their_names() -> None:
    header = "| metric | " + " | ".join(HEADER).replace("|ln|", r"\|ln\|") + " |"
    assert header in TEXT
    shares = re.findall(r"^\| ttft_ms \| [\d,]+ \| \d+ \| (\d+)% \|", TEXT, flags=re.M)
    assert len(shares) == 1
    assert 0 <= int(shares[0]) <= 100
