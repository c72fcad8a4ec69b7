"""Disaggregated pairs that the solver chooses: the cheapest of what it may choose from.

The restriction: caches that travel for a small share of an answer's time. Within it the
optimum is that of trying everything, pools of several deployments among it.
"""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.pair import Pair, Pool, pool_of
from model_ops.serving.pools import first_token_only
from model_ops.serving.step import Replica
from model_ops.serving.transfer import Link, slowest_link
from problems import catalogue
from problems.accuracy import assumed_npu
from problems.examples import example_path
from problems.fleet import Redundancy
from problems.plan import Mode, Plan
from problems.problem import SizingProblem, problem_of, read_toml
from problems.verify import violations
from solver import layouts
from solver.binding import KV_TRANSFER, batch_bindings
from solver.candidates import Candidate
from solver.instance import Instance
from solver.model import SolveOptions, choose
from solver.pairing import RUNGS, lanes
from solver.pairs import _joined
from solver.pool_side import ENDLESS
from solver.prune import pruned
from solver.settings import LARGEST_BATCH
from solver.solve import Infeasible, Optimal, Workspace

Small = Callable[..., SizingProblem]
PAIRS = ("disaggregated",)
BOTH = ("aggregated", "disaggregated")


@pytest.fixture(autouse=True)
def small_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let replicas have up to four NPUs."""
    monkeypatch.setattr(layouts, "LARGEST_REPLICA", 4)


def asked(
    small: Small,
    prompt: int = 1000,
    output: int = 200,
    rate: float = 40.0,
    targets: Any = (("ttft", "p99", 1.0), ("tpot", "p95", 0.02)),
    **changes: Any,
) -> SizingProblem:
    """Return a problem of one class; the scheduler's settings are stated."""
    limits = [{"metric": m, "statistic": s, "at_most": t} for m, s, t in targets]
    load = {"input_tokens": prompt, "output_tokens": output, "rate": rate}
    return small(traffic=[load | {"name": "chat", "targets": limits}], **changes)


def plan_of(problem: SizingProblem) -> Plan:
    """Return the proved plan of a problem, verified."""
    outcome = Workspace.of(problem).solve()
    assert isinstance(outcome, Optimal)
    assert violations(problem, outcome.plan) == []
    return outcome.plan


def modes_of(plan: Plan) -> set[Mode]:
    return {row.mode for row in plan.deployments}


# Trying everything


def pool(problem: SizingProblem, npu: str, split: Parallelism, mode: Mode) -> Pool:
    """Return a pool of one replica, from the operators up."""
    arch, whole = catalogue.load_model(problem.model), problem.traffic[0].profile
    supply = Supply.of(assumed_npu(npu, None, problem.framework))
    assert problem.chunk_tokens is not None
    return pool_of(
        Replica(arch, split, arch.precision, supply),
        first_token_only(whole) if mode == "prefill" else whole,
        1,
        chunk_tokens=problem.chunk_tokens,
        max_sequences=LARGEST_BATCH,
    )


def highest(problem: SizingProblem, prefill: Pool, decode: Pool) -> float:
    """Return the highest rate at which a pair keeps all targets."""
    (traffic,) = problem.traffic
    ends = (prefill.replica.supply, decode.replica.supply)
    link = Link.between(*ends, prefill.npus + decode.npus, problem.kv_bandwidth)
    pair = Pair(prefill, decode, traffic.profile, link)

    def holds(rate: float) -> bool:
        laws = pair.laws(rate)
        return bool(laws.stable.all()) and all(
            laws.excess(t.metric, t.statistic, np.array([[t.at_most]])).max() <= 0.0
            for t in traffic.targets
        )

    low, high = 0.0, min(pair.rates.values())
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


Way = tuple[float, float]
"""Cost of some replicas, and what they take."""


def total(parts: tuple[Way, ...]) -> Way:
    return sum(cost for cost, _ in parts), sum(rate for _, rate in parts)


