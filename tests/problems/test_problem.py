"""Statements of problems: what is accepted, refused, looked up and kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_ops.errors import CatalogueError, GenzSizeError, ProblemError
from problems.problem import Hardware, SizingProblem, problem_of, read_toml

Stated = Callable[..., dict[str, Any]]


def traffic(**changes: Any) -> dict[str, Any]:
    data = {"input_tokens": 1000, "output_tokens": 200, "rate": "2 req/s"} | changes
    return {key: value for key, value in data.items() if value is not None}


# What is accepted


def test_quantities_are_read_in_base_units(stated: Stated) -> None:
    data = stated(
        traffic=[traffic(rate="120 req/min", targets=[target("tpot", "50 ms")])],
        limits={"power": "2 kW", "usd_per_hour": "730 USD/month"},
    )
    problem = problem_of(data, "file")
    assert problem.traffic[0].rate == pytest.approx(2.0)
    assert problem.traffic[0].targets[0].at_most == pytest.approx(0.05)
    assert problem.limits.power == 2000
    assert problem.limits.usd_per_hour == pytest.approx(1.0)


def target(metric: str, at_most: Any) -> dict[str, Any]:
    return {"metric": metric, "at_most": at_most}


def test_python_may_give_bare_numbers_and_files_may_not(stated: Stated) -> None:
    data = stated(traffic=[traffic(rate=2)])
    assert problem_of(data, "python").traffic[0].rate == 2
    with pytest.raises(ProblemError, match=r"traffic\.0\.rate.*has no unit"):
        problem_of(data, "file")


def test_json_round_trip(good_problem: SizingProblem) -> None:
    text = good_problem.model_dump_json()
    assert SizingProblem.model_validate_json(text) == good_problem
    assert SizingProblem.model_validate_json(text).checked() == good_problem


def test_default_format_is_the_checkpoints_own(stated: Stated) -> None:
    assert [p.name for p in problem_of(stated(), "file").formats()] == ["bf16"]
    fp8 = problem_of(stated(model="llama-3.1-70b-fp8"), "file")
    assert [str(p.weights) for p in fp8.formats()] == ["fp8"]


def test_precisions_are_kept_by_their_names(stated: Stated) -> None:
    problem = problem_of(stated(precisions=["BF16", "fp8/fp8/kv-bf16"]), "file")
    assert problem.precisions == ("bf16", "fp8")


@pytest.mark.parametrize(
    ("headroom", "demand"), [(0.0, 2.0), (0.2, 2.5), (0.5, 4.0), (0.95, 40.0)]
)
def test_headroom_keeps_a_share_of_the_capacity_free(
    stated: Stated, headroom: float, demand: float
) -> None:
    problem = problem_of(stated(headroom=headroom), "file")
    assert problem.traffic[0].demand(problem.headroom) == pytest.approx(demand)


def test_demand_of_a_concurrency_counts_sequences(stated: Stated) -> None:
    data = stated(traffic=[traffic(rate=None, concurrency=30)])
    assert problem_of(data, "file").traffic[0].demand(0.25) == pytest.approx(40.0)


def test_labels_of_targets(good_problem: SizingProblem) -> None:
    labels = [each.label for each in good_problem.traffic[0].targets]
    assert labels == ["mean TTFT", "mean TPOT", "mean E2E"]


# Hardware


def test_hardware_by_name_alias_glob_and_exclusion() -> None:
    hardware = Hardware(npus=("H100", "mi3*"), exclude=("mi35*",))
    assert hardware.names() == ("h100-sxm", "mi300x", "mi325x")


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        ({"npus": ["h100-smx"]}, "hardware.npus.*'h100-sxm'"),
        ({"npus": ["h1000*"]}, r"hardware.npus: 'h1000\*' matches no NPU.*h100"),
        ({"npus": ["l4"], "exclude": ["l4"]}, "leaves no NPU"),
        ({"exclude": ["none-such"]}, "hardware.exclude.*none-such"),
        ({"npus": []}, "hardware.npus"),
    ],
)
def test_wrong_hardware_is_refused(
    stated: Stated, hardware: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProblemError, match=message):
        problem_of(stated(hardware=hardware), "file")


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"traffic": []}, "traffic"),
        ({"traffic": [traffic(concurrency=3)]}, "either rate or concurrency"),
        ({"traffic": [traffic(rate=None)]}, "rate is missing"),
        ({"traffic": [traffic(), traffic()]}, "a name of its own"),
        (
            {"traffic": [traffic(targets=[target("ttft", "1 s")] * 2)]},
            "one target per statistic",
        ),
        (
            {"traffic": [traffic(output_tokens=1, targets=[target("tpot", "1 s")])]},
            "TPOT needs output_tokens",
        ),
        ({"traffic": [traffic(targets=[target("tbt", "1 s")])]}, "unknown value 'tbt'"),
        ({"traffic": [traffic(targets=[target("ttft", "0 s")])]}, "at_most"),
        ({"traffic": [traffic(targets=[target("ttft", "-1 s")])]}, "at_most"),
        ({"traffic": [traffic(input_tokens=0)]}, r"traffic\.0\.input_tokens"),
        ({"traffic": [traffic(rate="5 GB")]}, r"traffic\.0\.rate"),
        ({"traffic": [traffic(rate="inf req/s")]}, r"traffic\.0\.rate"),
        ({"traffic": [traffic(rate=None, concurrency=0)]}, "concurrency"),
        ({"traffic": [traffic(input_tokens=200_000)]}, "max_position_embeddings"),
        ({"objective": "costs"}, "unknown value 'costs'; did you mean 'cost'"),
        ({"headroom": 1.0}, "headroom"),
        ({"chunk_tokens": 1}, "chunk_tokens"),
        ({"precisions": ["bf61"]}, "'bf16'"),
        ({"limits": {"npus": 0}}, r"limits\.npus"),
        ({"limits": {"power": "4 USD/h"}}, r"limits\.power"),
        ({"limits": {"npus_per_type": {"h100-smx": 1}}}, "npus_per_type.*'h100-sxm'"),
        ({"limits": {"npus": 1, "nodes": 2}, "hardware": {"npus": ["h100"]}}, "less"),
        ({"prices": {"terms": ["on-demand"]}}, "did you mean 'on_demand'"),
        ({"prices": {"confidence": "none"}}, r"prices\.confidence"),
        ({"prices": {"given": [{"npu": "h100"}]}}, "usd_per_hour: required"),
        ({"pirces": {}}, "pirces: there is no such field"),
        ({"model": ""}, "model"),
    ],
)
def test_contradictions_and_nonsense_are_refused(
    stated: Stated, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProblemError, match=message):
        problem_of(stated(**changes), "file")


def test_unknown_model_is_refused_naming_the_nearest(stated: Stated) -> None:
    with pytest.raises(CatalogueError, match=r"'llama-3\.1-8b'"):
        problem_of(stated(model="llama-3.1-8bb"), "file")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ProblemError) as told:
        problem_of({"traffic": [traffic(input_tokens=-1)], "objective": "x"}, "file")
    for field in ("model", "traffic.0.input_tokens", "objective"):
        assert field in str(told.value)


def test_a_given_price_for_several_npus_buys_them_whole(stated: Stated) -> None:
    def given(**changes: Any) -> SizingProblem:
        price = {"npu": "h100", "usd_per_hour": "16 USD/h"} | changes
        return problem_of(stated(prices={"given": [price]}), "file")

    message = r"whole_instance: a price for several NPUs buys them whole"
    for npus in (2, 8):
        with pytest.raises(ProblemError, match=message):
            given(npus=npus, whole_instance=False)
        assert given(npus=npus, whole_instance=True).prices.given[0].npus == npus
        assert given(npus=npus).prices.given[0].whole_instance is None
    for whole in (True, False):
        (price,) = given(npus=1, whole_instance=whole).prices.given
        assert price.whole_instance is whole
    (price,) = given(whole_instance=False).prices.given
    assert price.npus == 1


def test_prices_given_twice_for_an_npu_are_refused(stated: Stated) -> None:
    given = [
        {"npu": "h100", "usd_per_hour": "2 USD/h"},
        {"npu": "h100-sxm", "usd_per_hour": "3 USD/h"},
    ]
    with pytest.raises(ProblemError, match="one price per NPU"):
        problem_of(stated(prices={"given": given}), "file")


def test_limits_per_type_are_kept_by_catalogue_name(stated: Stated) -> None:
    problem = problem_of(stated(limits={"npus_per_type": {"H100": 8}}), "file")
    assert problem.limits.npus_per_type == {"h100-sxm": 8}


def test_two_limits_for_one_type_are_refused(stated: Stated) -> None:
    limits = {"npus_per_type": {"h100-sxm": 8, "h100": 16}}
    with pytest.raises(ProblemError, match="h100-sxm"):
        problem_of(stated(limits=limits), "file")


# Files


def test_toml_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "problem.toml"
    path.write_text('model = "gpt2"\n')
    assert read_toml(path) == {"model": "gpt2"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model = ", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"n = " + b"9" * 5000, "not valid TOML"),
        (b"n = " + b"[" * 100_000, "not valid TOML"),
        (b"#" * 5_000_001, "at most 5 MB"),
    ],
    ids=["cut-off", "binary", "endless-number", "endless-nesting", "too-large"],
)
def test_broken_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "problem.toml"
    path.write_bytes(content)
    with pytest.raises(ProblemError, match=message):
        read_toml(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="there is no file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ProblemError, match="not a file"):
        read_toml(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        {"model": 3, "traffic": 4},
        {"model": "gpt2", "traffic": {"rate": "1 req/s"}},
        {"model": "gpt2", "traffic": ["x"]},
        {"model": "gpt2", "traffic": [{}], "hardware": None, "limits": 7},
        {},
    ],
)
def test_data_of_wrong_types_raises_only_our_errors(data: dict[str, Any]) -> None:
    with pytest.raises(GenzSizeError):
        problem_of(data, "file")
