"""`genz-size new`: files to start from, which work as they are."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from problems.examples import example_names

Genz = Callable[..., Any]


def test_list(genz: Genz) -> None:
    ran = genz("new", "--list")
    assert (ran.code, ran.err) == (0, "")
    lines = dict(line.split(": ", 1) for line in ran.out.splitlines())
    assert lines == example_names()


def test_the_default_is_a_chat(genz: Genz) -> None:
    ran = genz("new")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == genz("new", "chat").out
    assert tomllib.loads(ran.out)["model"] == "llama-3.1-70b"


@pytest.mark.parametrize("name", ["chat", "edge-small", "design-domain"])
def test_a_new_file_solves(genz: Genz, tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.toml"
    ran = genz("new", name, "-o", path)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    command = "design" if name.startswith("design-") else "size"
    sized = genz(command, path, "--format", "json")
    assert (sized.code, sized.err) == (0, "")
    assert sized.json["status"] == "optimal"


@pytest.mark.slow
def test_what_is_commented_out_works_too(genz: Genz, tmp_path: Path) -> None:
    lines = genz("new", "chat").out.splitlines()
    start = next(i for i, line in enumerate(lines) if "[[prices.given]]" in line)
    kept = [line.removeprefix("# ") for line in lines[start:]]
    path = tmp_path / "all.toml"
    path.write_text("\n".join(lines[:start] + kept), encoding="utf-8")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    assert content["prices"]["given"]
    assert content["limits"]
    assert genz("size", path).code == 0
