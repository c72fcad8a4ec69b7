"""Changes by key and value: what each makes of a problem, and what is refused."""

from typing import Any

import pytest

from model_ops.errors import ProblemError
from problems.changes import Change, changed, keys
from problems.offers import offers
from problems.problem import SizingProblem, problem_of

TRAFFIC = {
    "name": "chat",
    "input_tokens": 2000,
    "output_tokens": {"mean": 500.0, "cv": 1.0},
    "rate": 10.0,
    "targets": [
        {"metric": "ttft", "statistic": "p99", "at_most": 2.0},
        {"metric": "tpot", "at_most": 0.05},
        {"metric": "tpot", "statistic": "p95", "at_most": 0.08},
    ],
}


def base(**changes: Any) -> SizingProblem:
    data = {"model": "llama-3.1-70b", "traffic": [TRAFFIC], "headroom": 0.1}
    return problem_of(data | changes, "python")


def after(text: str, problem: SizingProblem | None = None) -> SizingProblem:
    return changed(problem or base(), [Change.of(text)])


def limits_of(problem: SizingProblem, metric: str) -> dict[str, float]:
    targets = problem.traffic[0].targets
    return {t.statistic: t.at_most for t in targets if t.metric == metric}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("rate=2x", ("traffic", 0, "rate"), 20.0),
        ("rate=x2", ("traffic", 0, "rate"), 20.0),
        ("rate=+20%", ("traffic", 0, "rate"), 12.0),
        ("rate=-20%", ("traffic", 0, "rate"), 8.0),
        ("rate=3 req/s", ("traffic", 0, "rate"), 3.0),
        ("traffic.chat.rate=3 req/s", ("traffic", 0, "rate"), 3.0),
        ("concurrency=200", ("traffic", 0, "concurrency"), 200),
        ("input_tokens=1.5x", ("traffic", 0, "input_tokens"), 3000),
        ("input_tokens=1,000", ("traffic", 0, "input_tokens"), 1000),
        ("beams=4", ("traffic", 0, "beams"), 4),
        ("prefix_hit=50%", ("traffic", 0, "prefix_hit"), 0.5),
        ("router=random", ("traffic", 0, "router"), "random"),
        ("limits.npus=16", ("limits", "npus"), 16),
        ("limits.power=40 kW", ("limits", "power"), 40_000.0),
        ("limits.npus_per_type.h200=8", ("limits", "npus_per_type"), {"h200-sxm": 8}),
        ("headroom=2x", ("headroom",), 0.2),
        ("headroom=0.3", ("headroom",), 0.3),
        ("headroom=1e-05", ("headroom",), 1e-5),
        ("confidence=0.9", ("confidence",), 0.9),
        ("chunk_tokens=512", ("chunk_tokens",), 512),
        ("objective=npus", ("objective",), "npus"),
        ("prices.terms=spot, on_demand", ("prices", "terms"), ("spot", "on_demand")),
        ("precisions=fp8", ("precisions",), ("fp8",)),
        ("without=h100,b200", ("hardware", "exclude"), ("h100", "b200")),
        ("model=llama-3.1-8b", ("model",), "llama-3.1-8b"),
    ],
)
def test_a_change_sets_its_field(
    text: str, path: tuple[str | int, ...], value: object
) -> None:
    found: Any = after(text).model_dump()
    for part in path:
        found = found[part]
    assert found == (pytest.approx(value) if isinstance(value, float) else value)


def test_nothing_else_changes() -> None:
    found = after("limits.npus=16").model_dump()
    expected = base().model_dump()
    expected["limits"]["npus"] = 16
    assert found == expected


def test_lengths_keep_their_spread() -> None:
    output = after("output_tokens=2x").traffic[0].output_tokens
    assert output is not None
    assert not isinstance(output, int)
    assert (output.mean, output.cv) == (1000.0, 1.0)


@pytest.mark.parametrize(
    ("text", "metric", "expected"),
    [
        ("ttft=1 s", "ttft", {"p99": 1.0}),  # the one that there is moves
        ("ttft=mean 1 s", "ttft", {"p99": 2.0, "mean": 1.0}),
        ("ttft.p99=1 s", "ttft", {"p99": 1.0}),
        ("ttft=-50%", "ttft", {"p99": 1.0}),
        ("ttft=none", "ttft", {}),
        ("tpot=2x", "tpot", {"mean": 0.1, "p95": 0.16}),
        ("tpot.p95=none", "tpot", {"mean": 0.05}),
        ("e2e=20 s", "e2e", {"mean": 20.0}),
    ],
)
def test_targets_move(text: str, metric: str, expected: dict[str, float]) -> None:
    assert limits_of(after(text), metric) == pytest.approx(expected)


def test_what_is_owned_goes_with_what_is_taken_away() -> None:
    owned = [{"npu": "h100", "npus": 2}, {"npu": "l40s", "npus": 3}]
    left = after("without=h100*", base(owned=owned))
    assert [each.npu for each in left.owned] == ["l40s"]


