"""Tables equal the model called one by one; selection keeps what matters."""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from model_ops.errors import ProblemError
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Engine
from model_ops.serving.queueing import Laws, latencies
from model_ops.serving.saturation import saturation_rate
from model_ops.serving.step import Replica
from problems import catalogue
from problems.offers import offers
from problems.problem import SizingProblem
from problems.traffic import LatencyTarget
from solver.candidates import Candidate, undominated
from solver.layouts import LARGEST_REPLICA, large_layouts
from solver.race import POOLS
from solver.selection import select
from solver.settings import LARGEST_BATCH
from solver.solve import Workspace
from solver.table import LOADS, MOST_LOAD, MOST_LOAD_OF_USERS, Table
from solver.tabulation import splits, tabulate

Small = Callable[..., SizingProblem]


@pytest.fixture(scope="module")
def problem(small: Small) -> SizingProblem:
    """Two classes and two formats on three NPUs, one of them a whole node."""
    return small(
        model="llama-3.1-70b",
        precisions=["bf16", "fp8"],
        traffic=[
            {
                "name": "chat",
                "input_tokens": 1000,
                "output_tokens": 200,
                "rate": 10.0,
                "targets": [
                    {"metric": "tpot", "at_most": 0.04},
                    {"metric": "ttft", "at_most": 1.0},
                ],
            },
            {
                "name": "users",
                "input_tokens": 3000,
                "output_tokens": 100,
                "concurrency": 40,
                "targets": [{"metric": "e2e", "at_most": 10.0}],
            },
        ],
        hardware={"npus": ["h100-sxm", "l40s", "mi300x"]},
        prices={
            "given": [
                {"npu": "h100-sxm", "usd_per_hour": 20.0, "npus": 8},
                {"npu": "l40s", "usd_per_hour": 0.9},
                {"npu": "mi300x", "usd_per_hour": 2.0, "npus": 1},
            ]
        },
    )


@pytest.fixture(scope="module")
def tables(problem: SizingProblem) -> list[Table]:
    return tabulate(problem, offers(problem))


def test_table_per_class_and_format(tables: list[Table]) -> None:
    axes = [(table.traffic.name, table.precision.name) for table in tables]
    assert axes == [
        ("chat", "bf16"),
        ("users", "bf16"),
        ("chat", "fp8"),
        ("users", "fp8"),
    ]
    for table in tables:
        assert table.options == len(table.npu_of) == len(table.split_of) > 0
        shape = (table.options, len(LOADS))
        assert table.rates.shape == shape
        assert table.figure("ttft", "p99").shape == shape
        assert table.engines.curve.base.shape[0] == table.options


def mixed_formats(small: Small, *formats: str) -> SizingProblem:
    """Return a problem on an NPU with FP32 arithmetic and on one without."""
    given = [
        {"npu": "h100-sxm", "usd_per_hour": 2.5},
        {"npu": "gaudi2", "usd_per_hour": 0.01},
    ]
    return small(
        precisions=list(formats),
        hardware={"npus": ["h100-sxm", "gaudi2"]},
        prices={"given": given},
        traffic=[{"input_tokens": 500, "output_tokens": 200, "rate": 5.0}],
    )


def test_tables_hold_the_npus_that_compute_the_format(small: Small) -> None:
    problem = mixed_formats(small, "bf16", "fp32")
    found = tabulate(problem, offers(problem))
    held = [(t.precision.name, sorted(npu.name for npu in t.npus)) for t in found]
    assert held == [("bf16", ["gaudi2", "h100-sxm"]), ("fp32", ["h100-sxm"])]
    for candidate in select(found, offers(problem), problem):
        npu = offers(problem)[candidate.offer].npu
        assert npu.computes(candidate.precision)


def test_an_npu_without_the_format_is_passed_over(small: Small) -> None:
    problem = mixed_formats(small, "fp32")
    plan = Workspace.of(problem).solve().plan
    assert {d.npu for d in plan.deployments} == {"h100-sxm"}
    assert {d.precision for d in plan.deployments} == {"fp32"}


