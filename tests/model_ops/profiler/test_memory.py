from dataclasses import replace
from math import ceil, sqrt

import numpy as np
import pytest

from model_ops.dtypes import PRESETS, Precision
from model_ops.opcost import RESIDENT, Placement
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.cache import (
    KV_BLOCK_TOKENS,
    CacheDemand,
    cache_demand,
    kv_bytes_per_sequence,
)
from model_ops.profiler.held import Held
from model_ops.profiler.memory import (
    MemoryFootprint,
    Room,
    activation_bytes,
    footprint,
    largest_batch,
    lockstep_footprint,
    weight_bytes,
)
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Lora, RequestShape, Shard
from problems.catalogue import load_model, names

# Of the toy model: 6 layers of 4 heads and 2 KV heads of 8.
HIDDEN, VOCAB, LAYERS, WIDE = 32, 128, 6, 64
Q, KV = 4 * 8, 2 * 8
LINEAR = HIDDEN * (2 * Q + 2 * KV) + 3 * HIDDEN * WIDE
BF16, ONE = Precision(), Parallelism(1, 1)
WHOLE = Shard(HIDDEN)


def rank_of(split: Parallelism, precision: Precision = BF16) -> Shard:
    return Shard(HIDDEN, split, precision)


def held(arch: ModelArch, shard: Shard = WHOLE) -> tuple[Held, ...]:
    return (Held(arch, shard),)


