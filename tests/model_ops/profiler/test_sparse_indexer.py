from dataclasses import replace

import pytest

from model_ops.dtypes import Dtype
from model_ops.profiler.attention import Attention
from model_ops.profiler.ops import AttentionCore
from model_ops.profiler.sparse_indexer import SparseIndexer
from model_ops.profiler.work import Shard, Step, decode

HIDDEN = 64
INDEXER = SparseIndexer(index_n_heads=4, index_head_dim=32, index_topk=100)
BLOCKS = replace(INDEXER, weighted=False, key_dtype=Dtype.BF16)
FULL = Attention(num_attention_heads=8, num_key_value_heads=2, head_dim=8)
SPARSE = replace(FULL, indexer=BLOCKS)


def cores(mixer: Attention, context: float) -> dict[str, AttentionCore]:
    step = Step((decode(1.0, context),))
    found = mixer.operators(Shard(HIDDEN), step)
    return {each.name: each for each in found if isinstance(each, AttentionCore)}


def test_parameters() -> None:
    queries, keys, norms = 16 * 4 * 32, HIDDEN * 32, 2 * 32
    assert INDEXER.parameters(HIDDEN, 16) == queries + keys + HIDDEN * 4 + norms
    assert BLOCKS.parameters(HIDDEN, 16) == queries + keys + norms
    assert replace(INDEXER, shared=True).parameters(HIDDEN, 16) == 0


def test_key_bytes() -> None:
    assert INDEXER.key_bytes == 32 + 32 * 4 / 128
    assert BLOCKS.key_bytes == 64
    assert replace(INDEXER, shared=True).key_bytes == 0


def test_attention_sees_the_chosen_tokens_and_the_indexer_all() -> None:
    long = cores(SPARSE, 999.0)
    assert long["attention_decode"].pairs() == 100
    assert long["index_decode"].pairs() == 1000
    short = cores(SPARSE, 49.0)
    assert short["attention_decode"].pairs() == 50


def test_all_keys_are_kept_and_an_index_key_with_each() -> None:
    shard = Shard(HIDDEN)
    assert SPARSE.cache_bytes(shard, 1000, 1) == FULL.cache_bytes(shard, 1000, 1) + 64e3


def test_weights_of_the_indexer_are_on_every_rank() -> None:
    shard = Shard(HIDDEN)
    more = SPARSE.weight_bytes(shard) - FULL.weight_bytes(shard)
    assert more == 2 * BLOCKS.parameters(HIDDEN, HIDDEN)


def test_a_layer_that_shares_keys_and_values_keeps_and_projects_none() -> None:
    shared = replace(FULL, kv_shared=True, qk_norm=True)
    assert shared.cache_bytes(Shard(HIDDEN), 1000, 1) == 0
    assert shared.parameters(HIDDEN) == 2 * HIDDEN * 64 + 8
    # It still reads those of the layer before.
    read = cores(shared, 99.0)["attention_decode"].cost().cache
    assert read == pytest.approx(100 * 2 * 2 * 8 * 2)
