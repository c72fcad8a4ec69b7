"""Explanations are true: minimal conflicts, least values, sufficient relaxations."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from model_ops.errors import ProblemError
from model_ops.units import BYTE, SECOND, USD_PER_HOUR, WATT
from problems.problem import SizingProblem
from problems.requirements import Requirement, requirements
from solver.explain import Explanation, explain
from solver.model import SolveOptions
from solver.solve import Infeasible, Optimal, Workspace

Small = Callable[..., SizingProblem]
OPTIONS = SolveOptions(workers=1, seed=0)


def chat(*targets: tuple[str, float], **changes: Any) -> dict[str, Any]:
    """Return a class of requests with targets."""
    data = {"name": "chat", "input_tokens": 1000, "output_tokens": 200, "rate": 40.0}
    data["targets"] = [{"metric": m, "at_most": most} for m, most in targets]
    return {k: v for k, v in (data | changes).items() if v is not None}


STANDARD = (("ttft", 0.5), ("tpot", 0.02))
INFEASIBLE: dict[str, dict[str, Any]] = {
    "tpot": {"traffic": [chat(("ttft", 0.5), ("tpot", 1e-3))]},
    "ttft": {"traffic": [chat(("ttft", 2e-3))]},
    "e2e-not-ttft": {"traffic": [chat(("ttft", 0.5), ("e2e", 0.3))]},
    "ttft-and-budget": {
        "traffic": [chat(("ttft", 0.02), ("e2e", 90.0))],
        "limits": {"usd_per_hour": 5.0},
    },
    "npus": {"limits": {"npus": 1}},
    "nodes": {"traffic": [chat(rate=2000.0)], "limits": {"nodes": 2}},
    "npus-and-budget": {"limits": {"npus": 3, "usd_per_hour": 7.0}},
    "type-and-budget": {
        "limits": {"npus_per_type": {"h100-sxm": 1}, "usd_per_hour": 6.5}
    },
    "none-of-a-type": {
        "hardware": {"npus": ["h100-sxm"]},
        "traffic": [chat(rate=1.0)],
        "limits": {"npus_per_type": {"h100-sxm": 0}},
    },
    "power": {"traffic": [chat(*STANDARD)], "limits": {"power": 2000.0}},
    "two-classes": {
        "traffic": [
            chat(("ttft", 0.02), name="fast", rate=1.0),
            chat(("e2e", 30.0), name="slow"),
        ],
        "limits": {"npus": 3, "usd_per_hour": 100.0},
    },
    "minutes": {
        "model": "llama-3.1-70b",
        "hardware": {"npus": ["l40s", "l4"]},
        "prices": {},
        "traffic": [chat(("e2e", 0.1), output_tokens=3000, rate=1.0)],
    },
    "users": {
        "traffic": [chat(("tpot", 0.03), rate=None, concurrency=3000)],
        "limits": {"npus": 2},
    },
}


class Told:
    """A workspace, what was explained of it, and how to ask again."""

    def __init__(self, problem: SizingProblem) -> None:
        self.problem = problem
        self.workspace = Workspace.of(problem)
        self.every = {r.label: r for r in requirements(problem)}
        assert isinstance(self.workspace.solve(OPTIONS), Infeasible)
        self.explanation: Explanation = explain(self.workspace, OPTIONS)

    def only(self, kept: Sequence[str]) -> SizingProblem:
        """Return the problem with these requirements alone."""
        problem = self.problem
        for label, requirement in self.every.items():
            if label not in kept:
                problem = requirement.moved(problem, None)
        return problem

    def feasible(self, problem: SizingProblem) -> bool:
        outcome = self.workspace.solve(OPTIONS, problem)
        assert isinstance(outcome, Optimal | Infeasible)
        return isinstance(outcome, Optimal)


@pytest.fixture(scope="module")
def told(small: Small) -> Callable[[str], Told]:
    known: dict[str, Told] = {}

    def of(name: str) -> Told:
        if name not in known:
            known[name] = Told(small(**INFEASIBLE[name]))
        return known[name]

    return of


def quantity(requirement: Requirement, text: str) -> float:
    """Read what a requirement's `text` wrote."""
    plain = text.replace(",", "")
    if requirement.unit is None:
        return float(plain)
    return {"s": SECOND, "USD/h": USD_PER_HOUR, "W": WATT}[requirement.unit.base].parse(
        plain
    )


# Conflicts