def paged(tokens: float) -> int:
    return ceil(tokens / KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS


def test_weights_on_one_npu_by_hand(toy_arch: ModelArch) -> None:
    both_ends = 2 * VOCAB * HIDDEN
    assert weight_bytes(toy_arch, WHOLE) == 2 * (LAYERS * LINEAR + both_ends)
    tied = replace(toy_arch, tie_word_embeddings=True)
    assert weight_bytes(tied, WHOLE) == 2 * (LAYERS * LINEAR + VOCAB * HIDDEN)
    learned = replace(toy_arch, learned_positions=10)
    more = weight_bytes(learned, WHOLE) - weight_bytes(toy_arch, WHOLE)
    assert more == 2 * 10 * HIDDEN


def test_quantised_weights_keep_16_bit_embeddings(toy_arch: ModelArch) -> None:
    fp8 = weight_bytes(toy_arch, rank_of(ONE, PRESETS["fp8"]))
    assert fp8 == 1 * LAYERS * LINEAR + 2 * 2 * VOCAB * HIDDEN


@pytest.mark.parametrize(
    ("pp", "layers", "ends"),
    [
        (1, 6, 2),
        (2, 3, 1),  # 3, 3: either end
        (4, 2, 0),  # 1, 2, 2, 1: a layer is more than an end
        (5, 2, 0),  # 1, 1, 1, 2, 1
        (6, 1, 1),
    ],
)
def test_weights_of_a_split_by_hand(
    toy_arch: ModelArch, pp: int, layers: int, ends: int
) -> None:
    tp = 2
    assert LINEAR > VOCAB * HIDDEN
    expected = 2 * (layers * LINEAR / tp + ends * VOCAB * HIDDEN / tp)
    assert weight_bytes(toy_arch, rank_of(Parallelism(tp, pp))) == expected


def test_a_large_embedding_makes_an_end_the_fullest_stage(toy_arch: ModelArch) -> None:
    # Stages of 1, 2, 2 and 1 layers; an end of more than a layer decides.
    wide = replace(toy_arch, vocab_size=1000)
    assert 1000 * HIDDEN > LINEAR
    expected = 2 * (1 * LINEAR + 1000 * HIDDEN)
    assert weight_bytes(wide, rank_of(Parallelism(1, 4))) == expected


def test_copied_kv_heads_cost_memory(toy_arch: ModelArch) -> None:
    tp = 4  # of 2 KV heads: each rank holds a copy of one
    linear = HIDDEN * (2 * Q / tp + 2 * 8) + 3 * HIDDEN * WIDE / tp
    expected = 2 * (LAYERS * linear + 2 * VOCAB * HIDDEN / tp)
    assert weight_bytes(toy_arch, rank_of(Parallelism(tp))) == expected


@pytest.mark.parametrize("name", names("models"))
def test_bf16_weights_are_two_bytes_per_parameter(name: str) -> None:
    # Norms and biases are not in serving memory: under 1 %.
    arch = load_model(name)
    share = weight_bytes(arch, arch.shard(ONE, BF16)) / (2 * arch.parameters)
    assert 0.99 < share <= 1


@pytest.mark.parametrize("tokens", [1, 16, 17, 100])
@pytest.mark.parametrize(("tp", "kv_width"), [(1, KV), (2, KV / 2), (4, KV / 2)])
def test_kv_cache_by_hand(
    toy_arch: ModelArch, tokens: int, tp: int, kv_width: float
) -> None:
    split = Parallelism(tp)
    each = kv_bytes_per_sequence(toy_arch, rank_of(split), tokens)
    assert each == LAYERS * 2 * kv_width * 2 * paged(tokens)
    half = kv_bytes_per_sequence(toy_arch, rank_of(split, PRESETS["fp8-kv8"]), tokens)
    assert half == each / 2


def test_windowed_layers_keep_their_window(toy_arch: ModelArch) -> None:
    far = toy_arch.layers[0]
    near = replace(far, mixer=replace(far.mixer, sliding_window=32))
    without = replace(far, mixer=None)
    mixed = replace(toy_arch, layers=(far, near, without, near, without, near))
    for tokens in (10, 32, 33, 1000):
        each = kv_bytes_per_sequence(mixed, WHOLE, tokens)
        kept = 1 * paged(tokens) + 3 * paged(min(tokens, 32))
        assert each == 2 * KV * 2 * kept
        # On three stages of two layers the first has the one that keeps all.
        split = rank_of(Parallelism(1, 3))
        kept = 1 * paged(tokens) + 1 * paged(min(tokens, 32))
        assert kv_bytes_per_sequence(mixed, split, tokens) == 2 * KV * 2 * kept


def test_activations_by_hand(toy_arch: ModelArch) -> None:
    tokens, tp = 100, 2
    attention = (Q + 2 * KV + Q) / tp
    ffn = (2 * WIDE + WIDE) / tp
    stream = tokens * (2 * HIDDEN + max(attention, ffn)) * 2
    row = VOCAB * (4 + 4)  # fp32 logits, and the probabilities made of them
    shard = rank_of(Parallelism(tp))
    assert 3 * row < stream < 100 * row
    assert activation_bytes(toy_arch, shard, tokens, sampled=3) == stream
    # Logits come when the layers are done.
    assert activation_bytes(toy_arch, shard, tokens, sampled=100) == 100 * row


def test_cache_of_many_sequences_is_the_mean_and_two_deviations() -> None:
    prompt, full, batch = 100.0, 300.0, 48
    # Uniform from prompt to full: a variance of a twelfth of the range squared.
    deviation = sqrt((full - prompt) ** 2 / 12)
    cache = CacheDemand(prompt, mean=200.0, full=full, deviation=deviation)
    assert cache.of(batch) == pytest.approx(
        batch * 200 + 2 * sqrt(batch * deviation**2)
    )
    assert cache.of(1) == full  # few sequences may all be at their end
    assert cache.of(0) == 0


def test_cache_demand_by_hand(toy_arch: ModelArch) -> None:
    each = LAYERS * 2 * KV * 2
    cache = cache_demand(held(toy_arch), RequestShape(50, 31))
    assert cache.prompt == each * paged(50)
    assert cache.mean == each * paged(65.5)
    assert cache.full == each * paged(81)
    # Rounding to blocks must not make a longer prompt need less.
    assert cache.deviation == pytest.approx(each * 31 / sqrt(12))


@pytest.mark.parametrize("pp", [1, 2, 3])
@pytest.mark.parametrize(
    ("step_tokens", "prompts"),
    [
        (50, 1),  # one prompt fills a step
        (20, 1),  # a prompt in chunks, all of which are kept
        (65, 1.3),  # a prompt, and the start of the next
        (300, 6),
    ],
)
def test_footprint_by_hand(
    toy_arch: ModelArch, pp: int, step_tokens: int, prompts: float
) -> None:
    batch, prompt, answer = 90, 50, 200
    shard = rank_of(Parallelism(1, pp))
    memory = footprint(
        held(toy_arch, shard),
        RequestShape(prompt, answer),
        batch=batch,
        step_tokens=step_tokens,
    )
    layers = LAYERS / pp
    each = layers * 2 * KV * 2
    spread = each * answer / sqrt(12)
    decoding = batch * each * paged(prompt + answer / 2) + 2 * sqrt(batch) * spread
    # In every stage, a step of prompts for each stage, in the blocks of each.
    prefilling = pp * prompts * each * paged(prompt)
    ends = 2 if pp == 1 else 1
    assert memory.weights == 2 * (layers * LINEAR + ends * VOCAB * HIDDEN)
    assert memory.kv_cache == pytest.approx(decoding + prefilling)
    assert memory.activations == activation_bytes(
        toy_arch, shard, step_tokens, batch / pp + 1
    )
    assert memory.outer == 0
    parts = memory.weights + memory.kv_cache + memory.activations
    assert memory.total == parts


@pytest.mark.parametrize(("dp", "requests", "prompts"), [(1, 4, 4), (4, 12, 3)])
def test_no_more_prompts_are_read_than_there_are_requests(
    toy_arch: ModelArch, dp: int, requests: int, prompts: int
) -> None:
    models = held(toy_arch, rank_of(Parallelism(1, dp=dp)))
    shape, steps = RequestShape(2, 30), {"batch": 0.0, "step_tokens": 8192}
    full = footprint(models, shape, **steps)
    few = footprint(models, shape, **steps, requests=requests)
    block = LAYERS * 2 * KV * 2 * KV_BLOCK_TOKENS
    assert full.kv_cache == 8192 / 2 * block
    assert few.kv_cache == prompts * block
    assert few.activations == full.activations
    # What their caches leave free, more sequences take.
    room = Room(few.total + 10 * block)
    assert largest_batch(models, shape, room=room, step_tokens=8192) == 0
    found = largest_batch(models, shape, room=room, step_tokens=8192, requests=requests)
    assert found > 0


def test_lockstep_footprint_by_hand(toy_arch: ModelArch) -> None:
    batch, prompt, answer, pp = 8, 50, 31, 2
    shard = rank_of(Parallelism(1, pp))
    shape = RequestShape(prompt, answer)
    memory = lockstep_footprint(held(toy_arch, shard), shape, batch)
    each = LAYERS / pp * 2 * KV * 2
    assert memory.weights == weight_bytes(toy_arch, shard)
    assert memory.kv_cache == batch * each * paged(prompt + answer)
    in_step = batch / pp
    assert memory.activations == activation_bytes(
        toy_arch, shard, in_step * prompt, in_step
    )


def test_footprint_arrays_equal_scalars(toy_arch: ModelArch) -> None:
    splits = [(1, 1), (2, 1), (4, 2), (1, 4)]
    batches = [1, 7, 100]
    tp, pp = (np.array(axis)[:, None] for axis in zip(*splits, strict=True))
    shape = RequestShape(70, 30)
    all_of_them = held(toy_arch, rank_of(Parallelism(tp, pp)))
    together = footprint(all_of_them, shape, batch=np.array(batches), step_tokens=64)
    for row, split in enumerate(splits):
        for column, batch in enumerate(batches):
            one = held(toy_arch, rank_of(Parallelism(*split)))
            alone = footprint(one, shape, batch=batch, step_tokens=64)
            for part in ("weights", "kv_cache", "activations", "total"):
                grid = np.broadcast_to(getattr(together, part), (4, 3))
                assert grid[row, column] == getattr(alone, part)


def test_wider_formats_scale_every_byte_but_the_fp32_logits(
    toy_arch: ModelArch,
) -> None:
    def needed(precision: Precision) -> MemoryFootprint:
        of = held(toy_arch, rank_of(ONE, precision))
        return footprint(of, RequestShape(40, 9), batch=3, step_tokens=64)

    half, full = needed(BF16), needed(PRESETS["fp32"])
    assert full.weights == 2 * half.weights
    assert full.kv_cache == pytest.approx(2 * half.kv_cache)
    logits = (3 + 1) * VOCAB * (4 + 4)
    assert full.activations == 2 * half.activations > 2 * logits

    # Where many rows are sampled, those count: in fp32 whatever the rest.
    for precision in (BF16, PRESETS["fp32"]):
        of = held(toy_arch, rank_of(ONE, precision))
        many = footprint(of, RequestShape(40, 9), batch=99, step_tokens=1)
        assert many.activations == (99 + 1) * VOCAB * (4 + 4)


def test_groups_hold_their_own_sequences(toy_arch: ModelArch) -> None:
    shape = RequestShape(50, 200)

    def needed(split: Parallelism, batch: int) -> MemoryFootprint:
        return footprint(
            held(toy_arch, rank_of(split)), shape, batch=batch, step_tokens=64
        )

    assert needed(Parallelism(pp=2, dp=3), 90) == needed(Parallelism(pp=2), 30)
    room = Room(needed(Parallelism(), 7).total * (1 + 1e-9))
    models = held(toy_arch, rank_of(Parallelism(dp=3)))
    assert largest_batch(models, shape, room=room, step_tokens=64) == 3 * 7
    lockstep = lockstep_footprint(models, shape, 90)
    assert lockstep == lockstep_footprint(held(toy_arch), shape, 30)
    # A group without a request does not make half a one of another's.
    few = lockstep_footprint(models, shape, 1)
    assert few == lockstep_footprint(held(toy_arch), shape, 1)


def test_context_ranks_deal_the_tokens(toy_arch: ModelArch) -> None:
    two = rank_of(Parallelism(cp=2))
    assert weight_bytes(toy_arch, two) == weight_bytes(toy_arch, WHOLE)
    whole = kv_bytes_per_sequence(toy_arch, WHOLE, 160)
    assert kv_bytes_per_sequence(toy_arch, two, 320) == whole
    assert activation_bytes(toy_arch, two, 200, 3) == activation_bytes(
        toy_arch, WHOLE, 100, 3
    )


def test_beams_share_the_prompt(toy_arch: ModelArch) -> None:
    each = LAYERS * 2 * KV * 2
    cache = cache_demand(held(toy_arch), RequestShape(48, 32, beams=4))
    assert cache.prompt == each * 48
    assert cache.mean == each * (48 + 4 * 16)
    assert cache.full == each * (48 + 4 * 32)
    # The answers of a request grow together.
    assert cache.deviation == pytest.approx(each * 4 * 32 / sqrt(12))


def test_a_cached_prompt_is_kept_but_not_processed(toy_arch: ModelArch) -> None:
    models = held(toy_arch)
    fresh, cached = RequestShape(160, 32), RequestShape(160, 32, cached_tokens=96)
    assert cache_demand(models, fresh) == cache_demand(models, cached)
    # What hits is in the cache once, however many prompts a step takes up with it.
    one = cache_demand(models, fresh).prompt
    kept = [
        footprint(models, shape, batch=0, step_tokens=256).kv_cache / one
        for shape in (fresh, cached)
    ]
    assert kept == [256 / 160, 256 / 160]
    lockstep = lockstep_footprint(models, cached, 8)
    assert lockstep.activations == activation_bytes(toy_arch, WHOLE, 8 * 64, 8)


def test_shares_move_to_the_second_memory(toy_arch: ModelArch) -> None:
    shape, models = RequestShape(50, 200), held(toy_arch)
    placement = Placement(weights=0.75, cache=0.5)
    whole = footprint(models, shape, batch=20, step_tokens=64)
    moved = footprint(models, shape, batch=20, step_tokens=64, placement=placement)
    assert moved.weights == whole.weights / 4
    assert moved.kv_cache == whole.kv_cache / 2
    assert moved.activations == whole.activations
    assert moved.outer == 0.75 * whole.weights + 0.5 * whole.kv_cache
    assert moved.total + moved.outer == pytest.approx(whole.total)
    together = lockstep_footprint(models, shape, 20, placement=placement)
    assert together.outer == 0.75 * whole.weights + 0.5 * (
        lockstep_footprint(models, shape, 20).kv_cache
    )


def test_adapters_by_hand(toy_arch: ModelArch) -> None:
    rank, adapters, tp = 4, 10, 2
    lora = Lora(rank, adapters)
    shard = replace(rank_of(Parallelism(tp), PRESETS["fp8"]), lora=lora)
    # Into and out of qkv, output, gate and up, down: in 16 bits.
    qkv = HIDDEN + (Q + 2 * KV) / tp
    output = Q / tp + HIDDEN
    up, down = HIDDEN + 2 * WIDE / tp, WIDE / tp + HIDDEN
    each = rank * (qkv + output + up + down) * 2
    base = weight_bytes(toy_arch, replace(shard, lora=None))
    assert weight_bytes(toy_arch, shard) - base == LAYERS * adapters * each


def test_a_drafter_takes_its_weights_and_cache(toy_arch: ModelArch) -> None:
    small = replace(toy_arch, layers=toy_arch.layers[:2])
    shape = RequestShape(64, 32)
    both = (*held(toy_arch), *held(small))
    one = footprint(held(toy_arch), shape, batch=9, step_tokens=64)
    two = footprint(both, shape, batch=9, step_tokens=64)
    assert two.weights == one.weights + weight_bytes(small, WHOLE)
    assert two.kv_cache == pytest.approx(one.kv_cache * (LAYERS + 2) / LAYERS)
    assert two.activations == one.activations  # they run one after the other


hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None)
splits = st.builds(Parallelism, st.sampled_from([1, 2, 4]), st.integers(1, 6))
precisions = st.sampled_from(sorted(PRESETS)).map(PRESETS.__getitem__)
shapes = st.builds(RequestShape, st.integers(1, 3000), st.integers(1, 3000))


