"""Rates that a simulation has corrected, and the plans that follow."""

from typing import Any

import numpy as np
import pytest

from problems.offers import offers
from problems.problem import SizingProblem
from solver.candidates import Candidate
from solver.corrections import confirmed
from solver.selection import select
from solver.settings import Setting
from solver.solve import Optimal, Workspace
from solver.tabulation import tabulate

USUAL = Setting(1024, 2048)


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
    place = ("traffic", npu, split, chosen.precision.name)
    corrections = {(*place, chosen.setting, "aggregated"): 0.8}
    after = alone(select(tables, available, asked, corrections=corrections))
    lowered = after[offer, split]
    assert lowered.rate == pytest.approx(0.8 * chosen.rate)
    # In a closed loop a lower rate has shorter latencies, so that fewer are in flight.
    assert lowered.capacity <= 0.8 * chosen.capacity * (1 + 1e-9)
    for place, candidate in plain.items():
        if available[place[0]].npu.name != npu and place in after:
            assert after[place] == candidate


def test_a_correction_is_of_the_setting_that_was_simulated() -> None:
    (table,) = tabulate(problem(), offers(problem()))
    option = table.options - 1
    split, npu = table.split(option), table.npu(option).name
    place = ("traffic", npu, split, table.precision.name)
    worse, better = table.settings[0], table.settings[3]
    share = confirmed(
        table, {(*place, worse, "aggregated"): 0.6, (*place, better, "aggregated"): 0.9}
    )
    assert share.shape == table.fits.shape
    assert (share[0, option], share[3, option]) == (0.6, 0.9)
    # What was not simulated is trusted as the best that was; all others fully.
    others = np.delete(share[:, option], [0, 3])
    assert (others == 0.9).all()
    assert (np.delete(share, option, axis=1) == 1.0).all()


@pytest.mark.parametrize(
    "traffic", [{}, {"rate": None, "concurrency": 100}], ids=["open", "closed"]
)
def test_what_was_confirmed_at_no_rate_is_not_planned(traffic: dict[str, Any]) -> None:
    asked = problem(**traffic)
    available = offers(asked)
    tables = tabulate(asked, available)
    plain = select(tables, available, asked)
    first = plain[0]
    npu = available[first.offer].npu.name
    place = ("traffic", npu, first.split, first.precision.name)
    corrections = {(*place, first.setting, "aggregated"): 0.0}
    for exact in (True, False):
        after = select(tables, available, asked, exact=exact, corrections=corrections)
        assert after
        assert (npu, first.split) not in {
            (available[c.offer].npu.name, c.split) for c in after
        }


def test_corrections_of_others_change_nothing() -> None:
    asked = problem()
    plain = Workspace.of(asked).solve()
    assert isinstance(plain, Optimal)
    (deployment, *_) = plain.plan.deployments
    split = deployment.parallelism
    others = {
        (
            "another",
            deployment.npu,
            split,
            deployment.precision,
            USUAL,
            "aggregated",
        ): 0.1,
        ("traffic", "b200-sxm", split, deployment.precision, USUAL, "aggregated"): 0.1,
        ("traffic", deployment.npu, split, "fp8", USUAL, "aggregated"): 0.1,
        ("traffic", deployment.npu, split, deployment.precision, USUAL, "decode"): 0.1,
    }
    corrected = Workspace.of(asked, others).solve()
    assert isinstance(corrected, Optimal)
    assert corrected.plan == plain.plan


def test_a_plan_of_corrected_rates_is_verified_and_costs_no_less() -> None:
    asked = problem()
    plain = Workspace.of(asked).solve()
    assert isinstance(plain, Optimal)
    shares = {
        (
            *("traffic", d.npu, d.parallelism, d.precision),
            *(Setting(d.batch, d.chunk_tokens), d.mode),
        ): 0.4
        for d in plain.plan.deployments
    }
    corrected = Workspace.of(asked, shares).solve()
    assert isinstance(corrected, Optimal)
    assert corrected.plan.usd_per_hour >= plain.plan.usd_per_hour
