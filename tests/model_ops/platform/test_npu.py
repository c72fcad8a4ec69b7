from dataclasses import replace

import pytest

from model_ops.dtypes import PRESETS, Dtype, Precision
from model_ops.errors import DeploymentError
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import ConstantEfficiency, KernelKey
from model_ops.platform.fabric import UNLIMITED, Fabric, Tier
from model_ops.platform.kernels import IDEAL_KERNEL, KernelEfficiency
from model_ops.platform.npu import PROVISIONED_PER_TDP, Npu
from problems.catalogue import load_npu


def test_usable_memory(toy_npu: Npu) -> None:
    npu = replace(
        toy_npu, memory_capacity=1000.0, memory_usable=0.9, runtime_reserve=50.0
    )
    assert npu.usable_memory == 1000 * 0.9 - 50
    assert toy_npu.usable_memory == toy_npu.memory_capacity


@pytest.mark.parametrize(
    ("tdp", "provisioned", "power"),
    [
        (None, None, None),
        (700.0, None, 700 * PROVISIONED_PER_TDP),
        (700.0, 1400.0, 1400.0),
        (None, 1400.0, 1400.0),
    ],
)
def test_power(
    toy_npu: Npu, tdp: float | None, provisioned: float | None, power: float | None
) -> None:
    npu = replace(toy_npu, tdp=tdp, provisioned_power=provisioned)
    assert npu.power == power


@pytest.mark.parametrize(
    ("has", "wanted", "engine"),
    [
        ([Dtype.BF16], Dtype.BF16, Dtype.BF16),
        ([Dtype.BF16, Dtype.FP8], Dtype.FP8, Dtype.FP8),
        ([Dtype.BF16], Dtype.FP8, Dtype.BF16),  # widened
        ([Dtype.BF16, Dtype.FP8], Dtype.NVFP4, Dtype.FP8),
        ([Dtype.BF16, Dtype.FP4, Dtype.FP8], Dtype.MXFP4, Dtype.FP4),
        ([Dtype.BF16, Dtype.FP8], Dtype.INT8, Dtype.BF16),  # FP8 is no INT8
        ([Dtype.BF16, Dtype.INT8], Dtype.INT4, Dtype.INT8),
        ([Dtype.FP16], Dtype.BF16, Dtype.FP16),
        ([Dtype.TF32, Dtype.FP32], Dtype.FP16, Dtype.TF32),
        ([Dtype.FP32], Dtype.FP4, Dtype.FP32),
    ],
)
def test_engine(toy_npu: Npu, has: list[Dtype], wanted: Dtype, engine: Dtype) -> None:
    npu = replace(toy_npu, flop_per_s=dict.fromkeys(has, 1e12))
    assert npu.engine(wanted) is engine


@pytest.mark.parametrize(
    ("sizes", "reached"),
    [
        ([8], 8),
        ([UNLIMITED], 4),  # the server as bought
        ([8, UNLIMITED], 8),
        ([8, 64], 8),  # the outermost is no fast fabric, limited or not
        ([2, 8, UNLIMITED], 8),
        ([2, 8, 64], 8),
        ([2, UNLIMITED], 2),
    ],
)
def test_npus_within_the_fast_fabric(
    toy_npu: Npu, sizes: list[int], reached: int
) -> None:
    tiers = [Tier("toy", n, bandwidth=1e9, latency=1e-6, direct=True) for n in sizes]
    npu = replace(toy_npu, node_npus=4, fabric=Fabric(tuple(tiers)))
    assert npu.scale_up_npus == reached


@pytest.mark.parametrize(
    ("name", "node", "reached"),
    [
        ("h100-sxm", 8, 8),
        ("l40s", 8, 8),
        ("h100-nvl", 8, 8),  # pairs on a bridge, eight on the host's PCIe
        ("gb200-nvl72", 4, 72),  # 18 trays on one NVLink
        ("gh200-96gb", 1, 1),
        ("tpu-v5e", 8, 256),
        ("trainium2", 16, 16),
    ],
)
def test_published_fast_fabrics(name: str, node: int, reached: int) -> None:
    npu = load_npu(name)
    assert (npu.node_npus, npu.scale_up_npus) == (node, reached)


