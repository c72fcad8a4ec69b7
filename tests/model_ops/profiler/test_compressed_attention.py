from dataclasses import replace

import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.opcost import OpCost
from model_ops.profiler.compressed_attention import CompressedAttention, EntryIndexer
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Segment, Shard, Step, decode, prefill

HIDDEN, HEADS, DIM, RANK, WINDOW = 64, 8, 16, 24, 32
INDEX = EntryIndexer(index_n_heads=2, index_head_dim=8, index_topk=16)
NEAR = CompressedAttention(
    num_attention_heads=HEADS,
    head_dim=DIM,
    q_lora_rank=RANK,
    o_lora_rank=12,
    o_groups=4,
    sliding_window=WINDOW,
)
HEAVY = replace(NEAR, compress_ratio=128)
CHOSEN = replace(NEAR, compress_ratio=4, indexer=INDEX)
BF16, FP8_CACHE = 2, Precision(Dtype.FP8, Dtype.FP8, Dtype.FP8)


def shard(precision: Precision | None = None, **split: int) -> Shard:
    return Shard(HIDDEN, Parallelism(**split), precision or Precision())


def costs(
    mixer: CompressedAttention, segment: Segment, **split: int
) -> dict[str, OpCost]:
    operators = mixer.operators(shard(**split), Step((segment,)))
    found: dict[str, OpCost] = {}
    for each in operators:
        if hasattr(each, "cost"):
            found[each.name] = each.cost()
    return found


def flop(cost: OpCost) -> float:
    return float(sum(cost.flop.values()))


# ---- parameters ----


def test_parameters_of_the_window_alone() -> None:
    inputs = HIDDEN * (RANK + DIM) + RANK + DIM  # and their norms
    queries = RANK * HEADS * DIM
    outputs = (HEADS * DIM // 4) * (4 * 12) + 4 * 12 * HIDDEN
    assert NEAR.parameters(HIDDEN) == inputs + queries + outputs + HEADS


def test_parameters_of_compressors() -> None:
    window = NEAR.parameters(HIDDEN)
    # Values and gates, a position bias for each of the 128 tokens, a norm.
    assert HEAVY.parameters(HIDDEN) - window == 2 * HIDDEN * DIM + 128 * DIM + DIM
    # Where entries overlap each token has two values and gates.
    entries = 4 * HIDDEN * DIM + 4 * 2 * DIM + DIM
    index = 4 * HIDDEN * 8 + 4 * 2 * 8 + 8 + RANK * 2 * 8 + HIDDEN * 2
    assert CHOSEN.parameters(HIDDEN) - window == entries + index


@pytest.mark.parametrize("mixer", [NEAR, HEAVY, CHOSEN])
def test_weights_are_what_the_parameters_are(mixer: CompressedAttention) -> None:
    small = 128 * DIM + 4 * 2 * (DIM + 8) + 3 * DIM + RANK + 8 + HEADS
    bytes_ = mixer.weight_bytes(shard())
    assert 0 <= mixer.parameters(HIDDEN) - bytes_ / BF16 <= small


def test_queries_and_outputs_are_split_and_the_rest_is_copied() -> None:
    whole, half = NEAR.weight_bytes(shard()), NEAR.weight_bytes(shard(tp=2))
    copied = HIDDEN * (RANK + DIM) * BF16
    assert half - copied == pytest.approx((whole - copied) / 2)


# ---- cache ----


def test_the_window_keeps_no_more_than_itself() -> None:
    for tokens, kept in ((10, 10), (32, 32), (1000, 32)):
        assert NEAR.cache_bytes(shard(), tokens, 1) == kept * DIM * BF16


def test_entries_beside_the_window() -> None:
    window = WINDOW * DIM * BF16
    entries = 1280 / 128 * DIM * BF16
    unfinished = 128 * 2 * DIM * 4  # values and gates in FP32
    assert HEAVY.cache_bytes(shard(), 1280, 1) == window + entries + unfinished


def test_chosen_entries_have_index_keys() -> None:
    window = WINDOW * DIM * BF16
    entries = 1280 / 4 * (DIM + 8) * BF16
    unfinished = 2 * 4 * 4 * (DIM + 8) * 4  # of this entry and the one before
    assert CHOSEN.cache_bytes(shard(), 1280, 1) == window + entries + unfinished


def test_cache_comes_in_blocks_and_in_its_format() -> None:
    eight = NEAR.cache_bytes(shard(FP8_CACHE), 10, 16)
    assert eight == 16 * DIM


def test_context_parallel_ranks_share_the_entries() -> None:
    def grown(cp: int) -> float:
        at = [CHOSEN.cache_bytes(shard(cp=cp), n, 1) for n in (4096, 8192)]
        return float(at[1] - at[0])

    assert grown(4) == pytest.approx(grown(1) / 4)


# ---- operators ----


def test_decode_sees_the_window_and_the_entries() -> None:
    found = costs(HEAVY, decode(3.0, 1279.0))
    assert flop(found["window_decode"]) == 3 * WINDOW * HEADS * 2 * (2 * DIM)
    # 1,280 tokens are ten entries.
    assert flop(found["entries_decode"]) == 3 * 10 * HEADS * 2 * (2 * DIM)
    assert found["entries_decode"].cache == 3 * 10 * DIM * BF16


def test_decode_sees_no_more_entries_than_are_chosen() -> None:
    found = costs(CHOSEN, decode(1.0, 1279.0))
    assert flop(found["entries_decode"]) == 16 * HEADS * 2 * (2 * DIM)
    # The indexer scores all 320.
    assert flop(found["index_decode"]) == 320 * 2 * 2 * 8
    few = costs(CHOSEN, decode(1.0, 39.0))
    assert flop(few["entries_decode"]) == 10 * HEADS * 2 * (2 * DIM)


def test_a_prompt_sees_half_of_its_entries_on_average() -> None:
    found = costs(HEAVY, prefill(1.0, 1280.0))
    pairs = 1280 * 1281 / 2 / 128
    assert flop(found["entries_prefill"]) == pytest.approx(pairs * HEADS * 4 * DIM)


def test_output_groups_multiply_their_own_heads_alone() -> None:
    found = costs(NEAR, decode(5.0, 100.0))
    assert flop(found["o_a_proj"]) == 2 * 5 * (HEADS * DIM) * 12
    assert found["o_a_proj"].weights == HEADS * DIM * 12 * BF16
    split = costs(NEAR, decode(5.0, 100.0), tp=2)
    assert flop(split["o_a_proj"]) == flop(found["o_a_proj"]) / 2


def test_only_the_compressed_layers_compress() -> None:
    assert "compress" not in costs(NEAR, decode(1.0, 10.0))
    assert "compress" in costs(HEAVY, decode(1.0, 10.0))
    assert "index_q_proj" not in costs(HEAVY, decode(1.0, 10.0))


@pytest.mark.parametrize(
    ("tp", "said"),
    [
        (3, "tp 3 does not divide num_attention_heads 8"),
        (8, "does not divide o_groups"),
    ],
)
def test_splits_that_cannot_be(tp: int, said: str) -> None:
    assert said in str(NEAR.rule_broken_by(Parallelism(tp=tp)))
    assert NEAR.rule_broken_by(Parallelism(tp=4)) is None
