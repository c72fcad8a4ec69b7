from dataclasses import replace

import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, CollectiveKind
from model_ops.profiler.mamba import Mamba1, Mamba2
from model_ops.profiler.ops import Elementwise, Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.scan import CausalConv, Scan
from model_ops.profiler.work import Shard, Step, decode, prefill

MAMBA_28B = Mamba1(
    intermediate_size=5120, state_size=16, conv_kernel=4, time_step_rank=160
)
FALCON_MAMBA = Mamba1(
    intermediate_size=8192,
    state_size=16,
    conv_kernel=4,
    time_step_rank=256,
    inner_norms=True,
    inner_norm_weights=False,
)
JAMBA = replace(FALCON_MAMBA, inner_norm_weights=True)
CODESTRAL = Mamba2(
    num_heads=128, head_dim=64, state_size=128, n_groups=8, conv_kernel=4
)
NEMOTRON_NANO = Mamba2(
    num_heads=64,
    head_dim=64,
    state_size=128,
    n_groups=8,
    conv_kernel=4,
    chunk_size=128,
    ssm_dtype=Dtype.FP32,
)
ONE_GROUP = Mamba2(num_heads=8, head_dim=4, state_size=3, n_groups=1, conv_kernel=4)
STEP = Step((prefill(2, 6), decode(5, 100)))
ROWS = 2 * 6 + 5


def named(mixer: Mamba1 | Mamba2, tp: int = 1, hidden: int = 32) -> dict:
    shard = Shard(hidden, Parallelism(tp=tp))
    return {each.name: each for each in mixer.operators(shard, STEP)}


def test_published_totals_of_mamba() -> None:
    # state-spaces/mamba-2.8b-hf: embedding tied to the head, a norm per layer.
    hidden = 2560
    layers = 64 * (MAMBA_28B.parameters(hidden) + hidden)
    assert 50_280 * hidden + layers + hidden == 2_768_345_600
    # tiiuae/falcon-mamba-7b: not tied, norms without weights.
    hidden = 4096
    layers = 64 * (FALCON_MAMBA.parameters(hidden) + hidden)
    assert 2 * 65_024 * hidden + layers + hidden == 7_272_665_088


def test_norms_with_weights_and_biases() -> None:
    plain = FALCON_MAMBA.parameters(4096)
    # ai21labs/Jamba-v0.1: norms of dt (256), B and C (16 each).
    assert JAMBA.parameters(4096) == plain + 256 + 16 + 16
    biased = replace(FALCON_MAMBA, proj_bias=True)
    assert biased.parameters(4096) == plain + 2 * 8192 + 4096
    assert replace(FALCON_MAMBA, conv_bias=False).parameters(4096) == plain - 8192


def test_published_totals_of_mamba2() -> None:
    # mistralai/Mamba-Codestral-7B-v0.1.
    hidden = 4096
    layers = 64 * (CODESTRAL.parameters(hidden) + hidden)
    assert 2 * 32_768 * hidden + layers + hidden == 7_285_403_648
    # nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B: tensors of its 23 Mamba layers.
    tensors = {
        "in_proj": 637_034_496,
        "conv1d": 565_248 + 141_312,
        "A_log, D, dt_bias": 3 * 1_472,
        "norm": 94_208,
        "out_proj": 253_231_104,
    }
    assert 23 * NEMOTRON_NANO.parameters(2688) == sum(tensors.values())


def test_biases_and_a_gate_without_norm() -> None:
    plain = NEMOTRON_NANO.parameters(2688)
    assert replace(NEMOTRON_NANO, rms_norm=False).parameters(2688) == plain - 4096
    assert replace(NEMOTRON_NANO, conv_bias=False).parameters(2688) == plain - 6144
    biased = replace(NEMOTRON_NANO, proj_bias=True)
    assert biased.parameters(2688) == plain + 10_304 + 2688


def test_state_bytes_by_hand() -> None:
    shard = Shard(2688)
    # 64 heads of 64 x 128 in FP32, and three rows of 4096 + 2 * 8 * 128 in BF16.
    nano = 2 * 2**20 + 3 * 6144 * 2
    assert NEMOTRON_NANO.cache_bytes(shard, 1, 16) == nano
    assert NEMOTRON_NANO.cache_bytes(Shard(2688, Parallelism(tp=8)), 1, 16) == nano / 8
    # Nothing said: the state has the format of the residual stream.
    auto = replace(NEMOTRON_NANO, ssm_dtype=None)
    assert auto.cache_bytes(shard, 1, 16) == nano - 2**20
    # 5120 channels of 16, and three rows of them.
    assert MAMBA_28B.cache_bytes(Shard(2560), 1, 16) == 5120 * (16 + 3) * 2


def test_a_single_group_is_copied() -> None:
    assert ONE_GROUP.groups_per_rank(4) == 1
    shard, split = Shard(32), Shard(32, Parallelism(tp=4))
    # Each rank convolves 8 of 32 channels and all of B and C, 3 each.
    kept = (8 + 6) * 3 * 2 + 8 * 3 * 2
    assert ONE_GROUP.cache_bytes(split, 1, 16) == kept
    excess = 4 * ONE_GROUP.weight_bytes(split) - ONE_GROUP.weight_bytes(shard)
    assert excess == 3 * 6 * (32 + 4 + 1) * 2


