"""``genz-size characterize``."""

from pathlib import Path

import click

from sizing.cli.files import in_folder


@click.command("characterize")
@click.option("--npu", required=True, help="Name in the catalogue of what is here.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    callback=in_folder,
    help="Folder for the tables, made if need be [here].",
)
@click.option(
    "--device",
    type=click.Choice(("cuda", "cpu")),
    default="cuda",
    help="Device: cuda is the GPU, also AMD's; cpu the processor, to try it [cuda].",
)
@click.option(
    "--suite",
    type=click.Choice(("full", "small")),
    default="full",
    help="Shapes: those of serving, or a few small ones [full].",
)
@click.option(
    "--framework",
    default="pytorch",
    help="File the kernels under this framework's name [pytorch].",
)
@click.option(
    "--repeats", type=click.IntRange(1, 1000), default=10, help="Samples each [10]."
)
@click.option(
    "--flush/--no-flush",
    default=False,
    help="Flush the cache before every call, as other layers do [no].",
)
def command(
    npu: str,
    output: Path,
    device: str,
    suite: str,
    framework: str,
    repeats: int,
    flush: bool,
) -> None:
    """Measure GEMM, attention and elementwise kernels of the local accelerator.

    Writes one table per operator, with the columns of NVIDIA AIConfigurator's, that
    `genz-size calibrate` fits and `genz-size validate --data` scores. Needs PyTorch:
    the extra `measure`.
    """
    from problems.catalogue import canonical
    from sizing.characterize.run import measure, tables
    from sizing.characterize.shapes import SUITES
    from sizing.characterize.timing import Sampling
    from sizing.characterize.torch_device import TorchDevice, load_torch
    from sizing.files import write

    name = canonical("npus", npu)
    found = TorchDevice(load_torch(), device)
    click.echo(f"measuring {found.name} as {name}", err=True)
    measured = list(
        measure(
            SUITES[suite](),
            found,
            Sampling(samples=repeats, flush=flush),
            lambda shape, reason: click.echo(f"left out {shape}: {reason}", err=True),
        )
    )
    output.mkdir(exist_ok=True)
    for table, text in tables(measured, name, framework, found.version).items():
        write(text, output / f"{table}.csv")
        rows = text.count("\n") - 1
        click.echo(f"{output / table}.csv: {rows} rows", err=True)