def test_a_format_that_no_npu_computes_is_named(small: Small) -> None:
    problem = mixed_formats(small, "fp32")
    only = problem.hardware.model_copy(update={"npus": ("gaudi2",)})
    with pytest.raises(ProblemError, match=r"precisions: .* fp32"):
        Workspace.of(problem.model_copy(update={"hardware": only}))


def engine_alone(problem: SizingProblem, table: Table, option: int) -> Engine:
    """Return the engine of one option, from the model alone."""
    arch = catalogue.load_model(problem.model)
    replica = Replica(
        arch,
        table.split(option),
        table.precision,
        Supply.of(table.npu(option)),
        **problem.optimisations.features(arch, table.precision),
    )
    return engine_of(
        replica,
        table.traffic.profile,
        chunk_tokens=problem.chunk_tokens,
        max_sequences=LARGEST_BATCH,
        beams=table.traffic.beams,
    )


METRICS = ("ttft", "tpot", "e2e")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def check_option(problem: SizingProblem, table: Table, option: int) -> None:
    """Compare an option of a table with the model called for it alone."""
    alone, profile = engine_alone(problem, table, option), table.traffic.profile
    row = table.engines.some(np.array([option]))
    for name in (
        "chunk_tokens",
        "max_sequences",
        "cache_tokens",
        "request_overhead",
        "tokens_per_step",
    ):
        expected = pytest.approx(float(getattr(alone, name)), rel=1e-9)
        assert float(getattr(row, name)[0]) == expected, name
    # The grid of a table reaches as far as its deepest pipeline's steps.
    nodes = alone.curve.base.shape[-1]
    assert row.curve.base[0, :nodes] == pytest.approx(alone.curve.base, rel=1e-9)
    most = float(saturation_rate(alone, profile))
    assert table.saturation[option] == pytest.approx(most, rel=1e-6)
    groups = float(table.split(option).dp)
    variation = table.traffic.arrival_variation / groups
    if table.traffic.is_closed:
        variation = 1.0
    for load in (0, 8, 20):
        rate = table.rates[option, load]
        assert rate == pytest.approx(LOADS[load] * most, rel=1e-6)
        found = latencies(alone, profile, rate, arrival_variation=variation)
        for metric in METRICS:
            for statistic in STATISTICS:
                expected = float(getattr(getattr(found, metric), statistic))
                figure = table.figure(metric, statistic)[option, load]
                assert figure == pytest.approx(expected, rel=1e-4), (metric, load)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_table_equals_the_model_of_an_option(
    problem: SizingProblem, tables: list[Table], seed: int
) -> None:
    draw = random.Random(seed)
    table = draw.choice(tables)
    check_option(problem, table, draw.randrange(table.options))


@pytest.mark.slow
def test_options_are_those_that_fit_and_may_stand_somewhere(
    problem: SizingProblem, tables: list[Table]
) -> None:
    arch = catalogue.load_model(problem.model)
    for table in tables:
        kept = {(table.npu(i).name, table.split(i)) for i in range(table.options)}
        for npu in table.npus:
            for split in table.splits:
                stands = any(
                    o.npu.name == npu.name and o.admits(split) for o in offers(problem)
                )
                engine = engine_of(
                    Replica(arch, split, table.precision, Supply.of(npu)),
                    table.traffic.profile,
                    chunk_tokens=problem.chunk_tokens,
                    max_sequences=LARGEST_BATCH,
                )
                fits = engine.cache_tokens > table.traffic.profile.longest
                assert ((npu.name, split) in kept) == bool(stands and fits)
        assert len(kept) == table.options


