"""Latent, sparse, chunked and gated attention, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.opcost import Collective, KernelFamily
from model_ops.profiler.attention import Attention
from model_ops.profiler.mla import LatentAttention
from model_ops.profiler.ops import AttentionCore
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.sparse_indexer import SparseIndexer
from model_ops.profiler.work import Segment, Shard, Step, decode, decode_beams, prefill

HIDDEN = 7168
V3 = LatentAttention(
    num_attention_heads=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)
INDEXER = SparseIndexer(index_n_heads=64, index_head_dim=128, index_topk=2048)
SPARSE = replace(V3, indexer=INDEXER)
GQA = Attention(num_attention_heads=8, num_key_value_heads=2, head_dim=16)


def work(
    mixer: LatentAttention | Attention,
    segment: Segment,
    hidden: int = HIDDEN,
    **split: int,
) -> dict:
    shard = Shard(hidden, Parallelism(**split))
    return {each.name: each for each in mixer.operators(shard, Step((segment,)))}


# ---- parameters ----


def test_parameters_of_deepseek_v3() -> None:
    q_a, q_b = 7168 * 1536, 1536 * 128 * (128 + 64)
    kv_a, kv_b = 7168 * (512 + 64), 512 * 128 * (128 + 128)
    o, norms = 128 * 128 * 7168, 1536 + 512
    total = q_a + q_b + kv_a + kv_b + o + norms
    assert V3.parameters(HIDDEN) == total == 187_107_328
    assert V3.active_parameters(HIDDEN) == total


def test_queries_without_a_latent() -> None:
    # DeepSeek-V2-Lite: one projection of 2048 to 16 heads of 192.
    lite = replace(V3, num_attention_heads=16, q_lora_rank=None)
    rest = 2048 * 576 + 512 * 16 * 256 + 16 * 128 * 2048 + 512
    assert lite.parameters(2048) == 2048 * 16 * 192 + rest


def test_gate_and_indexer_have_parameters() -> None:
    gated = replace(V3, output_gate=True)
    assert gated.parameters(HIDDEN) - V3.parameters(HIDDEN) == 7168 * 128 * 128
    # Queries from the latent, a key and 64 head weights from the stream, a LayerNorm.
    index = 1536 * 64 * 128 + 7168 * (128 + 64) + 2 * 128
    assert SPARSE.parameters(HIDDEN) - V3.parameters(HIDDEN) == index


@pytest.mark.parametrize("tp", [1, 8, 128])
def test_ranks_hold_the_latent_projections_whole(tp: int) -> None:
    whole = 7168 * (1536 + 576)
    split = 1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * 7168
    found = V3.weight_bytes(Shard(HIDDEN, Parallelism(tp)))
    assert found == 2 * (whole + split / tp)


def test_queries_keys_values_and_outputs_are_alive_at_once() -> None:
    found = V3.activation_width(Shard(HIDDEN, Parallelism(8)))
    assert found == 16 * (192 + 192 + 128 + 128)


# ---- cache ----


@pytest.mark.parametrize("tp", [1, 4, 128])
@pytest.mark.parametrize("pp", [1, 2])
def test_every_rank_keeps_the_latents_whole(tp: int, pp: int) -> None:
    shard = Shard(HIDDEN, Parallelism(tp, pp))
    assert V3.cache_bytes(shard, 160, 16) == 160 * 576 * 2
    assert V3.cache_bytes(shard, 161, 16) == 176 * 576 * 2
    small = replace(shard, precision=Precision.of("fp8-kv8"))
    assert V3.cache_bytes(small, 160, 16) == 160 * 576


def test_context_parallel_ranks_keep_their_share_of_the_latents() -> None:
    shard = Shard(HIDDEN, Parallelism(4, cp=2))
    assert V3.cache_bytes(shard, 160, 16) == 80 * 576 * 2


@pytest.mark.parametrize(("batch", "rows"), [(8, 2), (1, 1)])
def test_context_parallel_ranks_absorb_their_own_queries(batch: int, rows: int) -> None:
    found = work(V3, decode(batch, 999), cp=4)
    assert found["q_absorb"].m == found["v_absorb"].m == rows * 128
    # And attend to all queries with a quarter of the latents.
    core = found["mla_decode"].cost()
    assert core.cache == batch * 1000 / 4 * 576 * 2
    assert core.total_flop == batch * 1000 / 4 * 2 * 128 * (576 + 512)
    sent = found["context_reduce"]
    assert sent.payload == batch * 128 * (576 + 512) * 2
    gathered = work(V3, prefill(2, 64, 16), cp=4)["context_gather"]
    assert gathered.payload == 2 * 80 * 576 * 2


def test_the_indexer_keeps_a_key_in_eight_bits() -> None:
    shard = Shard(HIDDEN)
    key = 128 + 4  # and a scale of four bytes per 128
    assert SPARSE.cache_bytes(shard, 160, 16) == 160 * (576 * 2 + key)
    follower = replace(V3, indexer=replace(INDEXER, shared=True))
    assert follower.cache_bytes(shard, 160, 16) == V3.cache_bytes(shard, 160, 16)


# ---- attention ----


def test_decode_works_on_the_latents() -> None:
    found = work(V3, decode(3, 1000))
    core = found["mla_decode"]
    assert core.family is KernelFamily.MLA_DECODE
    assert core.cost().total_flop == 3 * 1001 * 2 * 128 * (576 + 512)
    assert core.cost().cache == 3 * 1001 * 576 * 2
    # Queries of 576 in, outputs of 512 out, for each head.
    assert core.cost().read == core.cost().cache + 3 * 128 * 576 * 2
    assert core.cost().written == 3 * 128 * 512 * 2
    # Up-projections are absorbed: 128 heads' matrices of 128 x 512 each way.
    for name in ("q_absorb", "v_absorb"):
        assert found[name].cost().total_flop == 3 * 2 * 128 * 128 * 512
        assert found[name].cost().weights == 128 * 128 * 512 * 2
    assert "kv_b_proj" not in found


def test_prefill_expands_the_latents() -> None:
    found = work(V3, prefill(2, 100, 50))
    core = found["mla_prefill"].cost()
    pairs = sum(50 + i for i in range(1, 101))
    assert core.total_flop == 2 * pairs * 2 * 128 * (192 + 128)
    # Keys of 192 and values of 128 for each head, of chunk and context.
    assert core.read == 2 * 128 * (100 * 192 + 150 * (192 + 128)) * 2
    expand = found["kv_b_proj"].cost()
    assert expand.total_flop == 2 * (2 * 150) * 512 * 128 * 256
    assert "q_absorb" not in found


def test_only_the_latents_of_the_context_come_from_the_cache() -> None:
    found = work(V3, prefill(2, 100, 50))
    assert found["mla_prefill"].cost().cache == 0
    assert found["kv_b_proj"].cost().cache == 2 * 50 * 512 * 2
    first = work(V3, prefill(2, 100))
    assert sum(each.cost().cache for each in first.values()) == 0


@pytest.mark.parametrize("tp", [2, 8])
def test_heads_are_split_and_latents_are_not(tp: int) -> None:
    whole = work(V3, decode(3, 1000))["mla_decode"].cost()
    part = work(V3, decode(3, 1000), tp=tp)["mla_decode"].cost()
    assert part.total_flop == whole.total_flop / tp
    assert part.cache == whole.cache


def test_projections_by_hand() -> None:
    found = work(V3, decode(5, 10), tp=4)
    assert (found["qkv_a_proj"].k, found["qkv_a_proj"].n) == (7168, 1536 + 576)
    assert (found["q_b_proj"].k, found["q_b_proj"].n) == (1536, 32 * 192)
    assert (found["o_proj"].k, found["o_proj"].n) == (32 * 128, 7168)
    assert found["kv_cache_write"].elements == 5 * 576
    plain = work(replace(V3, q_lora_rank=None), decode(5, 10), tp=4)
    assert plain["q_kv_a_proj"].n == 576 + 32 * 192
    assert "q_b_proj" not in plain
    gated = work(replace(V3, output_gate=True), decode(5, 10), tp=4)
    assert gated["gate_proj"].n == 32 * 128


def test_heads_must_divide() -> None:
    assert "num_attention_heads 128" in (V3.rule_broken_by(Parallelism(3)) or "")
    assert V3.rule_broken_by(Parallelism(64)) is None


# ---- sparse attention ----


@pytest.mark.parametrize(("context", "seen"), [(99, 100), (2047, 2048), (50_000, 2048)])
def test_attention_sees_the_best_tokens_and_the_indexer_all(
    context: int, seen: int
) -> None:
    found = work(SPARSE, decode(3, context))
    core, index = found["mla_decode"].cost(), found["index_decode"].cost()
    assert core.total_flop == 3 * seen * 2 * 128 * (576 + 512)
    assert core.cache == 3 * seen * 576 * 2
    assert index.total_flop == 3 * (context + 1) * 2 * 64 * 128
    assert list(index.flop) == [Dtype.FP8]
    assert index.cache == 3 * (context + 1) * 132


def test_sparse_prefill_works_on_the_latents() -> None:
    found = work(SPARSE, prefill(1, 3000))
    # The i-th of 3000 tokens sees i, at most 2048.
    pairs = 2048 * 2049 / 2 + 952 * 2048
    assert found["mla_prefill"].cost().total_flop == pairs * 2 * 128 * (576 + 512)
    assert found["index_prefill"].cost().total_flop == 3000 * 3001 / 2 * 2 * 64 * 128
    assert "kv_b_proj" not in found


def test_a_layer_may_take_the_choice_of_one_before() -> None:
    follower = replace(V3, indexer=replace(INDEXER, shared=True))
    found = work(follower, decode(3, 50_000))
    assert not [name for name in found if name.startswith("index")]
    assert found["mla_decode"].cost().cache == 3 * 2048 * 576 * 2
    assert follower.parameters(HIDDEN) == V3.parameters(HIDDEN)


def test_context_parallel_ranks_score_the_keys_that_they_keep() -> None:
    one = work(SPARSE, decode(3, 999))["index_decode"].cost()
    two = work(SPARSE, decode(3, 999), cp=2)["index_decode"].cost()
    assert two.cache == one.cache / 2
    assert two.total_flop == one.total_flop / 2


def test_plain_attention_with_an_indexer() -> None:
    block = SparseIndexer(
        index_n_heads=2, index_head_dim=16, index_topk=32, weighted=False
    )
    sparse = replace(GQA, indexer=block)
    index = 64 * 2 * 16 + 64 * 16 + 2 * 16
    assert sparse.parameters(64) - GQA.parameters(64) == index
    found = work(sparse, decode(1, 99), hidden=64)
    assert found["attention_decode"].cost().cache == 32 * 2 * 2 * 16 * 2
    assert found["index_decode"].cost().total_flop == 100 * 2 * 2 * 16


# ---- chunks, windows, gates ----


def chunked_pairs(context: int, queries: int, chunk: int) -> int:
    return sum((context + i) % chunk + 1 for i in range(queries))


@pytest.mark.parametrize(
    ("context", "queries"), [(0, 5), (0, 8), (0, 24), (3, 5), (0, 16)]
)
def test_a_query_sees_the_tokens_of_its_own_chunk(context: int, queries: int) -> None:
    found = work(replace(GQA, chunk_size=8), prefill(1, queries, context), hidden=64)
    pairs = chunked_pairs(context, queries, 8)
    assert found["attention_prefill"].cost().total_flop == pairs * 4 * 8 * 16


def test_a_late_query_sees_half_a_chunk_in_the_mean() -> None:
    contexts = np.arange(8, 80)
    mean = np.mean([chunked_pairs(int(c), 1, 8) for c in contexts])
    found = work(replace(GQA, chunk_size=8), decode(1, contexts), hidden=64)
    cost = found["attention_decode"].cost()
    assert np.mean(cost.total_flop) == mean * 4 * 8 * 16
    assert np.mean(cost.cache) == mean * 2 * 2 * 16 * 2


def test_chunks_and_windows_bound_the_cache() -> None:
    token = 2 * 2 * 16 * 2
    for field in ("chunk_size", "sliding_window"):
        mixer = replace(GQA, **{field: 128})
        shard = Shard(64)
        assert mixer.cache_bytes(shard, 64, 16) == 64 * token
        assert mixer.cache_bytes(shard, 1000, 16) == 128 * token
        # Context-parallel ranks share what is left of it.
        dealt = Shard(64, Parallelism(cp=4))
        assert mixer.cache_bytes(dealt, 1000, 16) == 32 * token
        assert mixer.cache_bytes(dealt, 64, 16) == 16 * token


def test_beams_never_read_less_than_their_answers_share() -> None:
    # 7 written tokens of each beam and the new one, but a chunk of 8 is half done.
    segment = decode_beams(1, 100, 7, 4)
    cost = work(replace(GQA, chunk_size=8), segment, hidden=64)["attention_decode"]
    assert cost.pairs() == 4 * 4.5
    assert cost.keys() == 4 * 4.5
    slid = work(replace(GQA, sliding_window=8), segment, hidden=64)["attention_decode"]
    assert slid.pairs() == slid.keys() == 4 * 8
    wide = work(replace(GQA, sliding_window=20), segment, hidden=64)["attention_decode"]
    assert wide.keys() == 12 + 4 * 8  # twelve of the prompt are shared


def test_values_of_another_size() -> None:
    mixer = replace(GQA, v_head_dim=4)
    assert mixer.parameters(64) == 64 * (8 * 16 + 2 * (16 + 4) + 8 * 4)
    assert mixer.cache_bytes(Shard(64), 16, 16) == 16 * 2 * (16 + 4) * 2
    found = work(mixer, decode(1, 99), hidden=64)
    assert found["o_proj"].k == 8 * 4
    cost = found["attention_decode"].cost()
    assert cost.total_flop == 100 * 2 * 8 * (16 + 4)
    assert cost.cache == 100 * 2 * (16 + 4) * 2


def test_gate_of_the_output() -> None:
    gated = replace(GQA, output_gate=True)
    assert gated.parameters(64) - GQA.parameters(64) == 64 * 8 * 16
    found, plain = (work(each, decode(3, 9), hidden=64) for each in (gated, GQA))
    assert found["qkv_proj"].n - plain["qkv_proj"].n == 8 * 16
    assert found["output_gate"].cost().bytes == 3 * 8 * 16 * 3 * 2


def test_keys_that_are_values_and_those_of_another_layer() -> None:
    once = replace(GQA, key_is_value=True)
    assert GQA.parameters(64) - once.parameters(64) == 64 * 2 * 16
    assert once.cache_bytes(Shard(64), 16, 16) == GQA.cache_bytes(Shard(64), 16, 16)
    borrowed = replace(GQA, kv_shared=True, qk_norm=True)
    assert borrowed.parameters(64) == 64 * 2 * 8 * 16 + 16
    assert borrowed.cache_bytes(Shard(64), 16, 16) == 0
    found = work(borrowed, decode(3, 9), hidden=64)
    assert "kv_cache_write" not in found
    # It reads the other layer's cache all the same.
    assert found["attention_decode"].cost().cache == 3 * 10 * 2 * 2 * 16 * 2


def test_every_kind_is_an_operator_with_a_positive_cost() -> None:
    for mixer in (V3, SPARSE, replace(V3, q_lora_rank=None, output_gate=True)):
        for segment in (prefill(2, 7, 3), decode(4, 100, 2), decode_beams(2, 50, 5, 3)):
            for each in work(mixer, segment).values():
                assert not isinstance(each, Collective)
                cost = each.cost()
                assert cost.bytes > 0
                assert cost.cache + cost.weights <= cost.read
                assert not isinstance(each, AttentionCore) or cost.total_flop > 0
