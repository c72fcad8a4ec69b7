"""``genz-size estimate``."""

from pathlib import Path
from typing import Any

import click

from sizing.cli.options import chosen_format, output_options


@click.command("estimate")
@click.option("--model", help="Catalogue name, or path of a config.json.")
@click.option("--npu", help="NPU name or alias.")
@click.option("--tp", type=click.IntRange(1, 4096), help="Tensor parallel ranks.")
@click.option("--pp", type=click.IntRange(1, 4096), default=1, help="Pipeline stages.")
@click.option(
    "--replicas", type=click.IntRange(1, 1_000_000), default=1, help="Replicas."
)
@click.option("--precision", help="Formats, e.g. bf16, fp8, int4 [checkpoint's own].")
@click.option("--input-tokens", type=int, help="Prompt tokens of a request.")
@click.option("--output-tokens", type=int, help="Generated tokens of a request.")
@click.option("--concurrency", type=int, help="Requests in flight on all replicas.")
@click.option("--rate", help="Requests that arrive, e.g. '10 req/s'.")
@click.option(
    "--mode",
    type=click.Choice(["static_batch", "closed_loop", "open_loop", "offline"]),
    help="How requests come [by --rate or --concurrency].",
)
@click.option(
    "--chunk-tokens",
    type=click.IntRange(16, 1_000_000),
    default=2048,
    help="Tokens of one engine step.",
)
@click.option("--ideal", is_flag=True, help="Every kernel at the peak rates.")
@click.option(
    "--points",
    type=click.Path(path_type=Path),
    help="Evaluate every row of this CSV file instead.",
)
@output_options("text", "json")
def command(
    format_: str | None, output: Path | None, points: Path | None, **options: Any
) -> None:
    """Predict what a deployment does under a load, operator by operator.

    With --points, every row of a table instead, as arrays: columns model, npu,
    num_npus, tp, pp, ep, dp, weight_dtype, kv_dtype, framework, input_tokens,
    output_tokens, concurrency, request_rate, mode; blank cells take defaults. A row
    that cannot be predicted says why; the others go on.
    """
    from sizing.files import write

    if points is not None:
        from sizing.points import evaluate, read_points, write_points

        context = click.get_current_context()
        for parameter in context.command.params:
            given = context.get_parameter_source(str(parameter.name))
            beside = parameter.name in ("points", "output")
            if not beside and given is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"{parameter.opts[-1]} has no effect beside --points"
                )
        write(write_points(evaluate(read_points(points))), output)
        return
    from sizing.report.estimate import FORMATS
    from sizing.single import predict

    report = FORMATS[chosen_format(format_, output, FORMATS)]
    write(report(predict(**options)), output)
