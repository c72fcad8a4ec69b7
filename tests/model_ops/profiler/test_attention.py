from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import PRESETS, Dtype, Precision
from model_ops.opcost import KernelFamily
from model_ops.profiler.attention import Attention
from model_ops.profiler.ops import AttentionCore, Elementwise, Gemm
from model_ops.profiler.work import Shard, Step, decode, prefill

HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 32, 8, 4, 16
GQA = Attention(
    num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM
)
STEP = Step((prefill(2, 5, 3), decode(4, 10)))
TOKENS = 2 * 5 + 4 * 1


def named(attention: Attention, shard: Shard, step: Step = STEP) -> dict:
    return {operator.name: operator for operator in attention.operators(shard, step)}


def test_parameters_by_hand() -> None:
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    plain = HIDDEN * q + 2 * HIDDEN * kv + q * HIDDEN
    assert GQA.parameters(HIDDEN) == plain
    assert replace(GQA, qkv_bias=True).parameters(HIDDEN) == plain + q + 2 * kv
    assert replace(GQA, output_bias=True).parameters(HIDDEN) == plain + HIDDEN
    assert replace(GQA, qk_norm=True).parameters(HIDDEN) == plain + 2 * HEAD_DIM


@pytest.mark.parametrize(("tp", "kv_heads"), [(1, 4), (2, 2), (4, 1), (8, 1), (16, 1)])
def test_kv_heads_are_split_and_then_copied(tp: int, kv_heads: int) -> None:
    assert GQA.kv_heads_per_rank(tp) == kv_heads
    assert GQA.kv_elements_per_token(tp) == 2 * kv_heads * HEAD_DIM
    q, kv = HEADS * HEAD_DIM / tp, kv_heads * HEAD_DIM
    assert GQA.weights_per_rank(HIDDEN, tp) == HIDDEN * (q + kv + kv + q)
    assert GQA.activation_width(tp) == (q + kv + kv) + q


def test_ranks_hold_the_parameters_together_while_nothing_is_copied() -> None:
    for tp in (1, 2, 4):
        assert tp * GQA.weights_per_rank(HIDDEN, tp) == GQA.parameters(HIDDEN)
    assert 8 * GQA.weights_per_rank(HIDDEN, 8) > GQA.parameters(HIDDEN)


def test_published_kv_bytes_per_token() -> None:
    # Llama 3.1 8B: 32 layers of 8 KV heads of 128, in 16 bits: 128 KiB a token.
    llama = Attention(num_attention_heads=32, num_key_value_heads=8, head_dim=128)
    assert 32 * llama.kv_elements_per_token(1) * Dtype.BF16.bytes == 128 * 2**10
    # Llama 2 7B has as many KV heads as heads, 32: 512 KiB a token.
    mha = replace(llama, num_key_value_heads=32)
    assert 32 * mha.kv_elements_per_token(1) * Dtype.BF16.bytes == 512 * 2**10


def test_a_window_bounds_the_cache() -> None:
    assert GQA.cached_tokens(10**6) == 10**6
    windowed = replace(GQA, sliding_window=100)
    assert windowed.cached_tokens(np.array([7, 100, 101, 10**6])).tolist() == [
        7,
        100,
        100,
        100,
    ]


@pytest.mark.parametrize(
    ("tp", "broken"),
    [
        (1, None),
        (4, None),
        (8, None),  # two copies of each KV head
        (3, "tp 3 does not divide num_attention_heads 8"),
        (16, "tp 16 does not divide num_attention_heads 8"),
    ],
)
def test_rules(tp: int, broken: str | None) -> None:
    assert GQA.rule_broken_by(tp) == broken


def test_kv_heads_must_be_split_or_copied_evenly() -> None:
    attention = replace(GQA, num_attention_heads=24, num_key_value_heads=6)
    assert attention.rule_broken_by(2) is None
    assert attention.rule_broken_by(12) is None
    assert "num_key_value_heads 6" in (attention.rule_broken_by(4) or "")


@pytest.mark.parametrize("tp", [1, 2, 8])
def test_operators_by_hand(tp: int) -> None:
    shard = Shard(HIDDEN, tp, PRESETS["fp8-kv8"])
    q, kv = HEADS * HEAD_DIM / tp, max(KV_HEADS / tp, 1) * HEAD_DIM
    operators = named(GQA, shard)
    linear = {"m": TOKENS, "weights": Dtype.FP8, "inputs": Dtype.FP8}
    linear |= {"outputs": Dtype.BF16, "engine": Dtype.FP8}
    assert operators["qkv_proj"] == Gemm(
        name="qkv_proj", k=HIDDEN, n=q + 2 * kv, **linear
    )
    assert operators["o_proj"] == Gemm(name="o_proj", k=q, n=HIDDEN, **linear)
    assert operators["rotary"] == Elementwise(
        name="rotary", elements=TOKENS * (q + kv), read=2, written=2
    )
    assert operators["kv_cache_write"] == Elementwise(
        name="kv_cache_write", elements=TOKENS * 2 * kv, read=2, written=1
    )
    cores = [op for op in operators.values() if isinstance(op, AttentionCore)]
    assert [(c.sequences, c.queries, c.context, c.family) for c in cores] == [
        (2, 5, 3, KernelFamily.ATTENTION_PREFILL),
        (4, 1, 10, KernelFamily.ATTENTION_DECODE),
    ]
    for one in cores:
        assert one.heads * one.head_dim == q
        assert one.kv_heads * one.head_dim == kv
        assert one.kv_cache is one.engine is Dtype.FP8
    assert len(operators) == 4 + len(cores)


def test_positions_cost_a_pass_only_where_they_are_rotary_or_normed() -> None:
    shard = Shard(HIDDEN, 1, Precision())
    learned = replace(GQA, rotary=False)
    assert "rotary" not in named(learned, shard)
    assert "rotary" in named(replace(learned, qk_norm=True), shard)


def test_the_window_reaches_the_kernel() -> None:
    shard = Shard(HIDDEN, 1, Precision())
    cores = named(replace(GQA, sliding_window=6), shard).values()
    windows = [op.window for op in cores if isinstance(op, AttentionCore)]
    assert windows == [6, 6]


def test_ranks_share_the_flop_without_loss() -> None:
    def flop(tp: int) -> float:
        shard = Shard(HIDDEN, tp, Precision())
        return sum(op.cost().total_flop for op in GQA.operators(shard, STEP))

    assert 2 * flop(2) == flop(1)
    assert 4 * flop(4) == flop(1)
