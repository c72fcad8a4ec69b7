"""On small spaces the proved optimum is what trying everything finds."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Engine
from model_ops.serving.highest_rate import Target, highest_rate
from model_ops.serving.queueing import latencies
from model_ops.serving.saturation import saturation_rate
from model_ops.serving.step import Replica
from problems import catalogue
from problems.problem import SizingProblem
from problems.traffic import TrafficClass
from problems.verify import violations
from solver.instance import Instance
from solver.layouts import LARGEST_REPLICA, PIPELINE_STAGES
from solver.model import choose
from solver.prune import pruned
from solver.race import POOLS
from solver.settings import LARGEST_BATCH
from solver.solve import Infeasible, Optimal, Workspace
from solver.table import MOST_LOAD, MOST_LOAD_OF_USERS

OBJECTIVES = ("cost", "npus", "power")

# Synthetic instances


def stock_of(draw: random.Random, npus: int) -> int | None:
    return draw.choice([None, None, draw.randint(1, 4 if npus > 1 else 24)])


def random_instance(toys: Any, seed: int, *, fleet: bool = False) -> Instance:
    """Return two or three offers, one or two classes, two to five candidates.

    Hosts of twelve are no power of two, and replicas of three or seven leave gaps.
    Some replicas need a pool of two to four. A fleet has stocks, quotas, racks, few
    types, something today, and what may fail.
    """
    draw = random.Random(seed)
    offers = []
    for number in range(draw.randint(2, 3)):
        npus, whole = draw.choice(
            [(1, False), (8, True), (4, True), (12, True), (16, True)]
        )
        offers.append(
            toys.offer(
                npus * draw.randint(50, 400) / 100,
                npus,
                whole=whole,
                node=12 if npus == 12 else 8,
                name=f"npu{number % 2}" if npus == 8 else f"npu{number}",
                watts=float(draw.randint(200, 1500)),
                region=draw.choice(["east", "west"]),
                stock=stock_of(draw, npus) if fleet else None,
            )
        )
    classes = draw.randint(1, 2)
    made = []
    for i in range(draw.randint(max(2, classes), 3 if fleet else 5)):
        number = draw.randrange(len(offers))
        stages = [Parallelism(1, n) for n in (1, 2, 3, 4, 7, 8, 16)]
        sizes = [int(s.pp) for s in stages if offers[number].admits(s)]
        npus = draw.choice(sizes)
        capacity = npus * draw.randint(2, 12) / 4
        pool = draw.choice([1, 2, 3, 4])
        made.append((i % classes, number, npus, capacity, pool))
    demand = [
        draw.randint(1, 5 if fleet else 9)
        * draw.choice([c for t, _, _, c, _ in made if t == traffic])
        / 2
        for traffic in range(classes)
    ]
    objective, limits = draw.choice(OBJECTIVES), random_limits(draw, offers)
    if fleet:
        limits |= random_fleet(draw, offers)
        if "redundancy" in limits:
            made = [(*rest, 1) for *rest, _ in made]
    return toys.instance(offers, made, demand, objective, **limits)


def random_fleet(draw: random.Random, offers: Any) -> dict[str, Any]:
    """Return one or two requirements that fleets have."""
    name = draw.choice(offers).npu.name
    possible: list[dict[str, Any]] = [
        {"quota": [{"region": "east", "npus": draw.randint(0, 24)}]},
        {"quota": [{"npu": name, "region": "w*", "npus": draw.randint(0, 12)}]},
        {"racks": {"count": draw.randint(1, 3), "nodes": draw.randint(1, 3)}},
        {"racks": {"count": draw.randint(1, 5), "power": draw.uniform(2e3, 2e4)}},
        {"deployment_types": draw.randint(1, 2)},
        {"npu_types": 1},
        {
            "changed_npus": draw.randint(2, 12),
            "current": {name: draw.randint(0, 8), "gone": draw.randint(0, 2)},
        },
        {"redundancy": {"nodes": draw.randint(1, 2)}},
        {"redundancy": {"racks": 1}, "racks": {"nodes": 2, "count": 3}},
    ]
    return {k: v for each in draw.sample(possible, 2) for k, v in each.items()}


def random_limits(draw: random.Random, offers: Any) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if draw.random() < 0.3:
        limits["npus"] = draw.randint(4, 40)
    if draw.random() < 0.25:
        limits["nodes"] = draw.randint(1, 5)
    if draw.random() < 0.3:
        limits["usd_per_hour"] = float(draw.randint(5, 80))
    if draw.random() < 0.3:
        limits["power"] = float(draw.randint(2_000, 40_000))
    if draw.random() < 0.3:
        limits["npus_per_type"] = {draw.choice(offers).npu.name: draw.randint(0, 16)}
    return limits


def packings(
    slots: tuple[int, ...], rooms: tuple[int, ...], host: int
) -> Iterator[int]:
    """Yield the hosts of every way to place the slots, rooms of a kind tried once."""
    if not slots:
        yield len(rooms)
        return
    for room in sorted({room for room in rooms if room >= slots[0]}):
        i = rooms.index(room)
        left = (*rooms[:i], room - slots[0], *rooms[i + 1 :])
        yield from packings(slots[1:], left, host)
    if not any(room == host for room in rooms):
        yield from packings(slots[1:], (*rooms, host - slots[0]), host)


def fewest_hosts(slots: list[int], host: int) -> int:
    """Return the hosts that the slots need: an exact search that stops at the bound."""
    whole = sum(slot // host for slot in slots if slot >= host)
    shared = tuple(sorted((slot for slot in slots if slot < host), reverse=True))
    if not shared:
        return whole
    bound = math.ceil(sum(shared) / host)
    best = math.inf
    for found in packings(shared, (), host):
        best = min(best, found)
        if best == bound:
            break
    return whole + int(best)


def bill(instance: Instance, counts: tuple[int, ...]) -> dict[str, Any]:
    """Return what a choice of replica counts uses and costs."""
    total: dict[str, Any] = {"npus": 0, "nodes": 0, "cost": 0.0, "power": 0.0}
    total["types"] = {offer.npu.name: 0 for offer in instance.offers}
    total["used"] = Counter({each.npu: -each.npus for each in instance.current})
    total["quota"] = [0 for _ in instance.limits.quota]
    total["racks"], total["short"] = 0, 0
    for number, offer in enumerate(instance.offers):
        price = offer.price
        host = price.npus if price.whole_instance else offer.npu.node_npus
        slots, used = [], 0
        for candidate, count in zip(instance.candidates, counts, strict=True):
            if candidate.offer == number and count:
                room = 2 ** math.ceil(math.log2(candidate.npus))
                room = candidate.npus if candidate.npus >= host else min(room, host)
                slots += [room] * count
                used += candidate.npus * count
        hosts = fewest_hosts(slots, host)
        paid = hosts * host if price.whole_instance else used
        total["npus"] += paid
        total["nodes"] += hosts * max(1, host // offer.npu.node_npus)
        total["cost"] += paid * price.usd_per_hour / price.npus
        total["power"] += paid * offer.npu.provisioned_power
        total["types"][offer.npu.name] += paid
        total["used"][offer.npu.name] += used
        where = (offer.npu.name, price.region, offer.provider)
        for index, quota in enumerate(instance.limits.quota):
            total["quota"][index] += paid * quota.covers(*where)
        portions = hosts if price.whole_instance else used
        total["short"] += max(0, portions - stock(offer))
        total["racks"] += racks_of(instance, offer, hosts)
    counted = [
        (instance.offers[c.offer].npu.name, c.npus)
        for c, count in zip(instance.candidates, counts, strict=True)
        if count
    ]
    total["kinds"], total["npu_types"] = len(set(counted)), len({n for n, _ in counted})
    return total


def stock(offer: Any) -> float:
    return math.inf if offer.stock is None else offer.stock


def racks_of(instance: Instance, offer: Any, hosts: int) -> float:
    limit = instance.limits.racks
    if limit is None or not hosts:
        return 0
    nodes = hosts * max(1, offer.host_npus // offer.npu.node_npus)
    each = limit.nodes or math.inf
    if limit.power is not None:
        each = min(each, limit.power // (offer.npu.power * offer.npu.node_npus))
    return math.ceil(nodes / each) if each else math.inf


def survives(instance: Instance, counts: tuple[int, ...]) -> bool:
    """Return whether each class is covered when the worst hosts fail.

    Fractions of replicas may fail, the dearest in room first.
    """
    for traffic, wanted in enumerate(instance.demand):
        worth, left = [], 0.0
        for candidate, count in zip(instance.candidates, counts, strict=True):
            if candidate.traffic == traffic:
                offer = instance.offers[candidate.offer]
                size = offer.host_npus
                room = min(offer.slot(candidate.npus), size)
                if instance.redundancy.racks and instance.limits.racks:
                    size *= max(1, instance.limits.racks.nodes // offer.nodes_per_host)
                worth += [(candidate.capacity, room / size)] * count
                left += candidate.capacity * count
        lost = float(instance.redundancy.domains)
        for capacity, room in sorted(worth, key=lambda w: -w[0] / w[1]):
            share = min(1.0, lost / room)
            left, lost = left - share * capacity, lost - share * room
        if left < wanted - 1e-6:
            return False
    return True


def allowed(instance: Instance, total: dict[str, Any]) -> bool:
    limits = instance.limits
    pairs = [
        (total["npus"], limits.npus),
        (total["nodes"], limits.nodes),
        (total["cost"], limits.usd_per_hour),
        (total["power"], limits.power),
        *((total["types"].get(n, 0), most) for n, most in limits.npus_per_type.items()),
        *zip(total["quota"], (quota.npus for quota in limits.quota), strict=True),
        (total["kinds"], limits.deployment_types),
        (total["npu_types"], limits.npu_types),
        (sum(abs(n) for n in total["used"].values()), limits.changed_npus),
        (total["racks"], limits.racks and (limits.racks.count or 1e9)),
        (total["short"], 0),
    ]
    return all(most is None or value <= most + 1e-9 for value, most in pairs)


def counts_of(instance: Instance) -> list[tuple[int, ...]]:
    """Return the counts of each candidate that are worth trying."""
    ranges = []
    for candidate in instance.candidates:
        offer = instance.offers[candidate.offer]
        alone = math.ceil(instance.demand[candidate.traffic] / candidate.capacity)
        most = max(candidate.least, alone)
        most += instance.redundancy.domains * -(-offer.host_npus * 3 // candidate.slot)
        for today in instance.current:
            if today.npu == offer.npu.name:
                most += today.npus // candidate.npus
        ranges.append((0, *range(candidate.least, most + 1)))
    return ranges


def brute_force(instance: Instance) -> float | None:
    """Return the least objective of all counts worth trying; None if there is none."""
    ranges = counts_of(instance)
    best = None
    for counts in itertools.product(*ranges):
        covered = [0.0] * len(instance.demand)
        for candidate, count in zip(instance.candidates, counts, strict=True):
            covered[candidate.traffic] += candidate.capacity * count
        if any(c < w - 1e-9 for c, w in zip(covered, instance.demand, strict=True)):
            continue
        if (
            not instance.redundancy.domains
            and not instance.current
            and any(
                count > c.least
                and covered[c.traffic] - c.capacity >= instance.demand[c.traffic]
                for c, count in zip(instance.candidates, counts, strict=True)
            )
        ):
            continue  # a replica too many
        total = bill(instance, counts)
        if allowed(instance, total) and survives(instance, counts):
            value = float(total[instance.objective])
            best = value if best is None else min(best, value)
    return best


@cache
def least(toys: Any, seed: int) -> float | None:
    """Return the least objective of a random instance."""
    return brute_force(random_instance(toys, seed))


@pytest.mark.parametrize("seed", range(90))
def test_optimum_is_what_trying_everything_finds(toys: Any, seed: int) -> None:
    full = random_instance(toys, seed)
    instance = pruned(full)
    choice = choose(instance, toys.options)
    best = least(toys, seed)
    if best is None:
        assert choice.status == "infeasible"
        return
    assert choice.status == "optimal"
    assert toys.value(instance, choice) == pytest.approx(best, rel=1e-6)
    assert choice.bound == pytest.approx(best, rel=1e-6)
    for candidate, count in zip(instance.candidates, choice.replicas, strict=True):
        assert count == 0 or count >= candidate.least
    total = bill(instance, choice.replicas)
    assert allowed(instance, total)
    assert total[instance.objective] == pytest.approx(best, rel=1e-6)


FLEETS = 80


@cache
def small_fleets(toys: Any) -> list[Instance]:
    """Return fleets of few enough counts to try them all."""
    drawn = (random_instance(toys, 1000 + seed, fleet=True) for seed in range(500))
    few = (each for each in drawn if math.prod(map(len, counts_of(each))) <= 600)
    return list(itertools.islice(few, FLEETS))


@pytest.mark.parametrize("number", range(FLEETS))
def test_optimum_of_a_fleet_is_what_trying_everything_finds(
    toys: Any, number: int
) -> None:
    full = small_fleets(toys)[number]
    instance = pruned(full)
    best = brute_force(full)
    choice = choose(instance, toys.options)
    if best is None:
        assert choice.status == "infeasible"
        return
    assert choice.status == "optimal"
    assert choice.value == pytest.approx(best, rel=1e-6)
    assert allowed(instance, bill(instance, choice.replicas))
    assert survives(instance, choice.replicas)


def test_fleets_are_of_both_kinds(toys: Any) -> None:
    verdicts = [brute_force(each) is None for each in small_fleets(toys)[:40]]
    assert 6 <= sum(verdicts) <= 34


def without_pools(instance: Instance) -> Instance:
    candidates = tuple(replace(c, least=1) for c in instance.candidates)
    return replace(instance, candidates=candidates)


def test_pools_change_some_optima_and_make_none_better(toys: Any) -> None:
    dearer = 0
    for seed in range(30):
        free = brute_force(without_pools(random_instance(toys, seed)))
        pooled = least(toys, seed)
        if pooled is not None:
            assert free is not None
            assert free <= pooled
        dearer += pooled != free
    assert dearer >= 4


def test_random_instances_are_of_both_kinds(toys: Any) -> None:
    verdicts = [least(toys, seed) for seed in range(40)]
    infeasible = verdicts.count(None)
    assert 4 <= infeasible <= 30


# Real problems


Replicas = Iterator[tuple[int, float, int]]


def replicas_of(problem: SizingProblem, name: str, host: int) -> Replicas:
    """Yield (NPUs, capacity, pool) of each split, from the model alone."""
    arch, npu = catalogue.load_model(problem.model), catalogue.load_npu(name)
    traffic = problem.traffic[0]
    for tp, pp in itertools.product(range(1, LARGEST_REPLICA + 1), PIPELINE_STAGES):
        parallel, npus = Parallelism(tp, pp), tp * pp
        fits = npus <= host or npus % host == 0
        fits = fits and tp <= npu.scale_up_npus
        if npus > LARGEST_REPLICA or not fits or arch.rule_broken_by(parallel):
            continue
        for precision in problem.formats():
            replica = Replica(arch, parallel, precision, Supply.of(npu))
            engine = engine_of(
                replica,
                traffic.profile,
                chunk_tokens=problem.chunk_tokens,
                max_sequences=LARGEST_BATCH,
            )
            if engine.cache_tokens > traffic.input_tokens + traffic.output_tokens:
                wanted = traffic.demand(problem.headroom)
                for capacity, pool in capacities(engine, traffic, wanted):
                    yield npus, capacity, pool


def capacities(
    engine: Engine, traffic: TrafficClass, wanted: float
) -> Iterator[tuple[float, int]]:
    """Yield what a replica covers in pools of so many or more."""
    limits = [Target(t.metric, t.statistic, t.at_most) for t in traffic.targets]
    share = MOST_LOAD_OF_USERS if traffic.concurrency else MOST_LOAD
    most = share * float(saturation_rate(engine, traffic.profile))

    def rate(pool: int) -> float:
        found = highest_rate(engine, traffic.profile, limits, replicas=pool)
        return min(float(found), most)

    alone = rate(1)
    if not alone:
        return
    if traffic.concurrency:  # Little's law; users make no arrivals even
        laws = latencies(engine, traffic.profile, alone)
        yield alone * float(laws.e2e.mean), 1
        return
    largest = math.ceil(wanted / alone)
    rates = {pool: rate(pool) for pool in {1, *POOLS, largest} if pool <= largest}
    for pool in POOLS:
        if pool <= largest:
            yield min(rates[other] for other in rates if other >= pool), pool


def most_by_npus(replicas: list[tuple[int, float, int]], most: int) -> list[float]:
    """Return the largest capacity of 0, 1, ... NPUs: a knapsack of pools."""
    best = [0.0] * (most + 1)
    for size, value, pool in replicas:
        used = [-math.inf] * (most + 1)  # with this replica
        for n in range(pool * size, most + 1):
            used[n] = max(best[n - pool * size] + pool * value, used[n - size] + value)
        best = [max(pair) for pair in zip(best, used, strict=True)]
    for n in range(1, most + 1):
        best[n] = max(best[n], best[n - 1])
    return best


def cheapest(problem: SizingProblem, most: int = 64) -> float | None:
    """Return the least cost over every number of NPUs (or hosts) of each type.

    Slots are powers of two and hosts of eight, so replicas in whole hosts fill
    them without gaps, as long as every size here is a power of two.
    """
    demand = problem.traffic[0].demand(problem.headroom)
    tables = []
    for price in problem.prices.given:
        whole = price.npus > 1
        found = list(replicas_of(problem, price.npu, 8))
        if whole:  # other sizes would take the next power of two
            found = [
                (max(1, 2 ** math.ceil(math.log2(n))), *rest) for n, *rest in found
            ]
        best = most_by_npus(found, most)
        step = price.npus if whole else 1
        tables.append(
            [
                (n * price.usd_per_hour / price.npus, n, best[n])
                for n in range(0, most + 1, step)
            ]
        )
    limit = problem.limits
    options = [
        sum(part[0] for part in parts)
        for parts in itertools.product(*tables)
        if sum(part[2] for part in parts) >= demand
        and sum(part[1] for part in parts) <= (limit.npus or math.inf)
    ]
    return min(options, default=None)


REAL: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    "whole-hosts": {
        "prices": {
            "given": [
                {"npu": "h100-sxm", "usd_per_hour": 15.0, "npus": 8},
                {"npu": "l40s", "usd_per_hour": 0.9},
            ]
        }
    },
    "few-npus": {"limits": {"npus": 3}},
    "too-few-npus": {"limits": {"npus": 1}},
    "two-formats-and-headroom": {"precisions": ["bf16", "fp8"], "headroom": 0.3},
    "larger-model": {
        "model": "qwen3-32b",
        "hardware": {"npus": ["a100-80gb-sxm", "h100-sxm", "l40s"]},
        "prices": {
            "given": [
                {"npu": "a100-80gb-sxm", "usd_per_hour": 1.6},
                {"npu": "h100-sxm", "usd_per_hour": 2.5},
                {"npu": "l40s", "usd_per_hour": 0.9},
            ]
        },
        "traffic": [
            {
                "input_tokens": 2000,
                "output_tokens": 300,
                "rate": 5.0,
                "targets": [{"metric": "e2e", "at_most": 12.0}],
            }
        ],
    },
    "slow-tails": {
        "traffic": [
            {
                "input_tokens": 1000,
                "output_tokens": 200,
                "rate": 65.0,
                "targets": [
                    {"metric": "ttft", "statistic": "p99", "at_most": 0.3},
                    {"metric": "tpot", "statistic": "p95", "at_most": 0.025},
                ],
            }
        ]
    },
    "medians": {
        "traffic": [
            {
                "input_tokens": 1000,
                "output_tokens": 200,
                "rate": 40.0,
                "targets": [{"metric": "tpot", "statistic": "p50", "at_most": 0.02}],
            }
        ]
    },
    "users": {
        "traffic": [
            {
                "input_tokens": 1500,
                "output_tokens": 300,
                "concurrency": 150,
                "targets": [{"metric": "tpot", "at_most": 0.03}],
            }
        ]
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_optimum_is_what_trying_everything_finds(
    toys: Any, small: Callable[..., SizingProblem], name: str
) -> None:
    problem = small(**REAL[name])
    outcome = Workspace.of(problem).solve(toys.options)
    best = cheapest(problem)
    if best is None:
        assert isinstance(outcome, Infeasible)
        return
    assert isinstance(outcome, Optimal)
    assert outcome.plan.usd_per_hour == pytest.approx(best, rel=1e-6)
    assert violations(problem, outcome.plan) == []
