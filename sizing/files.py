"""Results on standard output, or whole in a file."""

import os
import tempfile
from collections.abc import Callable
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

    def put(scratch: Path) -> None:
        scratch.write_text(text, encoding="utf-8", newline="")

    write_by(put, output)


def write_by(put: Callable[[Path], None], output: Path, field: str = "output") -> None:
    """Let a function write a file that is then either whole or not there.

    Parameters
    ----------
    put
        Writes to the path that it is given, whose ending is that of the file.
    output, field
        The file, and the option that named it.

    Raises
    ------
    ProblemError
        If the file cannot be written.
    """
    if not output.name:
        raise ProblemError(f"--{field}: the name of the file is empty")
    try:
        handle, name = tempfile.mkstemp(
            dir=output.parent, prefix=f".{output.stem}.", suffix=output.suffix
        )
        os.close(handle)
    except OSError as error:
        raise _unwritable(field, output, error) from None
    scratch = Path(name)
    try:
        put(scratch)
        scratch.chmod(0o666 & ~_umask())
        scratch.replace(output)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise _unwritable(field, output, error) from None


def check_folder(output: Path, field: str) -> None:
    """Refuse a file whose folder is missing before anything is computed.

    Raises
    ------
    ProblemError
        If there is no such folder; the message names the option.
    """
    if not output.parent.is_dir():
        raise ProblemError(
            f"--{field}: cannot write {output}: there is no folder {output.parent}"
        )


def _unwritable(field: str, output: Path, error: OSError) -> ProblemError:
    return ProblemError(f"--{field}: cannot write {output}: {error.strerror}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
