"""Candidates tables: what is read, refused, to be had, and checked."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_ops.errors import ProblemError
from problems.fleet import Quota
from problems.given.offers import TABLE, UNPRICED, check_usable, market_of
from problems.given.plan import GivenPlan, planned
from problems.given.problem import GivenProblem, admitted_rows, given_problem_of
from problems.given.rows import COLUMNS, Row, read_rows
from problems.given.table import CandidatesTable
from problems.given.verify import violations

HEADER = ",".join(COLUMNS)
GOOD = f"""{HEADER}
small,h200-sxm,aggregated,1,900,28,1.5,1.0,1,1,64
pair,H200,disaggregated,4,500.5,20,6,,,,
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "table.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def asked(rows: Any, **changes: Any) -> tuple[GivenProblem, tuple[Row, ...]]:
    traffic = {
        "rate": 20.0,
        "targets": [{"metric": "tpot", "at_most": 0.03}],
    }
    traffic |= changes.pop("traffic", {})
    npus = {row.npu for row in rows}
    problem = given_problem_of({"traffic": [traffic]} | changes, npus, "python")
    return problem, admitted_rows(problem, rows)


# Reading


def test_rows_are_read_with_units_and_aliases(write: Write) -> None:
    small, pair = read_rows(write(GOOD))
    assert small == Row(
        2, "small", "h200-sxm", "aggregated", 1, 0.9, 0.028, 1.5, 1, 1, 1, 64
    )
    assert (pair.npu, pair.mode, pair.npus) == ("h200-sxm", "disaggregated", 4)
    assert pair.ttft == pytest.approx(0.5005)
    assert (pair.tp, pair.batch, pair.usd_per_hour) == (None, None, None)


def test_columns_come_in_any_order_with_a_mark_and_blank_lines(write: Write) -> None:
    order = ["usd_per_hour", *reversed(COLUMNS)]
    values = dict(zip(COLUMNS, GOOD.splitlines()[1].split(","), strict=True))
    values["usd_per_hour"] = "3.5"
    line = ",".join(values[column] for column in order)
    (row,) = read_rows(write("\ufeff" + ",".join(order) + f"\n\n{line}\n\n"))
    assert (row.line, row.npus, row.usd_per_hour) == (3, 1, 3.5)


