"""Counts as text."""

import pytest

from sizing.report.counts import count, counted


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (230, "230"),
        (1_234, "1,234"),
        (66_000, "66,000"),
        (999_999, "999,999"),
        (1_000_000, "1 million"),
        (1_130_000, "1.1 million"),
        (72_000_000, "72 million"),
        (231_000_000, "230 million"),
        (996_000_000, "1 billion"),
        (7.31e10, "73 billion"),
        (9.96e11, "1e12"),
        (6.54e16, "6.5e16"),
    ],
)
def test_a_count_is_readable_at_any_size(value: float, text: str) -> None:
    assert count(value) == text


def test_one_is_singular() -> None:
    assert counted(1, "NPU") == "1 NPU"
    assert [counted(n, "NPU") for n in (0, 2, 2_000_000)] == [
        "0 NPUs",
        "2 NPUs",
        "2 million NPUs",
    ]