def best(ways: list[Way]) -> list[Way]:
    """Return those that take more than all cheaper ones."""
    front: list[Way] = []
    for cost, rate in sorted(ways, key=lambda way: (way[0], -way[1])):
        if not front or rate > front[-1][1]:
            front.append((cost, rate))
    return front


def tried(problem: SizingProblem, splits: list[Parallelism], most: int) -> float:
    """Return the cost of the cheapest pools, mixed or not, by the laws of pairs alone.

    What replicas of a pool take is found beside a partner that has plenty: a lower
    bound, which the plan attains where caches travel fast.
    """
    prices = {price.npu: price.usd_per_hour for price in problem.prices.given}
    pools = {
        mode: [
            each
            for npu in prices
            for split in splits
            if (each := pool(problem, npu, split, mode)).engine.cache_tokens > 1e4
        ]
        for mode in ("prefill", "decode")
    }
    (wanted,) = (traffic.rate for traffic in problem.traffic)
    assert wanted is not None
    found = 0.0
    for mode, some in pools.items():
        other = pools["decode" if mode == "prefill" else "prefill"][0]
        plenty, ways = replace(other, replicas=200), []
        for each in some:
            price = int(each.replica.parallelism.npus)
            price *= prices[each.replica.supply.npus[0].name]
            own = [(0.0, 0.0)]
            for n in range(1, most + 1):
                sized = replace(each, replicas=n)
                both = (sized, plenty) if mode == "prefill" else (plenty, sized)
                own.append((n * price, highest(problem, *both)))
                if own[-1][1] >= wanted:
                    break
            ways.append(own)
        front: list[Way] = [(0.0, 0.0)]
        for own in ways:
            front = best([total(each) for each in itertools.product(front, own)])
        found += min((cost for cost, rate in front if rate >= wanted), default=math.inf)
    return found


@pytest.mark.parametrize(
    ("prompt", "output", "rate"),
    [(1000, 200, 40.0), (3000, 100, 15.0), (300, 400, 30.0)],
    ids=["chat", "long-prompts", "long-answers"],
)
def test_the_optimum_is_that_of_trying_everything(
    small: Small,
    monkeypatch: pytest.MonkeyPatch,
    prompt: int,
    output: int,
    rate: float,
) -> None:
    monkeypatch.setattr(layouts, "LARGEST_REPLICA", 2)
    problem = asked(small, prompt, output, rate, modes=PAIRS)
    splits = [Parallelism(), Parallelism(2), Parallelism(1, 2)]
    assert plan_of(problem).usd_per_hour == pytest.approx(tried(problem, splits, 12))


def pooled(toys: Any, seed: int) -> Instance:
    """Return replicas that do both, and two pairings of two deployments a pool."""
    rng = random.Random(seed)
    offers = [toys.offer(1.0), toys.offer(0.7, name="other")]

    def row(*mode: str) -> tuple[Any, ...]:
        npus, rate = rng.choice([1, 2, 4]), rng.uniform(1.0, 9.0)
        return (*mode, npus, rate, rng.randrange(2), rng.choice([1, 1, 2]))

    both = [(0, r[2], r[0], r[1], r[3]) for r in (row() for _ in range(2))]
    instance = toys.instance(offers, both, (rng.uniform(4.0, 12.0),))
    for pairing in range(2):
        pools = [row(mode) for mode in ("prefill", "decode") for _ in range(2)]
        instance = toys.paired(instance, pools, pairing)
    return instance


def counted(instance: Instance, mode: Mode, pairing: int = -1) -> list[Way]:
    """Return the useful counts of one mode's candidates."""
    parts = []
    for c in instance.candidates:
        if (c.mode, c.pairing) == (mode, pairing):
            price = instance.unit_cost(instance.offers[c.offer]) * c.npus
            most = max(math.ceil(instance.demand[0] / c.capacity), c.least)
            counts = (0, *range(c.least, most + 1))
            parts.append([(n * price, n * c.capacity) for n in counts])
    return best([total(each) for each in itertools.product(*parts)])


