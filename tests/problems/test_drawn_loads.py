import pytest

from problems.measured.operators.drawn_loads import busiest_rank


def test_balanced_choices_are_dealt_alike() -> None:
    # 8 tokens x 2 choices to 2 ranks of 2 experts.
    assert busiest_rank(8, 2, 4, 2, alpha=0.0) == (8.0, 2.0)
    # One token with 2 choices on 4 ranks of 2 experts: half a row of one expert.
    assert busiest_rank(1, 2, 8, 4, alpha=0.0) == (0.5, 1.0)


@pytest.mark.parametrize("tokens", [1, 16, 1000])
@pytest.mark.parametrize("alpha", [1.01, 1.2])
def test_no_choice_is_lost(tokens: int, alpha: float) -> None:
    rows, distinct = busiest_rank(tokens, 8, 128, 1, alpha=alpha)
    assert rows == 8 * tokens
    assert 1 <= distinct <= min(128, rows)


def test_the_busiest_rank_has_more_than_the_mean_and_no_more_than_all() -> None:
    rows, distinct = busiest_rank(1000, 8, 128, 16, alpha=1.2)
    assert 1000 * 8 / 16 < rows < 1000 * 8
    assert distinct <= 128 / 16


def test_steeper_loads_are_less_even() -> None:
    even, _ = busiest_rank(1000, 8, 128, 16, alpha=1.01)
    steep, _ = busiest_rank(1000, 8, 128, 16, alpha=2.5)
    assert steep > even


def test_few_choices_fall_on_experts_of_their_own() -> None:
    # 4 tokens x 8 choices of 128 experts: none of 32 choices rounds to two at once.
    rows, distinct = busiest_rank(4, 8, 128, 1, alpha=1.01)
    assert rows == 32
    assert distinct > 16
