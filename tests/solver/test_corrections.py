"""Rates that a simulation has corrected, and the plans that follow."""

from typing import Any

import pytest

from problems.offers import offers
from problems.problem import SizingProblem
from solver.candidates import Candidate, select
from solver.solve import Optimal, Workspace
from solver.table import tabulate


def problem(**traffic: Any) -> SizingProblem:
    stated: dict[str, Any] = {"input_tokens": 500, "output_tokens": 50, "rate": 30.0}
    stated |= {"targets": [{"metric": "tpot", "at_most": 0.05}]} | traffic
    return SizingProblem.model_validate(
        {
            "model": "llama-3.1-8b",
            "traffic": [{k: v for k, v in stated.items() if v is not None}],
            "hardware": {"npus": ["l40s", "h100-sxm"]},
        }
    )


def alone(candidates: list[Candidate]) -> dict[Any, Candidate]:
    """Return the candidates of single replicas by offer and split."""
    return {(c.offer, c.split): c for c in candidates if c.least == 1}


@pytest.mark.parametrize(
    "traffic", [{}, {"rate": None, "concurrency": 100}], ids=["open", "closed"]
)
def test_a_correction_lowers_one_rate_and_no_other(traffic: dict[str, Any]) -> None:
    asked = problem(**traffic)
    available = offers(asked)
    tables = tabulate(asked, available)
    plain = alone(select(tables, available, asked))
    (offer, split), chosen = next(iter(plain.items()))
    npu = available[offer].npu.name
    corrections = {("traffic", npu, split, chosen.precision.name): 0.8}
    after = alone(select(tables, available, asked, corrections=corrections))
    lowered = after[offer, split]
    assert lowered.rate == pytest.approx(0.8 * chosen.rate)
    # In a closed loop a lower rate has shorter latencies, so that fewer are in flight.
    assert lowered.capacity <= 0.8 * chosen.capacity * (1 + 1e-9)
    for place, candidate in plain.items():
        if available[place[0]].npu.name != npu and place in after:
            assert after[place] == candidate


def test_corrections_of_others_change_nothing() -> None:
    asked = problem()
    plain = Workspace.of(asked).solve()
    assert isinstance(plain, Optimal)
    (deployment, *_) = plain.plan.deployments
    split = deployment.parallelism
    others = {
        ("another", deployment.npu, split, deployment.precision): 0.1,
        ("traffic", "b200-sxm", split, deployment.precision): 0.1,
        ("traffic", deployment.npu, split, "fp8"): 0.1,
    }
    corrected = Workspace.of(asked, others).solve()
    assert isinstance(corrected, Optimal)
    assert corrected.plan == plain.plan


def test_a_plan_of_corrected_rates_is_verified_and_costs_no_less() -> None:
    asked = problem()
    plain = Workspace.of(asked).solve()
    assert isinstance(plain, Optimal)
    shares = {
        ("traffic", d.npu, d.parallelism, d.precision): 0.4
        for d in plain.plan.deployments
    }
    corrected = Workspace.of(asked, shares).solve()
    assert isinstance(corrected, Optimal)
    assert corrected.plan.usd_per_hour >= plain.plan.usd_per_hour
