"""The verifier passes the good plan and names each corruption of it."""

from collections.abc import Callable
from typing import Any

import pytest

from problems.optimisations import LoraTable, Optimisations, SpeculationTable
from problems.plan import Plan
from problems.problem import Limits, SizingProblem
from problems.stations import Station
from problems.traffic import LatencyTarget
from problems.verify import Violation, violations

Mutation = Callable[[Plan], Plan]

pytestmark = pytest.mark.usefixtures("plain_npus")

H100 = "h100-sxm|given|8 NPUs|on_demand|"
L40S = "l40s|given|1 NPU|on_demand|"


def deployed(number: int, **changes: Any) -> Mutation:
    """Return the mutation that changes a deployment."""
    return lambda plan: _changed(plan, "deployments", number, changes)


def bought(number: int, **changes: Any) -> Mutation:
    """Return the mutation that changes a purchase."""
    return lambda plan: _changed(plan, "purchases", number, changes)


def _changed(plan: Plan, part: str, number: int, changes: dict[str, Any]) -> Plan:
    items = list(getattr(plan, part))
    items[number] = items[number].model_copy(update=changes)
    return plan.model_copy(update={part: tuple(items)})


def without(part: str, number: int) -> Mutation:
    """Return the mutation that leaves a deployment or purchase out."""

    def mutated(plan: Plan) -> Plan:
        items = getattr(plan, part)
        kept = (*items[:number], *items[number + 1 :])
        return plan.model_copy(update={part: kept})

    return mutated


def broken(problem: SizingProblem, plan: Plan) -> set[str]:
    return {violation.requirement for violation in violations(problem, plan)}


def settled(problem: SizingProblem, plan: Plan) -> Plan:
    """Return the plan with the mean batches that its deployments come to."""
    traffic = {each.name: each for each in problem.traffic}
    batches = [
        Station.of(plan, row, traffic[row.traffic]).mean_batch(row.rate)
        for row in plan.deployments
    ]
    for number, batch in enumerate(batches):
        plan = deployed(number, mean_batch=batch)(plan)
    return plan


def test_good_plan_passes(good_problem: SizingProblem, good_plan: Plan) -> None:
    assert violations(good_problem, good_plan) == []


def both(*mutations: Mutation) -> Mutation:
    """Return the mutation that is all of these, one after the other."""

    def mutated(plan: Plan) -> Plan:
        for mutate in mutations:
            plan = mutate(plan)
        return plan

    return mutated


def using(**tables: Any) -> Mutation:
    """Return the mutation to other optimisations than the problem's."""
    return lambda plan: plan.model_copy(
        update={"optimisations": Optimisations(**tables)}
    )


CERTAIN = SpeculationTable(drafter="ngram", guessed=4, acceptance=1.0)

