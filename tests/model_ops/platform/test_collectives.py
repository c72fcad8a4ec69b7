from collections import Counter
from dataclasses import replace
from itertools import product
from math import ceil, log2

import numpy as np
import pytest

from model_ops.opcost import Collective, CollectiveKind
from model_ops.platform.collectives import AlphaBeta, collective_seconds
from model_ops.platform.fabric import Fabric, Tier

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None)

ALL_REDUCE, ALL_GATHER = CollectiveKind.ALL_REDUCE, CollectiveKind.ALL_GATHER
REDUCE_SCATTER, SEND = CollectiveKind.REDUCE_SCATTER, CollectiveKind.SEND
ALL_TO_ALL, BROADCAST = CollectiveKind.ALL_TO_ALL, CollectiveKind.BROADCAST
FAST, SLOW = 1e10, 1e9  # bytes per second
NEAR, FAR = 1e-6, 1e-5  # seconds per hop
SWITCH = Tier("switch", npus=4, bandwidth=FAST, latency=NEAR, direct=True)
RING = Tier("ring", npus=64, bandwidth=SLOW, latency=FAR, direct=False)
TWO = Fabric((SWITCH, RING))
MESH = Tier("mesh", npus=8, bandwidth=FAST, latency=NEAR, links=7)
TREE = Tier("tree", npus=8, bandwidth=FAST, latency=NEAR, direct=False, dimensions=0)
SHARP = replace(SWITCH, npus=64, in_network_reduction=True)


def torus(dimensions: int) -> Tier:
    return replace(RING, technology="torus", npus=4096, dimensions=dimensions)


def seconds(
    kind: CollectiveKind,
    payload: float,
    ranks: object,
    fabric: Fabric = TWO,
    efficiency: float = 1.0,
    stride: int = 1,
) -> object:
    collective = Collective("c", kind, payload, ranks, stride)
    return collective_seconds(collective, fabric, efficiency)


def test_alpha_beta_is_a_line() -> None:
    assert AlphaBeta(3.0, 2.0).seconds(5.0) == 3.0 + 5.0 * 2.0


@pytest.mark.parametrize(
    "fabric",
    [TWO, *(Fabric((t,)) for t in (SWITCH, RING, MESH, TREE, SHARP, torus(3)))],
)
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


# Reduce-scatter, all-to-all, broadcast


@pytest.mark.parametrize("tier", [SWITCH, RING, MESH, TREE, torus(2)])
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_reduce_scatter_is_an_all_gather_backwards(tier: Tier, ranks: int) -> None:
    fabric = Fabric((tier, RING))
    forth = seconds(ALL_GATHER, 1e6, ranks, fabric)
    assert seconds(REDUCE_SCATTER, 1e6, ranks, fabric) == forth > 0


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_all_to_all_on_a_switch_sends_all_parts_at_once(ranks: int) -> None:
    expected = NEAR + 1e6 * (ranks - 1) / ranks / FAST
    assert seconds(ALL_TO_ALL, 1e6, ranks) == pytest.approx(expected)


def test_all_to_all_in_a_mesh_uses_the_links_to_the_group() -> None:
    # Each of the seven links carries the part of the peer at its end.
    for ranks in (2, 4, 8):
        expected = NEAR + (1e6 / ranks) / (FAST / 7)
        found = seconds(ALL_TO_ALL, 1e6, ranks, Fabric((MESH,)))
        assert found == pytest.approx(expected)


def test_all_to_all_over_a_shared_root_takes_turns() -> None:
    expected = 7 * (NEAR + 1e6 / 8 / FAST)
    assert seconds(ALL_TO_ALL, 1e6, 8, Fabric((TREE,))) == pytest.approx(expected)


def test_all_to_all_on_two_tiers() -> None:
    # 12 ranks, 4 in each of 3 nodes: 3 parts of 12 stay inside, 8 cross, each over
    # one link of the ring, on which any two of three nodes are neighbours.
    payload = 1.2e6
    expected = NEAR + payload * 3 / 12 / FAST + FAR + payload * 8 / 12 / SLOW
    assert seconds(ALL_TO_ALL, payload, 12) == pytest.approx(expected)


