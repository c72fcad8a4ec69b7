"""Intervals: around the prediction, never faster than the roofline."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.estimate import Estimate, Load, LoadMode, estimate, least_latencies
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import ConstantEfficiency, Evidence
from model_ops.platform.kernels import KernelEfficiency
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape
from model_ops.serving.step import Replica
from problems.accuracy import ErrorLaw, error_law, interval, latency_intervals

SHAPE = RequestShape(input_tokens=100, output_tokens=41)
SINGLE = RequestShape(input_tokens=100, output_tokens=1)
METRICS = ("ttft", "tpot", "e2e")
CHUNK = 256


def lossy(npu: Npu, share: float) -> Npu:
    kernels = dict.fromkeys(KernelFamily, KernelEfficiency(share, share, 0.0))
    efficiency = ConstantEfficiency(kernels, {})
    return replace(npu, efficiency=efficiency, link_efficiency=share, step_overhead=0.0)


def on(replica: Replica, share: float, tp: int = 1, pp: int = 1) -> Replica:
    (npu,) = replica.supply.npus
    return replace(
        replica,
        supply=Supply.of(lossy(npu, share)),
        parallelism=Parallelism(tp, pp),
    )


def under(
    replica: Replica,
    mode: LoadMode,
    shape: RequestShape = SHAPE,
    users: object = 4.0,
) -> Estimate:
    full = Load(shape, LoadMode.OFFLINE, chunk_tokens=CHUNK)
    rate = 0.1 * users * estimate(replica, full).rate
    return estimate(replica, Load(shape, mode, users, rate, CHUNK))


@pytest.mark.parametrize("mode", list(LoadMode))
@pytest.mark.parametrize("metric", [*METRICS, "rate"])
@pytest.mark.parametrize("evidence", list(Evidence))
def test_every_figure_has_a_law_whose_interval_holds_the_prediction(
    mode: LoadMode, metric: str, evidence: Evidence
) -> None:
    law = error_law(metric, mode, evidence)
    assert list(law.logs) == sorted(law.logs)
    low, high = interval(metric, 2.0, mode, evidence)
    assert 0 < low <= 2 <= high < np.inf
    assert low in (2.0, 2 * law.quantile(0.05))
    assert high in (2.0, 2 * law.quantile(0.95))


def test_chance_is_the_inverse_of_the_quantile() -> None:
    law = ErrorLaw((-2.0, -1.0, -0.5, -0.2, 0.0, 0.1, 0.3, 0.6, 1.2))
    assert law.quantile(0.5) == 1.0
    assert law.quantile(0.95) == pytest.approx(np.exp(0.6))
    for level in (0.05, 0.3, 0.5, 0.8, 0.95):
        assert law.chance(law.quantile(level)) == pytest.approx(level)
    assert law.chance(np.array([0.0, 1e9])).tolist() == [0.01, 0.99]


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(LoadMode))
@pytest.mark.parametrize("users", [1.0, 4.0])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.01])
@pytest.mark.parametrize("layout", [(1, 1), (4, 1), (2, 3)])
@pytest.mark.parametrize(
    "shape", [SHAPE, SINGLE, RequestShape(10, 400), RequestShape(1000, 5)]
)
def test_intervals_hold_the_prediction_and_start_above_the_roofline(
    toy_replica: Replica,
    mode: LoadMode,
    share: float,
    layout: tuple[int, int],
    shape: RequestShape,
    users: float,
) -> None:
    replica = on(toy_replica, share, *layout)
    found = under(replica, mode, shape, users=users)
    intervals = latency_intervals(replica, found, mode)
    assert set(intervals) == set(METRICS)
    first, further = least_latencies(replica, shape)
    least = {"ttft": first, "tpot": further, "e2e": first}
    for metric, (low, high) in intervals.items():
        mean = getattr(found, metric)
        assert low <= mean * (1 + 1e-12)
        assert mean <= high * (1 + 1e-12)
        assert high < np.inf
        assert low >= min(least[metric], mean) * (1 - 1e-12), metric
    for end in (0, 1):
        assert intervals["e2e"][end] >= intervals["ttft"][end]


@pytest.mark.parametrize("mode", list(LoadMode))
def test_far_above_the_roofline_intervals_are_the_factors(
    toy_replica: Replica, mode: LoadMode
) -> None:
    replica = on(toy_replica, 1e-3)
    found = under(replica, mode)
    intervals = latency_intervals(replica, found, mode)
    for metric in ("ttft", "tpot"):
        expected = interval(metric, getattr(found, metric), mode, Evidence.ASSUMED)
        assert intervals[metric] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mode", list(LoadMode))
def test_at_the_roofline_intervals_start_there(
    toy_replica: Replica, mode: LoadMode
) -> None:
    replica = on(toy_replica, 1.0)
    found = under(replica, mode, users=1e-3)
    if mode is LoadMode.STATIC_BATCH:
        found = under(replica, mode, users=1.0)
    intervals = latency_intervals(replica, found, mode)
    first, further = least_latencies(replica, SHAPE)
    for metric, least in (("ttft", first), ("tpot", further)):
        around = interval(metric, getattr(found, metric), mode, Evidence.ASSUMED)
        expected = max(float(around[0]), float(least))
        assert intervals[metric][0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mode", list(LoadMode))
def test_no_further_token_takes_no_time(toy_replica: Replica, mode: LoadMode) -> None:
    replica = on(toy_replica, 0.5)
    intervals = latency_intervals(replica, under(replica, mode, SINGLE), mode)
    assert intervals["tpot"] == (0, 0)
    for end in (0, 1):
        assert intervals["e2e"][end] >= intervals["ttft"][end] * (1 - 1e-12)


def test_endless_waiting_has_an_endless_interval(toy_replica: Replica) -> None:
    mode = LoadMode.OPEN_LOOP
    found = replace(under(toy_replica, mode), ttft=np.inf)
    intervals = latency_intervals(toy_replica, found, mode)
    assert intervals["ttft"] == intervals["e2e"] == (np.inf, np.inf)
    assert intervals["tpot"][1] < np.inf


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(LoadMode))
def test_arrays_and_stacked_supplies_equal_scalars(
    toy_arch: ModelArch, toy_replica: Replica, toy_npu: Npu, mode: LoadMode
) -> None:
    npus = (toy_npu, lossy(toy_npu, 0.7), lossy(toy_npu, 0.05))
    tp, pp = np.array([1, 2, 4]), np.array([1, 3, 6])
    users = np.array([0.5, 2.0, 8.0])
    together = Replica(
        toy_arch,
        Parallelism(tp[:, None], pp[:, None]),
        toy_replica.precision,
        Supply.stack(npus, 2),
    )
    whole = latency_intervals(together, under(together, mode, users=users), mode)
    grid = (len(npus), len(tp), len(users))
    for at in np.ndindex(grid):
        replica = replace(
            toy_replica,
            parallelism=Parallelism(int(tp[at[1]]), int(pp[at[1]])),
            supply=Supply.of(npus[at[0]]),
        )
        one = under(replica, mode, users=float(users[at[2]]))
        alone = latency_intervals(replica, one, mode)
        for metric in METRICS:
            for found, expected in zip(whole[metric], alone[metric], strict=True):
                here = np.broadcast_to(found, grid)[at]
                assert here == pytest.approx(expected, rel=1e-9), metric


def test_e2e_of_a_pair_is_as_uncertain_as_the_less_known_of_its_kernels(
    toy_replica: Replica,
) -> None:
    mode = LoadMode.STATIC_BATCH
    assumed = on(toy_replica, 1e-3)
    (npu,) = assumed.supply.npus
    known = replace(npu, evidence=Evidence.MEASURED)
    measured = replace(assumed, supply=Supply.of(known))
    found = under(assumed, mode)
    for reading, answering in ((assumed, measured), (measured, assumed)):
        around = latency_intervals(reading, found, mode, answering=answering)
        for metric, kernels in (
            ("ttft", reading.supply.npus[0].evidence),
            ("tpot", answering.supply.npus[0].evidence),
            ("e2e", Evidence.ASSUMED),
        ):
            expected = interval(metric, getattr(found, metric), mode, kernels)
            assert around[metric] == pytest.approx(expected, rel=1e-12), metric
