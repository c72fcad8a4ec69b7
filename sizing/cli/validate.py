"""``genz-size validate``."""

from pathlib import Path

import click

from sizing.cli.files import image, in_folder


@click.command("validate")
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="TABLE.csv",
    help="Table of measurements, plain or .gz; repeatable [those that come with "
    "genz-size].",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=in_folder,
    help="Also write every row with its prediction to this CSV file.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(("text", "json", "markdown")),
    default="text",
    help="How to write the tables [text].",
)
@click.option(
    "--laws",
    "as_laws",
    is_flag=True,
    help="Write the laws of the errors, where intervals come from, instead of tables.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=image,
    help="Also draw predicted against measured: a .png or .svg file.",
)
def command(
    data: tuple[Path, ...],
    output: Path | None,
    format_: str,
    as_laws: bool,
    plot: Path | None,
) -> None:
    """Compare predictions with measured results, row by row and in tables.

    Tables are told apart by their columns. Errors are ln(predicted / measured), medians
    within a group of measurements, averaged over the groups.
    """
    from problems.measured.shipped import shipped
    from sizing.files import write
    from sizing.report.validation import as_json, as_rows, as_text
    from sizing.report.validation_markdown import as_markdown
    from sizing.validate.laws import errors_of, laws, laws_toml
    from sizing.validate.score import scores
    from sizing.validate.scored import compare

    compared = []
    for path in data or shipped():
        compared.append(compare(path))
        rows = len(compared[-1].rows)
        click.echo(f"{path.name}: {rows:,} rows compared", err=True)
    if output is not None:
        write(as_rows(compared), output)
    if plot is not None:
        from sizing.report.scatter_plot import save

        save(compared, plot)
    if as_laws:
        write(laws_toml(list(laws(list(errors_of(compared))))), None)
        return
    formats = {"text": as_text, "json": as_json, "markdown": as_markdown}
    write(formats[format_](scores(compared)), None)
