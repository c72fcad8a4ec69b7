"""Among plans of equal objective: the cheapest, then fewest NPUs, hosts, types."""

from typing import Any

import pytest

from solver.model import choose

ORDERS = pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first", "last"])


def chosen(toys: Any, offers: Any, replicas: Any, demand: float, objective: str) -> Any:
    instance = toys.instance(offers, replicas, (demand,), objective)
    choice = choose(instance, toys.options)
    assert choice.status == "optimal"
    return instance, choice


@ORDERS
@pytest.mark.parametrize("objective", ["npus", "power"])
def test_of_equal_plans_the_cheapest(
    toys: Any, objective: str, order: tuple[int, int]
) -> None:
    pair = [toys.offer(3.0, name="dear"), toys.offer(2.0, name="cheap")]
    offers = [pair[i] for i in order]
    replicas = [(0, 0, 1, 1.0), (0, 1, 1, 1.0)]
    instance, choice = chosen(toys, offers, replicas, 5.0, objective)
    used = {
        offer.npu.name: count
        for offer, count in zip(instance.offers, choice.replicas, strict=True)
    }
    assert used == {"dear": 0, "cheap": 5}


@ORDERS
def test_of_equal_costs_the_fewest_npus(toys: Any, order: tuple[int, int]) -> None:
    pair = [toys.offer(1.0, name="small"), toys.offer(2.0, name="large")]
    offers = [pair[i] for i in order]
    capacity = {"small": 1.0, "large": 2.0}
    replicas = [(0, i, 1, capacity[offer.npu.name]) for i, offer in enumerate(offers)]
    _, choice = chosen(toys, offers, replicas, 6.0, "cost")
    assert sum(choice.replicas) == 3


@ORDERS
def test_of_equal_npus_the_fewest_hosts(toys: Any, order: tuple[int, int]) -> None:
    # Four NPUs: one replica on one node, or four on a node of two each.
    pair = [toys.offer(1.0, name="pairs", node=2), toys.offer(1.0, name="node")]
    offers = [pair[i] for i in order]
    replicas = [(0, 0, 1, 1.0), (0, 1, 1, 1.0)]
    _, choice = chosen(toys, offers, replicas, 4.0, "cost")
    assert sum(choice.hosts) == 1


@pytest.mark.parametrize("seed", range(4))
def test_of_equal_hosts_the_fewest_types(toys: Any, seed: int) -> None:
    # 8 = 4 x 2 = 2 x 4 = 2 x 2 + 4: replicas of one kind or of two.
    sizes = [(1, 2.0), (2, 4.0)][:: -1 if seed % 2 else 1]
    replicas = [(0, 0, npus, capacity) for npus, capacity in sizes]
    _, choice = chosen(toys, [toys.offer()], replicas, 8.0 + 2 * (seed // 2), "cost")
    used = sum(count > 0 for count in choice.replicas)
    assert used == 1


@pytest.mark.parametrize("objective", ["cost", "npus", "power"])
def test_no_host_is_counted_in_vain(toys: Any, objective: str) -> None:
    offers = [toys.offer(8.0, 8, whole=True), toys.offer(9.0, 8, whole=True)]
    replicas = [(0, 0, 2, 1.0), (0, 1, 2, 1.0)]
    _, choice = chosen(toys, offers, replicas, 4.0, objective)
    assert choice.hosts == (1, 0)
    assert choice.replicas == (4, 0)


@pytest.mark.parametrize("objective", ["cost", "npus", "power"])
def test_bound_is_in_the_objectives_unit(toys: Any, objective: str) -> None:
    offers = [toys.offer(16.0, 8, whole=True, watts=700.0)]
    instance, choice = chosen(toys, offers, [(0, 0, 8, 3.0)], 7.0, objective)
    expected = {"cost": 48.0, "npus": 24.0, "power": 24 * 700.0}[objective]
    assert choice.bound == pytest.approx(expected)
    assert toys.value(instance, choice) == pytest.approx(expected)


@pytest.mark.parametrize(("demand", "value"), [(4.0, 6.0), (9.0, 9.0), (13.0, 13.0)])
def test_a_pool_is_bought_whole_where_it_pays(
    toys: Any, demand: float, value: float
) -> None:
    # Eight or none at 1 USD/h; any number at 1.5 USD/h.
    offers = [toys.offer(1.0, name="pooled"), toys.offer(1.5, name="single")]
    replicas = [(0, 0, 1, 1.0, 8), (0, 1, 1, 1.0)]
    instance, choice = chosen(toys, offers, replicas, demand, "cost")
    assert toys.value(instance, choice) == pytest.approx(value)
    assert choice.replicas[0] in (0, 9, 13)