def cheapest(instance: Instance) -> float:
    """Return the least cost over all counts."""
    served = [counted(instance, "aggregated")]
    for pairing in range(len(instance.pairings)):
        pools: tuple[Mode, Mode] = ("prefill", "decode")
        both = itertools.product(*(counted(instance, m, pairing) for m in pools))
        served.append(best([(p + q, min(r, s)) for (p, r), (q, s) in both]))
    every = (total(parts) for parts in itertools.product(*served))
    return min(cost for cost, rate in every if rate >= instance.demand[0])


@pytest.mark.parametrize("seed", range(12))
def test_counts_of_pools_are_those_of_trying_all(toys: Any, seed: int) -> None:
    instance = pooled(toys, seed)
    expected = cheapest(instance)
    for each in (instance, pruned(instance)):
        choice = choose(each, toys.options)
        assert choice.status == "optimal"
        assert toys.value(each, choice) == pytest.approx(expected)


def test_a_class_may_be_split_between_a_pair_and_replicas_that_do_both(
    toys: Any,
) -> None:
    # Of 10: a pair carries 9 on 2 + 3 NPUs, one more replica the rest: 6 NPUs. The pair
    # alone needs 3 + 4 (its prefill pool is then a mix), replicas that do both 10.
    pools = [("prefill", 1, 4.0), ("prefill", 2, 9.0)]
    pools += [("decode", 1, 3.0), ("decode", 4, 14.0)]
    alone = toys.instance([toys.offer(1.5)], [(0, 0, 1, 1.0)], (10.0,))
    instance = toys.paired(alone, pools)
    choice = choose(instance, toys.options)
    assert toys.value(instance, choice) == pytest.approx(6 * 1.5)
    assert choice.replicas == (1, 0, 1, 3, 0)


# Failures


@pytest.mark.parametrize("seed", range(8))
def test_pools_that_survive_a_failure_are_those_of_trying_all(
    toys: Any, seed: int
) -> None:
    rng = random.Random(seed)
    offers = [toys.offer(1.0, node=4), toys.offer(0.7, name="other", node=8)]

    def row(mode: Mode) -> tuple[Any, ...]:
        return mode, rng.choice([1, 2, 4]), rng.uniform(2.0, 9.0), rng.randrange(2), 1

    both = [(0, 0, 4, rng.uniform(2.0, 5.0))]
    instance = toys.instance(offers, both, (rng.uniform(4.0, 12.0),))
    pools: list[Mode] = ["prefill", "prefill", "decode"]
    instance = toys.paired(instance, [row(mode) for mode in pools])
    safe = replace(instance, redundancy=Redundancy(nodes=1))
    expected = cheapest_that_survives(safe)
    for each in (safe, pruned(safe)):
        choice = choose(each, toys.options)
        assert choice.status == "optimal"
        assert toys.value(each, choice) == pytest.approx(expected)


def cheapest_that_survives(instance: Instance) -> float:
    """Return the least cost over counts of which a full host may be lost, of any."""
    (wanted,), candidates = instance.demand, instance.candidates
    nodes = [instance.offers[c.offer].host_npus for c in candidates]
    worth = [c.capacity * n / c.slot for c, n in zip(candidates, nodes, strict=True)]
    least = math.inf
    most = [math.ceil((wanted + max(worth)) / c.capacity) for c in candidates]
    for counts in itertools.product(*(range(n + 1) for n in most)):
        cost = sum(
            count * c.npus * instance.unit_cost(instance.offers[c.offer])
            for count, c in zip(counts, candidates, strict=True)
        )
        if cost < least and all(
            left(instance, worth, counts, mode) >= wanted * (1 - 1e-9)
            for mode in ("prefill", "decode")
        ):
            least = cost
    return least