CAUGHT_ALONE = {
    "adapters-not-the-problems": (
        using(lora=LoraTable(rank=1)),
        "optimisations",
    ),
    "replicas-too-few": (deployed(0, replicas=2, npus=4), "chat demand"),
    "rate-below-its-share": (deployed(0, rate=16.6), "chat demand"),
    "users-too-few": (deployed(1, rate=5.4), "users demand"),
    "mean-batch-understated": (deployed(0, mean_batch=28.6), "mean_batch"),
    "mean-batch-overstated": (deployed(0, mean_batch=30.6), "mean_batch"),
    "users-mean-batch-understated": (deployed(1, mean_batch=15.4), "mean_batch"),
    "rate-beyond-the-steps": (deployed(1, rate=50.0), "rate"),
    "slots-too-few-for-the-rate": (deployed(0, batch=16), "rate"),
    "chunks-too-small-for-the-prompts": (deployed(1, chunk_tokens=80), "rate"),
    "no-room-for-a-request": (deployed(1, batch=100_000), "memory"),
    "pp-exceeds-layers": (
        both(
            deployed(1, pp=40),
            deployed(1, npus=80, nodes=10, usd_per_hour=80.0),
            bought(1, hosts=10, npus=80, usd_per_hour=80.0, power=80 * 350 * 2.17),
        ),
        "parallelism",
    ),
    "precision-not-allowed": (
        deployed(0, precision="fp8"),
        "precision",
    ),
    "npu-is-not-the-offers": (
        deployed(1, npu="h100-sxm", rate=18.0),
        "hardware",
    ),
    "cost-understated": (
        both(bought(0, usd_per_hour=15.99), deployed(0, usd_per_hour=15.99)),
        "cost",
    ),
    "cost-of-each-understated": (
        both(bought(1, usd_per_hour=1.99), deployed(1, usd_per_hour=1.99)),
        "cost",
    ),
    "share-understated": (deployed(0, usd_per_hour=15.99), "cost"),
    "share-overstated": (deployed(1, usd_per_hour=2.01), "cost"),
    "share-of-another": (
        both(deployed(0, usd_per_hour=15.0), deployed(1, usd_per_hour=3.0)),
        "cost",
    ),
    "nothing-stands-there": (
        both(
            lambda plan: plan.model_copy(
                update={"purchases": (*plan.purchases, plan.purchases[0])}
            ),
            bought(
                2,
                offer=L40S,
                npu="l40s",
                instance="1 NPU",
                hosts=1,
                npus=2,
                power=2 * 350 * 2.17,
            ),
        ),
        "cost",
    ),
    "npus-understated": (bought(1, npus=1), "npus"),
    "used-npus-misstated": (deployed(0, npus=5), "npus"),
    "nodes-overstated": (deployed(0, nodes=2), "nodes"),
    "nodes-of-each-overstated": (deployed(1, nodes=2), "nodes"),
    "power-understated": (bought(0, power=1000.0), "power"),
    "hosts-too-few": (deployed(0, replicas=5, npus=10, nodes=2), "hosts"),
    "chunk-too-large": (deployed(0, chunk_tokens=4096), "chunk_tokens"),
    "hosts-too-many": (bought(1, hosts=2), "hosts"),
    "provider-misnamed": (bought(0, provider="nobody"), "provider"),
    "instance-misnamed": (bought(0, instance="none"), "instance"),
    "term-misnamed": (bought(0, term="spot"), "term"),
    "region-misnamed": (bought(0, region="nowhere"), "region"),
    "source-misnamed": (bought(0, source="hearsay"), "source"),
    "date-misstated": (bought(0, as_of="tomorrow"), "as_of"),
}
"""Corruptions that break one requirement and, but for the limits, no other."""

CAUGHT = {
    "model": (lambda plan: plan.model_copy(update={"model": "llama-3-8b"}), "model"),
    "guesses-not-the-problems": (using(speculation=CERTAIN), "optimisations"),
    "class-unserved": (without("deployments", 1), "users demand"),
    "rate-for-ttft": (deployed(0, rate=30.0), "chat mean TTFT"),
    "rate-for-tpot": (deployed(0, rate=30.0), "chat mean TPOT"),
    "rate-for-e2e": (deployed(0, rate=30.0), "chat mean E2E"),
    "endless-prompts": (deployed(0, chunk_tokens=100), "rate"),
    "tp-divides-no-heads": (deployed(0, tp=3, npus=9), "parallelism"),
    "class-unknown": (deployed(0, traffic="caht"), "traffic"),
    "offer-not-offered": (deployed(0, offer="h100-sxm|x|y|z|"), "hardware"),
    "offer-of-another-region": (deployed(0, offer=H100 + "eu-north"), "hardware"),
    "purchase-not-offered": (bought(0, offer="h100-sxm|x|y|z|"), "hardware"),
    "purchase-in-another-region": (bought(1, offer=L40S + "eu-north"), "hardware"),
    "stands-on-nothing": (without("purchases", 1), "hardware"),
    "purchase-is-not-the-offers": (bought(0, npu="l40s"), "hardware"),
    "purchase-understated": (bought(0, usd_per_hour=15.99), "cost"),
    "purchase-overstated": (bought(1, usd_per_hour=2.01), "cost"),
    "unserved-purchase": (without("deployments", 0), "cost"),
    "node-npus-understated": (bought(0, npus=6), "npus"),
    "power-withheld": (bought(0, power=None), "power"),
    "power-unlimited": (bought(0, power=None), "limits.power"),
    "replica-spans-hosts": (deployed(0, tp=4, pp=3, npus=36), "hosts"),
    "nodes-understated": (deployed(0, replicas=5, npus=10), "nodes"),
}
MUTATIONS = CAUGHT | CAUGHT_ALONE


