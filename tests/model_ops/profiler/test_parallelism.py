from dataclasses import replace

import numpy as np
import pytest

from model_ops.errors import DeploymentError
from model_ops.profiler.arch import LayerRun, ModelArch
from model_ops.profiler.parallelism import (
    Parallelism,
    check_parallelism,
    rule_broken_by,
)


def stages(layers: int, pp: int) -> list[int]:
    """Deal the layers out one by one, as evenly as they go."""
    held = [0] * pp
    for layer in range(layers):
        held[layer % pp] += 1
    return held


@pytest.mark.parametrize("pp", range(1, 12))
@pytest.mark.parametrize("layers", [1, 11, 32, 61, 80])
def test_largest_stage_is_that_of_an_even_deal(layers: int, pp: int) -> None:
    assert Parallelism(1, pp).largest_stage(layers) == max(stages(layers, pp))


def test_npus_and_stages_of_arrays() -> None:
    split = Parallelism(np.array([1, 2, 4]), np.array([[1], [3]]))
    assert split.npus.tolist() == [[1, 2, 4], [3, 6, 12]]
    assert split.largest_stage(7).tolist() == [[7], [3]]


@pytest.mark.parametrize(
    ("tp", "pp", "said"),
    [
        (0, 1, "tp 0 and pp 1 must be at least 1"),
        (1, 0, "tp 1 and pp 0 must be at least 1"),
        (-2, 1, "tp -2 and pp 1 must be at least 1"),
        (1, 7, "pp 7 exceeds num_hidden_layers 6"),
        (3, 1, "tp 3 does not divide num_attention_heads 4"),
        (8, 1, "tp 8 does not divide num_attention_heads 4"),
    ],
)
def test_rules(toy_arch: ModelArch, tp: int, pp: int, said: str) -> None:
    assert rule_broken_by(toy_arch, tp, pp) == said
    with pytest.raises(DeploymentError, match=f"^toy: {said}$"):
        check_parallelism(toy_arch, tp, pp)


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (4, 6), (1, 4)])
def test_legal_splits(toy_arch: ModelArch, tp: int, pp: int) -> None:
    assert rule_broken_by(toy_arch, tp, pp) is None
    check_parallelism(toy_arch, tp, pp)


def test_one_odd_layer_breaks_the_split(toy_arch: ModelArch) -> None:
    layer = toy_arch.runs[0].layer
    odd = replace(layer, ffn=replace(layer.ffn, intermediate_size=63))
    mixed = replace(toy_arch, runs=(*toy_arch.runs, LayerRun(odd, 1)))
    broken = rule_broken_by(mixed, 2, 1)
    assert broken == "tp 2 does not divide intermediate_size 63"
