"""Recorded requests: CSV and JSON Lines, times, and the peak window."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_ops.errors import ProblemError
from problems.recorded import Recording, TraceSource

CSV = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:14.0319600,110,27
"""
COLUMNS = {"input": "ContextTokens", "output": "GeneratedTokens"}


def source(path: Path, content: str | bytes, **columns: Any) -> TraceSource:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(data)
    return TraceSource(path=str(path), **(COLUMNS | columns))


def test_csv_with_clock_times(tmp_path: Path) -> None:
    read = source(tmp_path / "r.csv", CSV, time="TIMESTAMP").read()
    assert read.prompt.tolist() == [4808, 3180, 110]
    assert read.output.tolist() == [10, 8, 27]
    assert read.arrival is not None
    assert read.arrival == pytest.approx([0.0, 0.052, 10.052], abs=1e-5)


def test_json_lines_with_milliseconds_out_of_order(tmp_path: Path) -> None:
    rows = [
        {"at": 3000, "in": 7, "out": 1},
        {"at": 0, "in": 5, "out": 2},
        {"at": 1500, "in": 6.0, "out": "3", "more": [1]},
    ]
    text = "\n\n".join(json.dumps(row) for row in rows)
    columns = {"input": "in", "output": "out", "time": "at", "time_unit": "ms"}
    read = source(tmp_path / "r.jsonl", text, **columns).read()
    assert read.prompt.tolist() == [5, 6, 7]
    assert read.output.tolist() == [2, 3, 1]
    assert read.arrival is not None
    assert read.arrival.tolist() == [0.0, 1.5, 3.0]


def test_lengths_need_no_times(tmp_path: Path) -> None:
    read = source(tmp_path / "r.csv", CSV).read()
    assert read.arrival is None
    prompt, output = read.lengths
    assert (prompt.tokens[0], prompt.tokens[-1]) == (110.0, 4808.0)
    assert output.mean == pytest.approx(15.0, rel=0.2)
    with pytest.raises(ValueError, match="no arrival times"):
        _ = read.mean_rate


def test_distributions_of_many_requests_keep_their_moments() -> None:
    rng = np.random.default_rng(1)
    prompt = np.rint(rng.lognormal(6.0, 1.0, 20_000)).astype(np.int64) + 1
    lengths, _ = Recording(prompt, prompt).lengths
    assert lengths.mean == pytest.approx(prompt.mean(), rel=0.01)
    assert lengths.variation == pytest.approx(prompt.std() / prompt.mean(), rel=0.05)
    assert lengths.quantile(np.array(0.9)) == pytest.approx(np.quantile(prompt, 0.9))


def requests(times: list[float]) -> Recording:
    tokens = np.ones(len(times), dtype=np.int64)
    return Recording(tokens, tokens, np.array(times))


def test_peak_window_by_hand() -> None:
    # One a minute for an hour, but thirty more from second 1000 to second 1029.
    calm = [60.0 * minute for minute in range(61)]
    read = requests(sorted([*calm, *(1000.0 + i for i in range(30))]))
    assert read.mean_rate == pytest.approx(90 / 3600)
    # The window that holds all thirty holds one of the calm ones besides (at 1020 s).
    assert read.peak_rate == pytest.approx(31 / 60)


def test_even_arrivals_peak_nowhere_and_vary_not_at_all() -> None:
    read = requests([0.5 * i for i in range(1000)])
    assert read.mean_rate == pytest.approx(2.0)
    assert read.peak_rate == pytest.approx(2.0)
    assert read.gap_variation == pytest.approx(0.0, abs=1e-9)


def test_random_arrivals_vary_as_a_poisson_process() -> None:
    rng = np.random.default_rng(2)
    times = np.cumsum(rng.exponential(1 / 200, 60_000))
    read = requests((times - times[0]).tolist())
    assert read.gap_variation == pytest.approx(1.0, abs=0.05)
    assert 200 < read.peak_rate < 210


def test_a_recording_shorter_than_the_window_counts_as_it_is() -> None:
    read = requests([0.0, 1.0, 2.0, 4.0])
    assert read.peak_rate == read.mean_rate == 3 / 4