@pytest.mark.parametrize("name", INFEASIBLE)
def test_conflict_is_one_and_minimal(told: Callable[[str], Told], name: str) -> None:
    asked = told(name)
    labels = asked.explanation.conflicts
    assert set(labels) <= set(asked.every)
    assert len(labels) >= 1
    assert not asked.feasible(asked.only(labels))
    for left_out in labels:
        rest = [label for label in labels if label != left_out]
        assert asked.feasible(asked.only(rest)), left_out


@pytest.mark.parametrize(
    ("name", "conflict"),
    [
        ("tpot", {"mean TPOT"}),
        ("ttft", {"mean TTFT"}),
        ("e2e-not-ttft", {"mean E2E"}),
        ("ttft-and-budget", {"mean TTFT", "budget"}),
        ("npus-and-budget", {"mean TPOT", "NPU limit", "budget"}),
        ("none-of-a-type", {"h100-sxm limit"}),
    ],
)
def test_conflict_names_what_clashes(
    told: Callable[[str], Told], name: str, conflict: set[str]
) -> None:
    assert set(told(name).explanation.conflicts) == conflict


# Floors


@pytest.mark.parametrize("name", INFEASIBLE)
def test_floors_are_the_least_possible_alone(
    told: Callable[[str], Told], name: str
) -> None:
    asked = told(name)
    floors = asked.explanation.floors
    assert [floor.requirement for floor in floors] == list(asked.every)
    for floor in floors:
        requirement = asked.every[floor.requirement]
        alone = asked.only([floor.requirement])
        assert floor.possible is asked.feasible(alone)
        if floor.possible and requirement.target is None:
            continue  # what was wanted is enough
        least = quantity(requirement, floor.least)
        counts = requirement.unit is None
        above = least if counts else least * 1.006
        below = least - 1 if counts else least * 0.99
        assert asked.feasible(requirement.moved(alone, above)), floor
        assert not asked.feasible(requirement.moved(alone, below)), floor


def test_floor_says_where_and_what_binds(told: Callable[[str], Told]) -> None:
    (floor,) = [
        f for f in told("tpot").explanation.floors if f.requirement == "mean TPOT"
    ]
    assert re.match(
        r"on (h100-sxm|l40s) tp=\d+ pp=1, hardly loaded: a step of [\d.]+ ms is ",
        floor.reason,
    )
    shares = [int(share) for share in re.findall(r"\((\d+)%\)", floor.reason)]
    assert shares == sorted(shares, reverse=True)
    assert 95 <= sum(shares) <= 101


def test_floor_s_step_adds_up_to_it_and_reads_the_weights(
    told: Callable[[str], Told],
) -> None:
    (floor,) = [
        f for f in told("tpot").explanation.floors if f.requirement == "mean TPOT"
    ]
    match = re.search(r"a step of ([\d.]+ ms) is (.*); each rank reads", floor.reason)
    assert match is not None
    whole = SECOND.parse(match[1])
    parts = [SECOND.parse(part) for part in re.findall(r"([\d.]+ [mu]s) \(", match[2])]
    assert sum(parts) == pytest.approx(whole, rel=0.05)
    # One token after another takes a step each.
    assert whole == pytest.approx(SECOND.parse(floor.least), rel=0.05)
    # All 8.03 G parameters in two bytes, but the embedding, which is a gather.
    split = re.search(r"tp=(\d+)", floor.reason)
    read = re.search(r"reads ([\d.]+ GB) of weights", floor.reason)
    assert split is not None
    assert read is not None
    embedding = 128_256 * 4096 * 2
    weights = (8.03e9 * 2 - embedding) / int(split[1])
    assert BYTE.parse(read[1]) == pytest.approx(weights, rel=0.02)


def test_floor_is_reached_where_an_offer_admits_it(small: Small) -> None:
    # An H100 instance of one NPU hosts no split; only L40S replicas may be split.
    given = [
        {"npu": "h100-sxm", "usd_per_hour": 2.5, "npus": 1, "whole_instance": True},
        {"npu": "l40s", "usd_per_hour": 0.9},
    ]
    asked = Told(
        small(prices={"given": given}, traffic=[chat(("tpot", 1e-3))], limits={})
    )
    (floor,) = asked.explanation.floors
    requirement = asked.every["mean TPOT"]
    least = quantity(requirement, floor.least)
    assert asked.feasible(requirement.moved(asked.problem, least * 1.006)), floor


# Relaxations