@pytest.mark.parametrize(
    ("mutate", "requirement"), MUTATIONS.values(), ids=MUTATIONS.keys()
)
def test_corrupted_plan_is_caught(
    good_problem: SizingProblem, good_plan: Plan, mutate: Mutation, requirement: str
) -> None:
    assert requirement in broken(good_problem, mutate(good_plan))


@pytest.mark.parametrize(
    ("mutate", "requirement"), CAUGHT_ALONE.values(), ids=CAUGHT_ALONE.keys()
)
def test_corruption_is_called_by_its_name_alone(
    good_problem: SizingProblem, good_plan: Plan, mutate: Mutation, requirement: str
) -> None:
    unlimited = good_problem.model_copy(update={"limits": Limits()})
    assert broken(unlimited, good_plan) == set()
    corrupted = mutate(good_plan)
    if requirement != "mean_batch":
        corrupted = settled(unlimited, corrupted)
    assert broken(unlimited, corrupted) == {requirement}


def over_two_nodes(tp: int, pp: int, nodes: int) -> Mutation:
    """Return the mutation to one chat replica on two whole nodes."""
    return both(
        deployed(0, tp=tp, pp=pp, replicas=1, npus=16, nodes=nodes, usd_per_hour=32.0),
        bought(0, hosts=2, npus=16, usd_per_hour=32.0, power=16 * 1730.0),
    )


