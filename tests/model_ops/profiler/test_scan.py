"""What all recurrent mixers share: a state of one size, and scans that move it."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import PRESETS, Dtype
from model_ops.opcost import Collective, CollectiveKind, KernelFamily, OpCost
from model_ops.profiler.arch import Layer, Mixer
from model_ops.profiler.layers import layer_operators
from model_ops.profiler.linear_attention import (
    GatedDeltaNet,
    KimiDeltaAttention,
    LightningAttention,
)
from model_ops.profiler.mamba import Mamba1, Mamba2
from model_ops.profiler.ops import Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.scan import CausalConv, Recurrence, Scan
from model_ops.profiler.work import Segment, Shard, Step, decode, prefill

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None, max_examples=50)

HIDDEN = 64
MIXERS: dict[str, Mixer] = {
    "mamba": Mamba1(
        intermediate_size=128, state_size=16, conv_kernel=4, time_step_rank=4
    ),
    "mamba2": Mamba2(
        num_heads=8, head_dim=16, state_size=32, n_groups=8, conv_kernel=4
    ),
    "gated_delta_net": GatedDeltaNet(
        linear_num_key_heads=8,
        linear_num_value_heads=16,
        linear_key_head_dim=8,
        linear_value_head_dim=16,
        linear_conv_kernel_dim=4,
    ),
    "kimi": KimiDeltaAttention(num_heads=8, head_dim=16, short_conv_kernel_size=4),
    "lightning": LightningAttention(num_attention_heads=8, head_dim=16),
}
every_mixer = pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS.keys())
tokens = st.integers(1, 5000)
sequences = st.integers(1, 300)
segments = st.builds(prefill, sequences, tokens) | st.builds(
    decode, sequences, tokens, st.integers(0, 4)
)


def total(mixer: Mixer, shard: Shard, *segments: Segment) -> OpCost:
    costs = (each.cost() for each in mixer.operators(shard, Step(segments)))
    return sum(costs, start=OpCost())


def scans(mixer: Mixer, shard: Shard, *segments: Segment) -> list[Scan]:
    operators = mixer.operators(shard, Step(segments))
    return [each for each in operators if isinstance(each, Scan)]


def shard(tp: int = 1, cp: int = 1) -> Shard:
    return Shard(HIDDEN, Parallelism(tp=tp, cp=cp))


SCAN = Scan(
    name="scan",
    sequences=3,
    queries=10,
    token_flop=100,
    token_read=7,
    token_written=5,
    state_bytes=1000,
    engine=Dtype.BF16,
    pair_flop=2,
    chunk=4,
)


def test_a_scan_by_hand() -> None:
    # Chunks of 4, 4 and 2 tokens: 10 + 10 + 3 pairs of each sequence.
    assert SCAN.pairs() == 23
    cost = SCAN.cost()
    assert cost.flop == {Dtype.BF16: 3 * (10 * 100 + 23 * 2)}
    assert cost.cache == 3 * 1000
    assert cost.read == 3 * 10 * 7 + 3 * 1000
    assert cost.written == 3 * 10 * 5 + 3 * 1000
    assert SCAN.family is KernelFamily.SCAN


@settings
@hypothesis.given(st.integers(1, 10_000), st.integers(1, 300))
def test_pairs_are_those_of_the_mask(queries: int, chunk: int) -> None:
    place = np.arange(queries)
    seen = place % chunk + 1  # each token sees those of its chunk up to itself
    assert replace(SCAN, queries=queries, chunk=chunk).pairs() == seen.sum()


@settings
@hypothesis.given(st.floats(1, 1e5), st.floats(0, 1e4), st.integers(1, 300))
def test_pairs_never_shrink(queries: float, more: float, chunk: int) -> None:
    few = replace(SCAN, queries=queries, chunk=chunk)
    many = replace(few, queries=queries + more)
    assert many.pairs() >= few.pairs() * (1 - 1e-12)


def test_a_convolution_by_hand() -> None:
    conv = CausalConv(sequences=3, rows=30, width=8, kernel=4, dtype=Dtype.BF16)
    cost = conv.cost()
    kept, weights = 3 * 8 * 3 * 2, 8 * 4 * 2
    assert cost.cache == kept
    assert cost.weights == weights
    assert cost.read == 30 * 8 * 2 + kept + weights
    assert cost.written == 30 * 8 * 2 + kept
    assert not cost.flop


def test_a_state_has_its_format_and_the_inputs_that_of_the_residual() -> None:
    recurrence = Recurrence(
        state_elements=100,
        state=Dtype.FP32,
        inputs=1,
        outputs=1,
        step_flop=1,
        token_flop=1,
        conv_width=10,
        conv_kernel=4,
    )
    for preset in ("bf16", "fp8", "fp8-kv8"):
        fast = Shard(HIDDEN, precision=PRESETS[preset])
        assert recurrence.cache_bytes(fast) == 100 * 4 + 10 * 3 * 2
    wide = Shard(HIDDEN, precision=PRESETS["fp32"])
    assert recurrence.cache_bytes(wide) == 100 * 4 + 10 * 3 * 4


@every_mixer
@settings
@hypothesis.given(
    few=st.integers(0, 10**6), more=st.integers(0, 10**6), block=st.integers(1, 64)
)
def test_the_state_does_not_grow(mixer: Mixer, few: int, more: int, block: int) -> None:
    short = mixer.cache_bytes(shard(), few, 1)
    assert short == mixer.cache_bytes(shard(), few + more, block) > 0


@every_mixer
def test_ranks_share_the_state_and_context_ranks_copy_it(mixer: Mixer) -> None:
    whole = mixer.cache_bytes(shard(), 1000, 16)
    assert 4 * mixer.cache_bytes(shard(tp=4), 1000, 16) == whole
    assert mixer.cache_bytes(shard(cp=4), 1000, 16) == whole


@every_mixer
@settings
@hypothesis.given(segment=segments, tp=st.sampled_from([2, 4, 8]))
def test_ranks_share_the_scan(mixer: Mixer, segment: Segment, tp: int) -> None:
    whole, part = (scans(mixer, shard(n), segment)[0].cost() for n in (1, tp))
    assert tp * part.total_flop == pytest.approx(whole.total_flop)
    assert tp * part.cache == whole.cache


@every_mixer
@settings
@hypothesis.given(segment=segments, more=st.integers(1, 100))
def test_more_sequences_cost_more(mixer: Mixer, segment: Segment, more: int) -> None:
    few = total(mixer, shard(), segment)
    larger = replace(segment, sequences=segment.sequences + more)
    many = total(mixer, shard(), larger)
    assert many.total_flop > few.total_flop
    assert many.bytes > few.bytes
    assert many.cache > few.cache


@every_mixer
@settings
@hypothesis.given(queries=tokens, more=tokens)
def test_longer_prompts_cost_more_than_in_proportion_to_their_chunks(
    mixer: Mixer, queries: int, more: int
) -> None:
    (short,) = scans(mixer, shard(), prefill(1, queries))
    (long,) = scans(mixer, shard(), prefill(1, queries + more))
    assert long.cost().total_flop > short.cost().total_flop
    assert long.cost().bytes > short.cost().bytes
    # Every token meets itself, and at most the tokens of its chunk.
    assert long.pairs() >= queries + more
    assert long.pairs() <= (queries + more) * (long.chunk + 1) / 2
    assert long.cost().total_flop >= (queries + more) * long.token_flop


@every_mixer
@settings
@hypothesis.given(queries=st.integers(2, 5000))
def test_a_prompt_in_parts_moves_the_state_more_often(
    mixer: Mixer, queries: int
) -> None:
    half = queries // 2
    (whole,) = scans(mixer, shard(), prefill(1, queries))
    parts = scans(mixer, shard(), prefill(1, half), prefill(1, queries - half, half))
    extra = sum(part.cost().bytes for part in parts) - whole.cost().bytes
    assert extra == pytest.approx(2 * whole.state_bytes)


@every_mixer
@settings
@hypothesis.given(context=st.integers(0, 10**6), guessed=st.integers(0, 8))
def test_decode_costs_the_same_after_any_context(
    mixer: Mixer, context: int, guessed: int
) -> None:
    (scan,) = scans(mixer, shard(), decode(5, context, guessed))
    first = scans(mixer, shard(), decode(5, 0, guessed))[0]
    assert scan.cost() == first.cost()
    # The state is read once, and written for each token that may be the last kept.
    assert scan.cost().cache == 5 * scan.state_bytes
    kept = 5 * (1 + guessed) * (scan.state_bytes + scan.token_written)
    assert scan.cost().written == kept


@every_mixer
@settings
@hypothesis.given(segment=segments)
def test_arrays_agree_with_numbers(mixer: Mixer, segment: Segment) -> None:
    degrees, batches = np.array([1, 2, 4, 8]), np.array([[1.0], [3.0], [64.0]])
    wide = Shard(HIDDEN, Parallelism(tp=degrees, cp=np.array([1, 1, 2, 2])))
    cost = total(mixer, wide, replace(segment, sequences=batches))
    shape = (3, 4)
    for row, column in np.ndindex(shape):
        one = shard(int(degrees[column]), (1, 1, 2, 2)[column])
        point = replace(segment, sequences=float(batches[row, 0]))
        # Where a context has one rank, its gathers are there and cost nothing.
        single = total(mixer, one, point)
        for name in ("total_flop", "read", "written", "weights", "cache", "link_bytes"):
            many = np.broadcast_to(getattr(cost, name), shape)
            assert many[row, column] == pytest.approx(getattr(single, name))
    held = np.broadcast_to(mixer.cache_bytes(wide, 10, 16), 4)
    assert held.tolist() == [mixer.cache_bytes(shard(int(n)), 10, 16) for n in degrees]


@every_mixer
def test_context_ranks_deal_the_prompt_and_gather_states(mixer: Mixer) -> None:
    step = Step((prefill(2, 4096), decode(3, 10)))
    operators = list(mixer.operators(shard(tp=2, cp=4), step))
    reading, writing = (each for each in operators if isinstance(each, Scan))
    assert (reading.queries, writing.queries) == (1024, 1)
    gathers = {
        each.name: each
        for each in operators
        if isinstance(each, Collective) and each.name.startswith("scan")
    }
    states = gathers["scan_prefill_gather"]
    assert states.kind is CollectiveKind.ALL_GATHER
    assert (states.ranks, states.stride) == (4, 2)
    assert states.payload == 2 * 4 * reading.state_bytes
    assert gathers["scan_decode_gather"].payload == 3 * writing.token_read
    alone = mixer.operators(shard(tp=2), step)
    assert not [each for each in alone if each.name in gathers]


@every_mixer
def test_the_weights_of_a_lone_rank_are_all_parameters(mixer: Mixer) -> None:
    parameters = mixer.parameters(HIDDEN)
    assert mixer.active_parameters(HIDDEN) == parameters
    assert mixer.weight_bytes(shard()) == 2 * parameters
    for tp in (2, 4, 8):
        assert tp * mixer.weight_bytes(shard(tp)) >= 2 * parameters
    fp8 = Shard(HIDDEN, precision=PRESETS["fp8"])
    assert parameters < mixer.weight_bytes(fp8) < 1.5 * parameters


@every_mixer
def test_projections_are_the_weights_of_the_matrices(mixer: Mixer) -> None:
    for tp in (1, 2, 4):
        operators = list(mixer.operators(shard(tp), Step((decode(1, 1),))))
        gemms = [each for each in operators if isinstance(each, Gemm)]
        multiplied = sum(each.k * each.n for each in gemms)
        # Eight bits less per weight of a matrix, and nothing else.
        fp8 = Shard(HIDDEN, Parallelism(tp=tp), PRESETS["fp8"])
        saved = mixer.weight_bytes(shard(tp)) - mixer.weight_bytes(fp8)
        assert multiplied == pytest.approx(saved)


@every_mixer
def test_a_layer_of_one_mixer_sums_the_partial_outputs(mixer: Mixer) -> None:
    layer = Layer(mixer=mixer, ffn=None, norms=1)
    last = list(layer_operators(layer, shard(tp=4), Step((prefill(1, 8),))))[-1]
    assert isinstance(last, Collective)
    assert last.kind is CollectiveKind.ALL_REDUCE
    assert (last.payload, last.ranks) == (8 * HIDDEN * 2, 4)


@every_mixer
def test_heads_cannot_be_split_unevenly(mixer: Mixer) -> None:
    assert mixer.rule_broken_by(Parallelism(tp=8, cp=3)) is None
    broken = mixer.rule_broken_by(Parallelism(tp=3))
    assert broken is not None
    assert broken.startswith("tp 3 does not divide")
