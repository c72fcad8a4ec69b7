"""Files that options name, checked before anything is computed."""

from pathlib import Path

import click

from sizing.files import check_folder


def in_folder(
    _: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a file in a missing folder before anything is computed."""
    if path is not None:
        check_folder(path, str(parameter.name).replace("_", "-"))
    return path


def image(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse a file that is no image, or in no folder, before anything is computed."""
    if path is not None and path.suffix not in (".png", ".svg"):
        raise click.BadParameter(f"'{path.name}' must end in .png or .svg")
    return in_folder(context, parameter, path)
