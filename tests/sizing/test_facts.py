"""What reports show of a class that several kinds of deployments serve."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from problems.problem import problem_of
from problems.stations import Station
from sizing.api import Answer, size
from sizing.facts import ClassFacts, class_facts
from sizing.intervals import METRICS, WHY, WIDER, mean_ranges, widening
from sizing.report.estimate import latencies as predicted_means
from sizing.single import predict
from solver.solve import Optimal

LEVELS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@cache
def mixed() -> tuple[Answer, ClassFacts]:
    """Return an answer with two NPU types for one class, and its facts."""
    chat = {
        "name": "chat",
        "input_tokens": 1000,
        "output_tokens": 200,
        "rate": 33.0,
        "targets": [{"metric": "tpot", "statistic": "p95", "at_most": 0.05}],
    }
    given = [
        {"npu": "l40s", "usd_per_hour": 0.8},
        {"npu": "h100-sxm", "usd_per_hour": 2.5},
    ]
    problem = problem_of(
        {
            "model": "llama-3.1-8b",
            "traffic": [chat],
            "hardware": {"npus": ["l40s", "h100-sxm"]},
            "prices": {"given": given},
        },
        "python",
    )
    answer = size(problem)
    assert isinstance(answer.outcome, Optimal)
    (facts,) = class_facts(answer, answer.outcome.plan)
    assert len({each.served.deployment.npu for each in facts.deployments}) == 2
    return answer, facts


def rates(facts: ClassFacts) -> np.ndarray:
    return np.array(
        [
            each.served.deployment.replicas * float(each.served.estimate.rate)
            for each in facts.deployments
        ]
    )


@pytest.mark.parametrize("metric", ["ttft", "tpot", "e2e"])
@pytest.mark.parametrize("name", LEVELS)
def test_a_percentile_is_exceeded_by_its_share_of_all_requests(
    metric: str, name: str
) -> None:
    answer, facts = mixed()
    assert isinstance(answer.outcome, Optimal)
    (found,) = [p for p in facts.predictions if p.metric == metric]
    seconds = np.array([[found.value(name)]])
    above = []
    for each in facts.deployments:
        served = each.served
        station = Station.of(answer.outcome.plan, served.deployment, facts.traffic)
        laws = station.laws(float(served.estimate.rate))
        law = {"ttft": laws.ttft, "tpot": laws.per_step, "e2e": laws.e2e}[metric]
        above.append(float(law.survival(seconds)[0, 0]))
    weights = rates(facts) / sum(rates(facts))
    assert weights @ above == pytest.approx(1.0 - LEVELS[name], rel=0.02)
    own = [
        getattr(getattr(e.served.latencies, metric), name) for e in facts.deployments
    ]
    assert min(own) < found.value(name) < max(own)


def test_means_are_weighted_by_rates() -> None:
    _, facts = mixed()
    for found in facts.predictions:
        own = [
            float(getattr(each.served.latencies, found.metric).mean)
            for each in facts.deployments
        ]
        weights = rates(facts) / sum(rates(facts))
        assert found.mean == pytest.approx(float(weights @ own))


def test_a_rare_slow_deployment_sets_no_median_but_the_tail() -> None:
    _, facts = mixed()
    (ttft,) = [p for p in facts.predictions if p.metric == "ttft"]
    own = sorted(
        (float(e.served.latencies.ttft.p50), float(e.served.latencies.ttft.p99))
        for e in facts.deployments
    )
    weights = rates(facts) / sum(rates(facts))
    averaged = float(
        weights @ [float(e.served.latencies.ttft.p99) for e in facts.deployments]
    )
    assert ttft.percentiles["p50"] > own[0][0]
    assert ttft.percentiles["p99"] > averaged


def test_every_weakness_has_factors_and_words() -> None:
    _, facts = mixed()
    weak = facts.deployments[0].served.latencies.weak
    assert set(weak) == set(WIDER) == set(WHY)
    for factors in WIDER.values():
        assert all(factor > 1.0 for factor in factors.values())


def test_the_widest_of_several_reasons_counts() -> None:
    _, facts = mixed()
    seen = facts.deployments[0].served.latencies
    assert widening(seen) == widening(None) == dict.fromkeys(METRICS, 1.0)
    both = dict.fromkeys(("near_saturation", "prompts_dominate"), np.array(True))
    found = widening(replace(seen, weak=seen.weak | both))
    assert found["ttft"] == WIDER["near_saturation"]["ttft"]
    assert found["tpot"] == WIDER["prompts_dominate"]["tpot"]


def test_weak_places_widen_an_interval_to_both_sides() -> None:
    answer, facts = mixed()
    assert isinstance(answer.outcome, Optimal)
    served = facts.deployments[0].served
    assert not facts.deployments[0].weak
    calm = mean_ranges(answer.outcome.plan, served)
    weak = served.latencies.weak | {"near_saturation": np.array(True)}
    flagged = replace(served, latencies=replace(served.latencies, weak=weak))
    wide = mean_ranges(answer.outcome.plan, flagged)
    assert wide["ttft"][1] == pytest.approx(1.7 * calm["ttft"][1])
    assert wide["tpot"][1] == pytest.approx(1.2 * calm["tpot"][1])
    assert wide["e2e"][1] == pytest.approx(1.3 * calm["e2e"][1])
    for metric, (low, high) in wide.items():
        assert low <= calm[metric][0]
        assert high > calm[metric][1]


def test_the_same_deployment_has_the_same_intervals_in_size_and_in_estimate() -> None:
    answer, facts = mixed()
    assert isinstance(answer.outcome, Optimal)
    for each in facts.deployments:
        served = each.served
        row = served.deployment
        found = predict(
            model="llama-3.1-8b", npu=row.npu, framework="vllm", replicas=row.replicas,
            input_tokens=1000, output_tokens=200, chunk_tokens=row.chunk_tokens,
            rate=f"{row.replicas * float(served.estimate.rate)!r} req/s",
            tp=row.tp, pp=row.pp, ep=row.ep, dp=row.dp, cp=row.cp, precision=None,
            concurrency=None, mode=None, ideal=False, prefix_hit=None, beams=None,
            optimisations={},
        )  # fmt: skip
        planned = mean_ranges(answer.outcome.plan, served)
        for metric, (mean, low, high) in predicted_means(found).items():
            shares = np.array([low, high]) / mean
            own = float(getattr(served.latencies, metric).mean)
            assert np.array(planned[metric]) / own == pytest.approx(shares, rel=1e-4)
