"""Frontiers: brute force over the candidates, dominance, going on, and the command."""

import csv
import io
import itertools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_ops.errors import ProblemError
from problems.changes import Change, changed
from problems.problem import SizingProblem, problem_of
from problems.verify import violations
from sizing.frontier import AXES, Frontier, Point, axis_of, marked
from sizing.journal import Journal
from sizing.solved import Answers, Solved
from solver.solve import Optimal, Workspace

Genz = Callable[..., Any]

STATED = """\
model = "llama-3.1-8b"
chunk_tokens = 2048
max_num_seqs = 256
[[traffic]]
name = "chat"
input_tokens = 1000
output_tokens = 200
rate = "20 req/s"
targets = [
    { metric = "ttft", at_most = "500 ms" },
    { metric = "tpot", at_most = "20 ms" },
]
[hardware]
npus = ["h100-sxm", "l40s", "a40"]
[prices]
given = [
    { npu = "h100-sxm", usd_per_hour = "3.5 USD/h" },
    { npu = "l40s", usd_per_hour = "0.9 USD/h" },
    { npu = "a40", usd_per_hour = "0.6 USD/h" },
]
"""


@pytest.fixture(scope="module", autouse=True)
def plain_npus_here(plain_npus: None) -> None:
    """Let no measurement change what is asked here."""


