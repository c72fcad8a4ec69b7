"""Options that state lengths, arrivals and percentiles, and override a file's."""

from pathlib import Path
from typing import Any, get_args

import pytest

from problems.problem import problem_of, read_toml
from problems.traffic import Statistic, TrafficClass
from sizing.cli.fields import overridden
from sizing.cli.size import command
from sizing.cli.values import STATISTICS

FILE = """\
model = "llama-3.1-8b"
[[traffic]]
input_tokens = 1000
output_tokens = 200
rate = "2 req/s"
burstiness = 3
targets = [
    { metric = "ttft", statistic = "p99", at_most = "4 s" },
    { metric = "ttft", statistic = "mean", at_most = "1 s" },
    { metric = "tpot", statistic = "p90", at_most = "50 ms" },
]
"""


def traffic(tmp_path: Path, *options: str, text: str = FILE) -> TrafficClass:
    """Return the traffic of the file as the options change it."""
    path = tmp_path / "problem.toml"
    path.write_text(text)
    given = command.make_context("size", list(options)).params
    data: dict[str, Any] = overridden(read_toml(path), given)
    return problem_of(data, "file").traffic[0]


def targets(found: TrafficClass) -> set[tuple[str, float]]:
    return {(target.label, target.at_most) for target in found.targets}


def test_statistics_are_those_of_problem_files() -> None:
    assert get_args(Statistic) == STATISTICS


def test_a_file_stands_where_no_option_is_given(tmp_path: Path) -> None:
    found = targets(traffic(tmp_path))
    assert found == {("p99 TTFT", 4.0), ("mean TTFT", 1.0), ("p90 TPOT", 0.05)}


def test_a_bare_limit_is_of_the_mean(tmp_path: Path) -> None:
    found = targets(traffic(tmp_path, "--ttft", "2 s"))
    assert found == {("mean TTFT", 2.0), ("p90 TPOT", 0.05)}


def test_several_statistics_replace_all_of_the_latency(tmp_path: Path) -> None:
    options = ("--ttft", "p95 2 s", "--ttft", "P50 900 ms", "--e2e", "mean 9s")
    assert targets(traffic(tmp_path, *options)) == {
        ("p95 TTFT", 2.0),
        ("p50 TTFT", 0.9),
        ("p90 TPOT", 0.05),
        ("mean E2E", 9.0),
    }


def test_the_last_limit_of_a_statistic_counts(tmp_path: Path) -> None:
    found = traffic(tmp_path, "--tpot", "p99 1 s", "--tpot", "p99 70 ms")
    assert ("p99 TPOT", 0.07) in targets(found)


def test_lengths_with_and_without_spread(tmp_path: Path) -> None:
    found = traffic(tmp_path, "--input-tokens", "512 cv 1", "--output-tokens", "64")
    assert found.output_tokens == 64
    assert found.profile.prompt.mean == pytest.approx(512, rel=1e-3)
    assert found.profile.prompt.variation == pytest.approx(1.0, rel=0.01)


def test_a_trace_replaces_both_lengths_and_the_other_way_round(tmp_path: Path) -> None:
    named = traffic(tmp_path, "--lengths", "sharegpt")
    assert (named.lengths, named.input_tokens) == ("sharegpt", None)
    text = FILE.replace("input_tokens = 1000\noutput_tokens = 200", 'lengths = "lmsys"')
    assert traffic(tmp_path, text=text).lengths == "lmsys"
    again = traffic(tmp_path, "--input-tokens", "9", "--output-tokens", "8", text=text)
    assert (again.lengths, again.input_tokens, again.output_tokens) == (None, 9, 8)


def test_users_replace_what_goes_with_a_rate(tmp_path: Path) -> None:
    assert traffic(tmp_path, "--burstiness", "2.5").burstiness == 2.5
    found = traffic(tmp_path, "--concurrency", "8")
    assert (found.concurrency, found.rate, found.burstiness) == (8, None, None)
    assert traffic(tmp_path, "--rate", "9 req/s").burstiness == 3


def test_catalogue_lists_and_shows_traces(genz: Any) -> None:
    ran = genz("catalogue", "list", "traces")
    assert (ran.code, ran.err) == (0, "")
    assert "azure-2023-conv" in ran.out
    shown = genz("catalogue", "show", "traces", "sharegpt", "--format", "json").json
    facts = {row["field"]: row["value"] for row in shown}
    assert facts["name"] == "sharegpt-llama"
    assert facts["licence"] == "MIT"
