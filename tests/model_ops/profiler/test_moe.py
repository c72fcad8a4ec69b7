"""Mixture of experts, by hand: a rank's rows, its distinct experts, its traffic."""

import re
from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.opcost import Collective, CollectiveKind, KernelFamily
from model_ops.profiler.expert_load import ExpertLoad
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.ops import Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard, Step, decode
from problems import catalogue

MIXTRAL = MoeFfn(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=14_336)
SMALL = MoeFfn(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
HIDDEN = 16


def shard(
    hidden: int = HIDDEN, experts: ExpertLoad | None = None, **split: int
) -> Shard:
    return Shard(hidden, Parallelism(**split), experts=experts or ExpertLoad())


def work(moe: MoeFfn, on: Shard, batch: float) -> dict:
    step = Step((decode(batch, 100),))
    return {each.name: each for each in moe.operators(on, step)}


def traffic(moe: MoeFfn, on: Shard, batch: float) -> dict:
    found = work(moe, on, batch)
    closing = moe.closing(on, 1000.0)
    every = [*found.values(), *closing]
    return {each.name: each for each in every if isinstance(each, Collective)}


# ---- weights that a step reads ----


@pytest.mark.parametrize(
    ("batch", "distinct"),
    [(1, 2), (8, 8 * (1 - 0.75**8)), (2, 3.5), (10_000, 8)],
)
def test_a_step_reads_the_experts_that_its_tokens_choose(
    batch: float, distinct: float
) -> None:
    on = shard(4096)
    assert MIXTRAL.distinct_experts(on, batch) == pytest.approx(distinct)
    # Gate, up and down of 4096 x 14336 in two bytes.
    operators = work(MIXTRAL, on, batch)
    read = sum(operators[n].cost().weights for n in ("experts_up", "experts_down"))
    assert read == pytest.approx(distinct * 3 * 4096 * 14_336 * 2)


def test_eight_tokens_of_mixtral_read_seven_experts() -> None:
    assert MIXTRAL.distinct_experts(shard(4096), 8) == pytest.approx(7.199, abs=5e-4)


@pytest.mark.parametrize(("ep", "batch"), [(2, 1), (2, 8), (4, 5), (8, 64)])
def test_a_rank_reads_its_share_of_the_distinct_experts(ep: int, batch: float) -> None:
    found = MIXTRAL.distinct_experts(shard(4096, tp=ep, ep=ep), batch)
    assert found == pytest.approx(8 / ep * (1 - 0.75**batch))


def test_experts_that_do_not_divide_make_a_fullest_rank() -> None:
    six = replace(MIXTRAL, num_experts=6)
    on = shard(4096, tp=4, ep=4)
    # Two on the fullest rank, each missed by a token with probability 2/3.
    assert six.distinct_experts(on, 3) == pytest.approx(2 * (1 - (2 / 3) ** 3))
    assert six.weight_bytes(on) == 2 * (2 * 3 * 4096 * 14_336 + 4096 * 6)


def test_redundant_copies_are_held_and_read() -> None:
    load = ExpertLoad(alpha=0.5, redundant_experts=4)
    on = shard(4096, load, tp=4, ep=4)  # three of twelve copies
    assert MIXTRAL.weight_bytes(on) == 2 * (3 * 3 * 4096 * 14_336 + 4096 * 8)
    assert MIXTRAL.distinct_experts(on, 1e6) == pytest.approx(3)


def test_popular_experts_are_chosen_again_and_again() -> None:
    balanced = shard(4096, tp=4, ep=4)
    skewed = shard(4096, ExpertLoad(1.0), tp=4, ep=4)
    more = work(MIXTRAL, skewed, 32)["experts_up"]
    even = work(MIXTRAL, balanced, 32)["experts_up"]
    imbalance = ExpertLoad(1.0).imbalance(8, 2, 4)
    assert imbalance > 1
    assert more.m == pytest.approx(imbalance * even.m)
    # And the rank that holds them receives as much more.
    groups = (shard(4096, each, dp=4, ep=4) for each in (ExpertLoad(1.0), None))
    sent, plain = (work(MIXTRAL, on, 32)["dispatch"].payload for on in groups)
    assert sent == pytest.approx(imbalance * plain)


# ---- against a dense feed-forward ----


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("tp", [1, 2])
def test_one_expert_for_all_is_a_dense_feed_forward(gated: bool, tp: int) -> None:
    dense = DenseFfn(intermediate_size=48, gated=gated)
    moe = MoeFfn(
        num_experts=1, num_experts_per_tok=1, moe_intermediate_size=48, gated=gated
    )
    on, step = shard(tp=tp), Step((decode(7, 100),))
    plain = [o.cost() for o in dense.operators(on, step) if isinstance(o, Gemm)]
    found = work(moe, on, 7)
    same = [found[name].cost() for name in ("experts_up", "experts_down")]
    for one, other in zip(plain, same, strict=True):
        assert other.flop == pytest.approx(one.flop)
        assert other.weights == pytest.approx(one.weights)
        assert other.bytes == pytest.approx(one.bytes)
    assert moe.parameters(HIDDEN) - HIDDEN == dense.parameters(HIDDEN)  # the router
    assert moe.active_parameters(HIDDEN) == moe.parameters(HIDDEN)
    assert moe.weight_bytes(on) - 2 * HIDDEN == dense.weight_bytes(on)
    assert moe.activation_width(on) == dense.activation_width(on)
    one, other = list(moe.closing(on, 64.0)), list(dense.closing(on, 64.0))
    assert [c.cost() for c in one] == [c.cost() for c in other]


# ---- parameters ----


def test_parameters_by_hand() -> None:
    # Four experts of 3 x 16 x 24, a router of 16 x 4.
    assert SMALL.parameters(HIDDEN) == 4 * 1152 + 64
    assert SMALL.active_parameters(HIDDEN) == 2 * 1152 + 64
    shared = replace(SMALL, shared=DenseFfn(intermediate_size=8), extra_parameters=5)
    assert shared.parameters(HIDDEN) - SMALL.parameters(HIDDEN) == 3 * 16 * 8 + 5
    biased = replace(SMALL, bias=True)  # gate, up: 24 each; down: 16; router: 4
    assert biased.parameters(HIDDEN) - SMALL.parameters(HIDDEN) == 4 * (48 + 16) + 4
    # Experts of width 6, and 16 x 6 down and up.
    latent = replace(SMALL, latent_size=6)
    assert latent.parameters(HIDDEN) == 4 * 3 * 6 * 24 + 64 + 2 * 16 * 6


def test_a_layer_of_deepseek_v3() -> None:
    moe = MoeFfn(
        num_experts=256,
        num_experts_per_tok=8,
        moe_intermediate_size=2048,
        shared=DenseFfn(intermediate_size=2048),
        extra_parameters=256,  # a routing bias each
    )
    # 257 experts of 3 x 7168 x 2048, a router of 7168 x 256.
    assert moe.parameters(7168) == 257 * 44_040_192 + 7168 * 256 + 256
    assert moe.active_parameters(7168) == 9 * 44_040_192 + 7168 * 256 + 256


def test_published_totals() -> None:
    # Mixtral of Experts (2024): 47B and 13B; DeepSeek-V3 (2024): 671B and 37B.
    mixtral, deepseek = map(catalogue.load_model, ("mixtral-8x7b", "deepseek-v3"))
    assert mixtral.parameters == 46_702_792_704
    assert mixtral.active_parameters == pytest.approx(12.9e9, rel=2e-3)
    # 3 dense layers of 3 x 7168 x 18432, 58 of experts; embedding and head; norms.
    layers = 61 * (187_107_328 + 2 * 7168) + 3 * 3 * 7168 * 18_432
    layers += 58 * (257 * 44_040_192 + 7168 * 256 + 256)
    assert deepseek.parameters == layers + 2 * 129_280 * 7168 + 7168
    assert deepseek.parameters == pytest.approx(671.0e9, rel=1e-4)


# ---- operators of a rank ----


def test_operators_by_hand() -> None:
    # Ten tokens, two of four experts each: 20 rows, all in 24 columns.
    found = work(SMALL, shard(), 10)
    assert found["router"].cost().total_flop == 2 * 10 * 16 * 4
    up, down = found["experts_up"], found["experts_down"]
    assert (up.m, up.k, up.n, up.family) == (20, 16, 48, KernelFamily.MOE)
    assert (down.m, down.k, down.n) == (20, 24, 16)
    active = 2 * 1152  # of one token
    assert up.cost().total_flop + down.cost().total_flop == 2 * 10 * active
    # Two inputs and an output of 20 x 24; 20 rows of 16 summed to 10.
    assert found["expert_activation"].cost().bytes == 20 * 24 * 3 * 2
    assert found["expert_sum"].cost().bytes == (20 + 10) * 16 * 2
    assert SMALL.activation_width(shard()) == 2 * 3 * 24


@pytest.mark.parametrize(
    "split",
    [
        {"tp": 4},
        {"tp": 4, "ep": 2},
        {"tp": 4, "ep": 4},
        {"tp": 2, "dp": 2, "ep": 4},
        {"tp": 1, "dp": 4},
        {"tp": 2, "cp": 2, "ep": 2},
    ],
)
def test_ranks_share_the_work_of_all_tokens(split: dict[str, int]) -> None:
    on = shard(**split)
    groups = on.parallelism.dp
    found = work(SMALL, on, 12)
    flop = sum(found[n].cost().total_flop for n in ("experts_up", "experts_down"))
    ranks = int(on.parallelism.expert_ranks)
    assert flop * ranks == pytest.approx(groups * 12 * 2 * 2 * 1152)
    assert (SMALL.weight_bytes(on) - 2 * 64) * ranks == 4 * 1152 * 2
    # Room for gate, up and activated elements of what a rank gets in the mean.
    assert SMALL.activation_width(on) >= groups * 2 * 3 * 24 / ranks


def test_mixed_formats() -> None:
    formats = Precision(experts=Dtype.MXFP4)
    on = Shard(HIDDEN, Parallelism(), formats)
    found = work(SMALL, on, 1)
    assert found["experts_up"].cost().weights == pytest.approx(2 * 16 * 48 * 4.25 / 8)
    assert found["router"].cost().weights == 16 * 4 * 2
    assert SMALL.weight_bytes(on) == pytest.approx(4 * 1152 * 4.25 / 8 + 128)


# ---- traffic ----


def test_without_groups_of_tokens_partial_sums_are_added() -> None:
    for ep in (1, 2, 4):
        found = traffic(SMALL, shard(tp=4, ep=ep), 8)
        assert list(found) == ["moe_all_reduce"]
        assert found["moe_all_reduce"].ranks == 4
        assert found["moe_all_reduce"].payload == 1000


def test_alone_nothing_is_sent() -> None:
    found = traffic(SMALL, shard(), 8)
    assert [c.cost().link_bytes for c in found.values()] == [0]


@pytest.mark.parametrize(
    ("split", "reached", "ranks"),
    [
        # One of two choices falls on each of two ranks: 2 (1 - 1/2^2) are reached.
        ({"dp": 2, "ep": 2}, 1.5, 2),
        ({"dp": 4, "ep": 4}, 4 * (1 - (3 / 4) ** 2), 4),
        # Each expert on all ranks of a group of two.
        ({"dp": 4, "ep": 2}, 1.5 * 2, 4),
        # Every rank has a part of every expert.
        ({"dp": 4, "ep": 1}, 4, 4),
        # The ranks of a group share the sending of its tokens.
        ({"tp": 2, "dp": 2, "ep": 4}, 4 * (1 - (3 / 4) ** 2) / 2, 4),
        # Context-parallel ranks have tokens of their own too: half of them.
        ({"cp": 2, "ep": 2}, 1.5 / 2, 2),
    ],
)
def test_dispatch_and_combine_by_hand(
    split: dict[str, int], reached: float, ranks: int
) -> None:
    on = Shard(HIDDEN, Parallelism(**split), Precision.of("fp8"))
    found = traffic(SMALL, on, 12)
    # Twelve rows of 16: eight bits on the way there, sixteen back.
    for name, width in (("dispatch", 16), ("combine", 32)):
        sent = found[name]
        assert sent.kind is CollectiveKind(name)
        assert sent.payload == pytest.approx(12 * reached * width)
        assert sent.ranks == ranks
        kept = sent.cost().link_bytes / sent.payload
        assert kept == pytest.approx((ranks - 1) / ranks)


def test_tensor_parallel_ranks_gather_what_came_back() -> None:
    found = traffic(SMALL, shard(tp=2, dp=2, ep=4), 8)
    assert found["moe_all_reduce"].cost().link_bytes == 0
    assert found["moe_gather"].cost().link_bytes == 500
    assert "shared_reduce_scatter" not in found
    # A shared expert that the two ranks split adds as much before.
    shared = replace(SMALL, shared=DenseFfn(intermediate_size=8))
    found = traffic(shared, shard(tp=2, dp=2, ep=4), 8)
    assert found["shared_reduce_scatter"].cost().link_bytes == 500


@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_arrays_of_groups_send_what_each_does(sequence_parallel: bool) -> None:
    splits = [(1, 1, 1), (2, 1, 2), (2, 2, 4), (1, 4, 1), (4, 2, 8), (1, 1, 1)]
    shared = replace(SMALL, shared=DenseFfn(intermediate_size=8))

    def link_bytes(tp: object, dp: object, ep: object) -> object:
        on = shard(tp=tp, dp=dp, ep=ep, sequence_parallel=sequence_parallel)
        return sum(c.cost().link_bytes for c in traffic(shared, on, 8).values())

    found = link_bytes(*np.array(splits, dtype=float).T)
    assert found == pytest.approx([link_bytes(*split) for split in splits])


# ---- splits that cannot be ----


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"tp": 4, "ep": 3}, "ep 3 does not divide the 4 ranks"),
        ({"tp": 8, "ep": 8}, "ep 8 exceeds num_experts 4"),
        ({"tp": 16}, "16 ranks per expert .* moe_intermediate_size 24"),
        ({"dp": 16, "ep": 1}, "16 ranks per expert"),
    ],
)
def test_splits_that_cannot_be(split: dict[str, int], said: str) -> None:
    assert re.search(said, SMALL.rule_broken_by(Parallelism(**split)) or "")


def test_splits_that_can() -> None:
    for split in (
        {"tp": 8},
        {"tp": 8, "ep": 4},
        {"dp": 8, "ep": 4},
        {"cp": 2, "ep": 2},
    ):
        assert SMALL.rule_broken_by(Parallelism(**split)) is None
