"""Every command and every option says what it is for."""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest

from sizing.cli import cli

Genz = Callable[..., Any]


def _commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, (*path, name))


COMMANDS = list(_commands(cli))
OPTIONS = [
    (path, parameter)
    for path, command in COMMANDS
    for parameter in command.params
    if isinstance(parameter, click.Option)
]


def test_commands() -> None:
    names = {path[0] for path, _ in COMMANDS if path}
    assert {"size", "estimate", "catalogue", "new"} <= names


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_command_has_help(genz: Genz, path: tuple[str, ...], option: str) -> None:
    ran = genz(*path, option)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: {' '.join(('genz-size', *path))}")
    _, said, *_ = ran.out.split("\n\n")
    assert len(said.splitlines()[0].strip()) > 20


@pytest.mark.parametrize(
    ("path", "option"),
    OPTIONS,
    ids=[" ".join((*path, option.opts[-1])) for path, option in OPTIONS],
)
def test_option_has_help(path: tuple[str, ...], option: click.Option) -> None:
    assert option.help, option.opts
    assert option.help[0].isupper()
    assert option.help.endswith((".", "]")), option.help


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS if path], ids=" ".join)
def test_short_help_agrees_with_the_command(genz: Genz, path: tuple[str, ...]) -> None:
    listed = genz(*path[:-1], "--help").out
    assert any(line.strip().startswith(path[-1]) for line in listed.splitlines())


@pytest.mark.parametrize("code", ["0", "2", "3", "4"])
def test_help_explains_the_exit_codes(genz: Genz, code: str) -> None:
    assert f" {code} " in genz("--help").out


def test_version(genz: Genz, process: Genz) -> None:
    expected = f"genz-size {version('genz-size')}\n"
    for ran in (genz("--version"), process("--version")):
        assert (ran.code, ran.out, ran.err) == (0, expected, "")


def test_no_command_shows_the_help_in_lines(genz: Genz) -> None:
    for arguments in ((), ("catalogue",)):
        ran = genz(*arguments)
        assert ran.code in (0, 2)
        lines = (ran.out + ran.err).splitlines()
        assert "Commands:" in [line.strip() for line in lines]


def test_module_and_script_are_one(process: Genz) -> None:
    ran = process("--help")
    assert ran.code == 0
    assert ran.out.startswith("Usage: genz-size")


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "sizing", "catalogue", "list", "prices"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        err = running.stderr.read()
        running.wait(timeout=60)
    assert "Traceback" not in err
    assert "internal error" not in err