def test_one_change_after_the_other() -> None:
    found = changed(base(), [Change("rate", "2x"), Change("rate", "2x")])
    assert found.traffic[0].rate == 40.0


def test_a_class_alone_or_every_class() -> None:
    other = {**TRAFFIC, "name": "batch.night", "rate": 5.0}
    problem = base(traffic=[TRAFFIC, other])
    one = after("traffic.batch.night.rate=2x", problem)
    assert [t.rate for t in one.traffic] == [10.0, 10.0]
    every = after("rate=2x", problem)
    assert [t.rate for t in every.traffic] == [20.0, 10.0]
    assert "traffic.batch.night.rate" in keys(problem)


def test_a_relative_price_is_of_the_catalogues_and_of_given_ones() -> None:
    problem = base(
        hardware={"npus": ["h200-sxm", "l40s", "h100-sxm"]},
        prices={"given": [{"npu": "l40s", "usd_per_hour": 1.0}]},
    )
    was = {o.key: o.usd_per_hour_per_npu for o in offers(problem)}
    for text, npus in (
        ("price.h200=-20%", {"h200-sxm"}),
        ("price.l40s=0.8x", {"l40s"}),
        ("price=-20%", {"h200-sxm", "l40s", "h100-sxm"}),
    ):
        for offer in offers(after(text, problem)):
            factor = 0.8 if offer.npu.name in npus else 1.0
            expected = factor * was[offer.key]
            assert offer.usd_per_hour_per_npu == pytest.approx(expected)


def test_an_absolute_price_is_what_it_says_whatever_was_before() -> None:
    problem = after("price.h200=-20%")
    (offer,) = (
        o
        for o in offers(after("price.h200=2 USD/h", problem))
        if o.npu.name == "h200-sxm"
    )
    assert (offer.provider, offer.usd_per_hour_per_npu) == ("given", 2.0)


def test_none_takes_tables_and_lists_away() -> None:
    limits = {
        "npus": 50,
        "quota": [{"region": "us-*", "npus": 8}],
        "racks": {"nodes": 4},
        "npus_per_type": {"h200-sxm": 8},
    }
    plain = base().model_dump()
    problem = base(limits=limits, redundancy={"racks": 1})
    for key in ("quota", "npus_per_type"):
        left = after(f"limits.{key}=none", problem).model_dump()["limits"]
        kept = problem.model_dump()["limits"]
        assert left == kept | {key: plain["limits"][key]}
    assert not after("redundancy=none", problem).redundancy.domains
    both = [Change.of("redundancy=none"), Change.of("limits.racks=none")]
    assert changed(problem, both).limits.racks is None
    assert after("limits=none", base(limits=limits)).model_dump() == plain


def test_factors_of_one_npu_multiply() -> None:
    twice = after("price.h200=-50%", after("price.h200=-50%"))
    assert twice.prices.factor("h200-sxm") == pytest.approx(0.25)
    assert twice.prices.factor("h100-sxm") == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rte=2x", "'rte': no such key; did you mean 'rate'"),
        ("limits.npu=3", "did you mean 'limits.npus'"),
        ("limits=3", "no such key"),
        ("limits.quota=3", "no short text states it; 'none' takes it away"),
        ("title=none", "no such key"),
        ("limits.npus.x=3", "no such key"),
        ("traffic.caht.rate=2x", "no such key; did you mean 'traffic.chat.rate'"),
        ("tpot.p98=3 ms", "no such key"),
        ("title=x", "no such key"),
        ("traffic=3", "no such key"),
        ("price.h999=2x", "unknown npu 'h999'"),
        ("without=h999", "unknown npu 'h999'"),
        ("rate=fast", "is not a quantity"),
        ("rate=5", "has no unit"),
        ("ttft=5", "has no unit"),
        ("ttft=-100%", "leaves nothing"),
        ("limits.npus=1.5", "no whole number"),
        ("limits.npus=2x", "not stated"),
        ("e2e=2x", "no target of e2e"),
        ("tpot=20 ms", "which of its targets? tpot.mean or tpot.p95"),
        ("headroom=3", "at most 0.95"),
        ("router=rr", "unknown value 'rr'"),
        ("model=2x", "nothing can be relative"),
        ("rate", "is not like KEY=VALUE"),
        ("=2x", "is not like KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(text: str, said: str) -> None:
    with pytest.raises(ProblemError) as error:
        after(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_every_key_is_known() -> None:
    """A key that is proposed is never answered with `no such key`."""
    problem = base()
    for key in keys(problem):
        change = Change(key.replace("NPU", "h100-sxm"), "1")
        assert "no such key" not in _said(problem, change), key


def _said(problem: SizingProblem, change: Change) -> str:
    try:
        changed(problem, [change])
    except ProblemError as error:
        return str(error)
    return ""
