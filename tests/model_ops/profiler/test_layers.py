from dataclasses import replace

import pytest

from model_ops.dtypes import PRESETS, Dtype
from model_ops.opcost import Collective, CollectiveKind
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.layers import (
    embedding_operators,
    head_operators,
    layer_operators,
    stage_boundary_operators,
)
from model_ops.profiler.ops import Elementwise, Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard, Step, decode, prefill

HIDDEN = 32
STEP = Step((prefill(2, 5, 3), decode(4, 10)))
TOKENS, SAMPLED = 2 * 5 + 4, 2 + 4


def layer_names(layer: Layer) -> list[str]:
    shard = Shard(HIDDEN, Parallelism(2))
    return [op.name for op in layer_operators(layer, shard, Step((decode(1, 1),)))]


ATTENTION = ["qkv_proj", "rotary", "kv_cache_write", "attention_decode", "o_proj"]
FFN = ["gate_up_proj", "activation", "down_proj"]


def test_a_step_counts_tokens_and_sampled_rows() -> None:
    assert STEP.tokens == TOKENS
    assert STEP.sampled == SAMPLED


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (
            {},
            [
                *("norm", *ATTENTION, "attention_all_reduce"),
                *("norm", *FFN, "ffn_all_reduce"),
            ],
        ),
        (  # GPT-J: one norm, both halves at once, one all-reduce
            {"parallel_residual": True, "norms": 1},
            ["norm", *ATTENTION, *FFN, "ffn_all_reduce"],
        ),
        (  # GPT-NeoX: a norm per half
            {"parallel_residual": True},
            ["norm", *ATTENTION, *FFN, "ffn_all_reduce", "norm"],
        ),
        (  # Gemma 2: norms behind the halves too
            {"norms": 4},
            [
                *("norm", *ATTENTION, "attention_all_reduce"),
                *("norm", *FFN, "ffn_all_reduce", "norm", "norm"),
            ],
        ),
        ({"mixer": None, "norms": 1}, ["norm", *FFN, "ffn_all_reduce"]),
        ({"ffn": None, "norms": 1}, ["norm", *ATTENTION, "attention_all_reduce"]),
        ({"mixer": None, "ffn": None, "norms": 0}, []),
    ],
    ids=["llama", "gptj", "neox", "gemma", "no mixer", "no ffn", "pruned"],
)
def test_operators_of_a_layer(
    toy_layer: Layer, changes: dict, names: list[str]
) -> None:
    assert layer_names(replace(toy_layer, **changes)) == names


def test_norms_read_the_stream_twice_and_quantise_as_they_write(
    toy_layer: Layer,
) -> None:
    layer = replace(toy_layer, norms=3)
    shard = Shard(HIDDEN, precision=PRESETS["fp8"])
    norms = [op for op in layer_operators(layer, shard, STEP) if op.name == "norm"]
    wide, narrow = Dtype.BF16.bytes, Dtype.FP8.bytes
    # Residual and the half's output read; the sum and the quantised input written.
    fused = Elementwise(
        name="norm", elements=TOKENS * HIDDEN, read=2 * wide, written=wide + narrow
    )
    own = replace(fused, read=wide, written=wide)
    assert norms == [fused, fused, own]


@pytest.mark.parametrize(("preset", "size"), [("fp8", 2), ("fp32", 4)])
def test_ranks_sum_the_residual_stream_behind_each_half(
    toy_layer: Layer, preset: str, size: int
) -> None:
    shard = Shard(HIDDEN, Parallelism(4), PRESETS[preset])
    operators = layer_operators(toy_layer, shard, STEP)
    sums = [op for op in operators if isinstance(op, Collective)]
    kind, payload = CollectiveKind.ALL_REDUCE, TOKENS * HIDDEN * size
    assert sums == [
        Collective("attention_all_reduce", kind, payload, 4),
        Collective("ffn_all_reduce", kind, payload, 4),
    ]


