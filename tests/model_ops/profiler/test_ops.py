from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily, OpCost
from model_ops.profiler.ops import AttentionCore, Elementwise, Gemm


def gemm(m: object, k: object, n: object, **formats: Dtype) -> Gemm:
    chosen = {"weights": Dtype.BF16, "inputs": Dtype.BF16, "outputs": Dtype.BF16}
    return Gemm(name="g", m=m, k=k, n=n, **({"engine": Dtype.BF16} | chosen | formats))


def core(**changes: object) -> AttentionCore:
    shape = {
        "sequences": 1,
        "queries": 1,
        "context": 0,
        "heads": 1,
        "qk_dim": 1,
        "v_dim": 1,
        "key_elements": 2,
        "reach": None,
        "cache_bytes": 2,
        "outputs": Dtype.BF16,
        "engine": Dtype.BF16,
    }
    family = KernelFamily.ATTENTION_PREFILL
    return AttentionCore(name="a", family=family, **(shape | changes))


def seen_by(query: int, context: int, window: int | None) -> set[int]:
    """Positions that the query-th new token (from 1) sees, itself included."""
    own = context + query
    first = 1 if window is None else max(1, own - window + 1)
    return set(range(first, own + 1))


def test_gemm_by_hand() -> None:
    m, k, n = 4, 2, 8
    itemsize = 2
    assert gemm(m, k, n).cost() == OpCost(
        flop={Dtype.BF16: 2 * m * k * n},
        read=itemsize * (m * k + k * n),
        written=itemsize * m * n,
        weights=itemsize * k * n,
        launches=1,
    )


def test_gemm_reads_and_writes_each_operand_in_its_own_format() -> None:
    m, k, n = 3, 5, 7
    cost = gemm(
        m,
        k,
        n,
        weights=Dtype.INT4,
        inputs=Dtype.FP8,
        outputs=Dtype.FP32,
        engine=Dtype.FP16,
    ).cost()
    assert cost.flop == {Dtype.FP16: 2 * m * k * n}
    weights = k * n * (4 + 20 / 128) / 8
    assert cost.weights == weights
    assert cost.read == m * k * 1 + weights
    assert cost.written == m * n * 4


def test_gemm_family() -> None:
    assert gemm(1, 1, 1).family is KernelFamily.GEMM


def test_where_no_expert_is_chosen_none_has_a_row() -> None:
    idle = replace(gemm(0.0, 2, 3), matrices=0.0)
    assert idle.shape().rows == 0.0
    assert idle.cost().read == 0.0


def test_gemm_arrays_equal_scalars() -> None:
    ms, ns = np.array([1, 4, 9]), np.array([[2], [8]])
    together = gemm(ms, 6, ns).cost()
    assert together.read.shape == (2, 3)
    for (row, n), (column, m) in product(enumerate(ns[:, 0]), enumerate(ms)):
        alone = gemm(int(m), 6, int(n)).cost()
        at = (row, column)
        assert together.read[at] == alone.read
        assert np.broadcast_to(together.weights, (2, 3))[at] == alone.weights
        assert np.broadcast_to(together.written, (2, 3))[at] == alone.written
        assert together.flop[Dtype.BF16][at] == alone.flop[Dtype.BF16]


