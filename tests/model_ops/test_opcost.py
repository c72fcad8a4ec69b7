import numpy as np
import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, CollectiveKind, OpCost

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None)

# Whole numbers far below 2**53: sums and products of them are exact in floats.
amount = st.integers(0, 10**6).map(float)
costs = st.builds(
    OpCost,
    flop=st.dictionaries(st.sampled_from(list(Dtype)), amount, max_size=3),
    read=amount,
    written=amount,
    link_bytes=amount,
    launches=amount,
)
times = st.integers(0, 1000)


def test_sums_by_hand() -> None:
    one = OpCost(flop={Dtype.BF16: 2.0, Dtype.FP8: 3.0}, read=5.0, launches=1.0)
    two = OpCost(flop={Dtype.BF16: 7.0}, read=11.0, written=13.0, link_bytes=17.0)
    assert one + two == OpCost(
        flop={Dtype.BF16: 2.0 + 7.0, Dtype.FP8: 3.0},
        read=5.0 + 11.0,
        written=13.0,
        link_bytes=17.0,
        launches=1.0,
    )
    assert (one + two).total_flop == 2 + 7 + 3
    assert (one + two).bytes == 5 + 11 + 13
    assert (one + two).intensity == (2 + 7 + 3) / (5 + 11 + 13)


def test_an_operator_without_bytes_has_a_finite_intensity_of_zero() -> None:
    assert OpCost().intensity == 0.0


@settings
@hypothesis.given(costs, costs, costs)
def test_addition_is_associative_commutative_and_has_a_zero(
    a: OpCost, b: OpCost, c: OpCost
) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + OpCost() == a


@settings
@hypothesis.given(costs, costs, times, times)
def test_scaling_distributes(a: OpCost, b: OpCost, m: int, n: int) -> None:
    assert (a + b) * n == a * n + b * n
    assert a * (m + n) == a * m + a * n
    assert (a * m) * n == a * (m * n)
    assert n * a == a * n
    assert a * 1 == a


@settings
@hypothesis.given(costs, st.integers(1, 6))
def test_scaling_is_repeated_addition(a: OpCost, n: int) -> None:
    total = a
    for _ in range(n - 1):
        total = total + a
    assert a * n == total


@settings
@hypothesis.given(costs, costs)
def test_totals_are_linear(a: OpCost, b: OpCost) -> None:
    assert (a + b).bytes == a.bytes + b.bytes
    assert (a + b).total_flop == a.total_flop + b.total_flop


def test_costs_scale_by_arrays() -> None:
    cost = OpCost(flop={Dtype.BF16: 3.0}, read=5.0) * np.array([1.0, 2.0])
    assert cost.flop[Dtype.BF16].tolist() == [3.0, 6.0]
    assert cost.read.tolist() == [5.0, 10.0]


def test_arrays_and_their_elements_scale_costs_from_the_left() -> None:
    cost, scale = OpCost(flop={Dtype.BF16: 3.0}, read=5.0), np.array([1.0, 2.0])
    scaled = scale * cost
    assert isinstance(scaled, OpCost)
    assert scaled.flop[Dtype.BF16].tolist() == [3.0, 6.0]
    assert scaled.read.tolist() == [5.0, 10.0]
    assert scale[1] * cost == cost * 2
    with pytest.raises(TypeError):
        scale + cost


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_least_bytes_each_rank_sends(ranks: int) -> None:
    payload = 840.0

    def sent(kind: CollectiveKind) -> float:
        return Collective("c", kind, payload, ranks).cost().link_bytes

    # Gather: a rank owns 1/ranks and must get it to the others; in a ring each
    # passes on ranks - 1 pieces. Reduce-scatter moves as much, and before it.
    piece = payload / ranks
    assert sent(CollectiveKind.ALL_GATHER) == pytest.approx((ranks - 1) * piece)
    assert sent(CollectiveKind.ALL_REDUCE) == pytest.approx(2 * (ranks - 1) * piece)
    assert sent(CollectiveKind.SEND) == payload
    for kind in ("reduce_scatter", "all_to_all", "broadcast"):
        found = sent(CollectiveKind(kind))
        assert found == pytest.approx((ranks - 1) * piece)


@pytest.mark.parametrize("kind", list(CollectiveKind))
def test_a_rank_alone_sends_nothing(kind: CollectiveKind) -> None:
    cost = Collective("c", kind, 1e9, 1).cost()
    assert cost.link_bytes == 0
    assert cost.bytes == 0
    assert cost.total_flop == 0


@pytest.mark.parametrize("kind", list(CollectiveKind))
def test_collective_arrays_equal_scalars(kind: CollectiveKind) -> None:
    ranks = np.array([1, 2, 4, 6])
    together = Collective("c", kind, 100.0, ranks).cost().link_bytes
    alone = [Collective("c", kind, 100.0, int(r)).cost().link_bytes for r in ranks]
    assert together.tolist() == alone
