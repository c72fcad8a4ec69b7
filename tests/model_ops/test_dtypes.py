from itertools import product

import pytest

from model_ops.dtypes import BF16, ENGINES, PRESETS, Dtype, Precision
from model_ops.errors import DeploymentError


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        (Dtype.FP32, 32),
        (Dtype.TF32, 32),
        (Dtype.BF16, 16),
        (Dtype.FP16, 16),
        (Dtype.FP8, 8),
        (Dtype.FP8_BLOCK, 8 + 32 / 128**2),  # an FP32 scale per 128 x 128
        (Dtype.INT8, 8),
        (Dtype.FP4, 4),
        (Dtype.NVFP4, 4 + 8 / 16),  # an FP8 scale per 16 values
        (Dtype.MXFP4, 4 + 8 / 32),  # an E8M0 scale per 32 values
        (Dtype.INT4, 4 + (16 + 4) / 128),  # an FP16 scale and a zero per 128
    ],
)
def test_bytes_include_block_scales(dtype: Dtype, bits: float) -> None:
    assert dtype.bytes == bits / 8


def test_q4_k_m_lies_between_its_two_block_formats() -> None:
    # 256 values, 8 scales and minima of 6 bits, two FP16; or 16 scales of 8 bits, one.
    q4_k = (256 * 4 + 8 * (6 + 6) + 2 * 16) / 256
    q6_k = (256 * 6 + 16 * 8 + 16) / 256
    # Of an 8B model, half of the value and down projections are in Q6_K.
    hidden, kv, wide = 4096, 1024, 14336
    linear = 2 * hidden * (hidden + kv) + 3 * hidden * wide
    finer = (hidden * kv + hidden * wide) / 2 / linear
    layers = q4_k + finer * (q6_k - q4_k)
    assert Dtype.Q4_K_M.bytes * 8 == pytest.approx(layers, rel=0.02)


def test_block_formats_compute_as_their_elements() -> None:
    changed = {dtype: dtype.engine for dtype in Dtype if dtype.engine is not dtype}
    assert changed == {
        Dtype.FP8_BLOCK: Dtype.FP8,
        Dtype.NVFP4: Dtype.FP4,
        Dtype.MXFP4: Dtype.FP4,
        Dtype.Q4_K_M: Dtype.INT4,
    }


def test_every_format_has_an_engine_and_none_is_narrower_than_it() -> None:
    for dtype in Dtype:
        engines = ENGINES[dtype.engine]
        assert engines[0] is dtype.engine
        assert all(e.bytes >= dtype.engine.bytes for e in engines if e is not Dtype.FP4)
        assert engines[-1] is Dtype.FP32


def test_integer_and_float_formats_stand_in_for_none_of_the_other_kind() -> None:
    assert Dtype.INT8 not in ENGINES[Dtype.FP8]
    assert Dtype.FP8 not in ENGINES[Dtype.INT8]
    assert Dtype.FP4 not in ENGINES[Dtype.INT4]


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("bf16", Dtype.BF16),
        (" BF16 ", Dtype.BF16),
        ("torch.bfloat16", Dtype.BF16),
        ("float16", Dtype.FP16),
        ("half", Dtype.FP16),
        ("float", Dtype.FP32),
        ("float8_e4m3fn", Dtype.FP8),
        ("awq", Dtype.INT4),
    ],
)
def test_spellings(text: str, dtype: Dtype) -> None:
    assert Dtype.of(text) is dtype


def test_unknown_dtype_names_the_nearest() -> None:
    with pytest.raises(DeploymentError, match=r"unknown dtype 'bf61'.*'bf16'"):
        Dtype.of("bf61")


@pytest.mark.parametrize(
    ("preset", "compute", "residual", "attention"),
    [
        ("fp32", Dtype.FP32, Dtype.FP32, Dtype.FP32),
        ("bf16", Dtype.BF16, Dtype.BF16, Dtype.BF16),
        ("fp16", Dtype.FP16, Dtype.FP16, Dtype.FP16),
        ("fp8", Dtype.FP8, Dtype.BF16, Dtype.BF16),
        ("fp8-block", Dtype.FP8, Dtype.BF16, Dtype.BF16),
        ("fp8-kv8", Dtype.FP8, Dtype.BF16, Dtype.FP8),
        ("int8", Dtype.INT8, Dtype.BF16, Dtype.BF16),
        ("int4", Dtype.BF16, Dtype.BF16, Dtype.BF16),  # weights are widened first
        ("nvfp4", Dtype.FP4, Dtype.BF16, Dtype.BF16),
        ("mxfp4", Dtype.BF16, Dtype.BF16, Dtype.BF16),
    ],
)
def test_what_a_preset_computes_in(
    preset: str, compute: Dtype, residual: Dtype, attention: Dtype
) -> None:
    precision = PRESETS[preset]
    assert precision.compute is compute
    assert precision.residual is residual
    assert precision.attention is attention


