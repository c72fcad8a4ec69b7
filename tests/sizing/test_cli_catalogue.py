"""`genz-size catalogue`: what it knows, and from where."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from problems import catalogue

Genz = Callable[..., Any]
FIRST = {"npus": "npu", "models": "model", "prices": "npu"}


@pytest.mark.parametrize("kind", ["npus", "models"])
def test_list_names_every_item(genz: Genz, kind: str) -> None:
    ran = genz("catalogue", "list", kind, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    assert [row[FIRST[kind]] for row in ran.json] == list(catalogue.names(kind))


def test_list_of_prices_has_every_quote(genz: Genz) -> None:
    rows = genz("catalogue", "list", "prices", "--format", "json").json
    assert len(rows) == len(catalogue.load_quotes())
    assert {row["npu"] for row in rows} <= set(catalogue.names("npus"))


@pytest.mark.parametrize("kind", FIRST)
def test_formats_agree(genz: Genz, kind: str) -> None:
    as_json = genz("catalogue", "list", kind, "--format", "json").json
    as_csv = genz("catalogue", "list", kind, "--format", "csv").out
    assert list(csv.DictReader(io.StringIO(as_csv))) == as_json


@pytest.mark.parametrize("kind", FIRST)
def test_text_shows_each_name_in_one_piece(genz: Genz, kind: str) -> None:
    ran = genz("catalogue", "list", kind)
    assert (ran.code, ran.err) == (0, "")
    names = {row[FIRST[kind]] for row in genz(
        "catalogue", "list", kind, "--format", "json").json}  # fmt: skip
    shown = {line.split(" ")[0] for line in ran.out.splitlines()}
    assert names <= shown


@pytest.mark.parametrize("kind", ["npus", "models"])
def test_show_states_sources_and_date(genz: Genz, kind: str) -> None:
    for name in catalogue.names(kind):
        ran = genz("catalogue", "show", kind, name, "--format", "json")
        assert (ran.code, ran.err) == (0, "")
        fields = {row["field"]: row["value"] for row in ran.json}
        assert fields["name"] == name
        assert fields["sources"]
        assert fields["as_of"]


def test_show_takes_an_alias_in_any_case(genz: Genz) -> None:
    by_name = genz("catalogue", "show", "npus", "h100-sxm").out
    assert genz("catalogue", "show", "npus", "H100-SXM5").out == by_name
    assert "NVIDIA H100 80GB SXM" in by_name


def test_show_prices_of_an_npu(genz: Genz) -> None:
    ran = genz("catalogue", "show", "prices", "h100", "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    quotes = [q for q in catalogue.load_quotes() if q.price.npu == "h100-sxm"]
    sources = [row["value"] for row in ran.json if row["field"] == "source"]
    assert len(sources) == len(quotes)


def test_output_file_takes_its_format_from_its_ending(
    genz: Genz, tmp_path: Path
) -> None:
    path = tmp_path / "npus.csv"
    ran = genz("catalogue", "list", "npus", "-o", path)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert path.read_text(encoding="utf-8").startswith("npu,title,")
