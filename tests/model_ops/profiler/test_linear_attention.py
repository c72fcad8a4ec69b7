from dataclasses import replace

import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, CollectiveKind
from model_ops.profiler.linear_attention import (
    GatedDeltaNet,
    KimiDeltaAttention,
    LightningAttention,
)
from model_ops.profiler.ops import Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard, Step, decode, prefill

QWEN3_NEXT = GatedDeltaNet(
    linear_num_key_heads=16,
    linear_num_value_heads=32,
    linear_key_head_dim=128,
    linear_value_head_dim=128,
    linear_conv_kernel_dim=4,
)
QWEN35_397B = replace(QWEN3_NEXT, linear_num_value_heads=64, ssm_dtype=Dtype.FP32)
KIMI_LINEAR = KimiDeltaAttention(num_heads=32, head_dim=128, short_conv_kernel_size=4)
KIMI_K3 = replace(KIMI_LINEAR, num_heads=96, full_rank_gate=True)
MINIMAX = LightningAttention(num_attention_heads=64, head_dim=128)
SMALL = GatedDeltaNet(
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=3,
    linear_value_head_dim=6,
    linear_conv_kernel_dim=4,
)
STEP = Step((prefill(2, 66), decode(5, 100, 1)))
ROWS = 2 * 66 + 5 * 2
LinearAttention = GatedDeltaNet | KimiDeltaAttention | LightningAttention


def named(mixer: LinearAttention, tp: int = 1, hidden: int = 32) -> dict:
    shard = Shard(hidden, Parallelism(tp=tp))
    return {each.name: each for each in mixer.operators(shard, STEP)}


def shapes(operators: dict) -> dict:
    gemms = {n: e for n, e in operators.items() if isinstance(e, Gemm)}
    return {name: (each.k, each.n) for name, each in gemms.items()}


def test_published_tensors_of_a_gated_delta_net() -> None:
    # Qwen/Qwen3.5-397B-A17B: 45 of its 60 layers.
    tensors = {
        "in_proj_qkv": 2_264_924_160,
        "in_proj_z": 1_509_949_440,
        "in_proj_a, in_proj_b": 2 * 11_796_480,
        "conv1d": 2_211_840,
        "A_log, dt_bias": 2 * 2_880,
        "norm": 5_760,
        "out_proj": 1_509_949_440,
    }
    assert 45 * QWEN35_397B.parameters(4096) == sum(tensors.values())


def test_published_tensors_of_kimi_delta_attention() -> None:
    # moonshotai/Kimi-Linear-48B-A3B: 20 of its 27 layers; each as large as o_proj.
    wide = 188_743_680
    tensors = {
        "q, k, v, o": 4 * wide,
        "conv1d": 983_040,
        "f_a, f_b": 5_898_240 + 10_485_760,
        "g_a, g_b": 5_898_240 + 10_485_760,
        "b": 1_474_560,
        "dt_bias, A_log": 81_920 + 640,
        "o_norm": 2_560,
    }
    assert 20 * KIMI_LINEAR.parameters(2304) == sum(tensors.values())
    # Kimi K3: five matrices of 7168 x 12288, gate of full rank, decay of rank 128.
    outer = 5 * 7168 * 12_288 + 7168 * 96
    decay = 7168 * 128 + 128 * 12_288 + 12_288 + 96
    assert KIMI_K3.parameters(7168) == outer + decay + 3 * 12_288 * 4 + 128


def test_published_tensors_of_lightning_attention() -> None:
    # MiniMaxAI/MiniMax-Text-01: 70 of its 80 layers.
    tensors = {
        "qkv_proj": 10_569_646_080,
        "output_gate": 3_523_215_360,
        "out_proj": 3_523_215_360,
        "norm": 573_440,
    }
    assert 70 * MINIMAX.parameters(6144) == sum(tensors.values())


def test_state_bytes_by_hand() -> None:
    shard, split = Shard(2048), Shard(2048, Parallelism(tp=4))
    # 32 heads of 128 x 128, and three rows of 2 * 2048 + 4096, all in BF16.
    next_ = 2**20 + 3 * 8192 * 2
    assert QWEN3_NEXT.cache_bytes(shard, 1, 16) == next_
    assert QWEN3_NEXT.cache_bytes(split, 1, 16) == next_ / 4
    # 64 heads in FP32, rows of 2 * 2048 + 8192 in BF16.
    assert QWEN35_397B.cache_bytes(shard, 1, 16) == 4 * 2**20 + 3 * 12_288 * 2
    # 32 heads in FP32, rows of 3 * 4096 in BF16.
    assert KIMI_LINEAR.cache_bytes(shard, 1, 16) == 2 * 2**20 + 3 * 12_288 * 2
    # 64 heads in BF16 and no convolution.
    assert MINIMAX.cache_bytes(shard, 1, 16) == 2 * 2**20


@pytest.mark.parametrize(
    ("mixer", "tp", "broken"),
    [
        (QWEN3_NEXT, 16, None),
        (QWEN3_NEXT, 32, "tp 32 does not divide linear_num_key_heads 16"),
        (
            replace(QWEN3_NEXT, linear_num_key_heads=64),
            64,
            "tp 64 does not divide linear_num_value_heads 32",
        ),
        (KIMI_LINEAR, 32, None),
        (KIMI_K3, 64, "tp 64 does not divide num_heads 96"),
        (MINIMAX, 5, "tp 5 does not divide num_attention_heads 64"),
    ],
)
def test_rules(mixer: LinearAttention, tp: int, broken: str | None) -> None:
    assert mixer.rule_broken_by(Parallelism(tp=tp)) == broken