BAD: dict[str, tuple[str, str]] = {
    "nothing": ("", "is empty"),
    "header-alone": (HEADER + "\n", "no rows"),
    "lacks-a-column": (
        GOOD.replace("tpot_ms", "tpot", 1),
        r"lacks the column 'tpot_ms' \(mean time per output token in milliseconds\); "
        r"is it 'tpot'\?",
    ),
    "lacks-two-that-are-in-seconds": (
        GOOD.replace("ttft_ms,tpot_ms", "ttft_s,tpot_s", 1),
        r"'ttft_ms' \(mean time to first token in milliseconds\) and 'tpot_ms' \(.*"
        r"is it 'ttft_s' and 'tpot_s'\?",
    ),
    "rate-by-another-name": (
        GOOD.replace("req_per_s", "qps", 1),
        r"lacks the column 'req_per_s' \(requests per second that one replica takes\); "
        r"is it 'qps'\?",
    ),
    "semicolons": (GOOD.replace(",", ";"), "has semicolons between its columns"),
    "tabs": (GOOD.replace(",", "\t"), "has tabs between its columns"),
    "price-by-another-name": (
        GOOD.replace("batch", "batch,price", 1),
        r"unknown column 'price'; is it 'usd_per_hour'\?",
    ),
    "seconds-in-a-cell": (
        GOOD.replace(",900,", ",0.9 s,"),
        "line 2, column ttft_ms: '0.9 s' has a unit; write 900$",
    ),
    "milliseconds-in-a-cell": (
        GOOD.replace(",28,", ",28 ms,"),
        "line 2, column tpot_ms: '28 ms' has a unit; write 28$",
    ),
    "rate-with-a-unit": (
        GOOD.replace(",1.5,", ",90 req/min,"),
        "line 2, column req_per_s: '90 req/min' has a unit; write 1.5$",
    ),
    "wrong-unit": (GOOD.replace(",28,", ",28 GB,"), "tpot_ms: '28 GB' is no number$"),
    "decimal-comma": (
        GOOD.replace(",28,", ',"28,5",'),
        "line 2, column tpot_ms: '28,5' has a comma; write decimals with a point",
    ),
    "unknown-column": (
        GOOD.replace("batch", "batch,usd_per_hr", 1),
        r"unknown column 'usd_per_hr'; did you mean 'usd_per_hour'",
    ),
    "column-twice": (
        GOOD.replace("batch", "batch,tp", 1),
        "the column 'tp' twice",
    ),
    "negative": (GOOD.replace(",28,", ",-28,"), "line 2, column tpot_ms: '-28' must"),
    "zero": (GOOD.replace(",1.5,", ",0,"), "line 2, column req_per_s: '0' must"),
    "nan": (GOOD.replace("900", "nan"), "line 2, column ttft_ms: 'nan' is no finite"),
    "infinite": (GOOD.replace("900", "inf"), "line 2, column ttft_ms: 'inf' is no fin"),
    "words": (GOOD.replace("900", "fast"), "line 2, column ttft_ms: 'fast' is no num"),
    "blank": (GOOD.replace("900", ""), "line 2, column ttft_ms: is blank"),
    "absurd": (GOOD.replace("900", "1e12"), "line 2, column ttft_ms: '1e12' must"),
    "part-of-an-npu": (
        GOOD.replace("aggregated,1,900", "aggregated,1.5,900"),
        "line 2, column npus: '1.5' must be a whole number",
    ),
    "mode": (
        GOOD.replace("disaggregated", "disagregated"),
        r"line 3, column mode: 'disagregated' is no serving mode; did you mean "
        "'disaggregated'",
    ),
    "cut-short": (GOOD[:-8], "line 3: 6 of 11 columns; is the file cut short"),
    "too-many": (GOOD.replace("64", "64,1"), "line 2: 12 of 11 columns$"),
    "same-name": (
        GOOD.replace("pair", "small"),
        "line 3, column name: 'small' stands in line 2 already",
    ),
    "open-quote": (GOOD.replace("pair", '"pair'), "line 3 is no line of a table"),
    "long-name": (
        GOOD.replace("pair", "p" * 201),
        "line 3, column name: .*longer than",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_table_is_refused_in_one_line(write: Write, name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(ProblemError, match=message) as caught:
        read_rows(write(text))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--candidates: ")


def test_columns_that_are_only_told_again_may_be_missing(write: Write) -> None:
    text = "NAME,NPU,mode,npus,TTFT_ms,tpot_ms,req_per_s\na,h200,aggregated,1,9,2,3\n"
    (row,) = read_rows(write(text))
    assert (row.ttft, row.tpot, row.rate) == (0.009, 0.002, 3.0)
    assert (row.tp, row.batch, row.usd_per_hour) == (None, None, None)


def test_figures_that_look_like_seconds_are_doubted(write: Write) -> None:
    assert CandidatesTable.read(write(GOOD)).doubts == ()
    text = GOOD.replace(",28,", ",0.028,").replace(",20,", ",0.02,")
    (doubt,) = CandidatesTable.read(write(text)).doubts
    assert "look like seconds" in doubt


def test_a_table_that_changes_while_it_is_used_is_noticed(write: Write) -> None:
    table = CandidatesTable.read(write(GOOD))
    write(GOOD.replace(",28,", ",29,"))
    with pytest.raises(ProblemError, match="has changed since it was read"):
        _ = table.again


@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    places=st.lists(st.integers(0, len(GOOD)), min_size=1, max_size=4),
    marks=st.text(alphabet="\0\n\r\t ,;\"'-.019eEnaNinf\u00e9\u2212", max_size=6),
)
def test_a_damaged_table_is_read_or_refused_in_one_line(
    write: Write, places: list[int], marks: str
) -> None:
    text = GOOD
    for place in places:
        text = text[:place] + marks + text[place + 1 :]
    rows: tuple[Row, ...] = ()
    said = "--candidates: "
    try:
        rows = read_rows(write(text))
    except ProblemError as error:
        said = str(error)
    assert said.startswith("--candidates: ")
    assert "\n" not in said
    assert bool(rows) is (said == "--candidates: ")
    for row in rows:
        assert math.isfinite(row.rate * row.ttft * row.tpot)
        assert min(row.rate, row.ttft, row.tpot, row.npus) > 0


def test_many_wrong_cells_are_counted(write: Write) -> None:
    lines = "\n".join(f"r{n},h200,aggregated,1,-1,1,1,,,," for n in range(20))
    with pytest.raises(ProblemError, match=r"line 6, column ttft_ms.*; and 15 more$"):
        read_rows(write(f"{HEADER}\n{lines}\n"))


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(ProblemError, match="200 MB; at most"):
        read_rows(path)


def test_binary_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="there is no file"):
        read_rows(tmp_path / "none.csv")
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ProblemError, match="not UTF-8"):
        read_rows(path)