def steps(start: int, end: int, side: int) -> list[list[int]]:
    """Return the shortest ways along a ring: the links taken, as signed nodes."""
    ahead = (end - start) % side
    forth = [+1 + (start + i) % side for i in range(ahead)]
    back = [-1 - (start - i) % side for i in range(side - ahead)]
    shortest = min(len(forth), len(back))
    return [way for way in (forth, back) if len(way) == shortest]


def link_loads(side: int, dimensions: int) -> tuple[Counter[tuple[object, ...]], int]:
    """Route an all-to-all of one byte per pair, axis after axis; ties take halves.

    Returns the bytes of each directed link and the hops of the longest way.
    """
    nodes = list(product(range(side), repeat=dimensions))
    loads: Counter[tuple[object, ...]] = Counter()
    longest = 0
    for source, target in product(nodes, repeat=2):
        hops = 0
        for axis in range(dimensions):
            ways = steps(source[axis], target[axis], side)
            hops += len(ways[0])
            line = (*target[:axis], None, *source[axis + 1 :])
            for way in ways:
                for link in way:
                    loads[axis, line, link] += 1 / len(ways)
        longest = max(longest, hops)
    return loads, longest


@pytest.mark.parametrize(
    ("side", "dimensions"),
    [(side, 1) for side in (2, 3, 4, 5, 8)]
    + [(side, 2) for side in (2, 3, 4, 5)]
    + [(side, 3) for side in (2, 3, 4)],
)
def test_all_to_all_on_rings_and_tori_equals_routing_by_hand(
    side: int, dimensions: int
) -> None:
    loads, longest = link_loads(side, dimensions)
    members, links = side**dimensions, 2 * dimensions
    # Every link carries the same; each has its share of a member's bandwidth.
    assert len(loads) == members * links
    (load,) = {round(load, 9) for load in loads.values()}
    expected = longest * FAR + load / (SLOW / links)
    found = seconds(ALL_TO_ALL, members, members, Fabric((torus(dimensions),)))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("dimensions", "ranks", "hops"),
    [
        (1, 8, 7),
        (2, 2, 1),  # one axis
        (2, 3, 2),
        (2, 4, 2),  # 2 x 2
        (2, 16, 6),  # 4 x 4
        (3, 4, 2),  # 2 x 2 x 1
        (3, 8, 3),
        (3, 64, 9),
    ],
)
def test_gathers_on_a_torus_go_along_one_axis_after_another(
    dimensions: int, ranks: int, hops: int
) -> None:
    expected = hops * FAR + 1e6 * (ranks - 1) / ranks / SLOW
    fabric = Fabric((torus(dimensions),))
    assert seconds(ALL_GATHER, 1e6, ranks, fabric) == pytest.approx(expected)
    assert seconds(ALL_REDUCE, 1e6, ranks, fabric) == pytest.approx(2 * expected)


@pytest.mark.parametrize("payload", [1.0, 5 * NEAR * FAST, 1e9])
def test_a_broadcast_takes_the_best_of_three(payload: float) -> None:
    ranks = 64
    hop, byte = NEAR, payload / FAST
    tree = log2(ranks) * (hop + byte)
    chain = (ranks - 1) * hop + byte
    scatter_gather = 2 * (log2(ranks) * hop + (ranks - 1) / ranks * byte)
    best = min(tree, chain, scatter_gather)
    # Small, middling and large payloads each have another winner.
    winner = {1.0: tree, 1e9: chain}.get(payload, scatter_gather)
    assert winner == best
    fabric = Fabric((replace(SWITCH, npus=64),))
    assert seconds(BROADCAST, payload, ranks, fabric) == pytest.approx(best)


def test_a_large_broadcast_on_two_tiers_uses_the_links_of_all_members() -> None:
    # Quarters are scattered inside the node, go round 3 nodes, and are gathered: a
    # chain would send the whole payload over the slow link of each node's first.
    payload = 1e9
    inside = 2 * (2 * NEAR + payload * 3 / 4 / FAST)
    across = 2 * 2 * (FAR + payload / 4 / 3 / SLOW)
    assert inside + across < payload / SLOW
    assert seconds(BROADCAST, payload, 12) == pytest.approx(inside + across)


# What a tier can be besides


