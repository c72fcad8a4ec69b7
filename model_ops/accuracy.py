"""How far the model's predictions have been from measurements.

Quantiles of measured / predicted over published serving results of dense models,
every group of measurements weighing the same; ``tests/benchmarks/accuracy.py`` prints
them. One constant was fitted to those results: the seconds of a request outside the
steps, which open loops have. An interval always holds
the prediction itself.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from model_ops.estimate import Estimate, LoadMode, least_latencies
from model_ops.opcost import Number
from model_ops.profiler.arch import ModelArch
from model_ops.serving.step import Replica

_OPEN = {"ttft": (0.63, 1.71), "tpot": (0.75, 1.5), "rate": (0.68, 1.1)}
# Benchmarks with a fixed number of users start them all at once: that burst, not the
# steady state, sets much of the TTFT they measure.
_CLOSED = {"ttft": (0.02, 27.0), "tpot": (0.2, 1.5), "rate": (0.79, 1.4)}
_OFFLINE = {**_CLOSED, "rate": (0.77, 2.6)}
_STATIC = {
    "ttft": (0.65, 2.1),
    "tpot": (0.7, 2.7),
    "e2e": (0.94, 6.9),
    "rate": (0.55, 1.3),
}

FACTORS: Mapping[LoadMode, Mapping[str, tuple[float, float]]] = {
    LoadMode.OPEN_LOOP: _OPEN,
    LoadMode.CLOSED_LOOP: _CLOSED,
    LoadMode.OFFLINE: _OFFLINE,
    LoadMode.STATIC_BATCH: _STATIC,
}
"""Multiples of a prediction between which nine measurements of ten lie."""


def interval(metric: str, value: Number, mode: LoadMode) -> tuple[Number, Number]:
    """Return what nine measurements of ten lie between, given a prediction.

    Parameters
    ----------
    metric
        ``ttft``, ``tpot``, ``e2e`` or ``rate`` (of requests or tokens).
    value
        The prediction, in any unit.
    mode
        How requests come.
    """
    low, high = FACTORS[mode][metric]
    return value * low, value * high


def latency_intervals(
    replica: Replica, estimate: Estimate, mode: LoadMode
) -> dict[str, tuple[Number, Number]]:
    """Return the intervals of the three latencies of an estimate.

    Nothing is faster than the roofline, so no interval starts below it. E2E adds up
    from its parts where too few measurements of its own are known.
    """
    steps = estimate.shape.decode_steps
    first, further = least_latencies(replica, estimate.shape)
    floors = {"ttft": first, "tpot": further, "e2e": first + steps * further}
    found = {}
    for metric, floor in floors.items():
        if metric not in FACTORS[mode]:
            continue
        mean = getattr(estimate, metric)
        low, high = interval(metric, mean, mode)
        found[metric] = (np.minimum(np.maximum(low, floor), mean), high)
    if "e2e" not in found:
        (low, high), (slow, late) = found["ttft"], found["tpot"]
        found["e2e"] = (low + steps * slow, high + steps * late)
    return found


def untested(arch: ModelArch) -> Iterator[str]:
    """Yield what the intervals do not cover: they rest on results of dense models."""
    taken = {f: f.relative for f in arch.kernel_families if f.relative is not f}
    if taken:
        pairs = "; ".join(
            f"{family.label} that of {relative.label} kernels"
            for family, relative in sorted(taken.items())
        )
        yield (
            "The intervals were measured on dense models. Special kernels take the "
            f"efficiency of their nearest relative: {pairs}."
        )