@pytest.mark.parametrize("name", INFEASIBLE)
def test_relaxations_suffice_and_cost_what_they_say(
    told: Callable[[str], Told], name: str
) -> None:
    asked = told(name)
    relaxations = asked.explanation.relaxations
    stated = [relaxation.usd_per_hour for relaxation in relaxations]
    assert stated == sorted(stated)
    for relaxation in relaxations:
        if relaxation.requirement == "traffic":
            continue
        requirement = asked.every[relaxation.requirement]
        to = quantity(requirement, relaxation.to)
        moved = requirement.moved(asked.problem, to)
        outcome = asked.workspace.solve(OPTIONS, moved)
        assert isinstance(outcome, Optimal), relaxation
        assert outcome.plan.usd_per_hour == pytest.approx(relaxation.usd_per_hour)
        assert outcome.plan.total_npus == relaxation.npus


@pytest.mark.parametrize("name", INFEASIBLE)
def test_relaxations_are_the_least(told: Callable[[str], Told], name: str) -> None:
    asked = told(name)
    for relaxation in asked.explanation.relaxations:
        if relaxation.requirement == "traffic":
            continue
        requirement = asked.every[relaxation.requirement]
        to = quantity(requirement, relaxation.to)
        # Budgets are rounded up to cents after a search to a thousandth, other
        # quantities up to two digits, which is a tenth at most.
        less = to * 0.89
        if requirement.unit is None:
            less = to - 1
        elif requirement.unit is USD_PER_HOUR:
            less = (to - 0.01) / 1.0011
        assert not asked.feasible(requirement.moved(asked.problem, less)), relaxation


@pytest.mark.parametrize("name", INFEASIBLE)
def test_relaxed_quantities_are_short_numbers(
    told: Callable[[str], Told], name: str
) -> None:
    asked = told(name)
    for relaxation in asked.explanation.relaxations:
        if relaxation.requirement == "traffic":
            assert re.fullmatch(r"\d+\.\d %", relaxation.to)
            continue
        unit = asked.every[relaxation.requirement].unit
        if unit is None or unit is USD_PER_HOUR:
            continue
        digits = relaxation.to.split()[0].replace(".", "").replace(",", "")
        assert len(digits.strip("0")) <= 2, relaxation


def budgeted(small: Small, usd: float) -> Told:
    """Return a problem of one H100 that lacks a part of its price."""
    return Told(
        small(
            hardware={"npus": ["h100-sxm"]},
            prices={"given": [{"npu": "h100-sxm", "usd_per_hour": usd}]},
            traffic=[chat(rate=1.0)],
            limits={"usd_per_hour": 0.9 * usd},
        )
    )


@pytest.mark.parametrize("usd", [0.123, 2.5, 3.917, 17.34, 123.44, 1234.4])
def test_a_budget_relaxed_is_one_that_suffices(small: Small, usd: float) -> None:
    asked = budgeted(small, usd)
    (relaxation,) = [
        r for r in asked.explanation.relaxations if r.requirement == "budget"
    ]
    assert (relaxation.usd_per_hour, relaxation.npus) == (pytest.approx(usd), 1)
    to = quantity(asked.every["budget"], relaxation.to)
    assert usd * (1 - 1e-9) <= to <= usd * 1.0011 + 0.0101
    assert asked.feasible(asked.every["budget"].moved(asked.problem, to))
    assert re.fullmatch(r"[\d,]+\.\d\d USD/h", relaxation.to)


# Two together


@pytest.mark.slow
@pytest.mark.parametrize("name", INFEASIBLE)
def test_a_joint_relaxation_suffices_and_less_does_not(
    told: Callable[[str], Told], name: str
) -> None:
    asked = told(name)
    joint = asked.explanation.joint
    alone = [r for r in asked.explanation.relaxations if r.requirement != "traffic"]
    if joint is None:
        assert alone or len(asked.every) < 2
        return
    assert len(joint.requirements) >= 2

    def moved(values: Sequence[float]) -> SizingProblem:
        problem = asked.problem
        for label, value in zip(joint.requirements, values, strict=True):
            problem = asked.every[label].moved(problem, value)
        return problem

    every = [asked.every[label] for label in joint.requirements]
    to = [quantity(r, text) for r, text in zip(every, joint.to, strict=True)]
    outcome = asked.workspace.solve(OPTIONS, moved(to))
    assert isinstance(outcome, Optimal)
    assert outcome.plan.usd_per_hour == pytest.approx(joint.usd_per_hour)
    assert outcome.plan.total_npus == joint.npus
    # Factors of latencies are found to two per cent.
    less = 1 + 0.97 * (joint.factor - 1)
    assert not asked.feasible(moved([less * r.value for r in every]))