# The problem


def test_model_and_lengths_may_be_left_out(write: Write) -> None:
    problem, rows = asked(read_rows(write(GOOD)))
    assert problem.model == ""
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"traffic": {"rate": None}}, "rate is missing"),
        ({"traffic": {"burstiness": 2.0}}, "burstiness: goes with our model"),
        ({"traffic": {"router": "random"}}, "router: goes with our model"),
        ({"confidence": 0.9}, "confidence: goes with our model"),
        ({"precisions": ["fp8"]}, "precisions: goes with our model"),
        ({"framework": "sglang"}, "framework: goes with our model"),
        ({"kv_bandwidth": 1e9}, "kv_bandwidth: goes with our model"),
        ({"optimisations": {"lora": {"rank": 8}}}, "optimisations: goes with our"),
        ({"owned": [{"npu": "h20-smx", "nodes": 1}]}, "owned.npu: unknown NPU"),
        ({"current": [{"npu": "h20-smx", "npus": 1}]}, "current.npu: unknown NPU"),
        ({"redundancy": {"racks": 1}}, "limits.racks.nodes"),
        ({"limits": {"quota": [{"npu": "zx*", "npus": 1}]}}, "'zx\\*' matches no NPU"),
        ({"prices": {"factors": {"h20-smx": 2}}}, "prices.factors: unknown NPU"),
        (
            {
                "traffic": {
                    "targets": [{"metric": "ttft", "statistic": "p99", "at_most": 1.0}]
                }
            },
            "no p99 TTFT",
        ),
        ({"traffic": {"targets": [{"metric": "e2e", "at_most": 1.0}]}}, "no mean E2E"),
        ({"hardware": {"npus": ["h100*"]}}, "no row of the table has 'h100\\*'"),
        ({"hardware": {"npus": ["h20-sxm"]}}, "did you mean 'h200-sxm'"),
        ({"hardware": {"exclude": ["h200"]}}, "exclude leaves no NPU"),
        ({"limits": {"npus_per_type": {"tpu-v9": 1}}}, "unknown NPU 'tpu-v9'"),
    ],
)
def test_what_does_not_go_with_a_table(
    write: Write, changes: dict[str, Any], message: str
) -> None:
    rows = read_rows(write(GOOD))
    with pytest.raises(ProblemError, match=message):
        asked(rows, **changes)