@settings
@hypothesis.given(splits, precisions, shapes, st.integers(1, 4096), st.floats(0, 1e9))
def test_largest_batch_is_the_largest_that_fits(
    toy_arch: ModelArch,
    split: Parallelism,
    precision: Precision,
    shape: RequestShape,
    step_tokens: int,
    room: float,
) -> None:
    models = held(toy_arch, rank_of(split, precision))

    def needed(batch: float) -> float:
        memory = footprint(models, shape, batch=batch, step_tokens=step_tokens)
        return float(memory.total)

    usable = needed(0) + room
    batch = largest_batch(models, shape, room=Room(usable), step_tokens=step_tokens)
    assert batch == int(batch) >= 0
    assert needed(batch) <= usable * (1 + 1e-12)
    assert usable < needed(batch + 1) * (1 + 1e-12)


placements = st.builds(
    Placement, st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.5, 1.0])
) | st.just(RESIDENT)


@settings
@hypothesis.given(
    st.builds(
        Parallelism,
        st.sampled_from([1, 2]),
        st.integers(1, 3),
        dp=st.sampled_from([1, 3]),
        cp=st.sampled_from([1, 2]),
    ),
    st.builds(
        RequestShape,
        st.integers(1, 3000),
        st.integers(1, 3000),
        cached_tokens=st.integers(0, 3000),
        beams=st.integers(1, 4),
    ),
    placements,
    st.integers(1, 5),
    st.floats(1, 3),
    st.floats(0, 1e8),
    st.floats(0, 1e8),
)
def test_largest_batch_fits_both_memories(
    toy_arch: ModelArch,
    split: Parallelism,
    shape: RequestShape,
    placement: Placement,
    rows_each: int,
    factor: float,
    own: float,
    outer: float,
) -> None:
    models = held(toy_arch, rank_of(split))
    features = {
        "step_tokens": 256,
        "rows_each": rows_each,
        "placement": placement,
        "activation_factor": factor,
    }

    def needed(batch: float) -> MemoryFootprint:
        return footprint(models, shape, batch=batch, **features)

    room = Room(needed(0).total + own, needed(0).outer + outer)
    batch = largest_batch(models, shape, room=room, **features)
    assert batch % split.dp == 0
    here, more = needed(batch), needed(batch + split.dp)
    slack = 1e-9 * (own + outer) + 2 * (batch + split.dp)  # a byte per sequence
    assert here.total <= room.own + slack
    assert here.outer <= room.outer + slack
    if np.isfinite(batch) and batch < 1e6:
        assert more.total > room.own - slack or more.outer > room.outer - slack


