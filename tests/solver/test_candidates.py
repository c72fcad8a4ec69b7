"""Tables equal the model called point by point; selection keeps what matters."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model_ops.errors import ProblemError
from model_ops.platform.supply import Supply
from model_ops.profiler.memory import Held, footprint
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.speculative import Schedule
from model_ops.serving.steady_state import (
    batch_cap,
    mean_batch,
    saturating_batch,
    steady_state,
)
from model_ops.serving.step import Replica
from problems import catalogue
from problems.offers import offers
from problems.problem import SizingProblem
from solver.candidates import (
    LARGEST_BATCH,
    LARGEST_REPLICA,
    PROMPT_LOADS,
    Candidate,
    Table,
    batch_grid,
    select,
    splits,
    tabulate,
    undominated,
)
from solver.solve import Workspace

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
        shape = (len(table.npus), *table.batches.shape)
        assert len(table.batches) == len(table.splits)
        assert table.points == np.prod(shape)
        measured = (table.ttft, table.tpot, table.rate, table.in_flight)
        for array in (*measured, table.free_memory):
            assert array.shape == shape


def test_capacity_is_the_rate_or_the_requests_in_flight(tables: list[Table]) -> None:
    for table in tables:
        waiting = table.rate * table.ttft
        in_flight = table.batches[None] + waiting
        finite = np.isfinite(table.ttft)
        assert table.in_flight[finite] == pytest.approx(in_flight[finite], rel=1e-12)
        users = table.traffic.concurrency is not None
        assert table.capacity is (table.in_flight if users else table.rate)
    assert {table.traffic.concurrency is None for table in tables} == {True, False}


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


@pytest.mark.parametrize("seed", range(24))
def test_table_equals_the_model_at_a_point(
    problem: SizingProblem, tables: list[Table], seed: int
) -> None:
    draw = random.Random(seed)
    table = draw.choice(tables)
    at = tuple(draw.randrange(length) for length in table.rate.shape)
    npu, parallel, batch = (
        table.npus[at[0]],
        table.splits[at[1]],
        float(table.batches[at[1], at[2]]),
    )
    arch = catalogue.load_model(problem.model)
    replica = Replica(arch, parallel, table.precision, Supply.of(npu))
    state = steady_state(replica, table.traffic.shape, batch, problem.chunk_tokens)
    needed = footprint(
        (Held(arch, arch.shard(parallel, table.precision)),),
        table.traffic.shape,
        batch=math.ceil(batch + 2 * math.sqrt(batch) - 1e-9),
        step_tokens=problem.chunk_tokens,
    ).total
    assert table.ttft[at] == pytest.approx(float(state.ttft), rel=1e-9)
    assert table.tpot[at] == pytest.approx(float(state.tpot), rel=1e-9)
    assert table.rate[at] == pytest.approx(float(state.rate), rel=1e-9)
    waiting = float(state.rate) * float(state.ttft)
    assert table.in_flight[at] == pytest.approx(batch + waiting, rel=1e-9)
    free = npu.usable_memory - float(needed)
    assert table.free_memory[at] == pytest.approx(free, abs=1e-6 * npu.usable_memory)


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


GUESSES = {"drafter": "ngram", "guessed": 3, "acceptance": 0.6}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimisations": {"speculation": GUESSES, "lora": {"rank": 16}}},
        {"optimisations": {"experts": {"alpha": 0.8, "redundant": 2}}},
        {"optimisations": {"offload": {"weights": 0.5, "cache": 0.25}}},
        {"hit": 0.5, "beams": 2},
    ],
    ids=["plain", "guesses", "popular", "offload", "beams"],
)
def test_table_of_groups_and_optimisations_equals_the_model_at_a_point(
    small: Small, changes: dict[str, Any]
) -> None:
    traffic = {"input_tokens": 1000, "output_tokens": 200, "rate": 10.0}
    traffic |= {"prefix_hit": changes.get("hit", 0.0), "beams": changes.get("beams", 1)}
    problem = small(
        model="mixtral-8x7b",
        precisions=["bf16"],
        traffic=[traffic],
        hardware={"npus": ["h100-sxm"]},
        optimisations=changes.get("optimisations", {}),
    )
    (table,) = tabulate(problem, offers(problem))
    arch, (npu,) = catalogue.load_model(problem.model), table.npus
    features = problem.optimisations.features(arch, table.precision)
    draw = random.Random(0)
    for _ in range(30):
        row, column = (draw.randrange(length) for length in table.batches.shape)
        split, batch = table.splits[row], float(table.batches[row, column])
        replica = Replica(arch, split, table.precision, Supply.of(npu), **features)
        shape = problem.traffic[0].shape
        state = steady_state(replica, shape, batch, problem.chunk_tokens)
        groups = int(split.dp)
        each = batch / groups
        places = groups * math.ceil(each + 2 * math.sqrt(each) - 1e-9)
        needed = replica.footprint(shape, places, problem.chunk_tokens)
        free = [replica.room.own - needed.total]
        if needed.outer:
            free.append(replica.room.outer - needed.outer)
        at = (0, row, column)
        for name in ("ttft", "tpot", "rate", "in_flight"):
            expected = pytest.approx(float(getattr(state, name)), rel=1e-9)
            assert getattr(table, name)[at] == expected, (name, split)
        assert table.free_memory[at] == pytest.approx(float(min(free)), abs=1e5)


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
        admitted = table.admitted(available)
        for row, npu in zip(admitted, table.npus, strict=True):
            most = {"gb200-nvl72": 64, "h100-sxm": 8}[npu.name]
            allowed = [s.tp for ok, s in zip(row, table.splits, strict=True) if ok]
            assert max(allowed) == most
    for candidate in select(tabulate(problem, available), available, problem):
        offer = available[candidate.offer]
        assert candidate.split.tp <= offer.npu.scale_up_npus
        assert offer.admits(candidate.split)


def test_a_part_of_a_node_allows_no_split(small: Small) -> None:
    alone = {"npu": "h100-sxm", "usd_per_hour": 2.5, "npus": 1, "whole_instance": True}
    problem = small(hardware={"npus": ["h100-sxm"]}, prices={"given": [alone]})
    arch = catalogue.load_model(problem.model)
    assert splits(arch, offers(problem)) == [Parallelism()]


def test_batches_grow_in_small_steps(problem: SizingProblem) -> None:
    schedule = Schedule(np.array([[1.0], [2.0], [8.0]]))
    for grid in batch_grid(schedule, problem.traffic[0], problem.chunk_tokens):
        assert grid[0] == pytest.approx(0.01, rel=1e-12)
        assert grid[-1] == pytest.approx(float(mean_batch(LARGEST_BATCH)), rel=1e-12)
        assert (np.diff(grid) >= 0).all()
        step = grid[1:] / grid[:-1] - 1
        assert (step <= 0.123).all()
        assert (step[grid[:-1] > 1 - 1e-9] <= 0.0405).all()
        assert np.isclose(grid, 1.0, rtol=1e-12).any()


def test_largest_mean_batch_is_the_one_whose_bursts_the_engine_holds() -> None:
    most = float(mean_batch(LARGEST_BATCH))
    assert 961 < most < 963
    assert most + 2 * math.sqrt(most) == pytest.approx(LARGEST_BATCH, rel=1e-12)
    assert batch_cap(most) == LARGEST_BATCH


def test_batches_reach_towards_a_full_room_for_prompts(problem: SizingProblem) -> None:
    long = problem.traffic[0].model_copy(
        update={"input_tokens": 50_000, "output_tokens": 2}
    )
    (grid,) = batch_grid(Schedule(np.array([[1.0]])), long, problem.chunk_tokens)
    full = float(saturating_batch(Schedule(), long.shape, problem.chunk_tokens))
    assert full < 1
    below = grid[grid < full]
    assert below[-1] == pytest.approx(PROMPT_LOADS[-1] * full)
    for share in PROMPT_LOADS:
        assert np.isclose(below, share * full, rtol=1e-12).any()


def reference(
    table: Table, problem: SizingProblem, number: int
) -> dict[Parallelism, float]:
    """Return the best capacity of each split on an offer, point by point."""
    offer = offers(problem)[number]
    at = [npu.name for npu in table.npus].index(offer.npu.name)
    best: dict[Parallelism, float] = {}
    for number_of_split, split in enumerate(table.splits):
        for size, batch in enumerate(table.batches[number_of_split]):
            point = (at, number_of_split, size)
            ttft, tpot = table.ttft[point], table.tpot[point]
            steps = table.traffic.output_tokens - 1
            latency = {"ttft": ttft, "tpot": tpot, "e2e": ttft + steps * tpot}
            met = all(latency[t.metric] <= t.at_most for t in table.traffic.targets)
            if not met or table.free_memory[point] < 0 or ttft == np.inf:
                continue
            capacity = table.rate[point]
            if table.traffic.concurrency:
                capacity = batch + capacity * ttft
            if offer.admits(split):
                best[split] = max(best.get(split, 0.0), float(capacity))
    return best


def test_select_keeps_the_frontier_of_the_fastest_batches(
    problem: SizingProblem, tables: list[Table]
) -> None:
    found = select(tables, offers(problem), problem)
    assert found
    for traffic, each in enumerate(problem.traffic):
        for number, offer in enumerate(offers(problem)):
            points = [
                (split.tp * split.pp, float(f"{capacity:.12g}"))
                for table in tables
                if table.traffic.name == each.name
                for split, capacity in reference(table, problem, number).items()
            ]
            frontier = {
                (npus, capacity)
                for npus, capacity in points
                if not any(
                    (n < npus and c >= capacity) or (n == npus and c > capacity)
                    for n, c in points
                )
            }
            kept = [c for c in found if (c.traffic, c.offer) == (traffic, number)]
            sizes = {(c.npus, float(f"{c.capacity:.12g}")) for c in kept}
            assert sizes == frontier
            assert len(kept) == len(frontier)
            assert all(c.slot == offer.slot(c.npus) for c in kept)


def test_capacity_of_a_selected_candidate_is_its_batchs(
    problem: SizingProblem, tables: list[Table]
) -> None:
    for candidate in select(tables, offers(problem), problem):
        traffic = problem.traffic[candidate.traffic]
        (table,) = [
            t
            for t in tables
            if t.traffic.name == traffic.name and t.precision == candidate.precision
        ]
        npu = offers(problem)[candidate.offer].npu.name
        split = table.splits.index(candidate.split)
        at = (
            [n.name for n in table.npus].index(npu),
            split,
            list(table.batches[split]).index(candidate.mean_batch),
        )
        assert table.feasible(traffic.targets)[at]
        assert table.capacity[at] == candidate.capacity


def test_tighter_targets_select_from_the_same_tables(
    problem: SizingProblem, tables: list[Table]
) -> None:
    chat, users = problem.traffic
    strict = chat.targets[0].model_copy(update={"at_most": 1e-6})
    hopeless = chat.model_copy(update={"targets": (strict,)})
    changed = problem.model_copy(update={"traffic": (hopeless, users)})
    found = select(tables, offers(problem), changed)
    assert {candidate.traffic for candidate in found} == {1}


def made(toys: Any, sizes: list[tuple[int, float]]) -> list[Candidate]:
    replicas = [(0, 0, npus, capacity) for npus, capacity in sizes]
    return list(toys.instance([toys.offer()], replicas, (1.0,)).candidates)


@pytest.mark.parametrize("seed", range(20))
def test_undominated_is_the_frontier(toys: Any, seed: int) -> None:
    draw = random.Random(seed)
    sizes = [(draw.choice([1, 2, 4, 8]), float(draw.randint(1, 9))) for _ in range(8)]
    group = made(toys, sizes)
    kept = undominated(group)
    for candidate in group:  # each is matched by one that is kept
        assert any(
            k.npus <= candidate.npus and k.capacity >= candidate.capacity for k in kept
        )
    for one in kept:  # and none that is kept is matched by another
        assert [
            k
            for k in kept
            if k.npus <= one.npus and k.capacity >= one.capacity and k is not one
        ] == []
