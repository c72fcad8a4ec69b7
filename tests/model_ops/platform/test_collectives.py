from dataclasses import replace

import numpy as np
import pytest

from model_ops.opcost import Collective, CollectiveKind
from model_ops.platform.collectives import AlphaBeta, collective_seconds
from model_ops.platform.fabric import Fabric, Tier

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None)

ALL_REDUCE, ALL_GATHER = CollectiveKind.ALL_REDUCE, CollectiveKind.ALL_GATHER
SEND = CollectiveKind.SEND
FAST, SLOW = 1e10, 1e9  # bytes per second
NEAR, FAR = 1e-6, 1e-5  # seconds per hop
SWITCH = Tier("switch", npus=4, bandwidth=FAST, latency=NEAR, direct=True)
RING = Tier("ring", npus=64, bandwidth=SLOW, latency=FAR, direct=False)
TWO = Fabric((SWITCH, RING))


def seconds(
    kind: CollectiveKind,
    payload: float,
    ranks: object,
    fabric: Fabric = TWO,
    efficiency: float = 1.0,
) -> object:
    collective = Collective("c", kind, payload, ranks)
    return collective_seconds(collective, fabric, efficiency)


def test_alpha_beta_is_a_line() -> None:
    assert AlphaBeta(3.0, 2.0).seconds(5.0) == 3.0 + 5.0 * 2.0


@pytest.mark.parametrize("fabric", [TWO, Fabric((SWITCH,)), Fabric((RING,))])
@pytest.mark.parametrize("kind", list(CollectiveKind))
def test_one_rank_takes_no_time(kind: CollectiveKind, fabric: Fabric) -> None:
    assert seconds(kind, 1e9, 1, fabric) == 0


@pytest.mark.parametrize(("ranks", "hops"), [(2, 1), (3, 2), (4, 2)])
def test_all_gather_on_a_switch_doubles(ranks: int, hops: int) -> None:
    payload = 1e6
    expected = hops * NEAR + payload * (ranks - 1) / ranks / FAST
    assert seconds(ALL_GATHER, payload, ranks) == pytest.approx(expected)


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_all_gather_on_a_ring_passes_pieces_on(ranks: int) -> None:
    payload = 1e6
    piece = payload / ranks
    expected = (ranks - 1) * (FAR + piece / SLOW)
    found = seconds(ALL_GATHER, payload, ranks, Fabric((RING,)))
    assert found == pytest.approx(expected)


def test_all_gather_on_two_tiers() -> None:
    # 12 ranks: 4 in each of 3 nodes. Across nodes each rank gathers the quarter
    # that its peers hold; inside, the whole.
    payload, inside, nodes = 1.2e6, 4, 3
    across = (nodes - 1) * (FAR + payload / inside / nodes / SLOW)
    within = 2 * NEAR + payload * (inside - 1) / inside / FAST
    assert seconds(ALL_GATHER, payload, 12) == pytest.approx(across + within)


@pytest.mark.parametrize("ranks", [8, 12, 64])
def test_all_reduce_across_nodes_is_two_gathers(ranks: int) -> None:
    payload = 1e5
    expected = 2 * seconds(ALL_GATHER, payload, ranks)
    assert seconds(ALL_REDUCE, payload, ranks) == pytest.approx(expected)


def test_small_all_reduces_on_a_switch_go_in_one_hop() -> None:
    ranks = 4

    def one_shot(payload: float) -> float:
        return NEAR + (ranks - 1) * payload / FAST

    def two_phase(payload: float) -> float:
        return 2 * (2 * NEAR + (ranks - 1) / ranks * payload / FAST)

    equal = 3 * NEAR * FAST / ((ranks - 1) - 2 * (ranks - 1) / ranks)
    assert one_shot(equal) == pytest.approx(two_phase(equal))
    small, large = equal / 2, equal * 2
    assert seconds(ALL_REDUCE, small, ranks) == pytest.approx(one_shot(small))
    assert seconds(ALL_REDUCE, large, ranks) == pytest.approx(two_phase(large))


def test_a_ring_knows_no_one_hop_all_reduce() -> None:
    ring = Fabric((RING,))
    expected = 2 * 3 * (FAR + 1.0 / 4 / SLOW)
    assert seconds(ALL_REDUCE, 1.0, 4, ring) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ranks", "latency", "bandwidth"),
    [(2, NEAR, FAST), (4, NEAR, FAST), (8, FAR, SLOW), (5, FAR, SLOW)],
)
def test_send_crosses_the_outermost_tier_of_the_replica(
    ranks: int, latency: float, bandwidth: float
) -> None:
    payload = 1e6
    expected = latency + payload / bandwidth
    assert seconds(SEND, payload, ranks) == pytest.approx(expected)


@pytest.mark.parametrize("kind", list(CollectiveKind))
@pytest.mark.parametrize("ranks", [2, 4, 12])
def test_efficiency_is_a_share_of_every_bandwidth(
    kind: CollectiveKind, ranks: int
) -> None:
    slower = Fabric(
        tuple(replace(tier, bandwidth=tier.bandwidth * 0.75) for tier in TWO.tiers)
    )
    derated = seconds(kind, 1e6, ranks, efficiency=0.75)
    assert derated == pytest.approx(seconds(kind, 1e6, ranks, slower))
    assert derated > seconds(kind, 1e6, ranks)


def test_a_collective_never_beats_the_bytes_it_must_send() -> None:
    for kind in CollectiveKind:
        for ranks in (2, 3, 4):
            least = Collective("c", kind, 1e9, ranks).cost().link_bytes
            assert seconds(kind, 1e9, ranks) >= least / FAST


kinds = st.sampled_from(list(CollectiveKind))
payloads = st.floats(1, 1e9)
ranks_of = st.integers(1, 64)
factors = st.floats(1, 100)


@settings
@hypothesis.given(kinds, payloads, ranks_of, factors)
def test_never_faster_for_more_bytes_nor_slower_for_more_bandwidth(
    kind: CollectiveKind, payload: float, ranks: int, factor: float
) -> None:
    base = seconds(kind, payload, ranks)
    assert seconds(kind, payload * factor, ranks) >= base
    for level, tier in enumerate(TWO.tiers):
        tiers = list(TWO.tiers)
        tiers[level] = replace(tier, bandwidth=tier.bandwidth * factor)
        assert seconds(kind, payload, ranks, Fabric(tuple(tiers))) <= base
        tiers[level] = replace(tier, latency=tier.latency * factor)
        assert seconds(kind, payload, ranks, Fabric(tuple(tiers))) >= base


@settings
@hypothesis.given(kinds, payloads, ranks_of, factors)
def test_more_bytes_over_as_much_more_bandwidth_take_as_long(
    kind: CollectiveKind, payload: float, ranks: int, factor: float
) -> None:
    wider = Fabric(
        tuple(replace(tier, bandwidth=tier.bandwidth * factor) for tier in TWO.tiers)
    )
    found = seconds(kind, payload * factor, ranks, wider)
    assert found == pytest.approx(seconds(kind, payload, ranks), rel=1e-12)


@settings
@hypothesis.given(kinds, st.lists(ranks_of, min_size=1, max_size=5), payloads)
def test_arrays_equal_scalars(
    kind: CollectiveKind, ranks: list[int], payload: float
) -> None:
    sizes = np.array([payload, 2 * payload])[:, None]
    together = np.broadcast_to(seconds(kind, sizes, np.array(ranks)), (2, len(ranks)))
    alone = [[float(seconds(kind, float(p), n)) for n in ranks] for p in sizes[:, 0]]
    assert together.tolist() == alone