@pytest.mark.parametrize(
    ("mixer", "tp", "broken"),
    [
        (MAMBA_28B, 5, None),
        (MAMBA_28B, 3, "tp 3 does not divide intermediate_size 5120"),
        (NEMOTRON_NANO, 8, None),
        (NEMOTRON_NANO, 16, "tp 16 does not divide n_groups 8"),
        (NEMOTRON_NANO, 128, "tp 128 does not divide num_heads 64"),
        (ONE_GROUP, 8, None),
    ],
)
def test_rules(mixer: Mamba1 | Mamba2, tp: int, broken: str | None) -> None:
    assert mixer.rule_broken_by(Parallelism(tp=tp)) == broken


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_operators_of_mamba_by_hand(tp: int) -> None:
    mixer = Mamba1(intermediate_size=64, state_size=3, conv_kernel=4, time_step_rank=2)
    operators = named(mixer, tp)
    width, inner = 64 / tp, 2 + 3 + 3
    shapes = {n: (e.m, e.k, e.n) for n, e in operators.items() if isinstance(e, Gemm)}
    assert shapes == {
        "in_proj": (ROWS, 32, 2 * width),
        "x_proj": (ROWS, width, inner),
        "dt_proj": (ROWS, 2, width),
        "out_proj": (ROWS, width, 32),
    }
    assert operators["x_all_reduce"] == Collective(
        "x_all_reduce", CollectiveKind.ALL_REDUCE, ROWS * inner * 2, tp
    )
    conv, scan = operators["causal_conv"], operators["scan_prefill"]
    assert isinstance(conv, CausalConv)
    assert (conv.sequences, conv.rows, conv.width) == (7, ROWS, width)
    assert isinstance(scan, Scan)
    # Twelve tokens: x, dt, z and B, C in, y out; nine FLOP per element, skip, gate.
    cost = scan.cost()
    assert cost.total_flop == 12 * width * (9 * 3 + 2)
    assert cost.read == 12 * (3 * width + 6) * 2 + 2 * width * 3 * 2
    assert cost.written == 12 * width * 2 + 2 * width * 3 * 2
    assert "inner_norm" not in operators
    assert named(replace(mixer, inner_norms=True), tp)["inner_norm"] == Elementwise(
        name="inner_norm", elements=ROWS * inner, read=2, written=2
    )


@pytest.mark.parametrize("tp", [1, 2])
def test_operators_of_mamba2_by_hand(tp: int) -> None:
    mixer = Mamba2(
        num_heads=4, head_dim=2, state_size=3, n_groups=2, conv_kernel=4, chunk_size=4
    )
    operators = named(mixer, tp)
    # z 8, x 8, B and C 2 groups of 3 each, dt 4.
    assert (operators["in_proj"].k, operators["in_proj"].n) == (32, 32 / tp)
    assert (operators["out_proj"].k, operators["out_proj"].n) == (8 / tp, 32)
    assert operators["causal_conv"].width == (8 + 12) / tp
    # Two prompts of a chunk of 4 and one of 2, 10 + 3 pairs. A pair costs C B' of 2
    # groups of 3 and its product with 8 channels; a token moves 24 elements of state
    # in (2 FLOP) and out (2).
    reading = operators["scan_prefill"].cost()
    assert reading.total_flop == 2 * (6 * 4 * 24 + 13 * 2 * (2 * 3 + 8)) / tp
    # x, B, C, dt in; y out; the state of BF16 in and out.
    assert reading.read == 2 * (6 * (8 + 12 + 4) + 24) * 2 / tp
    assert reading.written == 2 * (6 * 8 + 24) * 2 / tp
    # Decay 1, B x 2, C 2 FLOP per element of five states.
    assert operators["scan_decode"].cost().total_flop == 5 * 5 * 24 / tp
    assert operators["gated_norm"].elements == ROWS * 8 / tp
    assert "norm_all_reduce" not in operators


def test_a_norm_over_all_ranks_adds_their_squares() -> None:
    operators = named(ONE_GROUP, tp=4)
    assert operators["norm_all_reduce"] == Collective(
        "norm_all_reduce", CollectiveKind.ALL_REDUCE, ROWS * 4, 4
    )
    gate = named(replace(ONE_GROUP, rms_norm=False), tp=4)
    assert "norm_all_reduce" not in gate
    assert gate["gated_norm"] == operators["gated_norm"]


def test_activation_widths_by_hand() -> None:
    shard = Shard(32, Parallelism(tp=2))
    assert MAMBA_28B.activation_width(shard) == 4 * 2560 + 160 + 32
    # Columns of the projection in, and of the convolved x, B and C.
    assert NEMOTRON_NANO.activation_width(shard) == (10_304 + 6144) / 2
