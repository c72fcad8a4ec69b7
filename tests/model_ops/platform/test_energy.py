from dataclasses import replace

import numpy as np
import pytest

from model_ops.platform.energy import (
    COMPUTE,
    MEMORY,
    NETWORK,
    PowerRange,
    full_power_seconds,
)
from model_ops.platform.kernels import OpTime
from model_ops.platform.npu import IDLE_PER_TDP, Npu
from model_ops.platform.supply import Supply

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
settings = hypothesis.settings(derandomize=True, deadline=None)

POWER = PowerRange(least=100.0, tdp=700.0)
SECONDS = st.floats(0.0, 1e3)
TIMES = st.builds(
    OpTime, compute=SECONDS, memory=SECONDS, network=SECONDS, launch=SECONDS
)
POWERS = st.tuples(st.floats(1.0, 1e3), st.floats(1.0, 1e4)).map(
    lambda pair: PowerRange(pair[0], pair[0] + pair[1])
)
ROUNDING = 1 + 1e-12


@pytest.mark.parametrize(
    ("time", "at_full_power"),
    [
        (OpTime(compute=2.0), 2 * COMPUTE),
        (OpTime(memory=2.0), 2 * MEMORY),
        (OpTime(network=2.0), 2 * NETWORK),
        (OpTime(launch=2.0), 0.0),
        (OpTime(), 0.0),
        # Both overlap: 2 s in all, which is less than 2 x 0.9 + 2 x 0.45.
        (OpTime(compute=2.0, memory=2.0), 2.0),
        # 4 s of memory, a quarter of it computing, and 1 s to start.
        (OpTime(compute=1.0, memory=4.0, launch=1.0), COMPUTE + 4 * MEMORY),
    ],
)
def test_full_power_seconds(time: OpTime, at_full_power: float) -> None:
    assert full_power_seconds(time) == pytest.approx(at_full_power)
    energy = 100 * time.total + 600 * at_full_power
    assert POWER.energy(time) == pytest.approx(energy)


@settings
@hypothesis.given(TIMES, POWERS)
def test_between_least_power_and_tdp(time: OpTime, power: PowerRange) -> None:
    energy = power.energy(time)
    assert power.least * time.total <= energy * ROUNDING
    assert energy <= power.tdp * time.total * ROUNDING


@settings
@hypothesis.given(TIMES, st.sampled_from(["compute", "memory", "network"]), SECONDS)
def test_more_use_never_takes_less(time: OpTime, part: str, more: float) -> None:
    busier = replace(time, **{part: getattr(time, part) + more})
    assert POWER.energy(time) <= POWER.energy(busier) * ROUNDING
    # In the same time too: what works longer starts sooner.
    wait = busier.total - time.total
    slower = replace(time, launch=time.launch + wait)
    assert full_power_seconds(slower) <= full_power_seconds(busier) * ROUNDING


@settings
@hypothesis.given(TIMES, st.integers(1, 100))
def test_runs_of_an_operator_add_up(time: OpTime, runs: int) -> None:
    parts = ("compute", "memory", "network", "launch")
    longer = OpTime(**{part: runs * getattr(time, part) for part in parts})
    assert POWER.energy(longer) == pytest.approx(runs * POWER.energy(time))


@settings
@hypothesis.given(st.lists(TIMES, min_size=1, max_size=5), POWERS)
def test_arrays_equal_scalars(times: list[OpTime], power: PowerRange) -> None:
    parts = ("compute", "memory", "network", "launch")
    stacked = OpTime(**{p: np.array([getattr(t, p) for t in times]) for p in parts})
    each = [power.energy(time) for time in times]
    np.testing.assert_allclose(power.energy(stacked), each, rtol=1e-12)


def test_power_range_of_npus(toy_npu: Npu) -> None:
    measured = replace(toy_npu, tdp=300.0, idle_power=50.0)
    stated = replace(toy_npu, tdp=200.0)
    unknown = replace(toy_npu, idle_power=50.0)
    assert PowerRange.of(Supply.of(measured)) == PowerRange(50.0, 300.0)
    assert PowerRange.of(Supply.of(stated)) == PowerRange(200 * IDLE_PER_TDP, 200.0)
    assert PowerRange.of(Supply.of(unknown)) is None
    assert unknown.least_power is None

    both = Supply.stack([measured, stated], axes=1)
    power = PowerRange.of(both)
    assert power is not None
    energy = power.energy(OpTime(memory=np.array([1.0, 2.0, 3.0])))
    for row, npu in zip(energy, (measured, stated), strict=True):
        alone = PowerRange.of(Supply.of(npu))
        assert alone is not None
        assert list(row) == [alone.energy(OpTime(memory=s)) for s in (1.0, 2.0, 3.0)]
    assert PowerRange.of(Supply.stack([measured, unknown], axes=1)) is None
    assert np.isnan(Supply.stack([measured, unknown], axes=1).tdp[1])
