"""Context parallelism and pipeline stages, by hand and by brute force."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.opcost import Collective, CollectiveKind
from model_ops.platform.npu import Npu
from model_ops.platform.roofline import op_time
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.cache import kv_bytes_per_sequence
from model_ops.profiler.layers import (
    embedding_operators,
    head_operators,
    layer_operators,
    stage_boundary_operators,
)
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.ops import AttentionCore, Gemm
from model_ops.profiler.parallelism import Parallelism, layer_split
from model_ops.profiler.work import Segment, Shard, Step, decode, prefill
from model_ops.serving.speculative import Speculation
from model_ops.serving.step import Replica, step_time, timed_operators
from problems import catalogue

GQA = Attention(num_attention_heads=4, num_key_value_heads=2, head_dim=8)
HIDDEN = 32


def work(segment: Segment, **split: int) -> dict:
    shard = Shard(HIDDEN, Parallelism(**split))
    return {each.name: each for each in GQA.operators(shard, Step((segment,)))}


# ---- context parallel ----


@pytest.mark.parametrize("cp", [2, 4])
def test_prefill_deals_the_tokens(cp: int) -> None:
    one, many = work(prefill(3, 64, 16)), work(prefill(3, 64, 16), cp=cp)
    for name, each in one.items():
        share = many[name].cost()
        assert share.total_flop == pytest.approx(each.cost().total_flop / cp), name
    # Each rank reads all keys, for its own queries.
    core, whole = (found["attention_prefill"].cost() for found in (many, one))
    assert core.cache == whole.cache == 3 * 80 * 2 * 16 * 2
    assert core.written == whole.written / cp


@pytest.mark.parametrize("cp", [2, 4])
def test_prefill_gathers_keys_and_values(cp: int) -> None:
    sent = work(prefill(3, 64, 16), tp=2, cp=cp)["context_gather"]
    # 80 tokens of one key and one value head of 8 in two bytes.
    assert sent.payload == 3 * 80 * 2 * 8 * 2
    assert (sent.kind, sent.ranks, sent.stride) == (CollectiveKind.ALL_GATHER, cp, 2)


@pytest.mark.parametrize("cp", [2, 4])
def test_decode_deals_the_keys(cp: int) -> None:
    one, many = work(decode(8, 63)), work(decode(8, 63), cp=cp)
    core, whole = (found["attention_decode"].cost() for found in (many, one))
    assert core.total_flop == whole.total_flop / cp
    assert core.cache == whole.cache / cp == 8 * 64 / cp * 2 * 16 * 2
    assert core.written == whole.written  # partial outputs of all queries
    sent = many["context_reduce"]
    assert sent.kind is CollectiveKind.ALL_REDUCE
    assert sent.payload == 8 * 4 * (8 + 8) * 2
    assert many["qkv_proj"].m == 8 / cp


def test_a_rank_works_on_at_least_one_row() -> None:
    assert work(decode(1, 63), cp=4)["qkv_proj"].m == 1
    shard = Shard(HIDDEN, Parallelism(cp=np.array([1, 2, 4])))
    assert shard.rows(Step((decode(2, 9),))).tolist() == [2, 1, 1]


def test_ranks_keep_their_share_of_the_cache() -> None:
    token = 2 * 2 * 8 * 2
    for cp, kept in ((1, 160), (2, 80), (4, 48)):  # 40 tokens take three blocks
        shard = Shard(HIDDEN, Parallelism(cp=cp))
        assert GQA.cache_bytes(shard, 160, 16) == kept * token


def test_one_rank_passes_nothing_on() -> None:
    assert not [e for e in work(decode(2, 9)).values() if isinstance(e, Collective)]
    for segment in (decode(2, 9), prefill(1, 30, 4)):
        found = work(segment, cp=np.array([1, 2]))
        (sent,) = [e for e in found.values() if isinstance(e, Collective)]
        assert sent.cost().link_bytes[0] == 0 < sent.cost().link_bytes[1]


# ---- no traffic where one NPU does it all ----


@pytest.mark.parametrize(
    "name", ["llama-3-8b", "mixtral-8x7b", "deepseek-v3.2", "qwen3-next-80b-a3b"]
)
@pytest.mark.parametrize("arrays", [False, True])
def test_one_npu_has_no_traffic(name: str, arrays: bool, toy_npu: Npu) -> None:
    arch = catalogue.load_model(name)
    one = np.ones(2) if arrays else 1
    alone = Parallelism(one, one, one, one, one)
    shard = Shard(arch.hidden_size, alone)
    step = Step((prefill(1, 100), decode(4, 100)))
    supply = Supply.of(toy_npu)
    found = [
        *embedding_operators(arch, shard, step),
        *(o for run in arch.runs for o in layer_operators(run.layer, shard, step)),
        *head_operators(arch, shard, step),
        *stage_boundary_operators(shard, step),
    ]
    sent = [each for each in found if isinstance(each, Collective)]
    assert sent
    for each in sent:
        assert np.all(each.cost().link_bytes == 0), each.name
        assert np.all(op_time(each, supply).network == 0), each.name


def test_the_layers_ranks_are_all_counted() -> None:
    split = Parallelism(tp=2, pp=3, ep=4, dp=2, cp=2)
    assert split.npus == 24
    assert split.expert_ranks == 8
    assert split.expert_tp == 2
    assert split.token_groups == 4
    assert split.text == "tp=2 pp=3 ep=4 dp=2 cp=2"


# ---- pipeline stages ----


@pytest.fixture(scope="module")
def deepseek() -> ModelArch:
    """Three dense layers and 58 of experts."""
    return catalogue.load_model("deepseek-v3")


def dealt(arch: ModelArch, pp: int) -> list[tuple[Layer, ...]]:
    start, stages = 0, []
    for count in layer_split(arch.num_hidden_layers, pp):
        stages.append(arch.layers[start : start + count])
        start += count
    return stages


@pytest.mark.parametrize(
    ("layers", "pp", "stages"),
    [
        (61, 2, [31, 30]),
        (61, 4, [15, 15, 16, 15]),
        (61, 8, [7, 7, 8, 8, 8, 8, 8, 7]),
        (32, 4, [8] * 4),
        (7, 4, [2, 2, 2, 1]),
        (5, 4, [1, 1, 2, 1]),
    ],
)
def test_layers_are_dealt_as_vllm_deals_them(
    layers: int, pp: int, stages: list[int]
) -> None:
    # vllm/distributed/utils.py get_pp_indices: the rest before the last, backwards.
    assert layer_split(layers, pp) == stages


@pytest.mark.parametrize("pp", [2, 4, 8])
@pytest.mark.parametrize("split", [{"tp": 8}, {"tp": 8, "ep": 8}, {"dp": 8, "ep": 8}])
def test_slowest_stage_of_deepseek_v3_by_brute_force(
    deepseek: ModelArch, pp: int, split: dict[str, int]
) -> None:
    ideal = catalogue.load_npu("h200").ideal()
    supply = Supply.of(replace(ideal, step_overhead=1e-3))
    parallelism = Parallelism(pp=pp, **split)
    replica = Replica(deepseek, parallelism, deepseek.precision, supply)
    step = Step((prefill(1, 512, 100), decode(32, 1000)))
    shard = replica.shard

    def seconds(operators: object) -> float:
        return sum(op_time(each, supply).total for each in operators)

    boundary = seconds(stage_boundary_operators(shard, step))
    each = {
        r.layer: seconds(layer_operators(r.layer, shard, step)) for r in deepseek.runs
    }
    stages = [sum(each[layer] for layer in stage) for stage in dealt(deepseek, pp)]
    whole = sum(stages)
    stages[0] += seconds(embedding_operators(deepseek, shard, step))
    stages[-1] += seconds(head_operators(deepseek, shard, step))
    found = step_time(replica, step)
    slowest = max(stages) + boundary + supply.step_overhead
    assert found.bottleneck == pytest.approx(slowest, rel=1e-12)
    ends = sum(stages) - whole
    latency = whole + ends + supply.step_overhead + (pp - 1) * boundary
    assert found.latency == pytest.approx(latency, rel=1e-12)
    timed = sum(t.count * t.time.total for t in timed_operators(replica, step))
    assert timed + supply.step_overhead == pytest.approx(latency, rel=1e-12)


@pytest.mark.parametrize("pp", [1, 2, 4, 8])
@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("name", ["deepseek-v3", "gemma-3-27b", "qwen3-next-80b-a3b"])
def test_fullest_stage_by_brute_force(name: str, tp: int, pp: int) -> None:
    arch = catalogue.load_model(name)
    shard = Shard(arch.hidden_size, Parallelism(tp, pp), arch.precision)
    end = arch.vocab_size * arch.hidden_size * 2 / tp
    weights, cache = [], []
    for number, stage in enumerate(dealt(arch, pp)):
        halves = [half for layer in stage for half in layer.halves]
        held = sum(half.weight_bytes(shard) for half in halves)
        first, last = number == 0, number == pp - 1
        both = 1 if arch.tie_word_embeddings else 2
        held += end * (both if first and last else first or last)
        weights.append(held)
        mixers = [layer.mixer for layer in stage if layer.mixer is not None]
        cache.append(sum(mixer.cache_bytes(shard, 5000, 16) for mixer in mixers))
    assert weight_bytes(arch, shard) == pytest.approx(max(weights), rel=1e-12)
    found = kv_bytes_per_sequence(arch, shard, 5000)
    assert found == pytest.approx(max(cache), rel=1e-12)


def test_arrays_of_stages_give_what_each_gives(deepseek: ModelArch) -> None:
    degrees = [1, 2, 4, 8, 61, 3, 2]

    def held(pp: object) -> object:
        return weight_bytes(deepseek, Shard(deepseek.hidden_size, Parallelism(pp=pp)))

    assert held(np.array(degrees)).tolist() == [held(pp) for pp in degrees]


def test_a_drafter_runs_on_the_last_stage_only(
    toy_arch: ModelArch, toy_npu: Npu
) -> None:
    guess = Speculation(3, 0.5, toy_arch.guessing_with(toy_arch.layers[-1]))
    # Seven layers over two stages: four on the first, three on the last.
    arch = replace(toy_arch, layers=(toy_arch.layers[0],) * 7)
    plain = Replica(arch, Parallelism(pp=2), arch.precision, Supply.of(toy_npu))
    step = Step((decode(4, 100),))
    slower = step_time(replace(plain, speculation=guess), step)
    cost = slower.latency - step_time(plain, step).latency
    assert cost > 0
    assert slower.bottleneck < step_time(plain, step).bottleneck + cost


# ---- attention data parallelism ----


def test_groups_share_the_experts_of_all_tokens(toy_layer: Layer) -> None:
    moe = MoeFfn(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=16)
    layer = replace(toy_layer, ffn=moe)
    shard = Shard(HIDDEN, Parallelism(dp=4, ep=4))

    def rows(step: Step) -> dict:
        found = layer_operators(layer, shard, step)
        return {e.name: e.m for e in found if isinstance(e, Gemm)}

    alike = rows(Step((decode(6, 10),)))
    assert alike["qkv_proj"] == alike["router"] == 6  # a group's own
    assert alike["experts_up"] == 4 * 6 * 2 / 4  # all groups' over four ranks
    # One group reads a prompt meanwhile, the others go on decoding.
    mixed = rows(Step((prefill(1, 94), decode(6, 10)), elsewhere=6.0))
    assert mixed["qkv_proj"] == 100
    assert mixed["experts_up"] == (100 + 3 * 6) * 2 / 4


def test_the_attention_of_a_group_is_its_own(toy_layer: Layer) -> None:
    moe = MoeFfn(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=16)
    layer = replace(toy_layer, ffn=moe)
    for dp in (1, 4):
        shard = Shard(HIDDEN, Parallelism(dp=dp))
        found = layer_operators(layer, shard, Step((decode(6, 10),)))
        (core,) = [each for each in found if isinstance(each, AttentionCore)]
        assert core.sequences == 6
        assert core.heads == 4
