from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import Dtype
from model_ops.errors import DeploymentError
from model_ops.opcost import Collective, CollectiveKind, KernelFamily
from model_ops.platform.efficiency import ConstantEfficiency
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.kernels import KernelEfficiency
from model_ops.platform.memory import OuterMemory
from model_ops.platform.npu import Npu
from model_ops.platform.roofline import op_time
from model_ops.platform.supply import Supply
from model_ops.profiler.ops import Elementwise, Gemm
from problems.catalogue import load_npu, names


@pytest.fixture(scope="module")
def mixed(toy_npu: Npu) -> tuple[Npu, ...]:
    """NPUs that differ in everything: rates, formats, tiers, efficiencies."""
    usual, special = KernelEfficiency(0.5, 0.8, 3e-6), KernelEfficiency(0.4, 0.7, 5e-6)
    alone = replace(
        toy_npu,
        name="one tier",
        fabric=Fabric((Tier("ethernet", 16, 2e9, 2e-5, direct=False),)),
        flop_per_s={Dtype.BF16: 3e12},
        memory_bandwidth=7e10,
        memory_capacity=3e6,
        memory_usable=0.9,
        runtime_reserve=1e3,
        link_efficiency=0.8,
        step_overhead=5e-6,
        efficiency=ConstantEfficiency(
            dict.fromkeys(KernelFamily, usual),
            {(KernelFamily.GEMM, Dtype.BF16): special},
        ),
    )
    inner, outer = toy_npu.fabric.tiers
    three = Fabric((inner, replace(outer, npus=32), replace(outer, latency=9e-5)))
    rich = Fabric(
        (
            replace(inner, links=3, in_network_reduction=True),
            replace(outer, dimensions=3, oversubscription=2.0),
        )
    )
    return (
        toy_npu,
        alone,
        replace(toy_npu, name="three tiers", fabric=three),
        replace(toy_npu, name="mesh and torus", fabric=rich),
    )


def gemm(m: object, engine: Dtype) -> Gemm:
    formats = dict.fromkeys(("weights", "inputs", "outputs"), Dtype.BF16)
    return Gemm(name="g", m=m, k=64, n=64, engine=engine, **formats)


def test_one_npu_gives_scalars(toy_npu: Npu) -> None:
    supply = Supply.of(toy_npu)
    assert supply.memory_bandwidth == toy_npu.memory_bandwidth
    assert supply.usable_memory == toy_npu.usable_memory
    assert supply.step_overhead == toy_npu.step_overhead
    assert supply.link_efficiency == 1.0
    assert supply.flop_per_s(Dtype.FP8) == 2e12
    assert supply.flop_per_s(Dtype.FP16) == 1e12  # BF16 stands in


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_stacked_rates_lead_the_point_axes(mixed: tuple[Npu, ...], axes: int) -> None:
    supply = Supply.stack(mixed, axes)
    shape = (len(mixed), *(1,) * axes)
    for rate in ("memory_bandwidth", "usable_memory", "step_overhead"):
        stacked = getattr(supply, rate)
        assert stacked.shape == shape
        assert stacked.ravel().tolist() == [getattr(npu, rate) for npu in mixed]


def test_an_npu_that_cannot_compute_a_format_is_named(mixed: tuple[Npu, ...]) -> None:
    with pytest.raises(DeploymentError, match="one tier cannot compute fp32"):
        Supply.stack(mixed, 1).flop_per_s(Dtype.FP32)


@pytest.mark.parametrize("engine", [Dtype.BF16, Dtype.FP8])
def test_stacked_kernels_equal_single_ones(
    mixed: tuple[Npu, ...], engine: Dtype
) -> None:
    ms = np.array([1, 100, 10_000])
    together = op_time(gemm(ms, engine), Supply.stack(mixed, 1)).total
    alone = [op_time(gemm(ms, engine), Supply.of(npu)).total.tolist() for npu in mixed]
    assert together.tolist() == alone


def test_stacked_passes_without_flop_equal_single_ones(mixed: tuple[Npu, ...]) -> None:
    operator = Elementwise(name="e", elements=np.array([10, 99]), read=2.0, written=1.0)
    together = op_time(operator, Supply.stack(mixed, 1)).total
    alone = [op_time(operator, Supply.of(npu)).total.tolist() for npu in mixed]
    assert together.tolist() == alone


@pytest.mark.parametrize("kind", list(CollectiveKind))
def test_stacked_fabrics_of_unequal_depth_equal_single_ones(
    mixed: tuple[Npu, ...], kind: CollectiveKind
) -> None:
    ranks = np.array([1, 2, 3, 4, 6, 8, 12, 32, 64])
    payloads = np.array([10.0, 1e4, 1e7])[:, None]
    collective = Collective("c", kind, payloads, ranks)
    supply = Supply.stack(mixed, 2)
    assert len(supply.fabric.tiers) == 3
    together = np.broadcast_to(op_time(collective, supply).total, (4, 3, 9))
    for row, npu in enumerate(mixed):
        alone = np.broadcast_to(op_time(collective, Supply.of(npu)).total, (3, 9))
        np.testing.assert_allclose(together[row], alone, rtol=1e-12)


def test_outer_memories_stack(toy_npu: Npu) -> None:
    outer = OuterMemory("host", capacity=4e12, bandwidth=6e10)
    rich = replace(toy_npu, outer_memory=outer)
    assert Supply.of(rich).outer_capacity == 4e12
    assert Supply.of(rich).outer_bandwidth == 6e10
    stacked = Supply.stack([toy_npu, rich], 2)
    assert stacked.outer_capacity.shape == (2, 1, 1)
    assert stacked.outer_capacity.ravel().tolist() == [0.0, 4e12]
    assert stacked.outer_bandwidth.ravel().tolist() == [1.0, 6e10]


def test_without_an_outer_memory_none_can_be_used(toy_npu: Npu) -> None:
    supply = Supply.of(toy_npu)
    assert supply.outer_capacity == 0
    assert 1e9 / supply.outer_bandwidth > 1e8  # seconds, finite


@pytest.mark.parametrize("kind", list(CollectiveKind))
def test_the_whole_catalogue_stacks(kind: CollectiveKind) -> None:
    npus = [load_npu(name) for name in names("npus")]
    supply = Supply.stack(npus, 1)
    ranks = np.array([1, 2, 8])
    collective = Collective("c", kind, 1e6, ranks)
    together = op_time(collective, supply).total
    assert together.shape == (len(npus), len(ranks))
    for row, npu in enumerate(npus):
        alone = op_time(collective, Supply.of(npu)).total
        np.testing.assert_allclose(together[row], alone, rtol=1e-12)