def test_times_are_stretched_to_a_rate() -> None:
    read = requests([0.0, 1.0, 2.0, 4.0]).at_peak_rate(7.5)
    assert read.arrival is not None
    assert read.arrival == pytest.approx([0.0, 0.1, 0.2, 0.4])
    assert read.peak_rate == pytest.approx(7.5)


def test_stretching_keeps_the_peak_and_its_gaps() -> None:
    rng = np.random.default_rng(3)
    calm, busy = rng.exponential(1.0, 900), rng.exponential(0.2, 300)
    times = np.cumsum(np.concatenate([calm[:450], busy, calm[450:]]))
    read = requests((times - times[0]).tolist())
    fast = read.at_peak_rate(100.0)
    assert fast.peak_rate == pytest.approx(100.0)
    assert fast.gap_variation == pytest.approx(read.gap_variation)
    assert fast.mean_rate / 100.0 == pytest.approx(read.mean_rate / read.peak_rate)


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    import os

    first = source(tmp_path / "r.csv", CSV)
    assert first.read().prompt.size == 3
    again = source(tmp_path / "r.csv", CSV + "2023-11-16 18:18:00,5,5\n")
    os.utime(again.path, (1, 1))
    assert again.read().prompt.size == 4


T = {"time": "TIMESTAMP"}
BAD = [
    ("empty", "", {}, "has no rows"),
    ("header alone", CSV.splitlines()[0], {}, "has no rows"),
    ("column", CSV, {"input": "ContextToken"}, r"trace\.input: .*'ContextTokens'"),
    ("time column", CSV, {"time": "TIME"}, r"trace\.time: .*'TIME'.*TIMESTAMP"),
    ("NaN", CSV.replace("3180", "nan"), {}, "line 3: ContextTokens .* got 'nan'"),
    ("inf", CSV.replace("3180", "inf"), {}, "got 'inf'"),
    ("half", CSV.replace("3180", "31.8"), {}, "whole number .* got '31.8'"),
    ("zero", CSV.replace(",27", ",0"), {}, "line 4: GeneratedTokens .* got '0'"),
    ("negative", CSV.replace("3180", "-3"), {}, "got '-3'"),
    ("absurd", CSV.replace("3180", "1e30"), {}, "got '1e30'"),
    ("word", CSV.replace("3180", "many"), {}, "got 'many'"),
    ("cut off", CSV[:-4], {}, "line 4: GeneratedTokens .* got 'None'"),
    ("no time", CSV.replace("2023-11-16 18:17:04.0319600", ""), T, "line 3: TIMESTAMP"),
    ("two kinds of time", CSV.replace("2023-11-16 18:17:04.0319600", "7"), T, "ISO"),
    ("all at once", "\n".join([*CSV.splitlines()[:1], *CSV.splitlines()[1:2] * 2]),
     T, "at once"),
    ("one request", "\n".join(CSV.splitlines()[:2]), T, "at once"),
    ("binary", b"\xff\xfe\x00", {}, "UTF-8"),
    ("endless field", CSV + '"' + "9" * 200_000, {}, "CSV"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [case[1:] for case in BAD],
    ids=[case[0] for case in BAD],
)
def test_bad_csv_is_refused(
    tmp_path: Path, content: str | bytes, columns: dict[str, str], message: str
) -> None:
    with pytest.raises(ProblemError, match=message):
        source(tmp_path / "r.csv", content, **columns).read()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7", "line 1 is not a JSON object"),
        ("{", "line 1 is not a JSON object"),
        ("[" * 100_000, "line 1 is not a JSON object"),
        ('{"in": 3}', r"trace\.output: line 1 .*'out'; known: in"),
        ('{"in": true, "out": 3}', "got 'True'"),
        ('{"in": [3], "out": 3}', "got"),
        ('{"in": NaN, "out": 3}', "got 'nan'"),
        ('{"in": null, "out": 3}', "got 'None'"),
        ("", "has no rows"),
    ],
)
def test_bad_json_lines_are_refused(tmp_path: Path, line: str, message: str) -> None:
    stated = source(tmp_path / "r.jsonl", line, input="in", output="out")
    with pytest.raises(ProblemError, match=message):
        stated.read()


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"trace\.path: there is no file"):
        TraceSource(path=str(tmp_path / "none.csv"), input="a", output="b").read()
    with pytest.raises(ProblemError, match="not a file"):
        TraceSource(path=str(tmp_path), input="a", output="b").read()
