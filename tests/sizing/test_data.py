"""Numbers for programs are rounded, and nothing else is changed."""

import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from sizing.report.data import csv_text, json_text, rounded

Genz = Callable[..., Any]
LOAD = (
    *("--model", "llama-3.1-8b", "--npu", "l40s", "--input-tokens", "1000"),
    *("--output-tokens", "200", "--rate", "5 req/s"),
)


def test_sums_of_decimal_fractions_are_decimals() -> None:
    assert 0.1 + 0.2 != 0.3
    assert json.loads(json_text({"sum": 0.1 + 0.2}))["sum"] == 0.3
    assert "0.3\n" in csv_text(["sum"], [{"sum": 0.1 + 0.2}])


@pytest.mark.parametrize("value", [1 / 3, 2e9 / 7, 1e-30 / 7, -1e20 / 7])
def test_twelve_digits_are_kept(value: float) -> None:
    assert rounded(value) == pytest.approx(value, rel=5e-12, abs=0.0)
    assert rounded(value) != value
    assert rounded(value) == float(f"{value:.12g}")


@pytest.mark.parametrize(
    "command",
    [
        ("size", *LOAD, "--price", "l40s=0.7 USD/h"),
        ("estimate", *LOAD, "--replicas", "3"),
        ("requirements", "--model", "llama-3.1-8b", "--use-case", "chat"),
    ],
    ids=lambda command: command[0],
)
def test_every_number_of_a_command_is_rounded(
    genz: Genz, command: tuple[str, ...]
) -> None:
    found = genz(*command, "--format", "json").json
    assert found == rounded(found)


def test_all_but_floats_stays() -> None:
    whole = 12345678901234567
    content = {"a": [whole, True, None, "0.30000000000000004"], "b": {"c": math.inf}}
    assert rounded(content) == content
    assert rounded(content)["a"][1] is True


def test_a_row_may_lack_cells_and_has_no_others_unless_they_are_left_out() -> None:
    rows = [{"a": 1, "c": 2}]
    found = list(csv.reader(io.StringIO(csv_text(["a", "b"], rows, only=True))))
    assert found == [["a", "b"], ["1", ""]]
    with pytest.raises(ValueError, match="c"):
        csv_text(["a", "b"], rows)