def test_splits_are_all_that_model_and_offers_allow(problem: SizingProblem) -> None:
    arch = catalogue.load_model(problem.model)
    found = splits(arch, offers(problem))
    assert len(found) == len(set(found))
    assert {1, 2, 4, 8} <= {split.tp for split in found}
    for split in found:
        tp, pp = split.tp, split.pp
        assert split == Parallelism(tp, pp), "a dense model has nothing else to split"
        assert tp * pp <= LARGEST_REPLICA
        assert arch.rule_broken_by(split) is None
        assert tp * pp <= 8 or tp * pp % 8 == 0
        assert tp <= 8, "no fast fabric here spans more"
    assert Parallelism(8, 2) in found, "stages may cross it"
    alone = Parallelism(16, 1)
    assert arch.rule_broken_by(alone) is None, "and only the fabric forbids this"


def test_experts_are_split_or_dealt_and_mixers_over_all_ranks_or_groups(
    small: Small,
) -> None:
    problem = small(model="mixtral-8x7b", hardware={"npus": ["h100-sxm"]})
    arch = catalogue.load_model(problem.model)
    found = splits(arch, offers(problem))
    assert len(found) == len(set(found))
    # On one node of eight, unpipelined: 8 experts, 8 KV heads.
    assert {split for split in found if split.npus == 8 and split.pp == 1} == {
        Parallelism(8),
        Parallelism(8, ep=8),
        Parallelism(4, ep=8, dp=2),
        Parallelism(2, ep=8, dp=4),
        Parallelism(1, ep=8, dp=8),
    }
    for split in found:
        assert arch.rule_broken_by(split) is None
        assert any(offer.admits(split) for offer in offers(problem))
        assert split.npus <= LARGEST_REPLICA


def test_larger_replicas_are_tried_where_a_model_is_large_for_the_memory() -> None:
    # 8.0 G parameters in 16 bits: 64 NPUs of 1 GB hold them, of 0.2 GB 81 do; four
    # times as many are 321.
    arch = catalogue.load_model("llama-3.1-8b")
    assert large_layouts(arch, 1e9) == []
    found = large_layouts(arch, 0.2e9)
    assert {int(split.npus) for split in found} == {128, 256, 512}
    assert Parallelism(8, 32) in found
    assert len(found) == len(set(found))


GUESSES = {"drafter": "ngram", "guessed": 3, "acceptance": 0.6}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimisations": {"speculation": GUESSES, "lora": {"rank": 16}}},
        {"optimisations": {"experts": {"alpha": 0.8, "redundant": 2}}},
        {"optimisations": {"offload": {"weights": 0.5, "cache": 0.25}}},
        {"hit": 0.5, "beams": 2, "burstiness": 3.0},
    ],
    ids=["plain", "guesses", "popular", "offload", "beams"],
)
def test_table_of_groups_and_optimisations_equals_the_model_of_an_option(
    small: Small, changes: dict[str, Any]
) -> None:
    traffic = {"input_tokens": 1000, "output_tokens": 200, "rate": 10.0}
    traffic |= {"prefix_hit": changes.get("hit", 0.0), "beams": changes.get("beams", 1)}
    traffic |= {"burstiness": changes.get("burstiness", 1.0)}
    problem = small(
        model="mixtral-8x7b",
        precisions=["bf16"],
        traffic=[traffic],
        hardware={"npus": ["h100-sxm"]},
        optimisations=changes.get("optimisations", {}),
    )
    (table,) = tabulate(problem, offers(problem))
    draw = random.Random(0)
    for option in draw.sample(range(table.options), 8):
        check_option(problem, table, option)
    assert max(table.groups) == 64


def test_tensor_parallel_follows_each_npus_fast_fabric(small: Small) -> None:
    problem = small(
        model="llama-3.1-70b",
        hardware={"npus": ["gb200-nvl72", "h100-sxm"]},
        prices={
            "given": [
                {"npu": "gb200-nvl72", "usd_per_hour": 10.0, "npus": 4},
                {"npu": "h100-sxm", "usd_per_hour": 20.0, "npus": 8},
            ]
        },
    )
    available = offers(problem)
    assert Parallelism(16) in splits(catalogue.load_model(problem.model), available)
    for table in tabulate(problem, available):
        widest = {npu.name: 0 for npu in table.npus}
        for option in range(table.options):
            name = table.npu(option).name
            widest[name] = max(widest[name], int(table.split(option).tp))
        assert widest == {"gb200-nvl72": 64, "h100-sxm": 8}
    for candidate in select(tabulate(problem, available), available, problem):
        offer = available[candidate.offer]
        assert candidate.split.tp <= offer.npu.scale_up_npus
        assert offer.admits(candidate.split)


