"""The tabulated step time against formula and operators."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.platform.supply import Supply
from model_ops.serving.step_curve import StepCurve, token_grid

NUMBERS = {
    "overhead": 1e-3,
    "weights": 6e-3,
    "per_token": 3e-5,
    "per_sequence": 5e-6,
    "per_cached": 5e-8,
    "per_pair": 1e-9,
}


def test_a_line_keeps_its_numbers():
    curve = StepCurve.line(**NUMBERS, most_tokens=8192)
    tokens = np.arange(1.0, 8193.0)
    exact = 1e-3 + np.maximum(6e-3, 3e-5 * tokens)
    error = curve.base_at(tokens) / exact - 1.0
    # Only the cell with the bend, at 200 tokens, is cut off.
    assert 0.0 < error.max() < 0.022
    away = np.abs(np.log2(tokens / 200.0)) > 1 / 8
    np.testing.assert_allclose(error[away], 0.0, atol=1e-12)
    np.testing.assert_allclose(curve.decoding_at(tokens), 5e-6 * tokens)
    assert (curve.per_cached, curve.per_pair) == (5e-8, 1e-9)


def test_beyond_the_grid_a_curve_is_flat():
    curve = StepCurve.line(**NUMBERS, most_tokens=1000)
    ends = curve.base_at(np.array([0.0, 1.0, 1024.0, 1e6]))
    last = 1e-3 + 3e-5 * 1024
    np.testing.assert_allclose(ends, [7e-3, 7e-3, last, last])


@pytest.mark.parametrize("most", [1, 2, 3, 2048, 8191])
def test_the_grid_covers_the_largest_step(most):
    grid = token_grid(most)
    assert grid[0] == 1.0
    assert most <= grid[-1] < max(2 * most, 4)
    np.testing.assert_allclose(grid[1:] / grid[:-1], grid[1] / grid[0])


def test_options_are_looked_up_in_their_own_rows():
    weights = np.array([[6e-3, 12e-3], [3e-3, 24e-3]])
    curve = StepCurve.line(**(NUMBERS | {"weights": weights}), most_tokens=4096)
    assert curve.base.shape[:-1] == (2, 2)
    tokens = np.array([1.0, 64.0, 3000.0])
    found = curve.base_at(np.broadcast_to(tokens, (2, 2, 3)))
    for row in range(2):
        for place in range(2):
            numbers = NUMBERS | {"weights": weights[row, place]}
            alone = StepCurve.line(**numbers, most_tokens=4096)
            np.testing.assert_allclose(found[row, place], alone.base_at(tokens))


def test_a_slow_pace_of_prompts_leaves_decoding_alone(toy_replica):
    npu = replace(toy_replica.supply.npus[0], prefill_pace=1.4)
    slow = replace(toy_replica, supply=Supply.of(npu))
    plain, paced = (StepCurve.of(each, 2048) for each in (toy_replica, slow))
    requests = np.array([1.0, 16.0, 64.0])
    found = paced.base_at(requests) + paced.decoding_at(requests)
    expected = plain.base_at(requests) + plain.decoding_at(requests)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert (paced.base_at(requests) > plain.base_at(requests)).all()
