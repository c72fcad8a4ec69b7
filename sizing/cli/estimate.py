"""``genz-size estimate``."""

from pathlib import Path
from typing import Any

import click

from model_ops.errors import ProblemError
from sizing.cli.fields import OPTIMISATIONS, naming_options, optimisations_given
from sizing.cli.files import image
from sizing.cli.options import (
    chosen_format,
    optimisation_options,
    output_options,
)
from sizing.cli.pools import pool_options, pools_given


@click.command("estimate")
@click.option(
    "--model",
    metavar="MODEL",
    help="Name in the catalogue (genz-size catalogue list models), or path of a "
    "Hugging Face config.json.",
)
@click.option(
    "--npu",
    metavar="NPU",
    help="Accelerator: name or alias (genz-size catalogue list npus).",
)
@click.option(
    "--framework", metavar="NAME", help="Serving framework that is assumed [vllm]."
)
@click.option("--tp", type=click.IntRange(1, 4096), help="Tensor parallel ranks [1].")
@click.option(
    "--pp", type=click.IntRange(1, 4096), default=1, help="Pipeline stages [1]."
)
@click.option(
    "--ep",
    type=click.IntRange(1, 4096),
    default=1,
    help="Expert parallel: groups that a layer's experts are dealt to [1].",
)
@click.option(
    "--dp",
    type=click.IntRange(1, 4096),
    default=1,
    help="Data parallel attention: groups of --tp ranks that share the experts [1].",
)
@click.option(
    "--cp",
    type=click.IntRange(1, 4096),
    default=1,
    help="Context parallel: ranks that the tokens of a sequence are dealt to [1].",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 1_000_000),
    default=1,
    help="Copies of the model [1].",
)
@click.option(
    "--precision",
    metavar="FORMAT",
    help="Formats of weights, activations and KV cache, e.g. bf16, fp8, int4 [the "
    "checkpoint's own].",
)
@click.option("--input-tokens", type=int, help="Prompt tokens of a request.")
@click.option("--output-tokens", type=int, help="Generated tokens of a request.")
@click.option(
    "--concurrency",
    type=int,
    help="Users who each wait for an answer before they ask again, over all replicas.",
)
@click.option(
    "--rate",
    metavar="RATE",
    help="Requests that arrive at random, over all replicas, e.g. '10 req/s'.",
)
@click.option(
    "--mode",
    type=click.Choice(["static_batch", "closed_loop", "open_loop", "offline"]),
    help="How requests come: open_loop at a --rate, closed_loop from --concurrency "
    "users, static_batch of --concurrency at once, offline as many as fit [what the "
    "other options imply].",
)
@click.option(
    "--chunk-tokens",
    type=click.IntRange(16, 1_000_000),
    help="Tokens that one step of the serving engine takes [the framework's default].",
)
@click.option(
    "--ideal", is_flag=True, help="Let every kernel reach the NPU's peak rates."
)
@click.option("--breakdown", is_flag=True, help="Also show every operator of a step.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=image,
    help="Also draw the operators under the NPU's roofline: a .png or .svg file.",
)
@click.option(
    "--points",
    type=click.Path(path_type=Path),
    metavar="TABLE.csv",
    help="Predict every row of this CSV file instead.",
)
@pool_options
@optimisation_options
@output_options("text", "json")
def command(
    format_: str | None,
    output: Path | None,
    points: Path | None,
    breakdown: bool,
    plot: Path | None,
    **options: Any,
) -> None:
    """Predict what a deployment does under a load, and what its time goes to.

    Give --model, --npu, --input-tokens and --output-tokens, and --rate or
    --concurrency; without either, as many requests as the memory holds.

    With --points, every row of a table instead: columns model, npu, num_npus, tp, pp,
    ep, dp, weight_dtype, kv_dtype, framework, input_tokens, output_tokens,
    concurrency, request_rate, mode; blank cells take defaults. A row that cannot be
    predicted says why; the others go on.
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
    asked = dict(options)
    stated = {key: options.pop(key) for key in OPTIMISATIONS}
    options["optimisations"] = optimisations_given(stated, {})
    disaggregated = options.pop("serving") == "disaggregated"
    pools = pools_given(options, disaggregated=disaggregated)
    if disaggregated and plot is not None:
        raise ProblemError("--plot has no effect with --serving disaggregated")
    with naming_options(asked):
        if disaggregated:
            text = _pair(pools, format_, output, breakdown, options)
        else:
            text = _one(format_, output, breakdown, plot, options)
    write(text, output)


def _one(
    format_: str | None,
    output: Path | None,
    breakdown: bool,
    plot: Path | None,
    options: dict[str, Any],
) -> str:
    """Return the report of replicas that are alike."""
    from sizing.report.estimate import FORMATS, as_long_text
    from sizing.single import predict

    formats = {**FORMATS, "text": as_long_text} if breakdown else FORMATS
    report = formats[chosen_format(format_, output, formats)]
    options.pop("kv_bandwidth")
    prediction = predict(**options)
    if plot is not None:
        from sizing.report.roofline_plot import save

        save(prediction, plot)
    return report(prediction)


def _pair(
    pools: dict[str, dict[str, Any]],
    format_: str | None,
    output: Path | None,
    breakdown: bool,
    options: dict[str, Any],
) -> str:
    """Return the report of a prefill pool and a decode pool."""
    from sizing.pair import predict_pair
    from sizing.report.pair import FORMATS, as_long_text

    formats = {**FORMATS, "text": as_long_text} if breakdown else FORMATS
    report = formats[chosen_format(format_, output, formats)]
    return report(predict_pair(pools, **options))
