"""Rounding is sound: what holds in integers holds in floats, at little loss."""

import math
from typing import Any

import pytest

from model_ops.errors import SolverError
from solver.instance import Instance
from solver.model import choose
from solver.scaling import LARGEST_LOSS, RANGE, Scaled, scale

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

settings = hypothesis.settings(
    max_examples=60, deadline=None, derandomize=True, database=None
)

positive = st.floats(0.01, 1e4, allow_nan=False)
prices = st.floats(0.01, 500.0)
replicas = st.lists(
    st.tuples(st.just(0), st.integers(0, 1), st.sampled_from([1, 2, 4, 8]), positive),
    min_size=1,
    max_size=5,
)


def instance_of(toys: Any, usd: list[float], watts: float, made: Any, wanted: float):
    offers = [
        toys.offer(usd[0], 8, whole=True, name="alpha", watts=watts),
        toys.offer(usd[1], name="beta", watts=watts / 3),
    ]
    return toys.instance(offers, made, demand=(wanted,))


def portions(instance: Instance, counts: list[int]) -> list[int]:
    """Return what is paid per offer: hosts (each replica its own), or NPUs."""
    paid = [0] * len(instance.offers)
    for candidate, count in zip(instance.candidates, counts, strict=False):
        whole = instance.offers[candidate.offer].whole
        paid[candidate.offer] += count if whole else count * candidate.npus
    return paid


def dot(a: Any, b: Any) -> Any:
    return sum(x * y for x, y in zip(a, b, strict=False))


@settings
@hypothesis.given(
    usd=st.lists(prices, min_size=2, max_size=2),
    watts=st.floats(10, 5000),
    made=replicas,
    wanted=positive,
    counts=st.lists(st.integers(0, 50), min_size=5, max_size=5),
)
def test_integer_plans_hold_in_floats(
    toys: Any, usd: Any, watts: float, made: Any, wanted: float, counts: list[int]
) -> None:
    instance = instance_of(toys, usd, watts, made, wanted)
    scaled = scale(instance)
    assert scaled.loss < LARGEST_LOSS
    capacities = [candidate.capacity for candidate in instance.candidates]
    if dot(scaled.capacity, counts) >= scaled.demand[0]:
        assert dot(capacities, counts) >= wanted * (1 - 1e-9)
    for number, exact in zip(scaled.capacity, capacities, strict=True):
        assert number / exact <= scaled.demand[0] / wanted * (1 + 1e-9)
    paid = portions(instance, counts)
    exact = dot([o.price.usd_per_hour for o in instance.offers], paid)
    assert dot(scaled.usd, paid) >= exact * scaled.usd_per * (1 - 1e-9)
    for number, offer in zip(scaled.watts, instance.offers, strict=True):
        per = getattr(scaled, "watts_per", 1.0)
        assert number >= (offer.npu.power or 0.0) * per * (1 - 1e-9)


@settings
@hypothesis.given(
    usd=st.lists(prices, min_size=2, max_size=2),
    watts=st.floats(10, 5000),
    made=replicas,
    wanted=positive,
)
def test_little_is_lost(
    toys: Any, usd: Any, watts: float, made: Any, wanted: float
) -> None:
    instance = instance_of(toys, usd, watts, made, wanted)
    scaled = scale(instance)
    per = scaled.demand[0] / wanted
    for number, candidate in zip(scaled.capacity, instance.candidates, strict=True):
        assert number / per >= candidate.capacity * (1 - LARGEST_LOSS) - 1e-12
    for number, offer in zip(scaled.usd, instance.offers, strict=True):
        exact = offer.price.usd_per_hour
        assert number / scaled.usd_per == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("watts", [10.0, 40.5, 156.24, 542.5, 759.5, 1730.0])
def test_power_loses_little(toys: Any, watts: float) -> None:
    """Power is not rounded by more than capacities are: 72 W x 2.17 is 156.24."""
    offer = toys.offer(watts=watts)
    instance = toys.instance([offer], [(0, 0, 1, 1.0)], demand=(1.0,))
    scaled = scale(instance)
    per = getattr(scaled, "watts_per", 1.0)
    assert scaled.watts[0] / per == pytest.approx(watts, rel=LARGEST_LOSS)