def test_a_part_of_a_node_allows_no_split(small: Small) -> None:
    alone = {"npu": "h100-sxm", "usd_per_hour": 2.5, "npus": 1, "whole_instance": True}
    problem = small(hardware={"npus": ["h100-sxm"]}, prices={"given": [alone]})
    arch = catalogue.load_model(problem.model)
    assert splits(arch, offers(problem)) == [Parallelism()]


# Rates


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("statistic", ["mean", "p90", "p99"])
def test_latencies_rise_with_the_load(
    tables: list[Table], metric: Any, statistic: Any
) -> None:
    for table in tables:
        seconds = table.figure(metric, statistic)
        stable = np.isfinite(seconds)
        assert (stable[:, 1:] <= stable[:, :-1]).all(), "once unstable, always"
        both = stable[:, 1:]
        rises = seconds[:, 1:][both] / seconds[:, :-1][both]
        # The closed form's percentiles are not smooth to the last per cent.
        assert (rises > (0.999 if statistic == "mean" else 0.975)).all()


TARGETS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "ttft": (("ttft", "mean", 1.0),),
    "tpot": (("tpot", "mean", 0.04),),
    "e2e": (("e2e", "mean", 8.0),),
    "median": (("tpot", "p50", 0.04),),
    "p90": (("e2e", "p90", 9.0),),
    "p95": (("tpot", "p95", 0.05),),
    "p99": (("ttft", "p99", 0.8),),
    "several": (("ttft", "p99", 1.5), ("tpot", "p95", 0.05), ("e2e", "mean", 8.0)),
    "loose": (("ttft", "mean", 3000.0),),
    "none": (),
}


def targets_of(name: str) -> tuple[LatencyTarget, ...]:
    return tuple(
        LatencyTarget(metric=m, statistic=s, at_most=most)
        for m, s, most in TARGETS[name]
    )


def missed(
    engine: Engine,
    table: Table,
    targets: Any,
    rate: float,
    variation: float,
    tolerance: float = 2e-3,
) -> bool:
    """Return whether a target is missed at a rate of a group, or the queue unstable."""
    laws = Laws.of(engine, table.traffic.profile, rate, variation)
    over = [
        float(np.ravel(laws.excess(t.metric, t.statistic, np.array([[t.at_most]])))[0])
        for t in targets
    ]
    return not np.all(laws.stable) or max(over, default=-1.0) > tolerance


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_highest_rate_holds_its_targets_and_a_little_more_does_not(
    problem: SizingProblem, tables: list[Table], name: str
) -> None:
    targets, draw, binding = targets_of(name), random.Random(name), 0
    for table in tables:
        which = np.array(draw.sample(range(table.options), min(8, table.options)))
        for pool in (1, 4):
            rates = table.highest_rate(targets, which, pool)
            for option, rate in zip(which, rates, strict=True):
                engine = engine_alone(problem, table, int(option))
                variation = 1.0 if table.traffic.is_closed else 1.0 / pool
                asked = engine, table, targets
                share = MOST_LOAD_OF_USERS if table.traffic.is_closed else MOST_LOAD
                cap = share * table.saturation[option]
                if rate == 0:
                    assert missed(*asked, 0.002 * cap, variation)
                    continue
                assert not missed(*asked, rate, variation)
                if rate < cap * (1 - 1e-9):
                    more = rate + max(0.02 * rate, 0.002 * cap)
                    assert missed(*asked, more, variation, tolerance=0.0)
                    binding += 1
                else:
                    assert rate == pytest.approx(cap)
    assert (binding > 0) == (name not in ("none", "loose"))


