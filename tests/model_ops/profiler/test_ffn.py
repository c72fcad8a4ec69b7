from dataclasses import replace

import pytest

from model_ops.dtypes import PRESETS, Dtype
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.ops import Elementwise, Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard, Step, decode, prefill

HIDDEN, WIDE = 32, 96
GATED = DenseFfn(intermediate_size=WIDE)
PLAIN = replace(GATED, gated=False)
STEP = Step((prefill(2, 5), decode(3, 7)))
TOKENS = 2 * 5 + 3


def test_parameters_by_hand() -> None:
    assert GATED.parameters(HIDDEN) == 3 * HIDDEN * WIDE
    assert PLAIN.parameters(HIDDEN) == 2 * HIDDEN * WIDE
    biased = replace(PLAIN, bias=True)
    assert biased.parameters(HIDDEN) == 2 * HIDDEN * WIDE + WIDE + HIDDEN
    biased = replace(GATED, bias=True)
    assert biased.parameters(HIDDEN) == 3 * HIDDEN * WIDE + 2 * WIDE + HIDDEN


@pytest.mark.parametrize(("ffn", "matrices"), [(GATED, 3), (PLAIN, 2)])
@pytest.mark.parametrize("tp", [1, 2, 8])
def test_share_of_a_rank(ffn: DenseFfn, matrices: int, tp: int) -> None:
    split = Parallelism(tp)
    elements = HIDDEN * matrices * WIDE / tp
    assert ffn.weight_bytes(Shard(HIDDEN, split, PRESETS["bf16"])) == 2 * elements
    fp8 = Shard(HIDDEN, split, PRESETS["fp8"])
    assert ffn.weight_bytes(fp8) == 1 * elements
    assert ffn.activation_width(fp8) == matrices * WIDE / tp


def test_rules() -> None:
    assert GATED.rule_broken_by(Parallelism(32)) is None
    broken = GATED.rule_broken_by(Parallelism(5))
    assert broken == "tp 5 does not divide intermediate_size 96"


@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize(
    ("ffn", "up", "name"), [(GATED, 2, "gate_up_proj"), (PLAIN, 1, "up_proj")]
)
def test_operators_by_hand(ffn: DenseFfn, up: int, name: str, tp: int) -> None:
    linear = {"m": TOKENS, "weights": Dtype.INT8, "inputs": Dtype.INT8}
    linear |= {"outputs": Dtype.BF16, "engine": Dtype.INT8}
    width = WIDE / tp
    shard = Shard(HIDDEN, Parallelism(tp), PRESETS["int8"])
    assert list(ffn.operators(shard, STEP)) == [
        Gemm(name=name, k=HIDDEN, n=up * width, adapted=True, **linear),
        # Reads gate and up in 16 bits, writes what down_proj reads in 8.
        Elementwise(name="activation", elements=TOKENS * width, read=up * 2, written=1),
        Gemm(name="down_proj", k=width, n=HIDDEN, adapted=True, **linear),
    ]


def test_flop_is_two_per_weight_and_token() -> None:
    for ffn in (GATED, PLAIN):
        shard = Shard(HIDDEN)
        flop = sum(op.cost().total_flop for op in ffn.operators(shard, STEP))
        assert flop == 2 * ffn.parameters(HIDDEN) * TOKENS