def test_a_replica_over_two_nodes_keeps_its_ranks_within_one(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    chat, users = good_problem.traffic
    quiet = chat.model_copy(update={"rate": 1.0, "targets": ()})
    problem = good_problem.model_copy(
        update={"traffic": (quiet, users), "limits": Limits()}
    )
    for mutate, caught in (
        (over_two_nodes(8, 2, nodes=2), set()),
        (over_two_nodes(8, 2, nodes=1), {"nodes"}),
        (over_two_nodes(16, 1, nodes=2), {"hosts"}),
    ):
        assert broken(problem, settled(problem, mutate(good_plan))) == caught


def test_deployments_on_one_purchase_share_its_cost(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    pair, _ = good_plan.deployments
    for shares, caught in (
        ((10.0, 6.0), set()),
        ((10.0, 5.0), {"cost"}),
        ((16.0, 16.0), {"cost"}),
    ):
        two, one = (
            pair.model_copy(
                update={"replicas": n, "npus": 2 * n, "usd_per_hour": share}
            )
            for n, share in zip((2, 1), shares, strict=True)
        )
        deployments = (two, one, good_plan.deployments[1])
        plan = good_plan.model_copy(update={"deployments": deployments})
        assert broken(asked(good_problem), plan) == caught


TARGETS = [
    (metric, statistic)
    for metric in ("ttft", "tpot", "e2e")
    for statistic in ("mean", "p50", "p90", "p95", "p99")
]


def asked(problem: SizingProblem, *targets: LatencyTarget) -> SizingProblem:
    """Return the problem with other targets of its first class."""
    chat, users = problem.traffic
    changed = chat.model_copy(update={"targets": targets})
    return problem.model_copy(update={"traffic": (changed, users)})


@pytest.mark.parametrize(("metric", "statistic"), TARGETS)
def test_each_target_missed_is_caught_alone(
    good_problem: SizingProblem, good_plan: Plan, metric: Any, statistic: Any
) -> None:
    chat, traffic = good_plan.deployments[0], good_problem.traffic[0]
    figures = Station.of(good_plan, chat, traffic).latencies(chat.rate)
    exact = float(getattr(getattr(figures, metric), statistic))
    for factor, caught in (
        (1.005, set()),
        (0.98, {f"chat {statistic} {metric.upper()}"}),
    ):
        limit = LatencyTarget(
            metric=metric, statistic=statistic, at_most=exact * factor
        )
        assert broken(asked(good_problem, limit), good_plan) == caught


def test_a_pool_too_small_for_its_rate_is_caught_alone(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    """Three replicas behind a router wait less than one that takes all the chance."""
    chat, traffic = good_plan.deployments[0], good_problem.traffic[0]
    lone = chat.model_copy(update={"replicas": 1})
    waits = [
        float(Station.of(good_plan, each, traffic).latencies(chat.rate).ttft.p99)
        for each in (chat, lone)
    ]
    between = (waits[0] * waits[1]) ** 0.5
    limit = LatencyTarget(metric="ttft", statistic="p99", at_most=between)
    chat_alone, users = asked(good_problem, limit).traffic
    quiet = chat_alone.model_copy(update={"rate": 18.0})
    problem = good_problem.model_copy(update={"traffic": (quiet, users)})
    assert broken(problem, good_plan) == set()
    fewer = deployed(0, replicas=1, npus=2)
    assert broken(problem, fewer(good_plan)) == {"chat p99 TTFT"}


LIMITS = {
    "limits.npus": {"npus": 9},
    "limits.nodes": {"nodes": 1},
    "limits.usd_per_hour": {"usd_per_hour": 17.99},
    "limits.power": {"power": 15_358.0},
    "limits.npus_per_type.h100-sxm": {"npus_per_type": {"h100-sxm": 7}},
    "limits.npus_per_type.l40s": {"npus_per_type": {"l40s": 0}},
}


@pytest.mark.parametrize(
    ("requirement", "limit"), LIMITS.items(), ids=list(LIMITS.keys())
)
def test_each_limit_exceeded_is_caught_alone(
    good_problem: SizingProblem,
    good_plan: Plan,
    requirement: str,
    limit: dict[str, Any],
) -> None:
    limits = good_problem.limits.model_copy(update=limit)
    tighter = good_problem.model_copy(update={"limits": limits})
    assert broken(tighter, good_plan) == {requirement}


def test_headroom_counts(good_problem: SizingProblem, good_plan: Plan) -> None:
    # 3 x 18 req/s of capacity cover 50 req/s, but not 50 / 0.8.
    wary = good_problem.model_copy(update={"headroom": 0.2})
    assert "chat demand" in broken(wary, good_plan)


def test_price_that_is_no_longer_given_is_caught(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    prices = good_problem.prices.model_copy(update={"given": ()})
    listed = good_problem.model_copy(update={"prices": prices})
    assert "hardware" in broken(listed, good_plan)


def test_chunks_no_longer_than_allowed_pass(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    longer = _changed(good_plan, "deployments", 0, {"chunk_tokens": 4096})
    for allowed in (4096, None):
        more = good_problem.model_copy(update={"chunk_tokens": allowed})
        assert "chunk_tokens" not in broken(more, longer)


def test_a_batch_no_larger_than_stated_passes(
    good_problem: SizingProblem, good_plan: Plan
) -> None:
    for stated, wrong in ((256, set()), (255, {"max_num_seqs"}), (None, set())):
        problem = good_problem.model_copy(update={"max_num_seqs": stated})
        assert broken(problem, good_plan) == wrong


def test_violation_reads_as_a_sentence() -> None:
    assert str(Violation("cost", "1 stated, 2 asked")) == "cost: 1 stated, 2 asked"