def test_filters_and_prices_take_aliases_and_own_names(write: Write) -> None:
    text = GOOD + "own,Wafer-9,aggregated,2,100,5,10,,,,\n"
    rows = read_rows(write(text))
    given = [{"npu": "wafer-9", "usd_per_hour": 4.0}]
    problem, kept = asked(rows, hardware={"npus": ["wafer*"]}, prices={"given": given})
    assert [row.name for row in kept] == ["own"]
    (offer,) = market_of(problem, kept).offers
    assert (offer.npu.name, offer.price.usd_per_hour) == ("Wafer-9", 4.0)


def test_a_mode_may_be_asked_for(write: Write) -> None:
    rows = read_rows(write(GOOD))
    _, kept = asked(rows, modes=["disaggregated"])
    assert [row.name for row in kept] == ["pair"]
    with pytest.raises(ProblemError, match="modes: no row of the table is aggregated"):
        asked(rows[1:], modes=["aggregated"])


# What may be had


def test_a_row_price_is_of_the_replica_and_beats_the_catalogue(write: Write) -> None:
    text = GOOD.replace("batch\n", "batch,usd_per_hour\n", 1)
    text = text.replace("64\n", "64,2.5\n").replace(",,,,\n", ",,,,,6\n")
    problem, rows = asked(read_rows(write(text)))
    market = market_of(problem, rows)
    assert [offer.provider for offer in market.offers] == [TABLE, TABLE]
    assert [o.usd_per_hour_per_npu for o in market.offers] == [2.5, 1.5]


def test_your_price_beats_the_row_s(write: Write) -> None:
    text = GOOD.replace("batch\n", "batch,usd_per_hour\n", 1)
    text = text.replace("64\n", "64,2.5\n").replace(",,,,\n", ",,,,,6\n")
    given = [{"npu": "h200", "usd_per_hour": 9.0}]
    problem, rows = asked(read_rows(write(text)), prices={"given": given})
    (offer,) = market_of(problem, rows).offers
    assert offer.usd_per_hour_per_npu == 9.0


def test_an_unknown_npu_needs_a_price_where_money_counts(write: Write) -> None:
    rows = read_rows(write(GOOD.replace("h200-sxm", "h200-smx")))
    message = "line 2, column npu: unknown npu 'h200-smx'; did you mean 'h200-sxm'"
    problem, kept = asked(rows)
    with pytest.raises(ProblemError, match=message):
        market_of(problem, kept)
    problem, kept = asked(rows, objective="npus")
    market = market_of(problem, kept)
    assert UNPRICED in {offer.provider for offer in market.offers}
    problem, kept = asked(rows, objective="npus", limits={"usd_per_hour": 10.0})
    with pytest.raises(ProblemError, match="column usd_per_hour"):
        market_of(problem, kept)


def test_power_leaves_out_what_nobody_knows(write: Write) -> None:
    rows = read_rows(write(f"{HEADER}\nx,wafer-9,aggregated,1,1,1,1,,,,\n"))
    problem, kept = asked(rows, objective="power")
    with pytest.raises(ProblemError, match="nobody knows its power"):
        check_usable(problem, kept, market_of(problem, kept))


def test_a_replica_larger_than_its_instance_is_not_had(write: Write) -> None:
    given = [{"npu": "h200", "usd_per_hour": 3.0, "whole_instance": True}]
    problem, rows = asked(read_rows(write(GOOD)), prices={"given": given})
    market = market_of(problem, rows)
    assert market.standing == {"small": (0,), "pair": ()}


# The check


@pytest.fixture
def solved(write: Write) -> tuple[GivenProblem, Path, GivenPlan]:
    path = write(GOOD)
    given = [{"npu": "h200", "usd_per_hour": 3.0}]
    problem, rows = asked(read_rows(path), prices={"given": given})
    market = market_of(problem, rows)
    (offer,) = market.offers
    # Twice 1.5 and three times 6 requests per second: 21 for the 20 asked.
    plan = planned([(rows[0], offer, 2), (rows[1], offer, 3)])
    return problem, path, plan


