"""Traffic classes: lengths, arrivals and targets, in every form."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_ops.errors import ProblemError
from problems import catalogue
from problems.problem import SizingProblem, problem_of, read_toml
from problems.traffic import Goodput, TrafficClass

Stated = Callable[..., dict[str, Any]]
TRACE = "seconds,prompt,answer\n" + "".join(
    # One a second for five minutes, and two a second in the fourth.
    f"{second},{100 + second},{1 + second % 5}\n" * (2 if 180 <= second < 240 else 1)
    for second in range(300)
)


def one(**changes: Any) -> TrafficClass:
    data = {"input_tokens": 1000, "output_tokens": 200, "rate": "2 req/s"} | changes
    kept = {key: value for key, value in data.items() if value is not None}
    problem = {"model": "llama-3.1-8b", "traffic": [kept]}
    return problem_of(problem, "file").traffic[0]


def named(**changes: Any) -> TrafficClass:
    return one(input_tokens=None, output_tokens=None, **changes)


@pytest.fixture
def recorded(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "requests.csv"
    path.write_text(TRACE)
    return {"path": str(path), "input": "prompt", "output": "answer", "time": "seconds"}


# The document


SHOWN = re.findall(
    r"^```toml\n(.*?)^```",
    (Path(__file__).parents[2] / "docs" / "problem.md").read_text(encoding="utf-8"),
    flags=re.M | re.S,
)


@pytest.mark.parametrize("text", SHOWN)
def test_forms_that_the_document_shows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: Stated, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    Path("requests.csv").write_text(f"{header}1.5,10,20\n3.5,30,40\n")
    problem = problem_of(stated(**tomllib.loads(text)), "file")
    assert problem.traffic[0].demand(headroom=0.0) > 0
    assert problem.traffic[0].profile.prompt.mean > 0


# Lengths


def test_alike_requests_are_as_before() -> None:
    traffic = one(prefix_hit=0.25)
    assert (traffic.input_tokens, traffic.output_tokens) == (1000, 200)
    shape = traffic.shape
    assert (shape.input_tokens, shape.output_tokens) == (1000.0, 200.0)
    assert shape.cached_tokens == 250.0
    assert traffic.profile.prompt.is_fixed
    assert traffic.profile.cached_share == 0.25
    assert traffic.text == "2 req/s of 1,000 tokens in and 200 out"


def test_each_length_has_a_form_of_its_own() -> None:
    traffic = one(
        input_tokens={"mean": 512, "cv": 1.0},
        output_tokens={"p50": 129, "p90": 424, "p99": 601, "mean": 211},
        beams=2,
    )
    assert traffic.profile.prompt.variation == pytest.approx(1.0, rel=0.01)
    assert traffic.shape.input_tokens == pytest.approx(512, rel=1e-3)
    assert traffic.shape.output_tokens == pytest.approx(211, rel=0.01)
    assert traffic.shape.beams == 2
    assert traffic.text == "2 req/s of 512 tokens in and 211 out on average"


def test_lengths_of_a_catalogue_trace() -> None:
    traffic = named(lengths="Azure-2023-Conv")
    file = catalogue.trace_file("azure-2023-conv")
    assert traffic.profile.prompt == file.prompt.lengths
    assert traffic.profile.output == file.output.lengths
    assert traffic.shape.input_tokens == pytest.approx(1155, rel=0.01)
    assert traffic.rate == 2.0


def test_lengths_of_recorded_requests(recorded: dict[str, str]) -> None:
    traffic = named(trace=recorded | {"time": None}, rate="3 req/s")
    prompts = [100 + s for s in range(300) for _ in range(2 if 180 <= s < 240 else 1)]
    mean = sum(prompts) / len(prompts)
    assert traffic.shape.input_tokens == pytest.approx(mean, rel=0.01)
    assert traffic.profile.output.tokens[-1] == 5.0
    assert traffic.peak_rate == traffic.mean_rate == 3.0
    assert not traffic.is_replayed


@pytest.mark.parametrize(
    "lengths",
    [
        {},
        {"input_tokens": {"mean": 512.5, "cv": 1.0}},
        {"output_tokens": {"p50": 129, "p90": 424.5}},
        {"input_tokens": None, "output_tokens": None, "lengths": "sharegpt"},
        {"diurnal": [1] * 23 + [2], "burstiness": 2},
        {"goodput": {"share": 0.9, "ttft": "1 s"}},
    ],
)
def test_json_round_trip(lengths: dict[str, Any]) -> None:
    problem = SizingProblem(model="llama-3.1-8b", traffic=(one(**lengths),))
    again = SizingProblem.model_validate_json(problem.model_dump_json())
    assert again == problem
    assert hash(again.traffic[0]) == hash(problem.traffic[0])
    assert again.traffic[0].profile == problem.traffic[0].profile


# Arrivals


def test_arrivals_are_random_unless_stated() -> None:
    assert one().arrival_variation == 1.0
    assert one(burstiness=2).arrival_variation == 4.0
    assert one(burstiness=2).text.startswith("2 req/s (burstiness 2) of")
    assert not one().is_closed
    assert one(rate=None, concurrency=3).is_closed
    assert one(rate=None, concurrency=3).peak_rate is None
    assert one(rate=None, concurrency=3).mean_rate is None


def test_the_peak_hour_of_a_day_is_bought_for() -> None:
    # Half the day at 1, half at 3: the mean is 2, the peak one and a half times that.
    traffic = one(diurnal=[1] * 12 + [3] * 12, rate="4 req/s")
    assert traffic.utilisation == pytest.approx(2 / 3)
    assert traffic.mean_rate == 4.0
    assert traffic.peak_rate == pytest.approx(6.0)
    assert traffic.demand(headroom=0.25) == pytest.approx(8.0)
    assert traffic.scaled(0.5).demand(0.0) == pytest.approx(3.0)
    assert traffic.text.startswith("6 req/s (peak hour; 4 on average) of")


def test_an_even_day_changes_nothing() -> None:
    assert one(diurnal=[7] * 24).demand(0.0) == pytest.approx(one().demand(0.0))


def test_recorded_times_stand_for_a_rate(recorded: dict[str, str]) -> None:
    traffic = named(trace=recorded, rate=None)
    assert traffic.is_replayed
    # Two a second for a minute; 360 requests, the last at second 299.
    assert traffic.peak_rate == pytest.approx(2.0)
    assert traffic.mean_rate == pytest.approx(359 / 299)
    assert traffic.demand(headroom=0.5) == pytest.approx(4.0)
    assert traffic.recording is not None
    assert traffic.recording.arrival is not None
    assert traffic.recording.arrival[-1] == 299.0
    # Of the gaps at the peak, half are 0 s and half 1 s.
    assert traffic.arrival_variation == pytest.approx(1.0, abs=0.03)
    assert traffic.text.startswith("2 req/s (peak minute; 1.201 on average) of")
    assert traffic.text.endswith("on average (requests.csv)")


def test_a_rate_stretches_recorded_times(recorded: dict[str, str]) -> None:
    traffic = named(trace=recorded, rate="20 req/s", burstiness=3)
    assert traffic.recording is not None
    assert traffic.recording.arrival is not None
    assert traffic.recording.arrival[-1] == pytest.approx(29.9)
    assert traffic.peak_rate == 20.0
    assert traffic.mean_rate == pytest.approx(3590 / 299)
    assert traffic.arrival_variation == 9.0


def test_users_take_recorded_requests_in_order(recorded: dict[str, str]) -> None:
    traffic = named(trace=recorded, rate=None, concurrency=8)
    assert not traffic.is_replayed
    assert traffic.demand(0.0) == 8
    assert traffic.recording is not None
    assert traffic.recording.prompt[0] == 100
    assert traffic.arrival_variation == 1.0


def test_less_of_a_recording_is_a_stretched_one(recorded: dict[str, str]) -> None:
    less = named(trace=recorded, rate=None).scaled(0.5)
    assert less.peak_rate == pytest.approx(1.0)
    assert less.recording is not None
    assert less.recording.peak_rate == pytest.approx(1.0)


def test_a_trace_lies_beside_its_problem_or_where_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "requests.csv").write_text(TRACE)
    text = (
        'model = "llama-3.1-8b"\n[[traffic]]\n'
        'trace = { path = "requests.csv", input = "prompt", output = "answer", '
        'time = "seconds" }\n'
    )
    for folder in ("there", "."):
        (tmp_path / folder / "problem.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    beside = problem_of(read_toml(tmp_path / "there" / "problem.toml"), "file")
    assert beside.traffic[0].peak_rate == pytest.approx(2.0)
    with pytest.raises(ProblemError, match=r"traffic\.traffic: trace\.path: .*no file"):
        problem_of(read_toml(Path("problem.toml")), "file")
    monkeypatch.chdir(tmp_path / "there")
    working = problem_of(read_toml(tmp_path / "problem.toml"), "file")
    assert working.traffic[0].peak_rate == pytest.approx(2.0)


@pytest.mark.parametrize(
    "trace", [3, {}, {"path": 3}, {"path": ""}, {"path": "a" * 5000}, {"path": "a\0"}]
)
def test_a_trace_that_cannot_be_found_is_refused(tmp_path: Path, trace: Any) -> None:
    with pytest.raises(ProblemError, match="trace"):
        named(trace=trace | {"input": "a", "output": "b"} if trace != 3 else 3)


# Targets


@pytest.mark.parametrize("statistic", ["mean", "p50", "p90", "p95", "p99"])
def test_labels_and_levels_of_statistics(statistic: str) -> None:
    target = {"metric": "tpot", "statistic": statistic, "at_most": "50 ms"}
    (kept,) = one(targets=[target]).targets
    assert kept.label == f"{statistic} TPOT"
    assert kept.level == (None if statistic == "mean" else int(statistic[1:]) / 100)


def target(metric: str, statistic: str, at_most: str) -> dict[str, str]:
    return {"metric": metric, "statistic": statistic, "at_most": at_most}


def test_several_statistics_of_one_latency() -> None:
    targets = [
        target("ttft", "p99", "2 s"),
        target("ttft", "p50", "1 s"),
        target("ttft", "mean", "3 s"),  # a heavy tail may lift it above any quantile
        target("ttft", "p90", "1 s"),
        target("tpot", "p99", "50 ms"),
    ]
    assert len(one(targets=targets).targets) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"targets": [target("ttft", "p90", "2 s"), target("ttft", "p95", "1 s")]},
            "p95 TTFT of 1 s is below p90 TTFT of 2 s",
        ),
        ({"output_tokens": 1, "targets": [target("tpot", "p99", "1 s")]}, "TPOT needs"),
        (
            {"output_tokens": 1, "goodput": {"share": 0.9, "tpot": "1 s"}},
            "TPOT needs output_tokens",
        ),
        (
            {
                "output_tokens": {"p10": 1, "p90": 1},
                "targets": [target("tpot", "mean", "1 s")],
            },
            "TPOT needs output_tokens",
        ),
        ({"diurnal": [1] * 24, "rate": None, "trace": {"path": "x"}}, "trace"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        one(**changes)


def test_a_day_and_recorded_times_are_refused(recorded: dict[str, str]) -> None:
    with pytest.raises(ProblemError, match="diurnal shapes a rate"):
        named(trace=recorded, diurnal=[1] * 24)


def test_goodput_keeps_its_limits() -> None:
    goodput = one(goodput={"share": 0.95, "ttft": "2 s", "tpot": "50 ms"}).goodput
    assert goodput is not None
    assert goodput.share == 0.95
    assert goodput.limits == {"ttft": 2.0, "tpot": 0.05}


@pytest.mark.parametrize(
    ("share", "limits", "statistic"),
    [
        (0.5, {"ttft": "1 s"}, "p50"),
        (0.9, {"ttft": "1 s"}, "p90"),
        (0.9, {"ttft": "1 s", "tpot": "50 ms"}, "p95"),  # 5 % may miss each
        (0.95, {"ttft": "1 s", "tpot": "50 ms"}, "p99"),  # 2.5 % each
        (0.98, {"ttft": "1 s", "tpot": "50 ms"}, "p99"),
    ],
)
def test_a_plan_is_sized_for_the_percentiles_that_a_goodput_needs(
    share: float, limits: dict[str, str], statistic: str
) -> None:
    goodput = Goodput.model_validate(
        {"share": share, **limits}, context={"source": "file"}
    )
    found = {target.metric: target.statistic for target in goodput.targets}
    assert found == dict.fromkeys(limits, statistic)
    assert {t.metric: t.at_most for t in goodput.targets} == goodput.limits


def test_a_goodput_beyond_the_percentiles_is_refused() -> None:
    with pytest.raises(ValueError, match="with 2 limits"):
        Goodput.model_validate(
            {"share": 0.985, "ttft": "1 s", "tpot": "50 ms"}, context={"source": "file"}
        )