@settings
@hypothesis.given(
    made=replicas,
    wanted=positive,
    usd=st.lists(prices, min_size=2, max_size=2),
)
def test_replicas_that_could_be_needed_cover_the_demand(
    toys: Any, made: Any, wanted: float, usd: Any
) -> None:
    scaled = scale(instance_of(toys, usd, 100.0, made, wanted))
    for capacity, most in zip(scaled.capacity, scaled.most, strict=True):
        assert capacity * most >= scaled.demand[0]
        assert capacity * (most - 1) < scaled.demand[0]


def sums(instance: Instance, scaled: Scaled) -> list[float]:
    """Return the largest coverage and cost that the model could add up."""
    return [
        dot(scaled.capacity, scaled.most),
        dot(scaled.most, [scaled.usd[c.offer] for c in instance.candidates]),
    ]


def worst(instance: Instance, scaled: Scaled) -> float:
    """Return the largest relative loss of a capacity or a price, recomputed."""
    ratios = [
        number / candidate.capacity
        for number, candidate in zip(scaled.capacity, instance.candidates, strict=True)
    ]
    capacities = [1 - each / 10.0 ** round(math.log10(each)) for each in ratios]
    prices = [
        number / (offer.price.usd_per_hour * scaled.usd_per) - 1
        for number, offer in zip(scaled.usd, instance.offers, strict=True)
    ]
    return max(0.0, *capacities, *prices)


def refusable(instance: Instance) -> bool:
    """Return whether no power of ten keeps sums in range and digits enough.

    A capacity that rounds down, or a price that rounds up, by a thousandth is
    below a thousand steps, with the factor of ten that a power of ten may miss.
    """
    (wanted,) = instance.demand
    capacities = [candidate.capacity for candidate in instance.candidates]
    covered = max(wanted, sum(c * math.ceil(wanted / c) for c in capacities))
    usd = [offer.price.usd_per_hour for offer in instance.offers]
    npus = sum(c.npus * math.ceil(wanted / c.capacity) for c in instance.candidates)
    steps = 10 / LARGEST_LOSS
    return (
        covered / min(capacities) * steps > RANGE
        or max(usd) * npus * (1 + LARGEST_LOSS) / min(usd) * steps > RANGE
    )


@settings
@hypothesis.given(
    made=replicas,
    power_of_ten=st.integers(-9, 18),
    tiny=st.integers(-9, 3),
    usd=st.lists(st.floats(1e-4, 1e6), min_size=2, max_size=2),
)
def test_absurd_magnitudes_are_refused_or_in_range(
    toys: Any, made: Any, power_of_ten: int, tiny: int, usd: Any
) -> None:
    shrunk = [(t, o, n, capacity * 10.0**tiny) for t, o, n, capacity in made]
    instance = instance_of(toys, usd, 5000.0, shrunk, 10.0**power_of_ten)
    try:
        scaled = scale(instance)
    except SolverError:
        assert refusable(instance)
        return
    assert scaled.loss <= LARGEST_LOSS
    assert scaled.loss == pytest.approx(worst(instance, scaled), rel=1e-6, abs=1e-12)
    assert all(number > 0 for number in (*scaled.capacity, *scaled.demand))
    # In range, but for what rounding prices up adds: at most one step each.
    assert max(sums(instance, scaled)) < 2 * RANGE


