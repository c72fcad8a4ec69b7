"""``genz-size calibrate``."""

from pathlib import Path

import click


@click.command("calibrate")
@click.argument(
    "tables",
    metavar="OPS.csv...",
    type=click.Path(path_type=Path),
    nargs=-1,
    required=True,
)
@click.option("--npu", metavar="NPU", required=True, help="NPU whose rows are fitted.")
@click.option("--seed", type=int, default=0, help="Of all that is random [0].")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the result to this file.",
)
@click.option(
    "--source",
    multiple=True,
    help="Where the rows come from, for the file; repeatable.",
)
def command(
    tables: tuple[Path, ...],
    npu: str,
    seed: int,
    output: Path | None,
    source: tuple[str, ...],
) -> None:
    """Fit the kernels of an NPU to tables of measured operators.

    The tables have the columns of NVIDIA AIConfigurator's (`genz-size characterize`
    writes them too), plain or gzip. The result is a kernels file of the catalogue: the
    parameters of each kernel, per format and software stack, the error of its rows, and
    that of shapes which the fit had not seen.
    """
    from datetime import date

    from sizing.calibration.calibrate import (
        calibrate,
        kernels_toml,
        measured_on,
        read_operators,
    )
    from sizing.files import write

    measured = measured_on(npu, [read_operators(path) for path in tables])
    found = []
    for one in calibrate(npu, measured, seed):
        key, fitted = one.key, one.fitted
        click.echo(
            f"{one.stack} {key.family.label} {key.format}: {fitted.rows} rows, median "
            f"|ln| {fitted.error:.3f}, of shapes left out {fitted.left_out:.3f}",
            err=True,
        )
        found.append(one)
    names = source or tuple(path.name for path in tables)
    text = kernels_toml(npu, found, names, date.today())
    write(text, output)