def left(
    instance: Instance, worth: list[float], counts: tuple[int, ...], mode: str
) -> float:
    """Return what is left of one side: the fullest hosts fail, the rest of one too."""
    kept, lost = 0.0, 1.0
    rows = zip(worth, counts, instance.candidates, strict=True)
    for per_host, count, c in sorted(rows, key=lambda row: -row[0]):
        if c.mode in ("aggregated", mode):
            hosts = count * c.capacity / per_host
            failed = min(lost, hosts)
            lost -= failed
            kept += count * c.capacity - failed * per_host
    return kept


@pytest.mark.parametrize("kind", [{"nodes": 1}, {"nodes": 2}])
def test_a_pair_survives_what_may_fail(small: Small, kind: dict[str, int]) -> None:
    plain = plan_of(asked(small, modes=PAIRS))
    problem = asked(small, modes=PAIRS, redundancy=kind)
    safe = plan_of(problem)
    assert modes_of(safe) == {"prefill", "decode"}
    assert safe.usd_per_hour > plain.usd_per_hour
    assert "chat redundancy" in {v.requirement for v in violations(problem, plain)}
    # Each of its replicas keeps the targets alone, whichever are left.
    (pair,) = safe.pairs("chat")
    for number, row in enumerate(pair.rows):
        rows = list(pair.rows)
        rows[number] = row.model_copy(update={"rate": 1.05 * row.rate})
        broken = violations(problem, safe.model_copy(update={"deployments": rows}))
        assert any("chat p" in violation.requirement for violation in broken)


# Which mode wins


def test_a_pair_wins_where_prompts_lengthen_the_steps_of_others(small: Small) -> None:
    # Beside a chunk of 2,048 tokens a step of an H100 takes several times the 15 ms
    # that a token may. A replica that does both must keep such steps below one in
    # twenty, and idles; a decode pool never sees a prompt.
    changes = {"targets": (("ttft", "p95", 2.0), ("tpot", "p95", 0.015))}
    both = plan_of(asked(small, 4000, 200, 30.0, **changes, modes=BOTH))
    alone = plan_of(asked(small, 4000, 200, 30.0, **changes, modes=("aggregated",)))
    assert {"prefill", "decode"} <= modes_of(both)
    assert both.usd_per_hour < 0.9 * alone.usd_per_hour


def test_one_replica_wins_where_it_is_enough(small: Small) -> None:
    # One L40S takes 2 req/s; a pair is two replicas at least.
    changes = {"targets": (("ttft", "p99", 2.0), ("tpot", "p95", 0.05))}
    plan = plan_of(asked(small, rate=1.0, **changes, modes=BOTH))
    assert (modes_of(plan), plan.total_npus) == ({"aggregated"}, 1)
    pair = plan_of(asked(small, rate=1.0, **changes, modes=PAIRS))
    assert (modes_of(pair), pair.total_npus) == ({"prefill", "decode"}, 2)


# The links


@pytest.mark.parametrize(("bandwidth", "possible"), [(50e9, True), (2e7, False)])
def test_too_slow_links_leave_no_pair(
    small: Small, bandwidth: float, possible: bool
) -> None:
    # A cache of 131 kB a token, 1000 tokens: 131 MB. At 20 MB/s it travels 6.5 s,
    # longer than the 4 s of an answer.
    problem = asked(small, modes=PAIRS, kv_bandwidth=bandwidth)
    outcome = Workspace.of(problem).solve()
    assert isinstance(outcome, Optimal) is possible
    assert isinstance(outcome, Infeasible) is not possible