@pytest.mark.parametrize("tp", [1, 2])
def test_operators_of_a_gated_delta_net_by_hand(tp: int) -> None:
    operators = named(SMALL, tp)
    # q and k 6 each, v and z 24 each; b and a 4 each.
    assert shapes(operators) == {
        "qkvz_proj": (32, 60 / tp),
        "ba_proj": (32, 8 / tp),
        "out_proj": (24 / tp, 32),
    }
    assert operators["causal_conv"].width == 36 / tp
    assert operators["gated_norm"].elements == ROWS * 24 / tp
    state = 4 * 3 * 6
    # A chunk of 64 and one of 2: 2080 + 3 pairs. Per pair and head k k', q k' and the
    # inverse times k (3 wide), the inverse times v and q k' times v (6 wide), and
    # 2 / 3 of 64 for the inverse.
    pair = 2 * (3 * 3 + 2 * 6) + 2 * 64 / 3
    flop = 2 * (66 * 3 * 2 * state + 2083 * 4 * pair)
    reading = operators["scan_prefill"].cost()
    assert reading.total_flop == pytest.approx(flop / tp)
    # q, k, v, a, b in; output of 24 out; the state of BF16 in and out.
    assert reading.read == 2 * (66 * (36 + 8) + state) * 2 / tp
    assert reading.written == 2 * (66 * 24 + state) * 2 / tp
    # Two tokens of five sequences, 7 FLOP per element; each writes its state.
    writing = operators["scan_decode"].cost()
    assert writing.total_flop == 10 * 7 * state / tp
    assert writing.cache == 5 * state * 2 / tp
    assert writing.written == 10 * (24 + state) * 2 / tp


def test_the_inverse_of_a_whole_chunk_costs_a_third_of_its_cube() -> None:
    tiny = replace(SMALL, linear_key_head_dim=1, linear_value_head_dim=1)
    scan = next(
        each
        for each in tiny.operators(Shard(32), Step((prefill(1, 64),)))
        if each.name == "scan_prefill"
    )
    products = 4 * (64 * 6 + 64 * 65 / 2 * 10)
    inverse = scan.cost().total_flop - products
    assert inverse == pytest.approx(4 * 64**3 / 3, rel=0.02)


def test_operators_of_kimi_delta_attention_by_hand() -> None:
    mixer = KimiDeltaAttention(num_heads=4, head_dim=6, short_conv_kernel_size=4)
    operators = named(mixer, tp=2)
    # Two heads of six; projections down to a rank are whole on every rank.
    low_rank = {
        "qkv_proj": (32, 36),
        "f_a_proj": (32, 6),
        "f_b_proj": (6, 12),
        "b_proj": (32, 2),
        "g_a_proj": (32, 6),
        "g_b_proj": (6, 12),
        "o_proj": (12, 32),
    }
    assert shapes(operators) == low_rank
    full = shapes(named(replace(mixer, full_rank_gate=True), tp=2))
    assert full.keys() == low_rank.keys() - {"g_a_proj", "g_b_proj"} | {"g_proj"}
    assert full["g_proj"] == (32, 12)
    # q, k, v and a decay for each channel of 12, betas of 2; the state in FP32.
    writing = operators["scan_decode"].cost()
    assert writing.cache == 5 * 2 * 36 * 4
    assert writing.read == 10 * (4 * 12 + 2) * 2 + writing.cache
    assert operators["causal_conv"].width == 36


def test_down_projections_are_on_every_rank() -> None:
    whole = KIMI_LINEAR.weight_bytes(Shard(2304))
    split = 4 * KIMI_LINEAR.weight_bytes(Shard(2304, Parallelism(tp=4)))
    assert split - whole == 3 * (2 * 2304 * 128 + 128) * 2


def test_operators_of_lightning_attention_by_hand() -> None:
    mixer = LightningAttention(num_attention_heads=4, head_dim=6)
    operators = named(mixer, tp=2)
    assert shapes(operators) == {
        "qkv_proj": (32, 36),
        "output_gate": (32, 12),
        "out_proj": (12, 32),
    }
    assert operators["norm_all_reduce"] == Collective(
        "norm_all_reduce", CollectiveKind.ALL_REDUCE, ROWS * 4, 2
    )
    # Less than a block of 256: 66 * 67 / 2 pairs, q k' and its product with v.
    reading = operators["scan_prefill"].cost()
    assert reading.total_flop == 2 * (66 * 4 * 72 + 66 * 67 / 2 * 4 * 12)
    assert operators["scan_decode"].cost().total_flop == 10 * 5 * 72
    assert "causal_conv" not in operators


def test_activation_widths_by_hand() -> None:
    shard = Shard(32, Parallelism(tp=2))
    assert SMALL.activation_width(shard) == (60 + 8 + 36) / 2
    assert KIMI_LINEAR.activation_width(shard) == 8 * 2048
    assert MINIMAX.activation_width(shard) == 4 * 4096
