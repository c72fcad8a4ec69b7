"""``genz-size requirements``."""

from pathlib import Path
from typing import Any

import click

from model_ops.units import SECOND
from sizing.cli.options import chosen_format, output_options
from sizing.cli.values import quantity


@click.command("requirements")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Name in the catalogue, or path of a Hugging Face config.json; repeatable.",
)
@click.option(
    "--use-case",
    "use_cases",
    metavar="NAME",
    multiple=True,
    help="Use case of the catalogue, e.g. chat or rag; repeatable. Options below "
    "change its figures.",
)
@click.option("--input-tokens", type=int, help="Prompt tokens of a request.")
@click.option("--output-tokens", type=int, help="Generated tokens of a request.")
@click.option("--beams", type=click.IntRange(1, 64), help="Beams of beam search [1].")
@click.option(
    "--ttft",
    metavar="TIME",
    callback=quantity(SECOND, 86_400),
    help="Time to first token, at most, e.g. '2 s'.",
)
@click.option(
    "--tpot",
    metavar="TIME",
    callback=quantity(SECOND, 86_400),
    help="Time per output token after the first, at most, e.g. '50 ms'.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 1_000_000),
    default=1,
    help="Requests that start together [1].",
)
@click.option(
    "--beams-copy-prompt",
    is_flag=True,
    help="Each beam keeps a copy of the prompt's KV cache [they share it].",
)
@click.option(
    "--precision",
    metavar="FORMAT",
    help="Formats of weights, activations and KV cache, e.g. bf16, fp8, int4 [the "
    "checkpoint's own].",
)
@click.option(
    "--tp",
    "tps",
    type=click.IntRange(1, 4096),
    multiple=True,
    help="Tensor parallel ranks, for the links between them; repeatable.",
)
@click.option(
    "--ep", type=click.IntRange(1, 4096), default=1, help="Expert parallel groups [1]."
)
@click.option(
    "--dp",
    type=click.IntRange(1, 4096),
    default=1,
    help="Data parallel groups of --tp ranks that share the experts [1].",
)
@output_options("text", "json", "csv")
def command(  # noqa: PLR0913 - one parameter per option that is used by itself
    models: tuple[str, ...],
    use_cases: tuple[str, ...],
    precision: str | None,
    tps: tuple[int, ...],
    ep: int,
    dp: int,
    format_: str | None,
    output: Path | None,
    **stated: Any,
) -> None:
    """State the least that any platform must have to meet a use case's targets.

    FLOP/s, memory bandwidth, memory capacity and link bandwidth, in prefill and in
    decode, from the model alone: no platform does with less, and a real one, at its
    own efficiency, needs more.
    """
    from model_ops.profiler.parallelism import Parallelism
    from sizing.files import write
    from sizing.report.requirements import FORMATS
    from sizing.requirements import Stated, platform_needs

    report = FORMATS[chosen_format(format_, output, FORMATS)]
    split = tps or ((1,) if ep > 1 or dp > 1 else ())
    splits = [Parallelism(tp=tp, ep=ep, dp=dp) for tp in split]
    found = platform_needs(
        models, use_cases, Stated(**stated), precision=precision, splits=splits
    )
    write(report(found), output)
