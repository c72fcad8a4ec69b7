from dataclasses import replace

import numpy as np
import pytest

from model_ops.errors import DeploymentError
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import (
    Parallelism,
    Stage,
    layer_split,
    pipeline_stages,
    stacked,
)


@pytest.mark.parametrize(
    ("layers", "pp", "dealt"),
    [
        (32, 4, [8, 8, 8, 8]),
        (7, 3, [2, 3, 2]),  # one is left: to the stage before the last
        (11, 4, [3, 3, 3, 2]),  # three: to all but the last
        (6, 4, [1, 2, 2, 1]),
        (80, 7, [11, 11, 11, 12, 12, 12, 11]),
        (2, 2, [1, 1]),
    ],
)
def test_layers_are_dealt_as_frameworks_do(
    layers: int, pp: int, dealt: list[int]
) -> None:
    assert layer_split(layers, pp) == dealt


@pytest.mark.parametrize("pp", range(1, 12))
@pytest.mark.parametrize("layers", [11, 32, 61, 80])
def test_layers_are_dealt_evenly_and_the_last_stage_gets_no_more(
    layers: int, pp: int
) -> None:
    dealt = layer_split(layers, pp)
    assert len(dealt) == pp
    assert sum(dealt) == layers
    assert max(dealt) - min(dealt) <= 1
    assert dealt[-1] == layers // pp


def expand(
    stages: list[Stage], where: tuple[int, ...] = ()
) -> list[tuple[object, ...]]:
    """Return the counts and ends of each stage, at an entry of `pp`."""
    return [
        (
            *(int(np.asarray(count)[where]) for count in stage.counts),
            bool(np.asarray(stage.first)[where]),
            bool(np.asarray(stage.last)[where]),
        )
        for stage in stages
    ]


@pytest.mark.parametrize(
    ("pp", "found"),
    [
        (1, [(7, True, True)]),
        (2, [(4, True, False), (3, False, True)]),
        # 2, 3, 2 layers: no stage holds more of everything than another.
        (3, [(2, True, False), (3, False, False), (2, False, True)]),
        # 2, 2, 2, 1: the inner ones hold no more than the first.
        (4, [(2, True, False), (1, False, True)]),
        (7, [(1, True, False), (1, False, True)]),
    ],
)
def test_stages_that_may_be_the_fullest(
    pp: int, found: list[tuple[object, ...]]
) -> None:
    assert expand(pipeline_stages([0] * 7, 1, pp)) == found


def test_stages_of_layers_of_two_kinds() -> None:
    # 0 1 1 | 0 1 1 | 0 0 0: of each kind.
    order = [0, 1, 1, 0, 1, 1, 0, 0, 0]
    found = expand(pipeline_stages(order, 2, 3))
    # The middle is as the first, without the embedding.
    assert found == [(1, 2, True, False), (3, 0, False, True)]


def test_npus_and_stages_of_arrays() -> None:
    split = Parallelism(np.array([1, 2, 4]), np.array([[1], [3]]))
    assert np.asarray(split.npus).tolist() == [[1, 2, 4], [3, 6, 12]]
    together = pipeline_stages([0] * 7, 1, split.pp)
    for row, pp in enumerate((1, 3)):
        alone = expand(pipeline_stages([0] * 7, 1, pp))
        # Where there are fewer stages one is repeated, which adds nothing.
        assert set(expand(together, (row, 0))) == set(alone)


def test_npus_of_every_degree() -> None:
    split = Parallelism(tp=2, pp=3, ep=8, dp=4, cp=5)
    assert split.npus == 2 * 3 * 4 * 5  # the experts live on the ranks of the others
    assert split.expert_ranks == 2 * 4 * 5
    assert split.expert_tp == 5
    assert split.text == "tp=2 pp=3 ep=8 dp=4 cp=5"
    assert Parallelism(2).text == "tp=2 pp=1"


def test_splits_side_by_side() -> None:
    splits = [Parallelism(1, 2), Parallelism(4, 1, ep=8, dp=2)]
    together = stacked(splits, point_axes=1)
    assert np.asarray(together.tp).tolist() == [[1], [4]]
    assert np.asarray(together.pp).tolist() == [[2], [1]]
    assert np.asarray(together.ep).tolist() == [[1], [8]]
    assert np.asarray(together.dp).tolist() == [[1], [2]]
    assert together.cp == 1  # that nobody uses
    assert np.asarray(together.npus).tolist() == [[2], [8]]
    assert np.shape(stacked(splits).tp) == (2,)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (Parallelism(0, 1), "tp 0 must be at least 1"),
        (Parallelism(1, 0), "pp 0 must be at least 1"),
        (Parallelism(-2, 1), "tp -2 must be at least 1"),
        (Parallelism(ep=0), "ep 0 must be at least 1"),
        (Parallelism(dp=-1), "dp -1 must be at least 1"),
        (Parallelism(cp=0), "cp 0 must be at least 1"),
        (Parallelism(1, 7), "pp 7 exceeds num_hidden_layers 6"),
        (Parallelism(3, 1), "tp 3 does not divide num_attention_heads 4"),
        (Parallelism(8, 1), "tp 8 does not divide num_attention_heads 4"),
        (Parallelism(ep=2), "ep 2 and dp 1 need experts, and it has none"),
        (Parallelism(dp=2), "ep 1 and dp 2 need experts, and it has none"),
    ],
    ids=lambda value: value.text if isinstance(value, Parallelism) else None,
)
def test_rules(toy_arch: ModelArch, split: Parallelism, said: str) -> None:
    assert toy_arch.rule_broken_by(split) == said
    with pytest.raises(DeploymentError, match=f"^toy: {said}$"):
        toy_arch.check(split)


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (4, 6), (1, 4)])
def test_legal_splits(toy_arch: ModelArch, tp: int, pp: int) -> None:
    assert toy_arch.rule_broken_by(Parallelism(tp, pp)) is None
    toy_arch.check(Parallelism(tp, pp))


def test_one_odd_layer_breaks_the_split(toy_arch: ModelArch) -> None:
    layer = toy_arch.layers[0]
    odd = replace(layer, ffn=replace(layer.ffn, intermediate_size=63))
    mixed = replace(toy_arch, layers=(*toy_arch.layers, odd))
    broken = mixed.rule_broken_by(Parallelism(2))
    assert broken == "tp 2 does not divide intermediate_size 63"
