"""The least that a platform must have, counted by hand on a toy and as properties."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_ops.dtypes import BF16, Dtype, Precision
from model_ops.platform.npu import Npu
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Phase, RequestShape
from model_ops.requirements import Workload, least_npus, need, needs

# The toy has 6 layers: D 32, 4 heads and 2 KV heads of 8, F 64, V 128; 16 bits.
LAYER_WEIGHTS = 32 * (4 + 2 * 2) * 8 + 32 * 32 + 3 * 32 * 64
HEAD = 128 * 32
TOKEN_CACHE = 6 * 2 * 2 * 8 * 2
"""Bytes of a token's keys and values in all layers."""
PAIR_FLOP = 6 * 4 * 4 * 8
"""FLOP of a query-key pair in all layers: 2 for q and k, 2 for p and v, per element."""

SHAPE = RequestShape(100, 20, beams=3)
WORKLOAD = Workload(shape=SHAPE, ttft=0.5, tpot=0.01)

tokens = st.integers(1, 5000)


def test_prefill_by_hand(toy_arch: ModelArch) -> None:
    found = need(toy_arch, BF16, WORKLOAD, Phase.PREFILL)
    pairs = 100 * 101 / 2
    flop = 2 * 100 * 6 * LAYER_WEIGHTS + PAIR_FLOP * pairs + 2 * HEAD
    assert found.total_flop == pytest.approx(flop)
    assert found.flop_per_s == pytest.approx(flop / 0.5)
    assert found.context_flop == pytest.approx(PAIR_FLOP * pairs)
    assert found.weights_read == 2 * (6 * LAYER_WEIGHTS + HEAD)
    assert found.cache_moved == found.cache == 100 * TOKEN_CACHE
    assert found.weights == 2 * (6 * LAYER_WEIGHTS + 2 * HEAD)
    assert found.memory_bandwidth == pytest.approx(found.bytes_moved / 0.5)
    assert found.capacity == found.weights + found.cache
    assert found.link_bytes == 0


def test_decode_by_hand(toy_arch: ModelArch) -> None:
    """The last of 20 tokens sees 120; three beams share the prompt's 100."""
    found = need(toy_arch, BF16, WORKLOAD, Phase.DECODE)
    flop = 2 * 3 * (6 * LAYER_WEIGHTS + HEAD) + PAIR_FLOP * 3 * 120
    assert found.total_flop == pytest.approx(flop)
    assert found.cache_moved == found.cache == (100 + 3 * 20) * TOKEN_CACHE
    assert found.weights_read == 2 * (6 * LAYER_WEIGHTS + HEAD)
    assert found.seconds == 0.01


def test_a_copied_prompt_is_kept_and_read_by_each_beam(toy_arch: ModelArch) -> None:
    workload = replace(WORKLOAD, copied_prompt=True)
    shared = need(toy_arch, BF16, WORKLOAD, Phase.DECODE)
    copied = need(toy_arch, BF16, workload, Phase.DECODE)
    assert copied.cache_moved == copied.cache == 3 * 120 * TOKEN_CACHE
    assert copied.total_flop == pytest.approx(shared.total_flop)


def test_a_window_bounds_what_beams_keep(toy_arch: ModelArch) -> None:
    """Of 120 tokens 50 are seen: 30 of the prompt, shared, and 20 of each answer."""
    layer = toy_arch.layers[0]
    assert isinstance(layer.mixer, Attention)
    windowed = replace(layer, mixer=replace(layer.mixer, sliding_window=50))
    arch = replace(toy_arch, layers=(windowed,) * 6)
    found = need(arch, BF16, WORKLOAD, Phase.DECODE)
    assert found.cache_moved == found.cache == (30 + 3 * 20) * TOKEN_CACHE


def test_one_output_token_leaves_decode_without_rates(toy_arch: ModelArch) -> None:
    workload = replace(WORKLOAD, shape=RequestShape(100, 1))
    found = need(toy_arch, BF16, workload, Phase.DECODE)
    assert math.isinf(float(found.seconds))
    assert found.flop_per_s == found.memory_bandwidth == found.link_bandwidth == 0
    assert found.capacity > 0


def test_no_target_asks_for_no_rate(toy_arch: ModelArch) -> None:
    reading, writing = needs(toy_arch, BF16, Workload(shape=SHAPE, tpot=0.01))
    assert reading.flop_per_s == reading.memory_bandwidth == 0
    assert writing.flop_per_s > 0


@pytest.mark.parametrize(("tp", "share"), [(1, 0.0), (2, 1.0), (4, 1.5)])
def test_tensor_parallel_links_by_hand(
    toy_arch: ModelArch, tp: int, share: float
) -> None:
    """Two all-reduces a layer and one of the embedding: 2 (n - 1) / n of the stream.

    The logits of the last token are gathered: (n - 1) / n of them.
    """
    found = need(toy_arch, BF16, WORKLOAD, Phase.PREFILL, Parallelism(tp=tp))
    stream, logits = 100 * 32 * 2, 128 * 2
    assert found.link_bytes == pytest.approx(share * (13 * stream + logits / 2))


