"""Low-rank adapters: two narrow products beside each linear layer."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.opcost import Collective
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.layers import layer_operators
from model_ops.profiler.memory import adapter_bytes, weight_bytes
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Lora, Segment, Shard, Step, decode, prefill

# The toy layer: 32 to 4 + 2 * 2 heads of 8 and back, 32 to 2 * 64 and back.
LINEAR = {
    "qkv_proj": (32, 64),
    "o_proj": (32, 32),
    "gate_up_proj": (32, 128),
    "down_proj": (64, 32),
}
WIDTHS = sum(k + n for k, n in LINEAR.values())


def work(layer: Layer, lora: Lora | None, *segments: Segment, tp: int = 1) -> dict:
    shard = Shard(32, Parallelism(tp), lora=lora)
    found = list(layer_operators(layer, shard, Step(segments)))
    assert len(found) - len({each.name for each in found}) <= 1  # two norms
    return {each.name: each for each in found}


def test_two_narrow_products_by_hand(toy_layer: Layer) -> None:
    found = work(toy_layer, Lora(4, adapters=3), decode(2, 10), prefill(3, 5))
    rows, used = 2 + 15, 3
    for name, (k, n) in LINEAR.items():
        shrink = found[f"{name}_lora_shrink"].cost()
        expand = found[f"{name}_lora_expand"].cost()
        assert shrink.total_flop == 2 * rows * k * 4
        assert expand.total_flop == 2 * rows * 4 * n
        assert shrink.weights == used * k * 4 * 2
        assert expand.weights == used * 4 * n * 2
        assert shrink.bytes == 2 * (rows * (k + 4) + used * k * 4)
        assert expand.bytes == 2 * (rows * (4 + n) + used * 4 * n)
        assert list(shrink.flop) == [Dtype.BF16]


def test_no_more_adapters_are_used_than_sequences(toy_layer: Layer) -> None:
    def read(adapters: int, batch: object) -> object:
        found = work(toy_layer, Lora(4, adapters), decode(batch, 10))
        return found["qkv_proj_lora_shrink"].cost().weights

    each = 32 * 4 * 2
    assert read(100, 7) == 7 * each
    assert read(3, 7) == 3 * each
    assert read(5, np.array([1.0, 5.0, 9.0])).tolist() == [each, 5 * each, 5 * each]


def test_without_adapters_nothing_is_added(toy_layer: Layer) -> None:
    plain = work(toy_layer, None, decode(2, 10))
    adapted = work(toy_layer, Lora(4), decode(2, 10))
    assert {n for n in adapted if "lora" not in n} == set(plain)
    assert len(adapted) == len(plain) + 2 * len(LINEAR)
    assert all(adapted[name] == plain[name] for name in plain)


@pytest.mark.parametrize("adapters", [1, 5])
def test_memory_by_hand(toy_layer: Layer, adapters: int) -> None:
    shard = Shard(32, lora=Lora(4, adapters))
    assert adapter_bytes(toy_layer, shard) == adapters * 4 * WIDTHS * 2
    assert adapter_bytes(toy_layer, replace(shard, lora=None)) == 0
    # In the format of the residual stream, whatever the weights are.
    narrow = replace(shard, precision=Precision.of("fp8"))
    assert adapter_bytes(toy_layer, narrow) == adapters * 4 * WIDTHS * 2


def test_a_model_holds_the_adapters_of_all_layers(toy_arch: ModelArch) -> None:
    shard = Shard(32, lora=Lora(4, 5))
    plain = weight_bytes(toy_arch, replace(shard, lora=None))
    assert weight_bytes(toy_arch, shard) - plain == 6 * 5 * 4 * WIDTHS * 2


def test_ranks_split_the_wide_side(toy_layer: Layer) -> None:
    shard = Shard(32, Parallelism(2), lora=Lora(4))
    # Of columns the n, of rows the k is halved.
    widths = (32 + 32) + (16 + 32) + (32 + 64) + (32 + 32)
    assert adapter_bytes(toy_layer, shard) == 4 * widths * 2
    found = work(toy_layer, Lora(4), decode(2, 10), tp=2)
    assert found["qkv_proj_lora_expand"].n == 32
    assert found["down_proj_lora_shrink"].k == 32


def test_routed_experts_and_their_router_have_none(toy_layer: Layer) -> None:
    moe = MoeFfn(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    found = work(replace(toy_layer, ffn=moe), Lora(4), decode(2, 10))
    adapted = {name.split("_lora")[0] for name in found if "lora" in name}
    assert adapted == {"qkv_proj", "o_proj"}


def test_adapters_send_nothing(toy_layer: Layer) -> None:
    plain, adapted = (
        list(work(toy_layer, lora, decode(2, 10), tp=2).values())
        for lora in (None, Lora(4))
    )
    sent = [
        [e for e in found if isinstance(e, Collective)] for found in (plain, adapted)
    ]
    assert sent[0] == sent[1]
