"""The cost of an accelerator: by hand, against known parts, and never falling."""

from dataclasses import fields, replace
from math import ceil, pi, sqrt

import pytest

from model_ops.errors import ProblemError
from model_ops.platform.specification import Specification
from problems import catalogue
from problems.design.cost import DEFAULT, CostModel, coefficients, cost_model
from problems.design.parameters import PARAMETERS

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

H200 = Specification.of(catalogue.load_npu("h200-sxm"))
USUAL = cost_model(DEFAULT, {})


def test_every_coefficient_has_a_source() -> None:
    found = coefficients(DEFAULT)
    assert set(found) == {f.name for f in fields(CostModel)}
    assert all(len(each.source) > 8 for each in found.values())


def test_a_small_part_by_hand() -> None:
    chosen = Specification(
        flop_per_s=100e12,
        flop_per_s_8bit=200e12,
        memory_bandwidth=1.5e12,
        memory_capacity=40e9,
        scale_up_bandwidth=100e9,
        scale_up_npus=32,
        scale_up_latency=1e-6,
        scale_out_bandwidth=50e9,
        scale_out_latency=5e-6,
        on_chip_memory=30e6,
    )
    c, cost = USUAL, USUAL.parts(chosen)
    stacks = max(ceil(1500 / c.stack_gb_per_s), ceil(40 / c.stack_gb))
    area = c.die_mm2 + 100 * c.mm2_per_tflops + 200 * c.mm2_per_tflops_8bit
    area += 150 * c.mm2_per_gb_per_s + stacks * c.mm2_per_stack + 30 * c.mm2_per_mb
    per_wafer = pi * 150**2 / area - pi * 300 / sqrt(2 * area)
    good = (1 + area / 100 * c.defects_per_cm2 / c.clustering) ** -c.clustering
    die = c.wafer_usd / (per_wafer * good)
    assert (cost.stacks, cost.area_mm2) == (stacks, pytest.approx(area))
    assert cost.dies_usd == pytest.approx(die)
    assert cost.memory_usd == pytest.approx(40 * c.usd_per_gb + 2 * c.usd_per_stack)
    links = 100 * c.scale_up_usd_per_gb_per_s + 50 * c.scale_out_usd_per_gb_per_s
    assert cost.links_usd == pytest.approx(links + 2 * c.domain_usd_per_doubling)
    watts = c.static_watts + c.server_watts + 1.5 * c.watts_per_tb_per_s
    watts += 100 * c.watts_per_tflops + 200 * c.watts_per_tflops_8bit
    watts += 150 * c.watts_per_gb_per_s
    assert cost.watts == pytest.approx(watts)
    capital = die + cost.memory_usd + c.test_usd + cost.links_usd + c.server_usd
    assert cost.capital_usd == pytest.approx(capital)
    energy = c.load * c.pue * c.usd_per_kwh / 1000
    energy += c.facility_usd_per_watt / c.facility_years / 8760
    hourly = capital / c.lifetime_years / 8760 + watts * energy
    assert cost.usd_per_hour == pytest.approx(hourly)


def test_todays_part_has_its_own_die_and_power() -> None:
    cost = USUAL.parts(H200)
    assert cost.area_mm2 == pytest.approx(814, rel=0.02)
    assert cost.watts - USUAL.server_watts == pytest.approx(700, rel=0.02)


def test_large_areas_and_many_stacks_are_several_dies() -> None:
    large = USUAL.parts(replace(H200, flop_per_s=4e15, flop_per_s_8bit=8e15))
    alone = USUAL.dies_usd(*_arrays(0, large.area_mm2 / 3))
    assert large.dies_usd <= 3 * alone[0] + 2 * USUAL.join_usd + 1e-9
    few, many = (USUAL.dies_usd(*_arrays(n, 800.0))[0] for n in (6, 7))
    assert many > few - 1e-9


def _arrays(stacks: float, area: float) -> tuple[object, object]:
    import numpy as np

    return np.array([float(stacks)]), np.array([area])


@hypothesis.settings(derandomize=True, deadline=None, max_examples=80)
@hypothesis.given(
    st.sampled_from([n for n in PARAMETERS if n != "scale_up_npus"]),
    st.floats(0.1, 10.0),
    st.floats(1.0, 4.0),
)
def test_no_better_figure_is_ever_cheaper(
    name: str, factor: float, better: float
) -> None:
    value = H200.figures[name] * factor
    step = 1 / better if PARAMETERS[name].falling else better
    one, other = (replace(H200, **{name: v}) for v in (value, value * step))
    before, after = USUAL.parts(one), USUAL.parts(other)
    assert after.usd_per_hour >= before.usd_per_hour * (1 - 1e-12)
    assert after.watts >= before.watts * (1 - 1e-12)


def test_coefficients_are_changed_by_name() -> None:
    dear = cost_model(DEFAULT, {"usd_per_gb": 33.0}).parts(H200)
    usual = USUAL.parts(H200)
    gigabytes = H200.memory_capacity / 1e9
    assert dear.memory_usd - usual.memory_usd == pytest.approx(16.5 * gigabytes)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"usd_per_gb": -1.0}, "zero or more"),
        ({"usd_per_gb": float("nan")}, "finite"),
        ({"usd_per_gig": 1.0}, "did you mean 'usd_per_gb'"),
        ({"wafer_usd": 0.0}, "above zero"),
        ({"stack_gb": 24.0}, "16 is more than half of the largest stack, stack_gb 24"),
        ({"reticle_mm2": 1e6}, "too much of a wafer"),
    ],
)
def test_bad_coefficients_are_named(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        cost_model(DEFAULT, changed)


def test_a_file_of_ones_own(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "mine.toml"
    lines = [
        f"[coefficients.{name}]\nvalue = {each.value}\nsource = 'mine'"
        for name, each in coefficients(DEFAULT).items()
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert cost_model(str(path), {}) == USUAL
    path.write_text("\n".join(lines[1:]), encoding="utf-8")
    coefficients.cache_clear()
    with pytest.raises(ProblemError, match="lacks"):
        cost_model(str(path), {})