@pytest.mark.parametrize("ranks", [4, 8, 64])
def test_switches_that_add_move_the_payload_once(ranks: int) -> None:
    payload = 1e9
    fabric = Fabric((SHARP,))
    once = 2 * NEAR + payload / FAST
    assert seconds(ALL_REDUCE, payload, ranks, fabric) == pytest.approx(once)
    # A small payload is faster in one shot, and other kinds know no sum.
    one_shot = NEAR + (ranks - 1) / FAST
    assert seconds(ALL_REDUCE, 1.0, ranks, fabric) == pytest.approx(one_shot)
    plain = Fabric((replace(SHARP, in_network_reduction=False),))
    for kind in set(CollectiveKind) - {ALL_REDUCE}:
        found = seconds(kind, payload, ranks, fabric)
        assert found == seconds(kind, payload, ranks, plain)


@pytest.mark.parametrize("able", [(True, False), (False, True), (True, True)])
def test_in_network_sums_on_some_tiers(able: tuple[bool, bool]) -> None:
    inner, outer = able
    nodes, inside, payload = 8, 4, 1e9
    fabric = Fabric(
        (
            replace(SWITCH, in_network_reduction=inner),
            replace(RING, in_network_reduction=outer),
        )
    )
    within = 2 * NEAR + payload / FAST
    if not inner:
        within = 2 * (2 * NEAR + payload * (inside - 1) / inside / FAST)
    share = payload / inside
    across = 2 * FAR + share / SLOW
    if not outer:
        across = 2 * (nodes - 1) * (FAR + share / nodes / SLOW)
    found = seconds(ALL_REDUCE, payload, nodes * inside, fabric)
    assert found == pytest.approx(within + across)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_mesh_gives_a_group_the_links_between_its_members(ranks: int) -> None:
    payload, fabric = 1e9, Fabric((MESH,))
    reached = FAST * (ranks - 1) / 7
    expected = ceil(log2(ranks)) * NEAR + payload * (ranks - 1) / ranks / reached
    assert seconds(ALL_GATHER, payload, ranks, fabric) == pytest.approx(expected)
    one_shot = NEAR + 1.0 / (FAST / 7)
    assert seconds(ALL_REDUCE, 1.0, ranks, fabric) == pytest.approx(one_shot)
    one_link = NEAR + payload / (FAST / 7)
    assert seconds(SEND, payload, ranks, fabric) == pytest.approx(one_link)


def test_a_small_slice_of_a_torus_uses_some_of_the_links() -> None:
    fabric = Fabric((replace(torus(3), links=6),))
    for ranks, links in ((2, 2), (4, 4), (8, 6), (64, 6)):
        whole = seconds(ALL_GATHER, 1e15, ranks, Fabric((torus(3),)))
        found = seconds(ALL_GATHER, 1e15, ranks, fabric)
        assert found == pytest.approx(whole * 6 / links, rel=1e-6)


@pytest.mark.parametrize("kind", list(CollectiveKind))
def test_oversubscription_slows_what_spans_the_tier(kind: CollectiveKind) -> None:
    thin = Fabric((SWITCH, replace(RING, oversubscription=3.0)))
    slower = Fabric((SWITCH, replace(RING, bandwidth=SLOW / 3)))
    for ranks in (2, 3, 4):
        assert seconds(kind, 1e9, ranks, thin) == seconds(kind, 1e9, ranks)
    for ranks in (8, 12):
        found = seconds(kind, 1e9, ranks, thin)
        assert found == pytest.approx(seconds(kind, 1e9, ranks, slower))
        assert found > seconds(kind, 1e9, ranks)


@pytest.mark.parametrize("kind", list(CollectiveKind))
def test_a_group_of_whole_nodes_meets_outside_them(kind: CollectiveKind) -> None:
    # Eight members, each a tensor-parallel group that fills a node of four.
    found = seconds(kind, 1e6, 8, stride=4)
    assert found == pytest.approx(seconds(kind, 1e6, 8, Fabric((RING,))))


def test_a_strided_group_may_share_nodes() -> None:
    # Four pairs on nodes of four: two members in each of two nodes.
    inside = NEAR + 1e6 / 2 / FAST
    across = FAR + 1e6 / 2 / 2 / SLOW
    found = seconds(ALL_GATHER, 1e6, 4, stride=2)
    assert found == pytest.approx(inside + across)


