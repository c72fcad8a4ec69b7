from dataclasses import replace
from math import prod

import numpy as np
import pytest

from model_ops.platform.fabric import UNLIMITED, Fabric, Tier

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None)

LINK = Tier("link", npus=1, bandwidth=1.0, latency=1.0)


def fabric(*sizes: int) -> Fabric:
    return Fabric(tuple(replace(LINK, npus=size) for size in sizes))


@pytest.mark.parametrize(
    ("sizes", "ranks", "spread"),
    [
        ((8,), 1, (1,)),
        ((8,), 8, (8,)),
        ((8, UNLIMITED), 1, (1, 1)),
        ((8, UNLIMITED), 6, (6, 1)),  # inside one node
        ((8, UNLIMITED), 8, (8, 1)),
        ((8, UNLIMITED), 16, (8, 2)),
        ((8, UNLIMITED), 12, (4, 3)),  # 12 does not fill nodes of 8: three fours
        ((8, UNLIMITED), 9, (1, 9)),  # no equal share of a node but one
        ((4, 32, UNLIMITED), 64, (4, 8, 2)),
        ((4, 32, UNLIMITED), 8, (4, 2, 1)),
        ((4, 32, UNLIMITED), 6, (2, 3, 1)),
        ((72, UNLIMITED), 64, (64, 1)),
        ((72, UNLIMITED), 144, (72, 2)),
    ],
)
def test_spread_by_hand(
    sizes: tuple[int, ...], ranks: int, spread: tuple[int, ...]
) -> None:
    assert tuple(int(n) for n in fabric(*sizes).spread(ranks)) == spread


@pytest.mark.parametrize(
    ("sizes", "ranks", "stride", "spread"),
    [
        ((8, UNLIMITED), 4, 8, (1, 4)),  # a node each
        ((8, UNLIMITED), 4, 16, (1, 4)),
        ((8, UNLIMITED), 4, 2, (4, 1)),
        ((8, UNLIMITED), 8, 2, (4, 2)),
        ((8, UNLIMITED), 3, 4, (1, 3)),  # two would fit, but three do not share alike
        ((8, UNLIMITED), 4, 3, (2, 2)),  # two blocks of three fit a node
        ((8, UNLIMITED), 2, 6, (1, 2)),  # one block of six fits a node
        ((8, UNLIMITED), 2, 12, (1, 2)),  # blocks that cross nodes themselves
        ((4, 32, UNLIMITED), 12, 2, (2, 6, 1)),
        ((4, 32, UNLIMITED), 16, 4, (1, 8, 2)),
        ((4, 32, UNLIMITED), 4, 12, (1, 2, 2)),
    ],
)
def test_strided_spread_by_hand(
    sizes: tuple[int, ...], ranks: int, stride: int, spread: tuple[int, ...]
) -> None:
    assert tuple(int(n) for n in fabric(*sizes).spread(ranks, stride)) == spread


powers = st.integers(0, 8).map(lambda exponent: 2**exponent)


@settings
@hypothesis.given(st.lists(powers, min_size=1, max_size=3), powers, powers)
def test_groups_that_fill_domains_divide_out(
    factors: list[int], ranks: int, stride: int
) -> None:
    nested = fabric(*(prod(factors[: level + 1]) for level in range(len(factors))))
    whole, block = nested.spread(ranks * stride), nested.spread(stride)
    quotient = [int(n) // int(m) for n, m in zip(whole, block, strict=True)]
    assert [int(n) for n in nested.spread(ranks, stride)] == quotient


tiers = st.lists(st.integers(1, 9), min_size=1, max_size=4)
strides = st.integers(1, 64)


@settings
@hypothesis.given(tiers, st.integers(1, 512), strides)
def test_blocks_and_members_fit_their_domains(
    factors: list[int], ranks: int, stride: int
) -> None:
    sizes = [prod(factors[: level + 1]) for level in range(len(factors))]
    nested = fabric(*sizes)
    members = [int(n) for n in nested.spread(ranks, stride)]
    block = [int(n) for n in nested.spread(stride)]
    assert prod(members) == ranks
    assert min(members) >= 1
    for level, size in enumerate(sizes[:-1]):
        inside = prod(members[: level + 1]) * prod(block[: level + 1])
        assert inside <= size


@settings
@hypothesis.given(tiers, st.integers(1, 4096))
def test_product_is_ranks_and_no_domain_overflows(
    factors: list[int], ranks: int
) -> None:
    sizes = [prod(factors[: level + 1]) for level in range(len(factors))]
    spread = fabric(*sizes).spread(ranks)
    assert len(spread) == len(sizes)
    assert prod(int(n) for n in spread) == ranks
    for level, size in enumerate(sizes[:-1]):
        assert prod(int(n) for n in spread[: level + 1]) <= size


@settings
@hypothesis.given(tiers, st.lists(st.integers(1, 4096), min_size=1, max_size=5))
def test_arrays_equal_scalars(factors: list[int], ranks: list[int]) -> None:
    sizes = [prod(factors[: level + 1]) for level in range(len(factors))]
    together = fabric(*sizes).spread(np.array(ranks))
    for index, alone in enumerate(ranks):
        members = [int(np.broadcast_to(n, len(ranks))[index]) for n in together]
        assert members == [int(n) for n in fabric(*sizes).spread(alone)]


@settings
@hypothesis.given(st.integers(1, 64), st.integers(1, 64))
def test_a_group_that_fits_a_domain_stays_inside(size: int, ranks: int) -> None:
    inner, outer = fabric(size, UNLIMITED).spread(ranks)
    assert (outer == 1) == (ranks <= size)
    assert inner * outer == ranks