@pytest.fixture(scope="module")
def base() -> SizingProblem:
    return problem_of(tomllib.loads(STATED), "file")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "problem.toml"
    path.write_text(STATED, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def wide(base: SizingProblem) -> SizingProblem:
    """Few NPUs are dear here, and cheap ones many: a frontier of many points."""
    return changed(base, [Change("rate", "60 req/s"), Change("price.h100", "9 USD/h")])


def points(problem: SizingProblem, along: str, **asked: Any) -> list[Point]:
    found = Frontier(problem, along, **asked).found(Answers())
    return marked(list(found), axis_of(along))


def pairs(found: list[Point]) -> list[tuple[float, float]]:
    return [(p.at, p.solved.value or 0.0) for p in found if p.solved.plan]


# Limits: each point of the Pareto set, and no other


def brute_force(problem: SizingProblem, along: str) -> list[tuple[float, float]]:
    """Return the Pareto set of what is used and cost, over all counts of replicas."""
    instance = Workspace.of(problem).instance(problem)
    (demand,) = instance.demand

    def used(number: int) -> float:
        candidate = instance.candidates[number]
        npu = instance.offers[candidate.offer].npu
        return candidate.npus * (1.0 if along == "npus" else npu.power or 0.0)

    def cost(number: int) -> float:
        candidate = instance.candidates[number]
        offer = instance.offers[candidate.offer]
        return candidate.npus * offer.usd_per_hour_per_npu

    every = range(len(instance.candidates))
    alone = [n for n in every if instance.candidates[n].capacity >= demand]
    # A plan of more replicas than this costs more than the one that uses least.
    least = min(alone, key=lambda n: (used(n), cost(n)))
    most = cost(least)
    every = [n for n in every if cost(n) <= most]
    deepest = int(most / min(map(cost, every)))
    reached: set[tuple[float, float]] = set()
    for size in range(1, deepest + 1):
        for chosen in itertools.combinations_with_replacement(every, size):
            total = sum(map(cost, chosen))
            if total > most * (1 + 1e-9):
                continue
            rows = [instance.candidates[n] for n in chosen]
            if any(chosen.count(n) < instance.candidates[n].least for n in chosen):
                continue
            if sum(row.capacity for row in rows) >= demand:
                reached.add((sum(map(used, chosen)), total))
    return [
        pair
        for pair in sorted(reached)
        if not any(
            o != pair and o[0] <= pair[0] + 1e-9 and o[1] <= pair[1] + 1e-9
            for o in reached
        )
    ]


@pytest.mark.slow
@pytest.mark.parametrize("along", ["npus", "power"])
@pytest.mark.parametrize("rate", ["6 req/s", "14 req/s", "20 req/s"])
def test_limits_give_the_whole_pareto_set(
    base: SizingProblem, along: str, rate: str
) -> None:
    problem = changed(base, [Change("rate", rate)])
    found = points(problem, along)
    assert all(p.solved.status == "optimal" and not p.dominated for p in found)
    expected = brute_force(problem, along)
    assert pairs(found) == [pytest.approx(pair, rel=1e-6) for pair in expected]


def test_some_frontier_has_several_points(base: SizingProblem) -> None:
    assert len(points(base, "npus")) > 1


@pytest.mark.slow
@pytest.mark.parametrize("along", ["npus", "power"])
def test_fewer_points_are_some_of_all(wide: SizingProblem, along: str) -> None:
    every = pairs(points(wide, along))
    some = pairs(points(wide, along, points=3))
    assert 2 <= len(some) <= 3 < len(every)
    assert set(some) <= set(every)
    assert some[-1] == every[-1]


@pytest.mark.slow
def test_ends_of_a_limit(wide: SizingProblem) -> None:
    every = pairs(points(wide, "npus"))
    low, high = every[1][0], every[-2][0]
    assert pairs(points(wide, "npus", low=low, high=high)) == every[1:-1]


@pytest.mark.slow
def test_a_limit_that_the_problem_states_holds(wide: SizingProblem) -> None:
    every = pairs(points(wide, "npus"))
    limited = changed(wide, [Change("limits.npus", str(int(every[-2][0])))])
    assert pairs(points(limited, "npus")) == every[:-1]


def test_a_plan_that_may_not_use_least_is_not_proved(base: SizingProblem) -> None:
    class Hasty(Answers):
        def of(self, problem: SizingProblem) -> Solved:
            if problem.objective == "npus":
                return Solved(status="timed_out")
            return super().of(problem)

    first = next(Frontier(base, "npus").found(Hasty()))
    assert first.solved.plan is not None
    assert first.solved.status == "feasible"


# Fields: the problem solved at each value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("along", "low", "high"),
    [("tpot", 0.01, 0.05), ("rate", 5.0, 60.0), ("headroom", 0.0, 0.6)],
)
def test_points_are_the_problem_sized_at_each_value(
    base: SizingProblem, along: str, low: float, high: float
) -> None:
    found = points(base, along, low=low, high=high, points=4)
    assert [p.at for p in found] == pytest.approx(
        [low + (high - low) * n / 3 for n in range(4)]
    )
    for point in found:
        problem = changed(base, [axis_of(along).change(point.at)])
        alone = Workspace.of(problem).solve()
        assert isinstance(alone, Optimal)
        assert point.solved.plan == alone.plan
        assert violations(problem, alone.plan) == []
    costs = [cost for _, cost in pairs(found)]
    looser = along == "tpot"
    assert costs == sorted(costs, reverse=looser)
    kept = [cost for cost, p in zip(costs, found, strict=True) if not p.dominated]
    assert len(kept) == len({round(cost, 9) for cost in costs})


def test_targets_that_nothing_meets_are_points_too(base: SizingProblem) -> None:
    first, last = points(base, "tpot", low=1e-4, high=0.05, points=2)
    assert first.solved.status == "infeasible"
    assert not last.dominated


def test_users_are_counted() -> None:
    axis = axis_of("concurrency")
    assert axis.change(3.0) == Change("concurrency", "3")
    with pytest.raises(ProblemError, match="whole number"):
        axis.parse("1.5", "--from")


def test_beaten_points_by_hand() -> None:
    def at(value: float, cost: float) -> Point:
        return Point(at=value, solved=Solved(status="optimal", value=cost))

    stated = [at(2, 5.0), at(1, 9.0), at(3, 5.0), at(4, 6.0), at(5, 2.0)]
    tighter = marked(stated, axis_of("tpot"))
    assert [p.dominated for p in tighter] == [False, False, True, True, False]
    more = marked(stated, axis_of("rate"))
    assert [p.dominated for p in more] == [True, True, True, True, False]


# Going on, and the command


