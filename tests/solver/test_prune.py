"""Pruning leaves out candidates, never the optimum."""

import random
from typing import Any

import pytest

from model_ops.profiler.parallelism import Parallelism
from solver.instance import Instance
from solver.model import choose
from solver.prune import known_plan, pruned


def random_instance(toys: Any, seed: int, objective: str) -> Instance:
    draw = random.Random(seed)
    classes = draw.choice([1, 1, 2])
    offers = []
    for number in range(draw.randint(1, 4)):
        npus, whole = draw.choice([(1, False), (8, True), (4, True), (1, True)])
        offers.append(
            toys.offer(
                round(npus * draw.uniform(0.5, 5.0), 2),
                npus,
                whole=whole,
                name=f"npu{number}",
                watts=float(draw.randint(300, 1500)),
            )
        )
    made = []
    for number, offer in enumerate(offers):
        for npus in (1, 2, 3, 4, 8, 16):
            if not offer.admits(Parallelism(1, npus)):
                continue
            for traffic in range(classes):
                if draw.random() < 0.8:
                    capacity = round(npus * draw.uniform(0.5, 3.0), 4)
                    pool = draw.choice([1, 1, 2, 4, 8])
                    made.append((traffic, number, npus, capacity, pool))
    for traffic in range(classes):  # no class is left without
        made.append((traffic, 0, 1, round(draw.uniform(0.5, 3.0), 4)))
    demand = [round(draw.uniform(0.2, 60.0), 4) for _ in range(classes)]
    return toys.instance(offers, made, demand, objective)


@pytest.mark.parametrize("objective", ["cost", "npus", "power"])
@pytest.mark.parametrize("seed", range(12))
def test_optimum_stays(toys: Any, seed: int, objective: str) -> None:
    full = random_instance(toys, seed, objective)
    few = pruned(full)
    whole, part = choose(full, toys.options), choose(few, toys.options)
    assert whole.status == part.status == "optimal"
    assert toys.value(few, part) == pytest.approx(toys.value(full, whole), rel=1e-9)


def test_something_is_pruned(toys: Any) -> None:
    instances = [random_instance(toys, seed, "cost") for seed in range(12)]
    before = sum(len(instance.candidates) for instance in instances)
    after = sum(len(pruned(instance).candidates) for instance in instances)
    assert after < 0.8 * before


def test_a_candidate_that_costs_too_much_is_pruned_with_its_offer(toys: Any) -> None:
    offers = [toys.offer(10.0, name="dear"), toys.offer(1.0, name="cheap")]
    made = [(0, 0, 1, 1.0), (0, 1, 1, 1.0)]
    few = pruned(toys.instance(offers, made, demand=(5.0,)))
    assert [offer.npu.name for offer in few.offers] == ["cheap"]
    assert [candidate.offer for candidate in few.candidates] == [0]


def test_a_dearer_filler_is_kept(toys: Any) -> None:
    # Four NPUs cover 10 for 8 USD/h; for the last 1, one dearer NPU is cheaper.
    offers = [toys.offer(2.0, name="cheap"), toys.offer(2.5, name="small")]
    made = [(0, 0, 4, 10.0), (0, 1, 1, 1.0)]
    few = pruned(toys.instance(offers, made, demand=(11.0,)))
    choice = choose(few, toys.options)
    assert toys.value(few, choice) == pytest.approx(8.0 + 2.5)


@pytest.mark.parametrize(
    "limits", [{"npus": 100}, {"usd_per_hour": 1e6}, {"npus_per_type": {"toy": 0}}]
)
def test_nothing_is_pruned_under_limits(toys: Any, limits: dict[str, Any]) -> None:
    offers = [toys.offer(10.0, name="dear"), toys.offer(1.0, name="cheap")]
    made = [(0, 0, 1, 1.0), (0, 1, 1, 1.0)]
    instance = toys.instance(offers, made, demand=(5.0,), **limits)
    assert pruned(instance) == instance


def test_capacities_that_do_not_round_keep_the_optimum(toys: Any) -> None:
    # Three thirds make one in floats, and less in integers rounded down: then the
    # known plan that prunes must not be one that the solver may not choose.
    offers = [toys.offer(1.0, name="third"), toys.offer(3.5, name="one")]
    made = [(0, 0, 1, 1 / 3), (0, 1, 1, 1.0)]
    full = toys.instance(offers, made, demand=(1.0,))
    few = pruned(full)
    whole, part = choose(full, toys.options), choose(few, toys.options)
    assert toys.value(few, part) <= toys.value(full, whole) * (1 + 1e-9)


def test_a_pool_counts_whole_where_its_candidate_is_judged(toys: Any) -> None:
    # Each NPU of the pool is the cheapest, but sixteen of them are not.
    offers = [toys.offer(1.0, name="pooled"), toys.offer(1.5, name="single")]
    made = [(0, 0, 1, 1.0, 16), (0, 1, 1, 1.0)]
    few = pruned(toys.instance(offers, made, demand=(4.0,)))
    assert [offer.npu.name for offer in few.offers] == ["single"]
    # Where the demand takes the pool, it is kept, and it is what others must beat.
    few = pruned(toys.instance(offers, made, demand=(15.9,)))
    assert [offer.npu.name for offer in few.offers] == ["pooled"]
    between = toys.instance(offers, made, demand=(14.0,))
    assert len(pruned(between).candidates) == 2
    assert toys.value(between, choose(between, toys.options)) == pytest.approx(16.0)


def test_the_known_plan_buys_whole_pools(toys: Any) -> None:
    offers = [toys.offer(1.0, name="pooled"), toys.offer(5.0, name="single")]
    made = [(0, 0, 1, 1.0, 6), (0, 1, 1, 1.0)]
    instance = toys.instance(offers, made, demand=(2.0,))
    assert known_plan(instance) == (6, 0)
    more = toys.instance(offers, made, demand=(6.5,))
    assert known_plan(more) == (7, 0)
