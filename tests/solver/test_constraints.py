"""Each constraint alone, on a bare model: what it admits, what it forbids.

To test that something is possible, as much as can be is fixed; to test that
nothing is, as little as can be.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from solver.constraints import CONSTRAINTS
from solver.instance import Instance

BY_NAME = {constraint.__name__: constraint for constraint in CONSTRAINTS}
GOLDENS = Path(__file__).parent / "goldens"


@dataclass(frozen=True)
class Case:
    """What is fixed, under which limits, and whether it is possible."""

    constraint: str
    name: str
    possible: bool
    replicas: dict[int, int] = field(default_factory=dict)
    hosts: dict[int, int] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    carried: dict[int, float] = field(default_factory=dict)


def an_instance(toys: Any, stock: int | None = None, **limits: Any) -> Instance:
    """Return two classes on whole hosts of 8, on NPUs one by one, on whole twelves.

    Candidates 0, 1, 2 take 2, 3 (slot 4) and 16 NPUs of the whole hosts, 3 and 4
    take 1 and 8 of the others; 5 and 6 take 8 and 4 of the hosts of twelve,
    which are two nodes each. Candidate 3 needs a pool of three, 6 one of two.
    """
    offers = [
        toys.offer(16.0, 8, whole=True, name="alpha", watts=1500.0, region="east"),
        toys.offer(1.5, 1, name="beta", watts=400.0),
        toys.offer(
            12.0, 12, whole=True, name="alpha", node=6, watts=1500.0, stock=stock
        ),
    ]
    replicas = [
        (0, 0, 2, 2.5),
        (1, 0, 3, 4.0),
        (0, 0, 16, 30.0),
        (0, 1, 1, 1.0, 3),
        (1, 1, 8, 9.5),
        (0, 2, 8, 11.0),
        (1, 2, 4, 6.0, 2),
    ]
    return toys.instance(offers, replicas, demand=(10.0, 8.0), **limits)


def a_paired_instance(toys: Any, **limits: Any) -> Instance:
    """Return a class of demand 10: replicas that do both, and a pair's two pools.

    Candidate 0 does both; 1 and 2 read, 3 and 4 answer.
    """
    pairs = [("prefill", 1, 4.0), ("prefill", 2, 9.0)]
    pairs += [("decode", 1, 3.0), ("decode", 4, 14.0)]
    return toys.paired(
        toys.instance([toys.offer(1.5)], [(0, 0, 1, 2.5)], (10.0,), **limits), pairs
    )


NOTHING = dict.fromkeys(range(7), 0)
NO_HOSTS = dict.fromkeys(range(3), 0)

CASES = [
    # demand: 10 and 8.
    Case("demand", "exactly", True, NOTHING | {0: 4, 1: 2}),
    Case("demand", "mixed", True, NOTHING | {0: 3, 3: 3, 4: 1}),
    Case("demand", "first-short", False, {0: 3, 2: 0, 3: 2, 5: 0}),
    Case("demand", "second-short", False, {1: 1, 4: 0, 6: 0}),
    Case("demand", "others-do-not-help", False, {1: 0, 4: 0, 6: 0}),
    # pairs: both pools take what is carried, of the class's 10.
    Case("pairs", "one-of-each", True, {1: 3, 2: 0, 3: 4, 4: 0}, carried={0: 10.0}),
    Case("pairs", "two-read", True, {1: 1, 2: 1, 4: 1}, carried={0: 9.999}),
    Case("pairs", "reads-short", False, {1: 0, 2: 1, 4: 1}, carried={0: 9.2}),
    Case("pairs", "answers-short", False, {2: 2, 3: 3, 4: 0}, carried={0: 9.2}),
    Case("pairs", "idle", True, {1: 0, 2: 0, 3: 0, 4: 0}, carried={0: 0.0}),
    # pools: 3 of candidate 3 or none, 2 of candidate 6 or none.
    Case("pools", "none", True, NOTHING),
    Case("pools", "exactly", True, NOTHING | {3: 3, 6: 2}),
    Case("pools", "more", True, NOTHING | {3: 9, 6: 0}),
    Case("pools", "others-alone", True, NOTHING | {0: 1, 1: 1, 2: 1, 4: 1, 5: 1}),
    Case("pools", "one-of-three", False, {3: 1}),
    Case("pools", "two-of-three", False, {3: 2}),
    Case("pools", "one-of-two", False, {6: 1}),
    Case("pools", "others-do-not-help", False, {0: 4, 3: 2, 5: 4}),
    # hosts: 2 slots of 2 and 1 of 4 fill a host of 8; 16 fill two.
    Case("hosts", "full-host", True, NOTHING | {0: 2, 1: 1}, NO_HOSTS | {0: 1}),
    Case("hosts", "spare-host", True, NOTHING | {0: 2}, NO_HOSTS | {0: 2}),
    Case("hosts", "whole", True, NOTHING | {0: 4, 2: 1}, NO_HOSTS | {0: 3}),
    Case("hosts", "node", True, NOTHING | {3: 4, 4: 1}, NO_HOSTS | {1: 2}),
    Case("hosts", "twelve", True, NOTHING | {5: 1, 6: 1}, NO_HOSTS | {2: 1}),
    Case("hosts", "two-fours", True, NOTHING | {6: 2}, NO_HOSTS | {2: 1}),
    Case("hosts", "over-full", False, {0: 3, 1: 1}, {0: 1}),
    Case("hosts", "slot-of-three-is-four", False, {0: 1, 1: 2}, {0: 1}),
    Case("hosts", "two-hosts-for-sixteen", False, {2: 1}, {0: 1}),
    Case("hosts", "shared-beside-whole", False, {0: 1, 2: 1}, {0: 2}),
    Case("hosts", "node-over-full", False, {3: 1, 4: 1}, {1: 1}),
    Case("hosts", "one-eight-per-twelve", False, {5: 3}, {2: 2}),
    Case("hosts", "no-host", False, {3: 1}, {1: 0}),
    # availability
    Case(
        "availability",
        "npus",
        True,
        NOTHING | {0: 1, 3: 4},
        NO_HOSTS | {0: 1, 1: 1},
        {"npus": 12},
    ),
    Case("availability", "npus-over", False, {3: 5}, {0: 1}, {"npus": 12}),
    Case(
        "availability",
        "type",
        True,
        NOTHING | {3: 9},
        NO_HOSTS | {0: 1, 1: 2, 2: 1},
        {"npus_per_type": {"alpha": 20, "beta": 9}},
    ),
    Case(
        "availability",
        "type-over-both-offers",
        False,
        {},
        {0: 1, 2: 1},
        {"npus_per_type": {"alpha": 19}},
    ),
    Case(
        "availability", "type-none", False, {3: 1}, {}, {"npus_per_type": {"beta": 0}}
    ),
    Case("availability", "type-absent", True, {3: 1}, {}, {"npus_per_type": {"x": 0}}),
    Case(
        "availability",
        "nodes",
        True,
        NOTHING | {0: 1, 3: 1, 6: 1},
        {0: 1, 1: 1, 2: 1},
        {"nodes": 4},
    ),
    Case("availability", "nodes-over", False, {}, {0: 2, 1: 2}, {"nodes": 3}),
    Case("availability", "two-nodes-per-host", False, {}, {2: 2}, {"nodes": 3}),
    # budget: 16 per host of 8, 1.5 per NPU, 12 per host of 12.
    Case(
        "budget",
        "exactly",
        True,
        NOTHING | {0: 4, 3: 3},
        NO_HOSTS | {0: 1, 1: 1},
        {"usd_per_hour": 20.5},
    ),
    Case("budget", "over", False, {3: 3}, {0: 1}, {"usd_per_hour": 20.49}),
    Case("budget", "hosts-over", False, {}, {0: 1, 2: 1}, {"usd_per_hour": 27.9}),
    Case("budget", "no-budget", True, NOTHING | {3: 9}, NO_HOSTS | {0: 4, 1: 2}),
    # power: 1500 W per NPU of a whole host paid, 400 W per NPU one by one.
    Case(
        "power",
        "exactly",
        True,
        NOTHING | {0: 1, 3: 2},
        NO_HOSTS | {0: 1, 1: 1},
        {"power": 8 * 1500 + 2 * 400},
    ),
    Case("power", "over", False, {3: 2}, {0: 1}, {"power": 8 * 1500 + 799}),
    Case("power", "idle-npus-count", False, {}, {2: 1}, {"power": 12 * 1500 - 1}),
    Case("power", "no-limit", True, NOTHING | {3: 9}, NO_HOSTS | {0: 4, 1: 2}),
    # stock: of the hosts of twelve.
    Case("stock", "all-of-it", True, NOTHING, {0: 2, 1: 2, 2: 2}, {"stock": 2}),
    Case("stock", "over", False, {}, {2: 3}, {"stock": 2}),
    # quota: alpha is in the east (hosts of eight) and anywhere (twelves).
    Case(
        "quota",
        "of-a-type",
        True,
        NOTHING,
        {0: 1, 1: 2, 2: 1},
        {"quota": [{"npu": "alpha", "npus": 20}]},
    ),
    Case(
        "quota",
        "over-both-offers",
        False,
        {},
        {0: 1, 2: 1},
        {"quota": [{"npu": "al*", "npus": 19}]},
    ),
    Case(
        "quota",
        "elsewhere",
        True,
        NOTHING,
        {0: 1, 1: 2, 2: 3},
        {"quota": [{"region": "EAST", "npus": 8}]},
    ),
    Case("quota", "east", False, {}, {0: 2}, {"quota": [{"region": "e*", "npus": 8}]}),
    Case(
        "quota",
        "provider",
        False,
        {3: 1},
        {0: 1},
        {"quota": [{"provider": "toy", "npus": 8}]},
    ),
    # racks: of three nodes; a host of twelve is two nodes.
    Case(
        "racks",
        "exactly",
        True,
        NOTHING,
        {0: 6, 1: 1, 2: 3},
        {"racks": {"count": 5, "nodes": 3}},
    ),
    Case("racks", "over", False, {}, {0: 7}, {"racks": {"count": 2, "nodes": 3}}),
    Case(
        "racks",
        "not-mixed",
        False,
        {},
        {0: 1, 1: 1},
        {"racks": {"count": 1, "nodes": 3}},
    ),
    Case(
        "racks",
        "power",
        True,
        NOTHING,
        {0: 0, 1: 2, 2: 3},
        {"racks": {"power": 9_000.0}},
    ),
    Case(  # a node of eight alphas has 12 kW
        "racks",
        "power-of-a-node",
        False,
        {},
        {0: 1},
        {"racks": {"power": 11_999.0}},
    ),
    # uniformity: kinds are NPUs of a replica; 0 and 3 are of two types.
    Case(
        "uniformity",
        "two-kinds",
        True,
        NOTHING | {0: 4, 3: 3},
        {},
        {"deployment_types": 2},
    ),
    Case(
        "uniformity",
        "three-kinds",
        False,
        {0: 1, 1: 1, 3: 3},
        {},
        {"deployment_types": 2},
    ),
    Case(
        "uniformity",
        "one-type",
        True,
        NOTHING | {0: 1, 1: 1, 5: 1},
        {},
        {"npu_types": 1},
    ),
    Case("uniformity", "two-types", False, {0: 1, 3: 3}, {}, {"npu_types": 1}),
    # change: NPUs that replicas use against those of today.
    Case(
        "change",
        "exactly",
        True,
        NOTHING | {0: 4, 3: 3},
        {},
        {"changed_npus": 5, "current": {"alpha": 6, "beta": 6}},
    ),
    Case(
        "change",
        "over",
        False,
        {0: 4, 1: 0, 2: 0, 3: 3, 4: 0, 5: 0, 6: 0},
        {},
        {"changed_npus": 4, "current": {"alpha": 6, "beta": 6}},
    ),
    Case("change", "begun", False, {3: 3, 4: 1}, {}, {"changed_npus": 10}),
    Case(
        "change",
        "another-type-ends",
        False,
        {},
        {},
        {"changed_npus": 3, "current": {"gamma": 4}},
    ),
    # redundancy: demands of 10 and 8 are left when a host fails.
    Case(  # each of 1 and 8 NPUs: a host of beta takes 8 of class 0, one of class 1
        "redundancy",
        "exactly",
        True,
        NOTHING | {3: 18, 4: 2},
        {},
        {"redundancy": {"nodes": 1}},
    ),
    Case(
        "redundancy",
        "one-short",
        False,
        {0: 0, 2: 0, 3: 17, 5: 0},
        {},
        {"redundancy": {"nodes": 1}},
    ),
    Case(
        "redundancy",
        "one-large-replica",
        False,
        {0: 0, 2: 1, 3: 0, 5: 0},
        {},
        {"redundancy": {"nodes": 1}},
    ),
    Case(
        "redundancy",
        "two-large-replicas",
        True,
        NOTHING | {2: 2, 4: 2},
        {},
        {"redundancy": {"nodes": 1}},
    ),
    Case(
        "redundancy",
        "two-nodes",
        False,
        {1: 0, 4: 2, 6: 0},
        {},
        {"redundancy": {"nodes": 2}},
    ),
    Case(
        "redundancy",
        "rack",
        False,
        {1: 0, 4: 3, 6: 0},
        {},
        {"redundancy": {"racks": 1}, "racks": {"nodes": 3}},
    ),
    Case(
        "redundancy",
        "rack-and-more",
        True,
        NOTHING | {2: 4, 4: 4},
        {},
        {"redundancy": {"racks": 1}, "racks": {"nodes": 3}},
    ),
    Case("redundancy", "none-asked", True, NOTHING),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.constraint}-{c.name}")
def test_constraint_admits_and_forbids(
    toys: Any, admits: Callable[..., bool], case: Case
) -> None:
    made = a_paired_instance if case.constraint == "pairs" else an_instance
    instance = made(toys, **case.limits)
    constraint = BY_NAME[case.constraint]
    found = admits(constraint, instance, case.replicas, case.hosts, case.carried)
    assert found is case.possible


FLEET: dict[str, Any] = {
    "stock": 1,
    "quota": [{"region": "east", "npus": 16}],
    "racks": {"count": 3, "nodes": 2},
    "deployment_types": 3,
    "npu_types": 1,
    "changed_npus": 12,
    "current": {"alpha": 8},
    "redundancy": {"nodes": 1},
}


@pytest.mark.parametrize("name", BY_NAME)
def test_model_text_is_golden(
    toys: Any,
    model_text: Callable[..., str],
    golden: Callable[[str, str], None],
    name: str,
) -> None:
    made = a_paired_instance if name == "pairs" else an_instance
    instance = made(
        toys,
        npus=40,
        npus_per_type={"alpha": 24},
        nodes=4,
        usd_per_hour=50.0,
        power=30_000.0,
        **({} if name == "pairs" else FLEET),
    )
    golden(f"{name}.txt", model_text(BY_NAME[name], instance))


@pytest.mark.parametrize("name", BY_NAME)
def test_constraint_has_its_pair_and_golden(name: str) -> None:
    verdicts = {case.possible for case in CASES if case.constraint == name}
    assert verdicts == {True, False}
    assert (GOLDENS / f"{name}.txt").is_file()


def test_goldens_are_of_constraints() -> None:
    assert {path.stem for path in GOLDENS.glob("*.txt")} == set(BY_NAME)


def test_every_file_of_the_folder_is_a_constraint() -> None:
    import solver.constraints as package

    folder = Path(package.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == set(BY_NAME)