@pytest.mark.parametrize("batch", [1, 2, 5, 1000])
def test_largest_batch_at_the_edge(toy_arch: ModelArch, batch: int) -> None:
    models, shape = held(toy_arch), RequestShape(40, 90)
    edge = footprint(models, shape, batch=batch, step_tokens=64).total
    room = Room(edge * np.array([1 - 1e-9, 1 + 1e-9]))
    fitting = largest_batch(models, shape, room=room, step_tokens=64)
    assert np.asarray(fitting).tolist() == [batch - 1, batch]


def test_largest_batch_is_zero_where_nothing_fits(toy_arch: ModelArch) -> None:
    models, room = held(toy_arch), Room(weight_bytes(toy_arch, WHOLE))
    assert largest_batch(models, RequestShape(40, 90), room=room, step_tokens=64) == 0


@settings
@hypothesis.given(
    splits,
    precisions,
    st.integers(1, 500),
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.integers(1, 100),
)
def test_memory_grows_with_batch_context_and_step(
    toy_arch: ModelArch,
    split: Parallelism,
    precision: Precision,
    batch: int,
    prompt: int,
    answer: int,
    more: int,
) -> None:
    models = held(toy_arch, rank_of(split, precision))

    def needed(
        batch: int = batch, prompt: int = prompt, answer: int = answer, step: int = 64
    ) -> float:
        shape = RequestShape(prompt, answer)
        return float(footprint(models, shape, batch=batch, step_tokens=step).total)

    base = needed()
    assert needed(batch=batch + more) > base
    assert needed(answer=answer + more) >= base
    assert needed(answer=answer + 2 * KV_BLOCK_TOKENS) > base
    # The logits of many rows may hide the stream of a few tokens more.
    assert needed(step=64 + more) >= base
    assert needed(step=64 + 50 * (batch + more)) > base
    # Many short prompts of a step round up to more blocks than a few long ones.
    whole = paged(prompt)
    assert needed(prompt=whole + KV_BLOCK_TOKENS) > needed(prompt=whole)
    if prompt >= 64:
        assert needed(prompt=prompt + KV_BLOCK_TOKENS) > base


@settings
@hypothesis.given(precisions, st.sampled_from([1, 2, 4]), st.integers(1, 6))
def test_a_finer_split_never_needs_more_weights_per_npu(
    toy_arch: ModelArch, precision: Precision, tp: int, pp: int
) -> None:
    def weights(tp: int, pp: int) -> float:
        return float(weight_bytes(toy_arch, rank_of(Parallelism(tp, pp), precision)))

    assert weights(tp, pp + 1) <= weights(tp, pp)
    if tp < 4:
        assert weights(2 * tp, pp) < weights(tp, pp)


def test_published_kv_cache_of_a_long_prompt() -> None:
    # 128 KiB a token (see test_attention), 8192 tokens: 1 GiB.
    llama = load_model("llama-3.1-8b")
    assert kv_bytes_per_sequence(llama, llama.shard(ONE, BF16), 8192) == 2**30