@pytest.mark.parametrize(
    ("has", "precision", "computes"),
    [
        ([Dtype.BF16], PRESETS["bf16"], True),
        ([Dtype.BF16], PRESETS["fp8"], True),  # widened
        ([Dtype.FP8, Dtype.BF16], PRESETS["fp8"], True),
        ([Dtype.FP8], PRESETS["fp8"], False),  # the residual needs 16 bits
        ([Dtype.FP8], PRESETS["bf16"], False),
        ([Dtype.BF16, Dtype.FP16], PRESETS["fp32"], False),
        ([Dtype.FP32], PRESETS["fp32"], True),
        ([Dtype.BF16, Dtype.TF32], PRESETS["fp32"], False),
        ([Dtype.FP32], PRESETS["bf16"], True),
        # Wide weights, narrow activations: the linear layers want FP32.
        ([Dtype.BF16], Precision(Dtype.FP32, Dtype.BF16, Dtype.BF16), False),
        # A wide residual stream.
        ([Dtype.BF16], Precision(Dtype.BF16, Dtype.BF16, Dtype.FP32), False),
    ],
)
def test_computes_what_every_part_of_a_precision_asks(
    toy_npu: Npu, has: list[Dtype], precision: Precision, *, computes: bool
) -> None:
    npu = replace(toy_npu, flop_per_s=dict.fromkeys(has, 1e12))
    assert npu.computes(precision) is computes


@pytest.mark.parametrize("has", [[d] for d in Dtype] + [[Dtype.FP8, Dtype.FP16]])
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_computes_says_whether_there_is_an_engine(
    toy_npu: Npu, has: list[Dtype], name: str
) -> None:
    npu = replace(toy_npu, flop_per_s=dict.fromkeys(has, 1e12))
    precision = PRESETS[name]
    engines = []
    for wanted in (precision.compute, precision.attention, precision.residual):
        try:
            engines.append(npu.engine(wanted))
        except DeploymentError:
            engines.append(None)
    assert npu.computes(precision) is (None not in engines)


def test_an_npu_without_a_wide_enough_engine_says_what_it_has(toy_npu: Npu) -> None:
    npu = replace(toy_npu, flop_per_s={Dtype.FP8: 1e12, Dtype.BF16: 1e12})
    with pytest.raises(DeploymentError, match=r"cannot compute fp32: .*fp8, bf16$"):
        npu.engine(Dtype.FP32)


def test_ideal_npu_keeps_its_rates_and_loses_its_losses(toy_npu: Npu) -> None:
    lossy = replace(
        toy_npu,
        efficiency=ConstantEfficiency(
            dict.fromkeys(KernelFamily, KernelEfficiency(0.5, 0.5, 1e-6)), {}
        ),
        link_efficiency=0.5,
        memory_usable=0.5,
        runtime_reserve=5.0,
        step_overhead=1.0,
    )
    ideal = lossy.ideal()
    assert ideal == replace(toy_npu, step_overhead=0.0)
    assert ideal.usable_memory == toy_npu.memory_capacity
    key = KernelKey(KernelFamily.ELEMENTWISE, Dtype.BF16, Dtype.BF16)
    assert ideal.efficiency.kernel(key) == IDEAL_KERNEL


def test_constant_efficiency_prefers_the_engines_own_figures() -> None:
    usual, special = KernelEfficiency(0.8, 0.7, 1e-6), KernelEfficiency(0.5, 0.6, 2e-6)
    family = KernelFamily.ELEMENTWISE
    efficiency = ConstantEfficiency({family: usual}, {(family, Dtype.FP8): special})
    key = KernelKey(family, Dtype.BF16, None)
    assert efficiency.kernel(key._replace(engine=Dtype.FP8)) == special
    assert efficiency.kernel(key._replace(engine=Dtype.BF16)) == usual
    assert efficiency.kernel(key) == usual
