"""Predicted memory against published measurements (tests/reference/README.md)."""

import statistics
from collections import defaultdict
from pathlib import Path

import pytest

from sizing.validate.scored import Scored, compare

DATA = Path(__file__).parents[1] / "reference" / "memory_truths.csv.gz"

WITH_VISION = "Llama-4-Scout"
"""Its checkpoint holds a vision tower, which a text model does not count."""


@pytest.fixture(scope="module")
def compared() -> dict[str, list[Scored]]:
    found: dict[str, list[Scored]] = defaultdict(list)
    for row in compare(DATA).rows:
        assert row.answered, row.answer.reason
        found[row.metric].append(row)
    return found


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("gpu_memory_used", 0.05),
        ("kv_capacity_tokens", 0.05),
        ("kv_cache_size_of_prompt", 0.02),
    ],
)
def test_median_error(
    compared: dict[str, list[Scored]], kind: str, most: float
) -> None:
    errors = [abs(each.error) for each in compared[kind]]
    assert statistics.median(errors) < most


def test_text_models_are_within_a_tenth_each(
    compared: dict[str, list[Scored]],
) -> None:
    for kind, each in compared.items():
        if kind == "fits":
            continue
        for figure in each:
            if figure.row["model"] != WITH_VISION:
                assert abs(figure.error) < 0.1, figure


def test_nothing_is_predicted_to_fit_that_was_out_of_memory(
    compared: dict[str, list[Scored]],
) -> None:
    fits = compared["fits"]
    assert [f for f in fits if f.error > 0] == []
    # And the prediction is of use: hardly anything that ran is refused.
    refused = [f for f in fits if f.error < 0]
    assert len(refused) <= 0.03 * len(fits)
