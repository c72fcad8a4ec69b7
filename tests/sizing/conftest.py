"""The command line, called in process or as a real command."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sizing.cli import _run


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, parsed."""
        return json.loads(self.out)


@pytest.fixture
def genz(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run ``genz-size`` in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = _run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def process() -> Callable[..., Ran]:
    """Run ``python -m sizing`` as a process of its own."""

    def run(*arguments: object) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "sizing", *(str(a) for a in arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
