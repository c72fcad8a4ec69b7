"""How unevenly tokens choose among experts."""

from itertools import pairwise

import numpy as np
import pytest

from model_ops.profiler.expert_load import BALANCED, ExpertLoad

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None, max_examples=60)

SHAPES = [(8, 2, 2), (8, 2, 8), (64, 6, 8), (128, 8, 16), (256, 8, 32), (60, 4, 8)]


@pytest.mark.parametrize(("experts", "chosen", "ranks"), SHAPES)
def test_balance_is_exactly_one(experts: int, chosen: int, ranks: int) -> None:
    assert ExpertLoad(0.0).imbalance(experts, chosen, ranks) == 1.0
    assert BALANCED.imbalance(experts, chosen, np.array([1, ranks])) == 1.0


@settings
@hypothesis.given(
    alpha=st.floats(0.01, 5),
    experts=st.integers(1, 64),
    chosen=st.integers(1, 64),
    ranks=st.integers(1, 64),
    redundant=st.integers(0, 32),
)
def test_between_balance_and_all_on_one_rank(
    alpha: float, experts: int, chosen: int, ranks: int, redundant: int
) -> None:
    chosen, ranks = min(chosen, experts), min(ranks, experts)
    found = ExpertLoad(alpha, redundant).imbalance(experts, chosen, ranks)
    assert 1 - 1e-9 <= found <= ranks * (1 + 1e-9)
    # No rank of E / R experts can get more than each token's choice of all of them.
    if not redundant:
        held = -(-experts // ranks)
        assert found <= min(held / chosen, 1) * ranks * (1 + 1e-9)


@pytest.mark.parametrize("redundant", [0, 3])
def test_one_rank_gets_all(redundant: int) -> None:
    found = ExpertLoad(1.2, redundant).imbalance(16, 4, 1)
    assert found == pytest.approx(1)


def test_two_experts_on_two_ranks_by_hand() -> None:
    # Popularities 1 : 1/2, one expert each: the busier rank has 2/3 of the tokens.
    assert ExpertLoad(1.0).imbalance(2, 1, 2) == pytest.approx(2 / 3 * 2)
    # Three copies of the popular one, 2/9 each: 1/3 + 2/9 against 2/9 + 2/9.
    assert ExpertLoad(1.0, 2).imbalance(2, 1, 2) == pytest.approx(5 / 9 * 2)


def test_a_token_takes_no_expert_twice() -> None:
    # Popularities 1 : 1/32, but each token takes two of two.
    assert ExpertLoad(5.0).imbalance(2, 2, 2) == pytest.approx(1)
    # Of 1 : 1/8 : 1/27 the first gets no more than half; 27 : 8 share the rest.
    shares = ExpertLoad(3.0).imbalance(3, 2, 3) / 3
    assert shares == pytest.approx(1 / 2)


def test_all_experts_chosen_is_balance() -> None:
    assert ExpertLoad(2.0).imbalance(8, 8, 4) == pytest.approx(1)


@pytest.mark.parametrize(("experts", "chosen", "ranks"), SHAPES)
def test_more_skew_is_more_imbalance(experts: int, chosen: int, ranks: int) -> None:
    alphas = (0.0, 0.1, 0.3, 0.6, 1.0, 1.5)
    found = [ExpertLoad(a).imbalance(experts, chosen, ranks) for a in alphas]
    assert found == sorted(found)


@pytest.mark.parametrize(("experts", "chosen", "ranks"), SHAPES)
@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0])
def test_redundant_experts_spread_the_load(
    experts: int, chosen: int, ranks: int, alpha: float
) -> None:
    counts = (0, ranks, 2 * ranks, 4 * ranks)
    found = [ExpertLoad(alpha, n).imbalance(experts, chosen, ranks) for n in counts]
    assert max(found[1:]) < found[0]
    # Whole copies are dealt one by one, which leaves a little on one rank or another.
    assert all(b <= a * 1.005 for a, b in pairwise(found)), found


def test_arrays_of_ranks_give_what_each_gives_and_twice_the_same() -> None:
    load = ExpertLoad(0.7)
    ranks = np.array([[1, 2, 4], [8, 4, 1]])
    found = load.imbalance(64, 6, ranks)
    each = [[load.imbalance(64, 6, int(r)) for r in row] for row in ranks]
    assert found.tolist() == each
    assert load.imbalance(64, 6, ranks).tolist() == found.tolist()