def test_slow_links_cost_more_and_are_said_to_bind(small: Small) -> None:
    fast = plan_of(asked(small, modes=PAIRS, kv_bandwidth=50e9))
    problem = asked(small, modes=PAIRS, kv_bandwidth=1e9)
    workspace = Workspace.of(problem)
    outcome = workspace.solve()
    assert isinstance(outcome, Optimal)
    slow = outcome.plan
    assert violations(problem, slow) == []
    # 40 req/s x 131 MB are 5.2 GB/s; on links of 1 GB/s that are used for 0.9 of the
    # time at most, six NPUs at either end.
    (pair,) = slow.pairs("chat")
    for pool in (pair.prefill, pair.decode):
        assert sum(row.npus for row in pool) >= 6
    assert slow.usd_per_hour > fast.usd_per_hour
    assert KV_TRANSFER in {b.requirement for b in batch_bindings(workspace, slow)}
    assert KV_TRANSFER not in {
        b.requirement
        for b in batch_bindings(Workspace.of(asked(small, modes=PAIRS)), fast)
    }


def test_a_link_is_never_slower_than_a_lane_takes_it_for() -> None:
    npus = [catalogue.load_npu(name) for name in catalogue.names("npus")]
    supplies = [Supply.of(npu) for npu in npus]
    slowest = [slowest_link(supply) for supply in supplies]
    for one, (send, late) in zip(supplies, slowest, strict=True):
        for other, (receive, later) in zip(supplies, slowest, strict=True):
            for count in (2, 8, 64, 100_000):
                link = Link.between(one, other, count)
                assert (link.send, link.receive) >= (send, receive)
                assert link.receive >= receive
                assert link.latency <= max(late, later)


@pytest.mark.parametrize("bandwidth", [None, 50e9])
def test_pools_stand_in_one_place(small: Small, bandwidth: float | None) -> None:
    # At these prices a pool of each type is best; no network is known between clouds,
    # and how fast links are within one says nothing of it.
    prices = {"prices": {}, "hardware": {"npus": ["h100-sxm", "l40s", "h200-sxm"]}}
    problem = asked(small, modes=PAIRS, kv_bandwidth=bandwidth, **prices)
    workspace = Workspace.of(problem)
    instance = workspace.instance(problem)
    places = [
        {instance.offers[c.offer].place for c in instance.candidates if c.pairing == n}
        for n in range(len(instance.pairings))
    ]
    assert places
    assert all(len(each) == 1 for each in places)


# Lanes


def test_fast_links_make_one_lane(small: Small) -> None:
    problem = asked(small, modes=PAIRS, kv_bandwidth=500e9)
    (pools,) = Workspace.of(problem).pairs.pools
    every: dict[Mode, list[Any]] = {
        "prefill": [np.ones(pools.prefill.options, bool)],
        "decode": [np.ones(pools.decode.options, bool)],
    }
    (lane,) = lanes([pools], problem.kv_bandwidth, every)
    assert lane.terms.load == RUNGS[0][1]
    assert all(np.isinf(c).all() for c in (*lane.prefill, *lane.decode))


def test_slow_links_are_ceilings_of_lanes(small: Small) -> None:
    problem = asked(small, modes=PAIRS, kv_bandwidth=2e9)
    (pools,) = Workspace.of(problem).pairs.pools
    every: dict[Mode, list[Any]] = {
        "prefill": [np.ones(pools.prefill.options, bool)],
        "decode": [np.ones(pools.decode.options, bool)],
    }
    found = lanes([pools], problem.kv_bandwidth, every)
    assert not any(a.covers(b) for a, b in itertools.permutations(found, 2))
    assert any(np.isfinite(c[c > 0]).any() for lane in found for c in lane.prefill)


# Pruning


@pytest.mark.parametrize("modes", [BOTH, PAIRS], ids=["both", "pairs"])
@pytest.mark.parametrize("rate", [3.0, 60.0])
def test_what_costs_too_much_is_missed_by_nobody(
    small: Small, modes: tuple[str, ...], rate: float
) -> None:
    problem = asked(small, rate=rate, modes=modes)
    workspace = Workspace.of(problem)
    bounded = workspace.instance(problem)
    alone = tuple(c for c in bounded.candidates if c.mode == "aggregated")
    bare = replace(bounded, candidates=alone, pairings=(), known=math.inf)
    sides = workspace.pairs._every(bare, problem)
    every = (pair for side in sides for pair in side.pairs(ENDLESS))
    whole = _joined(bare, every)
    assert len(whole.candidates) >= len(bounded.candidates)
    costs = [
        workspace.solve_instance(problem, each, SolveOptions(workers=1, seed=0))
        for each in (bounded, whole)
    ]
    assert all(isinstance(outcome, Optimal) for outcome in costs)
    values = [outcome.plan.usd_per_hour for outcome in costs]  # type: ignore[union-attr]
    assert values[0] == pytest.approx(values[1])


