"""The verifier passes the good plan and names each corruption of it."""

from collections.abc import Callable
from typing import Any

import pytest

from problems.plan import Plan
from problems.problem import SizingProblem
from problems.verify import Violation, latency, violations

Mutation = Callable[[Plan], Plan]


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


def test_good_plan_passes(good_problem: SizingProblem, good_plan: Plan) -> None:
    assert violations(good_problem, good_plan) == []


MUTATIONS = {
    "model": (lambda plan: plan.model_copy(update={"model": "llama-3-8b"}), "model"),
    "replicas-too-few": (deployed(0, replicas=2, npus=4), "chat demand"),
    "users-too-few": (deployed(1, batch=15, mean_batch=15.0), "users demand"),
    "class-unserved": (without("deployments", 1), "users demand"),
    "batch-below-its-mean": (deployed(0, batch=31), "batch"),
    "batch-for-memory": (deployed(1, batch=1024, mean_batch=1024.0), "memory"),
    "batch-for-ttft": (deployed(0, batch=128, mean_batch=128.0), "chat mean TTFT"),
    "batch-for-tpot": (deployed(0, batch=128, mean_batch=128.0), "chat mean TPOT"),
    "batch-for-e2e": (deployed(0, batch=128, mean_batch=128.0), "chat mean E2E"),
    "tp-divides-no-heads": (deployed(0, tp=3, npus=9), "parallelism"),
    "pp-exceeds-layers": (deployed(1, pp=40, npus=80), "parallelism"),
    "class-unknown": (deployed(0, traffic="caht"), "traffic"),
    "precision-not-allowed": (deployed(0, precision="fp8"), "precision"),
    "offer-not-offered": (deployed(0, offer="h100-sxm|x|y|z"), "hardware"),
    "purchase-not-offered": (bought(0, offer="h100-sxm|x|y|z"), "hardware"),
    "stands-on-nothing": (without("purchases", 1), "hardware"),
    "npu-is-not-the-offers": (deployed(1, npu="h100-sxm"), "hardware"),
    "purchase-is-not-the-offers": (bought(0, npu="l40s"), "hardware"),
    "cost-understated": (bought(0, usd_per_hour=15.99), "cost"),
    "cost-overstated": (bought(1, usd_per_hour=2.01), "cost"),
    "npus-understated": (bought(0, npus=6), "npus"),
    "used-npus-misstated": (deployed(0, npus=5), "npus"),
    "power-understated": (bought(0, power=1000.0), "power"),
    "power-withheld": (bought(0, power=None), "limits.power"),
    "hosts-too-few": (deployed(0, replicas=5, npus=10), "hosts"),
    "replica-spans-hosts": (deployed(0, tp=4, pp=3, npus=36), "hosts"),
    "chunk-too-large": (deployed(0, chunk_tokens=4096), "chunk_tokens"),
}


@pytest.mark.parametrize(
    ("mutate", "requirement"), MUTATIONS.values(), ids=MUTATIONS.keys()
)
def test_corrupted_plan_is_caught(
    good_problem: SizingProblem, good_plan: Plan, mutate: Mutation, requirement: str
) -> None:
    assert requirement in broken(good_problem, mutate(good_plan))


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
    # 3 x 19 req/s of capacity cover 50 req/s, but not 50 / 0.8.
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
    more = good_problem.model_copy(update={"chunk_tokens": 4096})
    longer = _changed(good_plan, "deployments", 0, {"chunk_tokens": 4096})
    assert "chunk_tokens" not in broken(more, longer)


def test_end_to_end_is_the_first_token_and_the_steps_after(
    good_problem: SizingProblem,
) -> None:
    traffic = good_problem.traffic[0]
    ttft, tpot, e2e = traffic.targets

    class State:
        ttft, tpot = 0.5, 0.01

    assert latency(State, ttft, traffic) == 0.5
    assert latency(State, tpot, traffic) == 0.01
    assert latency(State, e2e, traffic) == pytest.approx(0.5 + 199 * 0.01)


def test_violation_reads_as_a_sentence() -> None:
    assert str(Violation("cost", "1 stated, 2 asked")) == "cost: 1 stated, 2 asked"
