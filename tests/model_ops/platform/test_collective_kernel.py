from dataclasses import replace

import numpy as np
import pytest

from model_ops.opcost import Collective, CollectiveKind
from model_ops.platform.collective_kernel import CollectiveKernel
from model_ops.platform.collectives import collective_seconds
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

ALL_REDUCE, ALL_GATHER = CollectiveKind.ALL_REDUCE, CollectiveKind.ALL_GATHER
BANDWIDTH = 1e10
QUICK = CollectiveKernel(launch=4e-6, hop=1e-6, share=0.1, contention=0.0)
WIDE = CollectiveKernel(launch=2e-5, hop=2e-6, share=0.5, contention=0.5)
INNER = Tier("switch", npus=8, bandwidth=BANDWIDTH, latency=1e-6)
OUTER = Tier("network", npus=64, bandwidth=1e9, latency=1e-5)
PLAIN = Fabric((INNER, OUTER))
MEASURED = Fabric((replace(INNER, kernels={ALL_REDUCE: (QUICK, WIDE)}), OUTER))


def seconds(
    kind: CollectiveKind, payload: object, ranks: object, fabric: Fabric = MEASURED
) -> object:
    return collective_seconds(Collective("c", kind, payload, ranks), fabric, 0.9)


def test_latency_grows_by_a_hop_a_member_and_by_depth_beyond_eight() -> None:
    assert QUICK.latency(1) == 0
    assert QUICK.latency(2) == pytest.approx(4e-6 + 1e-6)
    assert QUICK.latency(8) == pytest.approx(4e-6 + 7e-6)
    # 64 members: twice the depth of eight.
    assert QUICK.latency(64) == pytest.approx(4e-6 + 14e-6)


def test_a_shared_root_slows_the_bytes_with_the_members() -> None:
    root = replace(WIDE, contention=1.0)
    assert [root.excess(n) for n in (2, 3, 5)] == pytest.approx([2, 4, 8])
    assert root.excess(72) == root.excess(8)


def test_no_kernel_beats_the_links() -> None:
    better_together = replace(WIDE, contention=-0.7)
    # 7 ** -0.7 / 0.5 = 0.51 of the links' own time.
    assert better_together.excess(8) == 1.0


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_the_faster_kernel_runs(ranks: int) -> None:
    for payload in (1e3, 1e5, 1e7):
        sent = 2 * (ranks - 1) / ranks * payload / BANDWIDTH
        quick = 4e-6 + (ranks - 1) * 1e-6 + sent / 0.1
        wide = 2e-5 + (ranks - 1) * 2e-6 + sent / 0.5 * (ranks - 1) ** 0.5
        expected = min(quick, wide)
        assert seconds(ALL_REDUCE, payload, ranks) == pytest.approx(expected)


def test_what_was_not_measured_is_modelled() -> None:
    # Another kind, and a group that leaves the node.
    for kind, ranks in ((ALL_GATHER, 4), (ALL_REDUCE, 16)):
        assert seconds(kind, 1e6, ranks) == seconds(kind, 1e6, ranks, PLAIN)
    assert seconds(ALL_REDUCE, 1e6, 4) != seconds(ALL_REDUCE, 1e6, 4, PLAIN)


def test_groups_across_nodes_gather_inside_by_what_was_measured() -> None:
    kernels = {ALL_GATHER: (QUICK,)}
    fabric = Fabric((replace(INNER, kernels=kernels), OUTER))
    # Eight in each of two nodes: one hop across for the eighth that peers lack.
    inside = 4e-6 + 7e-6 + 7 / 8 * 1e6 / (0.1 * BANDWIDTH)
    across = 1e-5 + 1e6 / 8 / 2 / (0.9 * 1e9)
    assert seconds(ALL_GATHER, 1e6, 16, fabric) == pytest.approx(inside + across)
    twice = 2 * (inside + across)
    assert seconds(ALL_REDUCE, 1e6, 16, fabric) == pytest.approx(twice)


def test_a_rank_alone_takes_no_time() -> None:
    assert seconds(ALL_REDUCE, 1e9, 1) == 0


@hypothesis.settings(derandomize=True, deadline=None)
@hypothesis.given(
    st.floats(1, 1e9),
    st.integers(2, 16),
    st.floats(1, 100),
    st.floats(1e-3, 1),
    st.floats(-0.7, 1.5),
)
def test_monotone_and_never_faster_than_the_links(
    payload: float, ranks: int, factor: float, share: float, contention: float
) -> None:
    kernels = {ALL_REDUCE: (QUICK, CollectiveKernel(1e-6, 1e-6, share, contention))}
    inner = replace(INNER, npus=16, kernels=kernels)
    fabric = Fabric((inner, OUTER))
    base = seconds(ALL_REDUCE, payload, ranks, fabric)
    assert seconds(ALL_REDUCE, payload * factor, ranks, fabric) >= base
    faster = replace(inner, bandwidth=inner.bandwidth * factor)
    assert seconds(ALL_REDUCE, payload, ranks, Fabric((faster, OUTER))) <= base
    assert base > 2 * (ranks - 1) / ranks * payload / BANDWIDTH


def test_measured_and_unmeasured_npus_stack(toy_npu: Npu) -> None:
    one_line = Fabric((replace(INNER, kernels={ALL_REDUCE: (WIDE,)}), OUTER))
    npus = [replace(toy_npu, fabric=f) for f in (PLAIN, MEASURED, one_line)]
    payloads, ranks = np.array([1e3, 1e7])[:, None], np.array([1, 2, 8, 16])
    stacked = Supply.stack(npus, 2).fabric
    together = seconds(ALL_REDUCE, payloads, ranks, stacked)
    for row, npu in enumerate(npus):
        alone = seconds(ALL_REDUCE, payloads, ranks, npu.fabric)
        np.testing.assert_allclose(together[row], alone, rtol=1e-12)


def test_the_ideal_npu_has_no_measured_kernels(toy_npu: Npu) -> None:
    npu = replace(toy_npu, fabric=MEASURED)
    assert npu.ideal().fabric == PLAIN
