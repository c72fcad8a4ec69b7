"""Results on standard output, or whole in a file."""

import os
import tempfile
from pathlib import Path

import click

from model_ops.errors import ProblemError


def write(text: str, output: Path | None) -> None:
    """Print the text, or put it in a file that is either whole or not there.

    Raises
    ------
    ProblemError
        If the file cannot be written.
    """
    if output is None:
        click.echo(text, nl=False)
        return
    if not output.name:
        raise ProblemError("--output: the name of the file is empty")
    try:
        handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    except OSError as error:
        raise _unwritable(output, error) from None
    scratch = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        scratch.chmod(0o666 & ~_umask())
        scratch.replace(output)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise _unwritable(output, error) from None


def _unwritable(output: Path, error: OSError) -> ProblemError:
    return ProblemError(f"--output: cannot write {output}: {error.strerror}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