def test_a_plan_by_hand_passes(solved: tuple[GivenProblem, Path, GivenPlan]) -> None:
    problem, path, plan = solved
    assert plan.total_npus == 2 * 1 + 3 * 4
    assert plan.usd_per_hour == pytest.approx(14 * 3.0)
    assert plan.capacity == pytest.approx(21.0)
    assert [row.npus for row in plan.rows] == [12, 2]
    assert violations(problem, read_rows(path), plan) == []


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"replicas": 2, "npus": 8}, {"demand", "npus", "cost", "power", "nodes"}),
        ({"rate": 7.0}, {"rate"}),
        ({"ttft": 0.1}, {"ttft"}),
        ({"npus": 11}, {"npus", "cost", "power"}),
        ({"name": "other"}, {"table", "demand", "hardware"}),
        ({"nodes": 3}, {"nodes"}),
        ({"nodes": None}, {"nodes"}),
        ({"usd_per_hour": 1.0}, {"cost"}),
        ({"usd_per_hour": None}, {"cost"}),
        ({"npu": "h100-sxm"}, {"npu", "hardware"}),
        ({"offer": "h200-sxm|nobody"}, {"hardware", "hosts", "npus", "cost", "power"}),
    ],
)
def test_a_changed_row_is_noticed(
    solved: tuple[GivenProblem, Path, GivenPlan],
    change: dict[str, Any],
    broken: set[str],
) -> None:
    problem, path, plan = solved
    first, second = plan.rows
    rows = (first.model_copy(update=change), second)
    found = violations(problem, read_rows(path), plan.model_copy(update={"rows": rows}))
    named = {violation.requirement for violation in found}
    assert named == broken


def test_a_mode_not_allowed_is_noticed(
    solved: tuple[GivenProblem, Path, GivenPlan],
) -> None:
    problem, path, plan = solved
    other = problem.model_copy(update={"modes": ("disaggregated",)})
    found = violations(other, read_rows(path), plan)
    assert [v.requirement for v in found] == ["modes"]


def test_a_changed_bill_or_table_is_noticed(
    solved: tuple[GivenProblem, Path, GivenPlan],
) -> None:
    problem, path, plan = solved
    (purchase,) = plan.purchases
    cheaper = purchase.model_copy(update={"usd_per_hour": 1.0})
    found = violations(
        problem, read_rows(path), plan.model_copy(update={"purchases": (cheaper,)})
    )
    assert {v.requirement for v in found} == {"cost"}
    path.write_text(GOOD.replace("28", "31"))
    assert {v.requirement for v in violations(problem, read_rows(path), plan)} == {
        "tpot",
        "mean TPOT",
    }


def test_limits_are_checked(solved: tuple[GivenProblem, Path, GivenPlan]) -> None:
    problem, path, plan = solved
    limits = {
        "npus": 13,
        "npus_per_type": {"h200-sxm": 13},
        "nodes": 1,
        "usd_per_hour": 41.0,
        "power": 100.0,
        "deployment_types": 1,
        "quota": (Quota(npu="h2*", npus=13),),
    }
    limited = problem.model_copy(
        update={"limits": problem.limits.model_copy(update=limits)}
    )
    found = {v.requirement for v in violations(limited, read_rows(path), plan)}
    assert found == {
        "limits.npus",
        "limits.npus_per_type.h200-sxm",
        "limits.nodes",
        "limits.usd_per_hour",
        "limits.power",
        "limits.deployment_types",
        "limits.quota (quota h2*)",
    }


def test_no_price_is_no_cost(write: Write) -> None:
    text = f"{HEADER}\nx,wafer-9,aggregated,1,1,1,20,,,,\n"
    problem, rows = asked(read_rows(write(text)), objective="npus")
    (offer,) = market_of(problem, rows).offers
    plan = planned([(rows[0], offer, 1)])
    assert plan.usd_per_hour_if_known is None
    assert plan.rows[0].usd_per_hour is None
    assert plan.rows[0].nodes is None
    assert math.isfinite(plan.usd_per_hour)
