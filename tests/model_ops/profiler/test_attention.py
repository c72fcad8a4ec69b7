from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import PRESETS, Dtype
from model_ops.opcost import KernelFamily
from model_ops.profiler.attention import Attention
from model_ops.profiler.ops import AttentionCore, Elementwise, Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard, Step, decode, prefill

HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 32, 8, 4, 16
GQA = Attention(
    num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM
)
STEP = Step((prefill(2, 5, 3), decode(4, 10)))
TOKENS = 2 * 5 + 4 * 1


def rank_of(tp: int, preset: str = "bf16") -> Shard:
    return Shard(HIDDEN, Parallelism(tp), PRESETS[preset])


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
    shard = rank_of(tp, "fp8")
    # Keys and values of a token, in the 16 bits that FP8 weights leave the cache.
    assert GQA.cache_bytes(shard, 1, block=1) == 2 * kv_heads * HEAD_DIM * 2
    assert GQA.cache_bytes(rank_of(tp, "fp8-kv8"), 1, block=1) == (
        2 * kv_heads * HEAD_DIM * 1
    )
    q, kv = HEADS * HEAD_DIM / tp, kv_heads * HEAD_DIM
    assert GQA.weight_bytes(shard) == 1 * HIDDEN * (q + kv + kv + q)
    assert GQA.activation_width(shard) == (q + kv + kv) + q


def test_ranks_hold_the_parameters_together_while_nothing_is_copied() -> None:
    for tp in (1, 2, 4):
        assert tp * GQA.weight_bytes(rank_of(tp)) == 2 * GQA.parameters(HIDDEN)
    assert 8 * GQA.weight_bytes(rank_of(8)) > 2 * GQA.parameters(HIDDEN)


def test_published_kv_bytes_per_token() -> None:
    # Llama 3.1 8B: 32 layers of 8 KV heads of 128, in 16 bits: 128 KiB a token.
    llama = Attention(num_attention_heads=32, num_key_value_heads=8, head_dim=128)
    assert 32 * llama.cache_bytes(rank_of(1), 1, block=1) == 128 * 2**10
    # Llama 2 7B has as many KV heads as heads, 32: 512 KiB a token.
    mha = replace(llama, num_key_value_heads=32)
    assert 32 * mha.cache_bytes(rank_of(1), 1, block=1) == 512 * 2**10


def test_a_window_bounds_the_cache() -> None:
    each = 2 * KV_HEADS * HEAD_DIM * 2
    assert GQA.cache_bytes(rank_of(1), 10**6, block=1) == each * 10**6
    windowed = replace(GQA, sliding_window=100)
    kept = windowed.cache_bytes(rank_of(1), np.array([7, 100, 101, 10**6]), block=1)
    assert kept.tolist() == [each * 7, each * 100, each * 100, each * 100]
    # A window of 100 tokens fills seven blocks of sixteen.
    paged = windowed.cache_bytes(rank_of(1), np.array([7, 16, 17, 10**6]), block=16)
    assert paged.tolist() == [each * 16, each * 16, each * 32, each * 112]


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
    assert GQA.rule_broken_by(Parallelism(tp)) == broken


def test_kv_heads_must_be_split_or_copied_evenly() -> None:
    attention = replace(GQA, num_attention_heads=24, num_key_value_heads=6)
    assert attention.rule_broken_by(Parallelism(2)) is None
    assert attention.rule_broken_by(Parallelism(12)) is None
    broken = attention.rule_broken_by(Parallelism(4))
    assert "num_key_value_heads 6" in (broken or "")


@pytest.mark.parametrize("tp", [1, 2, 8])
def test_operators_by_hand(tp: int) -> None:
    shard = rank_of(tp, "fp8-kv8")
    q, kv = HEADS * HEAD_DIM / tp, max(KV_HEADS / tp, 1) * HEAD_DIM
    operators = named(GQA, shard)
    linear = {"m": TOKENS, "weights": Dtype.FP8, "inputs": Dtype.FP8}
    linear |= {"outputs": Dtype.BF16, "engine": Dtype.FP8}
    assert operators["qkv_proj"] == Gemm(
        name="qkv_proj", k=HIDDEN, n=q + 2 * kv, adapted=True, **linear
    )
    assert operators["o_proj"] == Gemm(
        name="o_proj", k=q, n=HIDDEN, adapted=True, **linear
    )
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
        assert one.heads * one.qk_dim == one.heads * one.v_dim == q
        assert one.key_elements == 2 * kv
        assert one.cache_bytes == 1
        assert one.engine is Dtype.FP8
        assert (one.reach, one.seen, one.branches) == (None, None, None)
        assert one.key_shares == one.query_shares == 1
    assert len(operators) == 4 + len(cores)


def test_positions_cost_a_pass_only_where_they_are_rotary_or_normed() -> None:
    shard = rank_of(1)
    learned = replace(GQA, rotary=False)
    assert "rotary" not in named(learned, shard)
    assert "rotary" in named(replace(learned, qk_norm=True), shard)


def test_the_window_reaches_the_kernel() -> None:
    shard = rank_of(1)
    cores = named(replace(GQA, sliding_window=6), shard).values()
    reaches = [op.reach for op in cores if isinstance(op, AttentionCore)]
    assert reaches == [6, 6]


def test_ranks_share_the_flop_without_loss() -> None:
    def flop(tp: int) -> float:
        operators = GQA.operators(rank_of(tp), STEP)
        return sum(op.cost().total_flop for op in operators)

    assert 2 * flop(2) == flop(1)
    assert 4 * flop(4) == flop(1)
