"""Requirements: all are listed, and each moves or drops itself alone."""

import pytest

from problems.problem import SizingProblem, problem_of
from problems.requirements import requirements

LABELS = [
    "chat mean TTFT",
    "chat mean TPOT",
    "chat mean E2E",
    "NPU limit",
    "node limit",
    "budget",
    "power limit",
    "h100-sxm limit",
    "l40s limit",
]


def test_every_target_and_limit_is_listed(good_problem: SizingProblem) -> None:
    assert [r.label for r in requirements(good_problem)] == LABELS


def test_values_are_those_asked_for(good_problem: SizingProblem) -> None:
    values = [r.value for r in requirements(good_problem)]
    power = 8 * 1730 + 2 * 350 * 2.17
    assert values == pytest.approx([0.031, 0.01, 2.0, 10, 2, 18.0, power, 8, 2])


def test_single_class_is_not_named(good_problem: SizingProblem) -> None:
    alone = good_problem.model_copy(update={"traffic": good_problem.traffic[:1]})
    assert requirements(alone)[0].label == "mean TTFT"


def test_problem_without_any_has_none() -> None:
    traffic = {"input_tokens": 10, "output_tokens": 10, "rate": "1 req/s"}
    problem = problem_of({"model": "gpt2", "traffic": [traffic]}, "file")
    assert requirements(problem) == []


@pytest.mark.parametrize("number", range(len(LABELS)), ids=LABELS)
def test_dropping_one_leaves_the_others(
    good_problem: SizingProblem, number: int
) -> None:
    dropped = requirements(good_problem)[number].moved(good_problem, None)
    left = [r.label for r in requirements(dropped)]
    assert left == LABELS[:number] + LABELS[number + 1 :]


@pytest.mark.parametrize("number", range(len(LABELS)), ids=LABELS)
def test_moving_one_moves_it_alone(good_problem: SizingProblem, number: int) -> None:
    before = {r.label: r.value for r in requirements(good_problem)}
    asked = 3.0 * before[LABELS[number]]
    moved = requirements(good_problem)[number].moved(good_problem, asked)
    after = {r.label: r.value for r in requirements(moved)}
    assert after == pytest.approx(before | {LABELS[number]: asked})


def test_all_dropped_leaves_the_demand_alone(good_problem: SizingProblem) -> None:
    bare = good_problem
    for requirement in requirements(good_problem):
        bare = requirement.moved(bare, None)
    assert requirements(bare) == []
    assert [t.rate for t in bare.traffic] == [t.rate for t in good_problem.traffic]


def percentiles(*targets: tuple[str, str, str], **more: object) -> SizingProblem:
    stated = [dict(zip(("metric", "statistic", "at_most"), t, strict=True))
              for t in targets]  # fmt: skip
    traffic = {"input_tokens": 10, "output_tokens": 10, "rate": "1 req/s"}
    traffic |= {"targets": stated, **more}
    return problem_of({"model": "gpt2", "traffic": [traffic]}, "file")


def test_statistics_of_one_latency_move_apart() -> None:
    problem = percentiles(
        ("ttft", "p50", "1 s"), ("ttft", "p99", "2 s"), ("ttft", "mean", "1.5 s")
    )
    median, tail, mean = requirements(problem)
    assert [r.label for r in (median, tail, mean)] == [
        "p50 TTFT",
        "p99 TTFT",
        "mean TTFT",
    ]
    assert tail.target is not None
    assert tail.target[1].statistic == "p99"
    moved = requirements(tail.moved(problem, 9.0))
    assert [r.value for r in moved] == [1.0, 9.0, 1.5]
    assert [r.label for r in requirements(tail.moved(problem, None))] == [
        "p50 TTFT",
        "mean TTFT",
    ]


def test_goodput_is_the_share_that_may_miss_it() -> None:
    goodput = {"share": 0.95, "ttft": "2 s", "tpot": "50 ms"}
    problem = percentiles(("e2e", "mean", "9 s"), goodput=goodput)
    mean, misses = requirements(problem)
    assert mean.goodput is None
    assert misses.goodput == (0, problem.traffic[0].goodput)
    assert misses.label == "goodput misses"
    assert misses.value == pytest.approx(0.05)
    assert misses.text(misses.value) == "5 %"
    moved = misses.moved(problem, 0.2).traffic[0].goodput
    assert moved is not None
    assert moved.share == pytest.approx(0.8)
    assert moved.limits == {"ttft": 2.0, "tpot": 0.05}
    for nothing in (None, 1.0):
        assert misses.moved(problem, nothing).traffic[0].goodput is None


def test_values_as_people_read_them(good_problem: SizingProblem) -> None:
    by_label = {r.label: r for r in requirements(good_problem)}
    assert by_label["chat mean TPOT"].text(0.05) == "50 ms"
    assert by_label["NPU limit"].text(1234.0) == "1,234"
    assert by_label["power limit"].text(2000.0) == "2 kW"
