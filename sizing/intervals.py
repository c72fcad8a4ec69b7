"""Intervals of the mean latencies of deployments, and why they are wider."""

from collections.abc import Iterator, Mapping

import numpy as np

from model_ops.opcost import Number
from model_ops.serving.queueing import Latencies, Metric
from problems.accuracy import latency_intervals
from problems.plan import Plan
from problems.serve import Served
from problems.stations import replica_of

WIDER: Mapping[str, Mapping[Metric, float]] = {
    "near_saturation": {"ttft": 1.7, "tpot": 1.2, "e2e": 1.3},
    "near_preemption": {"ttft": 1.8, "tpot": 1.2, "e2e": 1.2},
    "prompts_dominate": {"ttft": 1.1, "tpot": 1.4, "e2e": 1.3},
    "groups_collide": {"ttft": 1.3, "tpot": 1.1, "e2e": 1.1},
    "heavy_tail": {"ttft": 1.3, "tpot": 1.1, "e2e": 1.2},
}
"""How much wider intervals are where the queueing formulas are weak, by reason.

A low end is divided by it, a high end multiplied; of several reasons the widest
counts. The first three cover nine of ten errors of the means against simulation in
the regimes of ``tests/benchmarks/queueing.py`` that have the reason, at 0.85 and 0.9
of saturation for the first. The fourth covers the errors in the simulations of
``tests/model_ops/serving/test_queueing.py``; the last is assumed.
"""

BETWEEN = "9 of 10 measured means (not percentiles) should lie from low to high"
"""What an interval says."""

METRICS: tuple[Metric, ...] = ("ttft", "tpot", "e2e")

WHY: Mapping[str, str] = {
    "near_saturation": "close to saturation a little more load is a long wait",
    "near_preemption": "the KV cache may run full, and what is then computed twice "
    "is not counted",
    "prompts_dominate": "prompts take most of the steps of its short answers",
    "groups_collide": "prompts of its data-parallel groups lengthen each other's steps",
    "heavy_tail": "few very long prompts decide the slowest first tokens",
}
"""What each reason means, as a clause."""


def mean_ranges(plan: Plan, served: Served) -> dict[Metric, tuple[float, float]]:
    """Return the intervals of a planned deployment's mean latencies.

    They hold the model's error, and that of the queueing formulas where they are weak.
    """
    estimate = served.estimate
    reading, answering = (
        replica_of(plan, row) for row in (served.rows[0], served.rows[-1])
    )
    found = latency_intervals(
        reading,
        estimate,
        served.load.mode,
        answering=answering,
        wider=widening(served.latencies),
    )
    # Where lengths vary, the mean E2E is not that of the mean request.
    longer = float(served.latencies.e2e.mean) / float(estimate.e2e)
    scale: Mapping[Metric, float] = {"ttft": 1.0, "tpot": 1.0, "e2e": longer}
    return {
        metric: (float(found[metric][0]) * by, float(found[metric][1]) * by)
        for metric, by in scale.items()
    }


def widening(seen: Latencies | None) -> dict[str, Number]:
    """Return how much wider each interval is where the formulas are weak; else 1.

    None: no queueing formula was used.
    """
    if seen is None:
        return dict.fromkeys(METRICS, 1.0)
    return {
        metric: np.max(
            [
                np.where(is_so, WIDER[reason][metric], 1.0)
                for reason, is_so in seen.weak.items()
            ],
            axis=0,
        )
        for metric in METRICS
    }


def weak_places(seen: Latencies) -> tuple[str, ...]:
    """Return the reasons for which a deployment's figures are less certain."""
    return tuple(reason for reason, is_so in seen.weak.items() if is_so)


def weakness(seen: Latencies | None) -> Iterator[str]:
    """Yield a sentence on why figures are less certain, if they are."""
    reasons = () if seen is None else weak_places(seen)
    if reasons:
        factors = ", ".join(
            f"{metric.upper()} x {float(by):g}" for metric, by in widening(seen).items()
        )
        yield (
            f"Its figures are less certain, their intervals wider ({factors}): "
            f"{'; '.join(WHY[reason] for reason in reasons)}."
        )
