"""Sizing with a confidence, and the chance that a plan meets its targets."""

from itertools import pairwise
from typing import Any

import pytest

from model_ops.estimate import LoadMode
from problems.accuracy import assumed_npu, error_law
from problems.catalogue import load_npu
from problems.chances import MOST, chances
from problems.problem import SizingProblem, problem_of
from problems.verify import violations
from sizing import size
from sizing.api import Answer


def problem(**changes: Any) -> SizingProblem:
    return problem_of(
        {
            "model": "llama-3.1-8b",
            "traffic": [
                {
                    "name": "chat",
                    "input_tokens": 1000,
                    "output_tokens": 200,
                    "rate": "20 req/s",
                    "targets": [
                        {"metric": "ttft", "statistic": "p95", "at_most": "1 s"},
                        {"metric": "tpot", "at_most": "25 ms"},
                    ],
                }
            ],
            "hardware": {"npus": ["l40s", "h100-sxm"]},
            "chunk_tokens": 2048,
            "max_num_seqs": 1024,
            **changes,
        },
        source="file",
    )


@pytest.fixture(scope="module")
def answers() -> dict[float | None, Answer]:
    levels = (None, 0.7, 0.9)
    return {
        level: size(problem(**({} if level is None else {"confidence": level})))
        for level in levels
    }


def test_an_npu_is_assumed_as_slow_as_the_law_says() -> None:
    npu = load_npu("l40s")
    assert assumed_npu("l40s", None) is npu
    law = error_law("tpot", LoadMode.CLOSED_LOOP, npu.evidence)
    slow = assumed_npu("l40s", 0.9)
    factor = max(law.quantile(0.9), 1.0)
    assert slow.pace == pytest.approx(npu.pace * factor)
    assert slow.step_overhead == pytest.approx(npu.step_overhead * factor)
    paces = [assumed_npu("l40s", level).pace for level in (0.01, 0.5, 0.7, 0.9, 0.99)]
    assert all(low <= high for low, high in pairwise(paces))
    assert paces[0] >= npu.pace  # never faster than predicted


def test_more_confidence_costs_no_less_and_is_verified(
    answers: dict[float | None, Answer],
) -> None:
    costs = [answer.outcome.plan.usd_per_hour for answer in answers.values()]
    assert costs == sorted(costs)
    for level, answer in answers.items():
        assert answer.outcome.plan.confidence == level
        assert violations(answer.problem, answer.outcome.plan) == []


def test_targets_hold_with_at_least_the_confidence_asked_for(
    answers: dict[float | None, Answer],
) -> None:
    for level, answer in answers.items():
        (traffic,) = answer.problem.traffic
        found = chances(answer.outcome.plan, traffic, answer.served["chat"])
        assert set(found) == set(traffic.targets)
        for chance in found.values():
            # A halving of the chance is less than a percentage point.
            assert chance >= (level or 0.0) - 0.01
            assert chance <= MOST


def test_a_verifier_that_is_asked_for_more_refuses_the_plan(
    answers: dict[float | None, Answer],
) -> None:
    plan = answers[None].outcome.plan
    assert violations(answers[0.9].problem, plan.at(0.9)) != []


def test_a_confidence_is_from_a_half_to_nearly_one() -> None:
    from model_ops.errors import ProblemError

    for level in (0.49, 1.0, 90):
        with pytest.raises(ProblemError, match="confidence"):
            problem(confidence=level)