@pytest.mark.parametrize("usd", [1e-4, 1.0, 1e6])
@pytest.mark.parametrize("wanted", [1e-9, 1.0, 1e5, 1e9, 1e13, 1e18])
def test_absurd_instances_are_solved_or_refused(
    toys: Any, usd: float, wanted: float
) -> None:
    made = [(0, 0, 8, 0.011), (0, 1, 1, 2.3)]
    instance = instance_of(toys, [usd, 3.0], 1000.0, made, wanted)
    try:
        choice = choose(instance, toys.options)
    except SolverError:
        assert refusable(instance)
        assert wanted > 1e9 or (wanted == 1e9 and usd != 1.0)
        return
    assert choice.status == "optimal"
    counts = choice.replicas
    assert dot(counts, [0.011, 2.3]) >= wanted * (1 - 1e-9)
    # One offer alone covers the demand: a plan is no dearer than either.
    alone = [math.ceil(wanted / 0.011) * usd, math.ceil(wanted / 2.3) * 3.0]
    assert toys.value(instance, choice) <= min(alone) * (1 + LARGEST_LOSS)


def test_too_many_replicas_are_refused(toys: Any) -> None:
    instance = toys.instance([toys.offer()], [(0, 0, 1, 1e-6)], demand=(1e12,))
    with pytest.raises(SolverError, match="too many times"):
        scale(instance)


def test_seven_digits_of_the_smallest_capacity_are_kept(toys: Any) -> None:
    made = [(0, 0, 1, 0.12345678912), (0, 0, 1, 98.7654321987)]
    scaled = scale(toys.instance([toys.offer()], made, demand=(10.0,)))
    assert scaled.capacity == (1_234_567, 987_654_321)
    assert scaled.demand == (100_000_000,)
    assert scaled.loss == pytest.approx(1 - 1_234_567 / 1_234_567.8912, rel=1e-6)


def test_prices_too_far_apart_are_refused(toys: Any) -> None:
    # In steps that count a million NPUs of the dear one, the cheap one is a step.
    def of(cheap: float) -> Instance:
        offers = [toys.offer(cheap, name="cheap"), toys.offer(1e6, name="dear")]
        return toys.instance(offers, [(0, 0, 1, 1.0), (0, 1, 1, 1.0)], (5e5,))

    with pytest.raises(SolverError, match="rounding"):
        scale(of(1.5e-4))
    near = scale(of(123.456789))
    assert 0 < near.loss <= LARGEST_LOSS
    assert near.loss == pytest.approx(worst(of(123.456789), near), rel=1e-6)


@pytest.mark.parametrize("capacity", [1e-3, 3.75e-5, 1.234567e-7])
def test_slow_requests_are_no_reason_to_refuse(toys: Any, capacity: float) -> None:
    # Three replicas, each of which takes minutes or days for a request.
    made = [(0, 0, 1, capacity)]
    scaled = scale(toys.instance([toys.offer()], made, demand=(2.5 * capacity,)))
    assert scaled.loss < LARGEST_LOSS
    assert scaled.most == (3,)


def test_round_numbers_stay_exact(toys: Any) -> None:
    instance = toys.instance(
        [toys.offer(2.5, 8, whole=True)], [(0, 0, 8, 0.1), (0, 0, 4, 0.3)], (0.6,)
    )
    scaled = scale(instance)
    assert scaled.loss == pytest.approx(0.0, abs=1e-12)
    assert dot(scaled.capacity, (0, 2)) >= scaled.demand[0]
    assert dot(scaled.capacity, (6, 0)) >= scaled.demand[0]
    assert dot(scaled.capacity, (2, 1)) < scaled.demand[0]
    assert scaled.most == (6, 2)
    assert scaled.usd[0] / scaled.usd_per == pytest.approx(2.5)


def test_each_class_has_a_scale_of_its_own(toys: Any) -> None:
    made = [(0, 0, 1, 1e-3), (1, 0, 1, 1e5)]
    scaled = scale(toys.instance([toys.offer()], made, demand=(5e-3, 1e9)))
    assert scaled.most == (5, 10_000)
    assert scaled.loss < 1e-9
    assert math.isfinite(scaled.usd_per)


def test_a_pool_may_be_counted_whole(toys: Any) -> None:
    made = [(0, 0, 1, 1.0, 8), (0, 0, 1, 1.0, 2), (0, 0, 1, 1.0)]
    scaled = scale(toys.instance([toys.offer()], made, demand=(3.0,)))
    assert scaled.most == (8, 3, 3)