def test_what_fails_twice_must_give_way_twice(small: Small) -> None:
    # Each target is below what any of these replicas can do.
    asked = Told(small(traffic=[chat(("ttft", 5e-3), ("tpot", 2e-3), rate=1.0)]))
    assert [r.requirement for r in asked.explanation.relaxations] == []
    joint = asked.explanation.joint
    assert joint is not None
    assert joint.requirements == ("mean TTFT", "mean TPOT")
    assert len(asked.explanation.conflicts) == 1


# Time


def test_no_time_tells_what_is_known_without_a_search(small: Small) -> None:
    problem = small(limits={"npus": 1})
    found = explain(Workspace.of(problem), SolveOptions(time_limit=1e-9))
    assert not found.complete
    assert set(found.conflicts) <= {r.label for r in requirements(problem)}
    assert found.conflicts
    assert {floor.requirement for floor in found.floors} >= {"mean TTFT", "mean TPOT"}


@pytest.mark.slow
@pytest.mark.parametrize("name", INFEASIBLE)
def test_time_enough_makes_an_explanation_complete(
    told: Callable[[str], Told], name: str
) -> None:
    assert told(name).explanation.complete


@pytest.mark.parametrize("name", INFEASIBLE)
def test_every_requirement_that_could_give_way_alone_is_told(
    told: Callable[[str], Told], name: str
) -> None:
    asked = told(name)
    alone = {
        label
        for label, requirement in asked.every.items()
        if asked.feasible(requirement.moved(asked.problem, None))
    }
    relaxed = {relaxation.requirement for relaxation in asked.explanation.relaxations}
    assert relaxed - {"traffic"} == alone


@pytest.mark.parametrize("name", INFEASIBLE)
def test_less_traffic_is_the_share_there_is_room_for(
    told: Callable[[str], Told], name: str
) -> None:
    asked = told(name)

    def feasible(share: float) -> bool:
        classes = tuple(traffic.scaled(share) for traffic in asked.problem.traffic)
        return asked.feasible(asked.problem.model_copy(update={"traffic": classes}))

    shares = [
        float(relaxation.to.rstrip(" %")) / 100
        for relaxation in asked.explanation.relaxations
        if relaxation.requirement == "traffic"
    ]
    if not shares:
        assert not feasible(0.002)
        return
    (share,) = shares
    assert feasible(share)
    assert not feasible(share + 0.003)


# What no relaxation helps


def test_model_that_fits_nowhere(small: Small) -> None:
    alone = {"npu": "l4", "usd_per_hour": 0.8, "npus": 1, "whole_instance": True}
    problem = small(
        model="llama-3.1-70b", hardware={"npus": ["l4"]}, prices={"given": [alone]}
    )
    found = explain(Workspace.of(problem), OPTIONS)
    assert found.conflicts == ("memory",)
    assert found.relaxations == ()
    (floor,) = found.floors
    assert not floor.possible
    assert "weights of 141 GB" in floor.wanted  # 70.6 G parameters of two bytes
    assert "1 x l4" in floor.reason


def test_memory_is_not_blamed_for_unknown_power(small: Small) -> None:
    # The TPU has memory enough, but no published power to minimise.
    problem = small(hardware={"npus": ["tpu-v6e"]}, prices={}, objective="power")
    with pytest.raises(ProblemError, match="power: none is published for tpu-v6e"):
        Workspace.of(problem)


@pytest.mark.slow
def test_what_another_setting_resolves_is_no_conflict(small: Small) -> None:
    """Batches of 256 in steps of 1,024 tokens take what the usual ones do not."""
    tails = [
        {"metric": metric, "statistic": "p99", "at_most": most}
        for metric, most in (("ttft", 0.3), ("tpot", 0.03))
    ]

    def at(rate: float) -> Workspace:
        open_settings = {"chunk_tokens": None, "max_num_seqs": None}
        traffic = [chat(rate=rate, targets=tails)]
        hardware = {"npus": ["h100-sxm"]}
        limits = {"npus": 1}
        asked = small(
            hardware=hardware, traffic=traffic, limits=limits, **open_settings
        )
        return Workspace.of(asked)

    workspace = at(21.0)
    assert not workspace.has_plan(workspace.problem, OPTIONS)
    assert workspace.has_plan(workspace.problem, OPTIONS, sure=True)
    assert isinstance(workspace.solve(OPTIONS), Optimal)
    busier = at(23.0)
    assert not busier.has_plan(busier.problem, OPTIONS, sure=True)
    assert "NPU limit" in explain(busier, OPTIONS).conflicts