@pytest.mark.parametrize("name", TARGETS)
def test_tabulated_rates_are_close_and_hardly_above_the_highest(
    tables: list[Table], name: str
) -> None:
    targets = targets_of(name)
    for table in tables:
        quick = table.tabulated_rate(targets)
        exact = table.highest_rate(targets, np.arange(table.options))
        # The highest rate itself is known to 0.2 % of saturation.
        known = exact + 0.002 * table.saturation
        assert (quick <= 1.07 * known).all()
        assert np.mean(quick > 1.03 * known) < 0.02
        loaded = exact > 0.04 * table.saturation
        assert (quick[loaded] >= 0.9 * exact[loaded]).all()
        assert np.median(quick[loaded] / exact[loaded]) > 0.99


# Selection


def pooled(table: Table, problem: SizingProblem) -> Iterator[tuple[int, float, int]]:
    """Yield (option, rate of a group, pool) for the pools that a class has use for."""
    number = [t.name for t in problem.traffic].index(table.traffic.name)
    traffic = problem.traffic[number]
    wanted = traffic.demand(problem.headroom)
    every = np.arange(table.options)
    alone = table.highest_rate(traffic.targets, every)
    with np.errstate(divide="ignore"):
        most = np.ceil(wanted / (alone * table.groups))
    largest = table.highest_rate(traffic.targets, every, np.minimum(most, 1e6))
    rates = {p: table.highest_rate(traffic.targets, every, p) for p in POOLS}
    for option in every[alone > 0]:
        if traffic.is_closed:
            yield option, alone[option], 1
            continue
        for pool in (p for p in POOLS if p <= most[option]):
            larger = [r[option] for p, r in rates.items() if pool <= p <= most[option]]
            yield option, min(*larger, largest[option]), pool


def reference(
    table: Table, problem: SizingProblem, number: int
) -> Iterator[tuple[int, float, int]]:
    """Yield (NPUs, capacity, pool) of each split on an offer, one by one."""
    offer = offers(problem)[number]
    for option, rate, pool in pooled(table, problem):
        split = table.split(option)
        if offer.npu.name != table.npu(option).name or not offer.admits(split):
            continue
        capacity = rate * table.groups[option]
        if table.traffic.is_closed:  # Little's law
            engine = engine_alone(problem, table, option)
            found = latencies(engine, table.traffic.profile, rate)
            capacity *= float(found.e2e.mean)
        yield int(split.npus), float(capacity), pool


def beats(one: tuple[int, float, int], other: tuple[int, float, int]) -> bool:
    """Return whether (NPUs, capacity, pool) is as good in all."""
    return one[0] <= other[0] and one[1] >= other[1] and one[2] <= other[2]


def near(point: tuple[int, float, int]) -> tuple[int, float, int]:
    """Return a point with a capacity a rounding higher."""
    return point[0], point[1] * (1 + 1e-3), point[2]


@pytest.mark.slow
def test_select_keeps_the_frontier_of_the_highest_rates(
    problem: SizingProblem, tables: list[Table]
) -> None:
    found = select(tables, offers(problem), problem)
    assert {candidate.least for candidate in found} > {1}
    for traffic, each in enumerate(problem.traffic):
        for number, offer in enumerate(offers(problem)):
            points = {
                point
                for table in tables
                if table.traffic.name == each.name
                for point in reference(table, problem, number)
            }
            kept = [c for c in found if (c.traffic, c.offer) == (traffic, number)]
            sizes = [(c.npus, c.capacity, c.least) for c in kept]
            assert all(any(beats(near(k), p) for k in sizes) for p in points)
            assert all(any(beats(near(p), k) for p in points) for k in sizes)
            assert not any(beats(k, p) for k in sizes for p in sizes if k is not p)
            assert all(c.slot == offer.slot(c.npus) for c in kept)


def table_of(
    tables: list[Table], problem: SizingProblem, candidate: Candidate
) -> Table:
    name = problem.traffic[candidate.traffic].name
    (table,) = [
        t
        for t in tables
        if t.traffic.name == name and t.precision == candidate.precision
    ]
    return table