def test_limits_are_kept_and_cost_what_they_must(small: Small) -> None:
    free = plan_of(asked(small, modes=BOTH, rate=150.0))
    fewest = plan_of(asked(small, modes=BOTH, rate=150.0, objective="npus")).total_npus
    assert fewest < free.total_npus
    fewer = plan_of(asked(small, modes=BOTH, rate=150.0, limits={"npus": fewest}))
    assert fewer.total_npus == fewest
    assert fewer.usd_per_hour >= free.usd_per_hour


# Every plan


@pytest.mark.slow
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    prompt=st.sampled_from([200, 1500, 6000]),
    output=st.sampled_from([16, 150, 600]),
    rate=st.floats(0.5, 80.0),
    bandwidth=st.sampled_from([None, 1e9, 20e9]),
    burstiness=st.sampled_from([None, 2.0]),
    target=st.sampled_from(
        [
            (("ttft", "p99", 2.0), ("tpot", "p99", 0.03)),
            (("e2e", "p95", 20.0),),
            (("ttft", "mean", 1.0), ("e2e", "p50", 12.0)),
            (("tpot", "mean", 0.02),),
            (),
        ]
    ),
)
def test_every_plan_of_pairs_passes_the_verifier(
    small: Small,
    prompt: int,
    output: int,
    rate: float,
    bandwidth: float | None,
    burstiness: float | None,
    target: Any,
) -> None:
    problem = asked(
        small, prompt, output, rate, target, modes=PAIRS, kv_bandwidth=bandwidth
    )
    if burstiness is not None:
        bursty = problem.traffic[0].model_copy(update={"burstiness": burstiness})
        problem = problem.model_copy(update={"traffic": (bursty,)})
    outcome = Workspace.of(problem).solve()
    if isinstance(outcome, Optimal):
        assert violations(problem, outcome.plan) == []
        assert modes_of(outcome.plan) == {"prefill", "decode"}
    else:
        assert isinstance(outcome, Infeasible)


def test_the_same_question_has_the_same_answer(small: Small) -> None:
    problem = asked(small, modes=BOTH, rate=60.0)
    assert plan_of(problem) == plan_of(problem)


def test_pools_in_formats_of_their_own_share_that_of_the_cache(small: Small) -> None:
    problem = asked(small, modes=PAIRS, precisions=["bf16", "fp8", "fp8-kv8"])
    plan = plan_of(problem)
    instance = Workspace.of(problem).instance(problem)
    caches: dict[int, set[str]] = {}
    for candidate in instance.candidates:
        assert isinstance(candidate, Candidate)
        cache = str(candidate.precision.kv_cache)
        caches.setdefault(candidate.pairing, set()).add(cache)
    assert caches
    assert all(len(each) == 1 for each in caches.values())
    assert plan.pairs("chat")


def test_users_and_one_token_answers_are_served_by_replicas_that_do_both(
    small: Small,
) -> None:
    for load in (
        {"input_tokens": 100, "output_tokens": 100, "concurrency": 8},
        {"input_tokens": 100, "output_tokens": 1, "rate": 5.0},
    ):
        problem = small(traffic=[load], modes=BOTH)
        assert Workspace.of(problem).pairs.pools == ()
        assert modes_of(plan_of(problem)) == {"aggregated"}


def test_the_example_is_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    problem = problem_of(read_toml(example_path("disaggregated")), "file")
    plan = plan_of(problem)
    assert {"prefill", "decode"} <= modes_of(plan)
