"""What the documents show works as they show it."""

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sizing.cli import _COMMANDS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = sorted([README, *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^```console\n(.*?)^```", flags=re.M | re.S)


def _shown(text: str) -> Iterator[str]:
    """Yield what follows each ``$``, continued lines joined."""
    for block in _BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        yield from (line[2:] for line in lines if line.startswith("$ "))


def _blocks() -> Iterator[Any]:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for number, block in enumerate(_BLOCK.findall(text)):
            commands = list(_shown(f"```console\n{block}```"))
            if any(command.startswith("genz-size ") for command in commands):
                label = f"{document.relative_to(ROOT)}:{number}"
                yield pytest.param(document, commands, id=label)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Give each document a folder: a later block may read an earlier one's file."""
    made: dict[Path, Path] = {}

    def folder(document: Path) -> Path:
        if document not in made:
            made[document] = tmp_path_factory.mktemp(document.stem)
            (made[document] / "problems").symlink_to(ROOT / "problems")
        return made[document]

    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("document", "commands"), list(_blocks()))
def test_shown_commands_run(
    genz: Callable[..., Any],
    folders: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    document: Path,
    commands: list[str],
) -> None:
    monkeypatch.chdir(folders(document))
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] != "genz-size":
            continue
        # What a shell would do with the output is not what is tested.
        for mark in ("|", ">", "&&"):
            if mark in words:
                words = words[: words.index(mark)]
        ran = genz(*words[1:])
        assert ran.code in (0, 3), f"{command}\n{ran.err}"
        assert ran.err == ""


@pytest.mark.parametrize("command", _COMMANDS)
def test_readme_mentions_every_command(command: str) -> None:
    assert f"genz-size {command}" in README.read_text(encoding="utf-8")


def test_readme_starts_with_both_one_line_commands() -> None:
    """One line sets up and sizes, one line sets up and tests."""
    start = README.read_text(encoding="utf-8").splitlines()[:30]
    set_up = [line for line in start if re.search(r"\binstall\b", line)]
    (sizes,) = (line for line in set_up if "genz-size size " in line)
    (tests,) = (line for line in set_up if "pytest" in line)
    for problem in re.findall(r"\S+\.toml", sizes):
        assert (ROOT / problem).is_file()
    if "[test]" in tests:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        assert "test" in project["project"]["optional-dependencies"]


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_that_documents_name_exist(
    genz: Callable[..., Any], document: Path
) -> None:
    for command in _shown(document.read_text(encoding="utf-8")):
        words = shlex.split(command, comments=True)
        if words[0] != "genz-size" or len(words) < 2 or words[1] not in _COMMANDS:
            continue
        known = genz(words[1], "--help").out
        if words[1] == "catalogue" and len(words) > 2:
            known += genz(*words[1:3], "--help").out
        for word in words[2:]:
            if word.startswith("--"):
                assert word.split("=")[0] in known, command