def option_of(table: Table, problem: SizingProblem, candidate: Candidate) -> int:
    name = offers(problem)[candidate.offer].npu.name
    (option,) = [
        i
        for i in range(table.options)
        if table.npu(i).name == name and table.split(i) == candidate.split
    ]
    return option


BOTH = (
    LatencyTarget(metric="ttft", statistic="p99", at_most=1.0),
    LatencyTarget(metric="tpot", statistic="p50", at_most=0.04),
)


@pytest.mark.parametrize("targets", [None, BOTH], ids=["means", "median-and-tail"])
def test_a_candidates_rate_holds_in_its_pool_and_in_all_larger_ones(
    problem: SizingProblem, tables: list[Table], targets: Any
) -> None:
    chat, users = problem.traffic
    chat = chat.model_copy(update={"targets": targets or chat.targets})
    asked = problem.model_copy(update={"traffic": (chat, users)})
    for candidate in select(tables, offers(problem), asked):
        traffic = asked.traffic[candidate.traffic]
        table = table_of(tables, problem, candidate)
        option = option_of(table, problem, candidate)
        engine = engine_alone(problem, table, option)
        groups = table.groups[option]
        rate = candidate.rate / groups
        for behind in (candidate.least, candidate.least + 1, 3 * candidate.least, 200):
            variation = 1.0 if traffic.is_closed else 1.0 / (behind * groups)
            wanted = traffic.demand(asked.headroom)
            if behind <= max(candidate.least, np.ceil(wanted / candidate.capacity)):
                assert not missed(engine, table, traffic.targets, rate, variation)
        laws = Laws.of(engine, traffic.profile, rate)
        if traffic.is_closed:
            in_flight = candidate.rate * float(laws.figure("e2e", "mean")[0])
            assert candidate.capacity == pytest.approx(in_flight, rel=1e-6)
            assert candidate.least == 1
        else:
            assert candidate.capacity == candidate.rate


def test_what_ifs_are_judged_close_to_exactly(
    problem: SizingProblem, tables: list[Table]
) -> None:
    available = offers(problem)
    quick = select(tables, available, problem, exact=False)
    assert {candidate.least for candidate in quick} == {1}
    for traffic in range(len(problem.traffic)):
        for number in range(len(available)):
            most = [
                max(
                    (
                        candidate.capacity / candidate.npus
                        for candidate in group
                        if (candidate.traffic, candidate.offer) == (traffic, number)
                        and candidate.least == 1
                    ),
                    default=0.0,
                )
                for group in (quick, select(tables, available, problem))
            ]
            assert most[0] == pytest.approx(most[1], rel=0.03)


def test_tighter_targets_select_from_the_same_tables(
    problem: SizingProblem, tables: list[Table]
) -> None:
    chat, users = problem.traffic
    strict = chat.targets[0].model_copy(update={"at_most": 1e-6})
    hopeless = chat.model_copy(update={"targets": (strict,)})
    changed = problem.model_copy(update={"traffic": (hopeless, users)})
    found = select(tables, offers(problem), changed)
    assert {candidate.traffic for candidate in found} == {1}


def made(toys: Any, sizes: list[tuple[int, float, int]]) -> list[Candidate]:
    replicas = [(0, 0, *size) for size in sizes]
    return list(toys.instance([toys.offer()], replicas, (1.0,)).candidates)


def matches(one: Candidate, other: Candidate) -> bool:
    """Return whether one is as good as another in all that counts."""
    return (
        one.npus <= other.npus
        and one.capacity >= other.capacity
        and one.least <= other.least
    )


@pytest.mark.parametrize("seed", range(20))
def test_undominated_is_the_frontier(toys: Any, seed: int) -> None:
    draw = random.Random(seed)
    sizes = [
        (draw.choice([1, 2, 4, 8]), float(draw.randint(1, 9)), draw.choice([1, 2, 4]))
        for _ in range(12)
    ]
    group = made(toys, sizes)
    kept = undominated(group)
    for candidate in group:  # each is matched by one that is kept
        assert any(matches(k, candidate) for k in kept)
    for one in kept:  # and none that is kept is matched by another
        assert [k for k in kept if matches(k, one) and k is not one] == []


