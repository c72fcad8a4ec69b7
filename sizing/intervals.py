"""Intervals of the mean latencies of planned deployments, and why they are wider."""

from collections.abc import Iterable, Mapping

from model_ops.estimate import least_latencies
from model_ops.opcost import Number
from model_ops.serving.queueing import Metric
from problems.accuracy import latency_intervals
from problems.plan import Plan
from problems.serve import Served
from problems.stations import replica_of

WIDER: Mapping[str, Mapping[str, float]] = {
    "near_saturation": {"ttft": 1.7, "tpot": 1.2},
    "near_preemption": {"ttft": 1.8, "tpot": 1.2},
    "prompts_dominate": {"ttft": 1.1, "tpot": 1.4},
    "groups_collide": {"ttft": 1.3, "tpot": 1.1},
    "heavy_tail": {"ttft": 1.3, "tpot": 1.1},
}
"""How much wider intervals are where the queueing formulas are weak, by reason.

A low end is divided by it, a high end multiplied; of several reasons the widest
counts. The first three cover nine of ten errors of the means against simulation in
the regimes of ``tests/benchmarks/queueing.py`` that have the reason, at 0.85 and 0.9
of saturation for the first. The fourth covers the errors in the simulations of
``tests/model_ops/serving/test_queueing.py``; the last is assumed.
"""

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
    """Return the intervals of a deployment's mean latencies.

    They hold the model's error, and that of the queueing formulas where they are weak;
    nothing is faster than the roofline. Of a pair TTFT is as uncertain as the kernels
    of the prefill pool, TPOT as those of the decode pool. E2E adds up from its parts.
    """
    estimate, mode = served.estimate, served.load.mode
    first, further = (
        replica_of(plan, row) for row in (served.rows[0], served.rows[-1])
    )
    around = latency_intervals(first, estimate, mode)["ttft"]
    least, _ = least_latencies(first, estimate.shape)
    ttft = _widened(served, "ttft", around, float(least))
    around = latency_intervals(further, estimate, mode)["tpot"]
    _, least = least_latencies(further, estimate.shape)
    tpot = _widened(served, "tpot", around, float(least))
    steps = float(estimate.shape.decode_steps)
    # Where lengths vary, the mean E2E is not that of the mean request.
    scale = float(served.latencies.e2e.mean) / float(estimate.e2e)
    low, high = (
        scale * (each + steps * more) for each, more in zip(ttft, tpot, strict=True)
    )
    return {"ttft": ttft, "tpot": tpot, "e2e": (low, high)}


def _widened(
    served: Served, metric: Metric, around: tuple[Number, Number], least: float
) -> tuple[float, float]:
    """Return an interval as wide as the weak places of the formulas make it."""
    wider = widening(weak_places(served), metric)
    mean = float(getattr(served.estimate, metric))
    low = max(float(around[0]) / wider, least)
    return min(low, mean), float(around[1]) * wider


def widening(weak: Iterable[str], metric: str) -> float:
    """Return how much wider an interval is for some reasons; 1 for none."""
    return max((WIDER[reason][metric] for reason in weak), default=1.0)


def weak_places(served: Served) -> tuple[str, ...]:
    """Return the reasons for which a deployment's figures are less certain."""
    return tuple(reason for reason, is_so in served.latencies.weak.items() if is_so)