@pytest.mark.parametrize("window", [None, 1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("context", [0, 1, 2, 4, 7, 9])
@pytest.mark.parametrize("queries", [1, 2, 3, 6])
def test_causal_pairs_and_keys_counted_on_the_mask(
    queries: int, context: int, window: int | None
) -> None:
    rows = [seen_by(i, context, window) for i in range(1, queries + 1)]
    attention = core(queries=queries, context=context, reach=window)
    assert attention.pairs() == sum(len(row) for row in rows)
    assert attention.keys() == len(set.union(*rows))


@pytest.mark.parametrize("window", [None, 1, 3, 8, 100])
@pytest.mark.parametrize("prompt", [0, 1, 5, 9])
@pytest.mark.parametrize("answer", [0, 1, 4])
@pytest.mark.parametrize("beams", [1, 2, 5])
def test_pairs_and_keys_of_beams_counted_on_the_mask(
    beams: int, answer: int, prompt: int, window: int | None
) -> None:
    # Each beam's next token sees the shared prompt, its own answer and itself.
    rows = []
    for beam in range(beams):
        own = [(beam, token) for token in range(answer + 1)]
        seen = [*(("prompt", token) for token in range(prompt)), *own]
        rows.append(set(seen if window is None else seen[-window:]))
    attention = core(queries=beams, context=prompt, branches=answer, reach=window)
    assert attention.pairs() == sum(len(row) for row in rows)
    assert attention.keys() == len(set.union(*rows))


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_chunks_hide_what_is_before_them(chunk: int) -> None:
    def seen(position: int) -> int:  # from 0, in the chunk that it is part of
        return position % chunk + 1

    steady = {"reach": chunk, "seen": (chunk + 1) / 2}
    whole = core(queries=5 * chunk, **steady)
    assert whole.pairs() == sum(seen(i) for i in range(5 * chunk))
    assert whole.keys() == 5 * chunk
    # Decode, on average over where in a chunk a token may be.
    contexts = np.arange(chunk, 3 * chunk)
    found = core(context=contexts, **steady)
    mean = np.mean([seen(context) for context in contexts])
    assert np.mean(found.pairs()) == pytest.approx(mean)
    assert np.mean(found.keys()) == pytest.approx(mean)
    early = core(context=np.arange(chunk), **steady)
    assert early.pairs().tolist() == [seen(context) for context in range(chunk)]


def test_beams_in_chunks_read_no_less_than_one_and_no_more_than_their_sum() -> None:
    for answer in range(40):
        one, four = (
            core(queries=n, context=50, branches=answer, reach=16, seen=8.5).keys()
            for n in (1, 4)
        )
        assert one <= four <= 4 * one


@pytest.mark.parametrize(("keys", "queries"), [(2, 1), (1, 2), (2, 3)])
def test_ranks_that_share_keys_or_queries_do_their_part(
    keys: int, queries: int
) -> None:
    alone = core(queries=6, context=4, heads=8, qk_dim=3, v_dim=5, key_elements=16)
    whole = alone.cost()
    cost = replace(alone, key_shares=keys, query_shares=queries).cost()
    assert cost.total_flop == pytest.approx(whole.total_flop / (keys * queries))
    assert cost.cache == pytest.approx(whole.cache / keys)
    assert cost.written == pytest.approx(whole.written / queries)


def test_prefill_of_a_chunked_prompt_has_the_pairs_of_the_whole() -> None:
    whole, chunks = 12, [5, 4, 3]
    for window in (None, 3, 7):
        starts = [sum(chunks[:i]) for i in range(len(chunks))]
        parts = [
            core(queries=q, context=c, reach=window).pairs()
            for q, c in zip(chunks, starts, strict=True)
        ]
        assert sum(parts) == core(queries=whole, reach=window).pairs()


def test_attention_cost_by_hand() -> None:
    sequences, queries, context = 3, 2, 5
    heads, kv_heads, qk_dim, v_dim = 8, 2, 16, 12
    q_size, kv_size = 2, 1
    pairs = (context + 1) + (context + 2)
    cost = core(
        sequences=sequences,
        queries=queries,
        context=context,
        heads=heads,
        qk_dim=qk_dim,
        v_dim=v_dim,
        key_elements=kv_heads * (qk_dim + v_dim),
        cache_bytes=kv_size,
        engine=Dtype.FP16,
    ).cost()
    rows = sequences * queries * heads * q_size
    tokens = sequences * (context + queries)
    cached = tokens * kv_heads * (qk_dim + v_dim) * kv_size
    # q k' and p v: a multiply-add each per pair and element.
    assert cost.flop == {
        Dtype.FP16: sequences * pairs * heads * (2 * qk_dim + 2 * v_dim)
    }
    assert cost.read == rows * qk_dim + cached
    assert cost.written == rows * v_dim
    assert cost.cache == cached
    assert cost.weights == 0
    assert cost.launches == 1


def test_decode_reads_the_cache_once_whatever_the_heads_that_share_it() -> None:
    context, head_dim, kv_heads = 1000, 128, 4

    def read_beyond_queries(heads: int) -> float:
        cost = core(
            context=context,
            heads=heads,
            qk_dim=head_dim,
            v_dim=head_dim,
            key_elements=2 * kv_heads * head_dim,
        ).cost()
        return cost.read - heads * head_dim * 2

    assert read_beyond_queries(4) == 2 * (context + 1) * kv_heads * head_dim * 2
    assert read_beyond_queries(4) == read_beyond_queries(32)


def test_a_window_bounds_decode() -> None:
    near, far = core(context=10**3, reach=64), core(context=10**6, reach=64)
    assert near.cost() == far.cost()
    assert near.pairs() == near.keys() == 64


def test_attention_arrays_equal_scalars() -> None:
    queries, contexts = np.array([1, 2, 5]), np.array([[0], [3], [9]])
    for window in (None, 4):
        together = core(queries=queries, context=contexts, reach=window).cost()
        for (row, c), (column, q) in product(
            enumerate(contexts[:, 0]), enumerate(queries)
        ):
            alone = core(queries=int(q), context=int(c), reach=window).cost()
            assert together.read[row, column] == alone.read
            flop = np.broadcast_to(together.flop[Dtype.BF16], (3, 3))[row, column]
            assert flop == alone.flop[Dtype.BF16]


def test_elementwise_by_hand() -> None:
    elements, read, written = 10, 4.0, 2.0
    operator = Elementwise(name="e", elements=elements, read=read, written=written)
    assert operator.family is KernelFamily.ELEMENTWISE
    assert operator.cost() == OpCost(
        read=elements * read, written=elements * written, launches=1
    )