def test_a_layer_does_two_flop_per_weight_and_token(toy_layer: Layer) -> None:
    shard = Shard(HIDDEN)
    operators = layer_operators(toy_layer, shard, STEP)
    flop = sum(op.cost().total_flop for op in operators if isinstance(op, Gemm))
    norms = 2 * HIDDEN
    assert flop == 2 * TOKENS * (toy_layer.parameters(HIDDEN) - norms)


def test_parameters_of_layer_and_model_by_hand(
    toy_layer: Layer, toy_arch: ModelArch
) -> None:
    q, kv, wide, vocab, layers = 4 * 8, 2 * 8, 64, 128, 6
    linear = HIDDEN * (q + kv + kv + q) + 3 * HIDDEN * wide
    assert toy_layer.parameters(HIDDEN) == linear + 2 * HIDDEN
    biased = replace(toy_layer, norm_bias=True)
    assert biased.parameters(HIDDEN) == linear + 2 * 2 * HIDDEN
    layer, final_norm = linear + 2 * HIDDEN, HIDDEN
    whole = 2 * vocab * HIDDEN + layers * layer + final_norm
    assert toy_arch.num_hidden_layers == layers
    assert toy_arch.parameters == whole
    tied = replace(toy_arch, tie_word_embeddings=True, learned_positions=10)
    assert tied.parameters == whole - vocab * HIDDEN + 10 * HIDDEN


@pytest.mark.parametrize("tp", [1, 2])
def test_embedding_by_hand(toy_arch: ModelArch, tp: int) -> None:
    shard = Shard(HIDDEN, Parallelism(tp), PRESETS["int4"])
    stream, size = TOKENS * HIDDEN, 2
    gather = Elementwise(name="embedding", elements=stream, read=size, written=size)
    total = Collective(
        "embedding_all_reduce", CollectiveKind.ALL_REDUCE, stream * size, tp
    )
    assert list(embedding_operators(toy_arch, shard, STEP)) == [gather, total]
    learned = replace(toy_arch, learned_positions=100)
    both = replace(gather, read=2 * size)
    assert list(embedding_operators(learned, shard, STEP)) == [both, total]


@pytest.mark.parametrize("tp", [1, 4])
def test_head_by_hand(toy_arch: ModelArch, tp: int) -> None:
    vocab, size = 128, 2
    linear = dict.fromkeys(("weights", "inputs", "outputs", "engine"), Dtype.BF16)
    shard = Shard(HIDDEN, Parallelism(tp), PRESETS["fp8"])
    assert list(head_operators(toy_arch, shard, STEP)) == [
        Elementwise(
            name="final_norm", elements=TOKENS * HIDDEN, read=2 * size, written=size
        ),
        Gemm(name="lm_head", m=SAMPLED, k=HIDDEN, n=vocab / tp, **linear),
        Collective(
            "logits_all_gather", CollectiveKind.ALL_GATHER, SAMPLED * vocab * size, tp
        ),
    ]


def test_stage_boundary_by_hand() -> None:
    tp, pp, size = 4, 2, 2
    stream = TOKENS * HIDDEN * size
    shard = Shard(HIDDEN, Parallelism(tp, pp), PRESETS["fp8"])
    assert list(stage_boundary_operators(shard, STEP)) == [
        Collective("stage_send", CollectiveKind.SEND, stream / tp, tp * pp),
        Collective("stage_gather", CollectiveKind.ALL_GATHER, stream, tp),
    ]


def test_one_rank_has_no_link_bytes_and_two_have(toy_arch: ModelArch) -> None:
    def link_bytes(tp: int) -> float:
        shard = Shard(HIDDEN, Parallelism(tp))
        layer = toy_arch.runs[0].layer
        return sum(
            op.cost().link_bytes
            for operators in (
                embedding_operators(toy_arch, shard, STEP),
                layer_operators(layer, shard, STEP),
                head_operators(toy_arch, shard, STEP),
            )
            for op in operators
        )

    assert link_bytes(1) == 0
    # Embedding and both halves all-reduce the stream; the head gathers logits.
    stream, logits = TOKENS * HIDDEN * 2, SAMPLED * 128 * 2
    assert link_bytes(2) == 3 * (2 * stream / 2) + logits / 2