@pytest.mark.parametrize(
    "worse",
    [(2, 5.0, 2), (1, 4.0, 2), (1, 5.0, 3), (2, 4.0, 4)],
    ids=["npus", "capacity", "pool", "all"],
)
def test_dominated_by_npus_capacity_or_pool(
    toys: Any, worse: tuple[int, float, int]
) -> None:
    best, other = made(toys, [(1, 5.0, 2), worse])
    assert undominated([other, best]) == [best]


def test_larger_ones_stay_where_replicas_may_be_spare(toys: Any) -> None:
    small, slower, larger = made(toys, [(2, 5.0, 1), (2, 4.0, 1), (3, 5.0, 1)])
    assert undominated([larger, slower, small]) == [small]
    assert undominated([larger, slower, small], spare=True) == [small, larger]


def test_what_is_better_in_one_thing_stays(toys: Any) -> None:
    group = made(toys, [(1, 5.0, 2), (1, 4.9, 1), (2, 5.1, 2), (1, 5.1, 3)])
    assert len(undominated(group)) == 4


# Pools


def tail(small: Small, rate: float, **changes: Any) -> SizingProblem:
    """Return a problem whose tail of waits a pool shortens."""
    target = {"metric": "ttft", "statistic": "p99", "at_most": 0.12}
    traffic = {"input_tokens": 1000, "output_tokens": 200, "rate": rate}
    traffic |= {"targets": [target]} | changes
    return small(
        hardware={"npus": ["h100-sxm"]},
        prices={"given": [{"npu": "h100-sxm", "usd_per_hour": 2.5}]},
        traffic=[{k: v for k, v in traffic.items() if v is not None}],
    )


def rates_by_pool(problem: SizingProblem) -> dict[int, float]:
    """Return the rate of one NPU alone, by the pool that it needs."""
    workspace = Workspace.of(problem)
    return {
        candidate.least: candidate.rate
        for candidate in workspace.instance(problem).candidates
        if candidate.npus == 1
    }


def test_more_replicas_share_chance_and_each_takes_more(small: Small) -> None:
    rates = rates_by_pool(tail(small, 1000.0))
    assert set(rates) == set(POOLS)
    ordered = [rates[pool] for pool in POOLS]
    assert all(a < b for a, b in pairwise(ordered))
    assert ordered[-1] > 1.05 * ordered[0]


def test_no_pool_is_larger_than_what_a_class_can_use(small: Small) -> None:
    alone = rates_by_pool(tail(small, 1.0))
    assert set(alone) == {1}
    few = rates_by_pool(tail(small, 3.5 * alone[1]))
    assert set(few) == {1, 2, 4}


def test_users_need_no_pool(small: Small) -> None:
    assert set(rates_by_pool(tail(small, None, concurrency=5000))) == {1}


def test_bursts_cost_rate_and_pools_give_it_back(small: Small) -> None:
    calm, wild = (
        rates_by_pool(tail(small, 1000.0, burstiness=burstiness))
        for burstiness in (1.0, 2.0)
    )
    # Gaps of four times the squared variation, dealt to four replicas each.
    assert wild[4] == pytest.approx(calm[1], rel=1e-6)
    assert wild[32] == pytest.approx(calm[8], rel=1e-6)
    # One replica would miss the target at any rate, and so would two.
    assert set(wild) == {4, 8, 16, 32}


def test_bursts_that_need_a_pool_have_a_plan(small: Small) -> None:
    whole = {"npu": "h100-sxm", "usd_per_hour": 2.5, "npus": 1, "whole_instance": True}
    problem = tail(small, 1.0, burstiness=2.0)
    # Instances of one NPU host no split.
    prices = problem.prices.model_validate({"given": [whole]})
    problem = problem.model_copy(update={"prices": prices})
    (deployment,) = Workspace.of(problem).solve().plan.deployments
    assert deployment.replicas == 4