@pytest.mark.slow
def test_a_resumed_frontier_is_the_same(wide: SizingProblem, tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    whole = list(Frontier(wide, "npus").found(Answers()))
    running = Frontier(wide, "npus").found(Answers(journal=Journal.at(path)))
    assert [next(running), next(running)] == whole[:2]
    del running
    again = Frontier(wide, "npus").found(Answers(journal=Journal.at(path)))
    assert list(again) == whole


def test_the_command_in_every_format(genz: Genz, file: Path) -> None:
    asked = ("frontier", file, "--along", "tpot", "--from", "10ms", "--to", "30 ms")
    asked = (*asked, "--points", "3")
    text = genz(*asked)
    assert (text.code, text.err) == (0, "")
    assert "Each point is proved and verified" in text.out
    found = genz(*asked, "--format", "json").json
    assert (found["along"], found["unit"], found["complete"]) == ("tpot", "s", True)
    assert [p["at"] for p in found["points"]] == pytest.approx([0.01, 0.02, 0.03])
    rows = list(csv.DictReader(io.StringIO(genz(*asked, "--format", "csv").out)))
    assert [float(row["usd_per_hour"]) for row in rows] == [
        p["usd_per_hour"] for p in found["points"]
    ]


def test_a_title_states_the_load_unless_it_varies(genz: Genz, file: Path) -> None:
    asked = ("frontier", file, "--points", "2", "--along")
    fixed = genz(*asked, "tpot", "--from", "10ms", "--to", "30 ms").out.splitlines()[0]
    assert " req/s of " in fixed
    varied = genz(*asked, "rate", "--from", "1 req/s", "--to", "2 req/s").out
    assert varied.startswith("Cost against rate: ")
    assert " req/s of " not in varied.splitlines()[0]
    assert " tokens in and " in varied.splitlines()[0]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (("--from", "20", "--to", "30 ms"), "--from: '20' has no unit"),
        (("--from", "20 ms", "--to", "x"), "--to: 'x' is not a quantity"),
        (("--from", "0 ms", "--to", "30 ms"), "--from: "),
        (("--from", "1 ms", "--to", "30 days"), "--to: "),
    ],
)
def test_an_end_that_cannot_be_is_named(
    genz: Genz, file: Path, ends: tuple[str, ...], said: str
) -> None:
    ran = genz("frontier", file, "--along", "tpot", *ends)
    assert ran.code == 2
    assert ran.err.startswith(f"genz-size: {said}")


def test_exit_codes(genz: Genz, file: Path) -> None:
    asked = ("frontier", file, "--along", "tpot", "--points", "2")
    assert genz(*asked, "--from", "1us", "--to", "30 ms").code == 0
    assert genz(*asked, "--from", "1us", "--to", "2 us").code == 3


def test_a_plot_is_an_image(genz: Genz, file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.png", "b.svg"):
        ran = genz("frontier", file, "--along", "npus", "--plot", tmp_path / name)
        assert ran.code == 0, ran.err
        assert (tmp_path / name).stat().st_size > 5_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--along", "tpt"), "did you mean 'tpot'"),
        (("--along", "tpot"), "--from and --to: needed along tpot"),
        (("--along", "tpot", "--from", "2", "--to", "3 s"), "has no unit"),
        (("--along", "tpot", "--from", "3 s", "--to", "2 s"), "must be below"),
        (("--along", "npus", "--from", "x"), "no whole number"),
        (("--along", "headroom", "--from", "0", "--to", "3"), "at most 0.95"),
        (("--along", "rate", "--from", "0 req/s", "--to", "1 req/s"), "above 0"),
        (("--along", "npus", "--plot", "x.pdf"), ".png or .svg"),
    ],
)
def test_bad_input_is_one_message(
    genz: Genz, file: Path, arguments: tuple[str, ...], said: str
) -> None:
    ran = genz("frontier", file, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.rstrip("\n").count("\n") <= 2


def test_every_axis_is_one() -> None:
    for along in AXES:
        assert axis_of(along).key
