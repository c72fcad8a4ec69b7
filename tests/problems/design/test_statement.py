"""Design problems as written: ladders, what follows what, and what is wrong."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from model_ops.errors import GenzSizeError
from problems.design.statement import DesignProblem, design_problem_of

CASE = {
    "model": "llama-3-8b",
    "input_tokens": 1000,
    "output_tokens": 100,
    "rate": "5 req/s",
    "ttft": "1 s",
}


def _problem(**stated: Any) -> DesignProblem:
    return design_problem_of({"use_case": [CASE]} | stated, "file")


def test_without_a_platform_the_figures_of_a_datasheet_vary() -> None:
    ladders = _problem(levels=5).ladders
    assert set(ladders.varied) == {
        "flop_per_s",
        "memory_bandwidth",
        "memory_capacity",
        "scale_up_bandwidth",
        "scale_up_npus",
        "scale_out_bandwidth",
    }
    today = ladders.today.memory_bandwidth
    levels = ladders.levels["memory_bandwidth"]
    assert (levels[0], levels[-1]) == pytest.approx((today / 4, today * 8))
    ratios = [b / a for a, b in pairwise(levels)]
    assert ratios == pytest.approx([2, 2, 8**0.5, 8**0.5])


@pytest.mark.parametrize("count", [2, 3, 4, 5, 12, 24, 96, 512])
@pytest.mark.parametrize("figure", ["memory_bandwidth", "scale_up_latency"])
def test_a_ladder_about_todays_has_todays_as_a_level(count: int, figure: str) -> None:
    ladders = _problem(platform={figure: {"levels": count}}).ladders
    today, levels = ladders.today.figures[figure], ladders.levels[figure]
    assert len(levels) == len(set(levels)) == count
    assert list(levels) == sorted(levels, reverse=figure.endswith("latency"))
    assert today in levels
    far = today / 8 if figure.endswith("latency") else today * 8
    near = today * 4 if figure.endswith("latency") else today / 4
    assert levels[-1] == pytest.approx(far)
    assert levels[0] == pytest.approx(near if count > 2 else today)
    ratios = [abs(np.log(b / a)) for a, b in pairwise(levels)]
    assert max(ratios) <= 2.1 * min(ratios)


def test_what_follows_is_todays_where_todays_is() -> None:
    ladders = _problem(platform={"flop_per_s": {"levels": 9}}).ladders
    chosen = dict.fromkeys(ladders.names, 0)
    chosen["flop_per_s"] = ladders.levels["flop_per_s"].index(ladders.today.flop_per_s)
    assert ladders.specification(chosen) == ladders.today


def test_an_empty_platform_is_todays() -> None:
    ladders = _problem(platform={}).ladders
    assert ladders.varied == ()
    assert ladders.points == 1
    chosen = ladders.specification(dict.fromkeys(ladders.names, 0))
    assert chosen == ladders.today


def test_eight_bits_follow_sixteen_unless_stated() -> None:
    follows = _problem(platform={"flop_per_s": ["1 PFLOP/s", "2 PFLOP/s"]}).ladders
    low, high = follows.values("flop_per_s_8bit")
    assert high == pytest.approx(2 * low)
    assert low == pytest.approx(1e15 * 1979 / 989)
    own = _problem(platform={"flop_per_s": {}, "fp8": "3 PFLOP/s"}).ladders
    assert own.values("flop_per_s_8bit") == (3e15,)


@pytest.mark.parametrize("name", ["on_chip_memory", "sram", "L2", "scratchpad"])
def test_on_chip_memory_has_a_ladder_about_todays(name: str) -> None:
    ladders = _problem(platform={name: {"levels": 6}}).ladders
    levels, today = ladders.levels["on_chip_memory"], 50 * 2**20
    assert today in levels
    assert (levels[0], levels[-1]) == pytest.approx((today / 4, today * 8))
    assert ladders.varied == ("on_chip_memory",)


def test_what_nobody_knows_of_the_base_is_no_figure() -> None:
    problem = _problem(base="b300-sxm", platform={})
    assert "on_chip_memory" not in problem.ladders.levels
    chosen = problem.ladders.specification(dict.fromkeys(problem.ladders.names, 0))
    assert chosen == problem.today
    assert chosen.on_chip_memory is None
    assert problem.distance(chosen) == 0


def test_latencies_fall_and_aliases_are_known() -> None:
    ladders = _problem(platform={"latency": {"levels": 4}, "domain": [8, 2]}).ladders
    latencies = ladders.levels["scale_up_latency"]
    assert list(latencies) == sorted(latencies, reverse=True)
    assert ladders.levels["scale_up_npus"] == (2.0, 8.0)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"platform": {"flopz": {}}}, "unknown parameter 'flopz'.*flops"),
        ({"platform": {"flop_per_s": {}, "flops": {}}}, "stated twice"),
        ({"platform": {"memory_bandwidth": ["4 GB"]}}, "B/s"),
        ({"platform": {"memory_bandwidth": [4]}}, "no unit"),
        ({"platform": {"memory_bandwidth": {"from": "1 TB/s"}}}, "both ends"),
        (
            {"platform": {"memory_bandwidth": {"from": "2 TB/s", "to": "1 TB/s"}}},
            "below",
        ),
        ({"platform": {"scale_up_npus": [1.5]}}, "whole number"),
        ({"base": "h300"}, "unknown npu"),
        ({"framework": "vlm"}, "framework"),
        ({"framework": "deepspeed"}, "waits for its host"),
        ({"cost": {"file": "nothing"}}, "cost.file"),
        ({"objective": "distance"}, "limits.npus"),
        ({"use_case": []}, "use_case: must not be empty"),
        ({"use_case": [CASE, CASE]}, "a name of its own"),
        ({"use_case": [CASE | {"rate": 5}]}, "rate.*no unit"),
        ({"use_case": [CASE | {"precisions": ["fp3"]}]}, "fp3"),
        ({"use_case": [CASE | {"ttf": "1 s"}]}, "did you mean 'ttft'"),
        ({"weights": {"flopz": 1.0}}, "unknown parameter"),
        ({"base": "jetson-agx-orin"}, "base"),
        (
            {"base": "b300-sxm", "platform": {"sram": {}}},
            "platform.sram: nobody states the on-chip memory of b300-sxm",
        ),
        ({"platform": {"l2": "50 MB/s"}}, "platform.l2.*50 MB/s"),
    ],
)
def test_what_is_wrong_is_named(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(GenzSizeError, match=message):
        _problem(**stated)