def test_every_preset_has_a_row_above_and_is_named_after_itself() -> None:
    assert {preset.name for preset in PRESETS.values()} == set(PRESETS)
    rows = test_what_a_preset_computes_in.pytestmark[0].args[1]
    assert {row[0] for row in rows} == set(PRESETS)


def test_linear_layers_compute_in_the_wider_of_weights_and_activations() -> None:
    for weights, activations in product(Dtype, Dtype):
        compute = Precision(weights, Dtype.BF16, activations).compute
        widest = max(int(weights.bytes), int(activations.bytes))
        assert compute in (weights.engine, activations.engine)
        assert int(compute.bytes) == widest


@pytest.mark.parametrize(
    ("one", "other", "compute"),
    [
        (Dtype.TF32, Dtype.FP32, Dtype.FP32),
        (Dtype.FP16, Dtype.BF16, Dtype.BF16),
        (Dtype.TF32, Dtype.BF16, Dtype.TF32),
        (Dtype.FP8, Dtype.FP16, Dtype.FP16),
    ],
)
def test_the_wider_format_computes_whichever_holds_the_weights(
    one: Dtype, other: Dtype, compute: Dtype
) -> None:
    assert Precision(one, Dtype.BF16, other).compute is compute
    assert Precision(other, Dtype.BF16, one).compute is compute


def test_weights_as_wide_as_activations_are_converted_to_them() -> None:
    assert Precision(Dtype.INT8, Dtype.BF16, Dtype.FP8).compute is Dtype.FP8
    assert Precision(Dtype.INT4, Dtype.BF16, Dtype.NVFP4).compute is Dtype.FP4


def test_fp8_attention_needs_an_fp8_cache_and_fp8_activations() -> None:
    for kv_cache, activations in product(Dtype, Dtype):
        attention = Precision(Dtype.FP8, kv_cache, activations).attention
        both = kv_cache is Dtype.FP8 and activations is Dtype.FP8
        assert (attention is Dtype.FP8) == both


def test_every_precision_is_read_back_from_its_name() -> None:
    for weights, kv_cache, activations in product(Dtype, Dtype, Dtype):
        precision = Precision(weights, kv_cache, activations)
        assert Precision.of(precision.name) == precision


def test_precision_of_reads_presets_and_triples() -> None:
    assert Precision.of(" BF16 ") == BF16
    expected = Precision(Dtype.INT4, Dtype.FP8, Dtype.FP16)
    assert Precision.of("int4/fp16/kv-fp8") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fp9", "unknown precision 'fp9'.*'fp8'"),
        ("bf16/bf16", "write weights/activations/kv-KV"),
        ("bf16/bf16/bf16", "write weights/activations/kv-KV"),
        ("bf16/bf16/kv-bf61", "unknown dtype 'bf61'"),
    ],
)
def test_precision_of_refuses(text: str, said: str) -> None:
    with pytest.raises(DeploymentError, match=said):
        Precision.of(text)


@pytest.mark.parametrize(
    ("weights", "activations"),
    [
        (Dtype.FP32, Dtype.FP32),
        (Dtype.BF16, Dtype.BF16),
        (Dtype.FP8, Dtype.FP8),
        (Dtype.FP8_BLOCK, Dtype.FP8),
        (Dtype.INT8, Dtype.INT8),
        (Dtype.NVFP4, Dtype.NVFP4),
        (Dtype.MXFP4, Dtype.BF16),
        (Dtype.INT4, Dtype.BF16),
    ],
)
def test_usual_activations_of_weights(weights: Dtype, activations: Dtype) -> None:
    expected = Precision(weights, Dtype.FP8, activations)
    assert Precision.serving(weights, Dtype.FP8) == expected