def test_expert_parallel_links_send_tokens_to_their_experts() -> None:
    """Two groups, each with half the prompt; a token takes both of two experts."""
    layer = Layer(
        mixer=None,
        ffn=MoeFfn(num_experts=2, num_experts_per_tok=2, moe_intermediate_size=16),
    )
    arch = ModelArch(
        name="experts", model_type="mixtral", hidden_size=32, vocab_size=128,
        layers=(layer,),
    )  # fmt: skip
    split = Parallelism(tp=1, ep=2, dp=2)
    workload = Workload(shape=RequestShape(100, 1), ttft=1.0)
    found = need(arch, BF16, workload, Phase.PREFILL, split)
    # Expected ranks with one of 2 uniform picks: 2 (1 - 1/4); half of them elsewhere.
    rows, reached = 50, 2 * (1 - (1 - 1 / 2) ** 2)
    both_ways = 2 * rows * reached * 32 * 2
    assert found.link_bytes == pytest.approx(both_ways / 2)


def test_beams_read_the_experts_that_they_choose() -> None:
    ffn = MoeFfn(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=16)
    arch = ModelArch(
        name="experts", model_type="mixtral", hidden_size=32, vocab_size=128,
        layers=(Layer(mixer=None, ffn=ffn),),
    )  # fmt: skip
    workload = Workload(shape=RequestShape(100, 20, beams=4), tpot=0.01)
    found = need(arch, BF16, workload, Phase.DECODE)
    distinct = 8 * (1 - (6 / 8) ** 4)
    expected = 2 * (distinct * 3 * 32 * 16 + 32 * 8 + HEAD)
    assert found.weights_read == pytest.approx(expected)


def test_arrays_give_what_numbers_give(toy_arch: ModelArch) -> None:
    prompts, targets = np.array([10.0, 400.0]), np.array([[0.1], [0.2], [0.4]])
    both = needs(
        toy_arch,
        BF16,
        Workload(shape=RequestShape(prompts, 20, beams=2), ttft=targets, tpot=targets),
        Parallelism(tp=np.array([[1], [2], [4]])),
    )
    figures = ("flop_per_s", "memory_bandwidth", "capacity", "link_bandwidth")
    for row, tp in enumerate((1, 2, 4)):
        for column, prompt in enumerate((10, 400)):
            target = float(targets[row, 0])
            shape = RequestShape(prompt, 20, beams=2)
            alone = needs(
                toy_arch,
                BF16,
                Workload(shape=shape, ttft=target, tpot=target),
                Parallelism(tp=tp),
            )
            for many, one in zip(both, alone, strict=True):
                for figure in figures:
                    values = np.broadcast_to(getattr(many, figure), (3, 2))
                    expected = float(getattr(one, figure))
                    assert values[row, column] == pytest.approx(expected), figure


@given(prompt=tokens, answer=tokens, beams=st.integers(1, 8), batch=st.integers(1, 64))
def test_more_of_anything_never_needs_less(
    toy_arch: ModelArch, prompt: int, answer: int, beams: int, batch: int
) -> None:
    def of(shape: RequestShape, batch: int) -> list[float]:
        workload = Workload(shape=shape, ttft=1.0, tpot=1.0, batch=batch)
        both = needs(toy_arch, BF16, workload, Parallelism(tp=2))
        figures = ("flop_per_s", "memory_bandwidth", "capacity", "link_bandwidth")
        return [float(getattr(each, figure)) for each in both for figure in figures]

    base = of(RequestShape(prompt, answer, beams=beams), batch)
    for more in (
        of(RequestShape(prompt + 1, answer, beams=beams), batch),
        of(RequestShape(prompt, answer + 1, beams=beams), batch),
        of(RequestShape(prompt, answer, beams=beams + 1), batch),
        of(RequestShape(prompt, answer, beams=beams), batch + 1),
    ):
        assert all(a >= b * (1 - 1e-12) for a, b in zip(more, base, strict=True))


def test_fewest_npus_by_hand(toy_arch: ModelArch, toy_npu: Npu) -> None:
    """The toy NPU: 1 TFLOP/s in 16 bits, 100 GB/s, 1 MB."""
    both = needs(toy_arch, BF16, WORKLOAD)
    bytes_kept = float(both[1].capacity)
    found = least_npus(both, toy_npu)
    assert (found.npus, found.bound) == (1, "decode memory capacity")
    small = replace(toy_npu, memory_capacity=bytes_kept / 2.5)
    assert least_npus(both, small).npus == 3
    exact = replace(toy_npu, memory_capacity=bytes_kept / 3)
    assert least_npus(both, exact).npus == 3
    slow = replace(toy_npu, memory_bandwidth=float(both[1].memory_bandwidth) / 6.5)
    assert least_npus(both, slow) == least_npus(both[1:], slow)
    assert (least_npus(both, slow).npus, least_npus(both, slow).bound) == (
        7,
        "decode memory bandwidth",
    )


def test_each_engine_takes_its_own_time(toy_arch: ModelArch, toy_npu: Npu) -> None:
    """FP8 products run at twice the rate of attention and head, in 16 bits."""
    precision = Precision(Dtype.FP8, Dtype.BF16, Dtype.FP8)
    both = needs(toy_arch, precision, replace(WORKLOAD, tpot=math.inf))
    flop = both[0].flop
    busy = (float(flop[Dtype.FP8]) / 2 + float(flop[Dtype.BF16])) / 0.5
    rates = {Dtype.BF16: busy / 3.5, Dtype.FP8: 2 * busy / 3.5}
    found = least_npus(both, replace(toy_npu, flop_per_s=rates))
    assert (found.npus, found.bound) == (4, "prefill FLOP/s")
    # Without FP8 the products take the 16-bit rate.
    wide = replace(toy_npu, flop_per_s={Dtype.BF16: busy / 3.5})
    whole = float(both[0].flop_per_s) / (busy / 3.5)
    assert least_npus(both, wide).npus == math.ceil(whole)