# Properties


@st.composite
def tiers_of(draw: object, size: int) -> Tier:
    direct = draw(st.booleans())
    return Tier(
        technology="any",
        npus=size,
        bandwidth=draw(st.floats(1e9, 1e12)),
        latency=draw(st.floats(1e-7, 1e-4)),
        direct=direct,
        dimensions=draw(st.integers(0, 3)),
        links=draw(st.sampled_from([1, 4, 6, 7])),
        oversubscription=draw(st.floats(1, 8)),
        in_network_reduction=direct and draw(st.booleans()),
    )


@st.composite
def fabrics_of(draw: object) -> Fabric:
    factors = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    sizes = np.cumprod(factors)
    return Fabric(tuple(draw(tiers_of(int(size))) for size in sizes))


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


fabrics = fabrics_of()
strides = st.integers(1, 16)


@settings
@hypothesis.given(kinds, payloads, ranks_of, strides, fabrics)
def test_no_fabric_beats_the_bytes(
    kind: CollectiveKind, payload: float, ranks: int, stride: int, fabric: Fabric
) -> None:
    best = max(tier.bandwidth / tier.oversubscription for tier in fabric.tiers)
    least = Collective("c", kind, payload, ranks).cost().link_bytes
    if kind is ALL_REDUCE and any(t.in_network_reduction for t in fabric.tiers):
        # Each rank still sends what it holds, and the lowest tier's share at least.
        least = payload * (ranks - 1) / ranks
    found = seconds(kind, payload, ranks, fabric, stride=stride)
    assert found >= least / best * (1 - 1e-12)
    assert (found == 0) == (ranks == 1)


@settings
@hypothesis.given(kinds, payloads, ranks_of, strides, fabrics, factors)
def test_more_of_anything_good_is_never_slower(
    kind: CollectiveKind,
    payload: float,
    ranks: int,
    stride: int,
    fabric: Fabric,
    factor: float,
) -> None:
    def found(*tiers: Tier, payload: float = payload) -> float:
        return seconds(kind, payload, ranks, Fabric(tiers), stride=stride)

    base = found(*fabric.tiers)
    most = base * (1 + 1e-12)
    assert found(*fabric.tiers, payload=payload * factor) >= base
    for level, tier in enumerate(fabric.tiers):
        before, after = fabric.tiers[:level], fabric.tiers[level + 1 :]

        def with_(**changes: object) -> float:
            return found(*before, replace(tier, **changes), *after)  # noqa: B023

        assert with_(bandwidth=tier.bandwidth * factor) <= most
        more = {"links": tier.links * 2, "bandwidth": tier.bandwidth * 2}
        assert with_(**more) <= most
        assert with_(in_network_reduction=True) <= most
        assert with_(latency=tier.latency * factor) >= base
        assert with_(oversubscription=tier.oversubscription * factor) >= base


@settings
@hypothesis.given(payloads, ranks_of, strides, fabrics)
def test_an_all_reduce_is_never_slower_than_its_two_phases(
    payload: float, ranks: int, stride: int, fabric: Fabric
) -> None:
    both = sum(
        seconds(kind, payload, ranks, fabric, stride=stride)
        for kind in (REDUCE_SCATTER, ALL_GATHER)
    )
    found = seconds(ALL_REDUCE, payload, ranks, fabric, stride=stride)
    assert found <= both * (1 + 1e-12)


@settings
@hypothesis.given(
    kinds, st.lists(ranks_of, min_size=1, max_size=5), payloads, strides, fabrics
)
def test_arrays_equal_scalars_on_any_fabric(
    kind: CollectiveKind,
    ranks: list[int],
    payload: float,
    stride: int,
    fabric: Fabric,
) -> None:
    counts, apart = np.array(ranks), np.array([stride] * len(ranks))
    together = seconds(kind, payload, counts, fabric, stride=apart)
    alone = [seconds(kind, payload, n, fabric, stride=stride) for n in ranks]
    together = np.broadcast_to(together, len(ranks))
    np.testing.assert_allclose(together, np.array(alone, dtype=float), rtol=1e-12)
