"""Options that several commands share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from model_ops.units import REQUEST_PER_SECOND, USD_PER_HOUR, WATT
from sizing.cli.files import in_folder
from sizing.cli.pools import KV_BANDWIDTH, SIZED_MODE
from sizing.cli.values import latency_limits, quantity, token_lengths

F = TypeVar("F", bound=Callable[..., Any])


def _decorate(function: F, decorators: list[Callable[[F], F]]) -> F:
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def output_only(function: F) -> F:
    """Add ``--output``."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=in_folder,
        help="Write the result to this file.",
    )(function)


def output_options(*formats: str) -> Callable[[F], F]:
    """Add ``--format`` and ``--output``."""

    def decorate(function: F) -> F:
        return _decorate(
            function,
            [
                click.option(
                    "--format",
                    "format_",
                    type=click.Choice(formats),
                    help="How to write the result [default: by --output's ending, "
                    "else text].",
                ),
                output_only,
            ],
        )

    return decorate


def chosen_format(
    given: str | None, output: Path | None, known: Mapping[str, Any]
) -> str:
    """Return the format asked for, else the one that the file's ending names."""
    if given is not None:
        return given
    ending = output.suffix.lstrip(".") if output is not None else ""
    return ending if ending in known else "text"


def optimisation_options(function: F) -> F:
    """Add the options that state inference optimisations."""
    option = click.option
    return _decorate(
        function,
        [
            option(
                "--prefix-hit",
                type=float,
                help="Share of the prompt that the prefix cache holds already [0].",
            ),
            option("--beams", type=int, help="Beams of beam search [1, no search]."),
            option(
                "--speculate",
                metavar="DRAFTER",
                help="Speculative decoding: ngram, mtp, eagle, or the name of a draft "
                "model; needs --guessed and --acceptance [none].",
            ),
            option("--guessed", type=int, help="Tokens that are guessed per step."),
            option(
                "--acceptance",
                type=float,
                help="Probability that a guessed token is right, given that those "
                "before it are.",
            ),
            option("--lora-rank", type=int, help="Rank of LoRA adapters [none]."),
            option("--lora-adapters", type=int, help="LoRA adapters in memory [1]."),
            option(
                "--expert-alpha",
                type=float,
                help="How unevenly the experts of a mixture are used: the exponent of "
                "a power law [0, evenly].",
            ),
            option(
                "--redundant-experts",
                type=int,
                help="Further copies of the most used experts in each layer [0].",
            ),
            option(
                "--offload-weights",
                type=float,
                help="Share of the weights in a second memory, mostly the host's [0].",
            ),
            option(
                "--offload-cache",
                type=float,
                help="Share of the KV cache in that second memory [0].",
            ),
        ],
    )


def problem_options(function: F) -> F:
    """Add the options that state or override a problem."""
    option = click.option
    return _decorate(
        function,
        [
            option(
                "--model",
                metavar="MODEL",
                help="Name in the catalogue (genz-size catalogue list models), or path "
                "of a Hugging Face config.json.",
            ),
            option(
                "--input-tokens",
                metavar="TOKENS",
                callback=token_lengths,
                help="Prompt tokens of a request: '512', or lengths that vary: '512 cv "
                "1' is lognormal, its standard deviation once its mean.",
            ),
            option(
                "--output-tokens",
                metavar="TOKENS",
                callback=token_lengths,
                help="Generated tokens of a request, written as --input-tokens are.",
            ),
            option(
                "--lengths",
                metavar="TRACE",
                help="Lengths of prompts and answers as measured in a trace of the "
                "catalogue, instead (genz-size catalogue list traces).",
            ),
            option(
                "--rate",
                metavar="RATE",
                callback=quantity(REQUEST_PER_SECOND, 1e7),
                help="Requests that arrive, e.g. '10 req/s'.",
            ),
            option(
                "--concurrency",
                type=int,
                help="Users who each wait for an answer before they ask again; instead "
                "of --rate.",
            ),
            option(
                "--burstiness",
                type=float,
                help="Standard deviation of the times between arrivals over their mean "
                "[1, at random].",
            ),
            option(
                "--router",
                type=click.Choice(["round_robin", "least_loaded", "random"]),
                help="How requests find their replica: in turn, the least loaded one, "
                "or at random [round_robin].",
            ),
            option(
                "--ttft",
                metavar="TIME",
                multiple=True,
                callback=latency_limits,
                help="Time to first token, at most: '2 s' of the mean, 'p99 2 s' of "
                "99 % of the requests (p50, p90, p95 alike); repeatable.",
            ),
            option(
                "--tpot",
                metavar="TIME",
                multiple=True,
                callback=latency_limits,
                help="Time per output token after the first, at most, written alike; "
                "repeatable.",
            ),
            option(
                "--e2e",
                metavar="TIME",
                multiple=True,
                callback=latency_limits,
                help="Time from arrival to last token, at most, written alike; "
                "repeatable.",
            ),
            option(
                "--npu",
                metavar="NPU",
                multiple=True,
                help="Accelerators that may be used: name, alias or glob, e.g. "
                "'h100*'; repeatable [all with a price].",
            ),
            option(
                "--exclude",
                metavar="NPU",
                multiple=True,
                help="Accelerators that may not be used, written alike; repeatable.",
            ),
            option(
                "--precision",
                metavar="FORMAT",
                multiple=True,
                help="Formats that may be used, e.g. bf16, fp8, int4; repeatable [the "
                "checkpoint's own].",
            ),
            option(
                "--term",
                metavar="TERM",
                multiple=True,
                help="Terms of prices: on_demand, spot, reserved_1y, reserved_3y, "
                "marketplace or owner_tco; repeatable [on_demand].",
            ),
            option(
                "--provider",
                metavar="NAME",
                multiple=True,
                help="Providers to rent from, name or glob; repeatable [all].",
            ),
            option(
                "--region",
                metavar="NAME",
                multiple=True,
                help="Regions to rent in, name or glob; repeatable [all].",
            ),
            option(
                "--price-confidence",
                type=click.Choice(["high", "medium", "low"]),
                help="How sure a price must be, at least [medium].",
            ),
            option(
                "--price",
                multiple=True,
                metavar="NPU=PRICE",
                help="A price of your own for one NPU, instead of the catalogue's, "
                "e.g. 'h100=2 USD/h'; repeatable.",
            ),
            option("--max-npus", type=int, help="NPUs in all, at most."),
            option("--max-nodes", type=int, help="Servers in all, at most."),
            option(
                "--budget",
                metavar="COST",
                callback=quantity(USD_PER_HOUR, 1e9),
                help="Cost, at most, e.g. '100 USD/h'.",
            ),
            option(
                "--max-power",
                metavar="POWER",
                callback=quantity(WATT, 1e12),
                help="Power to provide, host and cooling included, at most, e.g. '40 "
                "kW'.",
            ),
            option(
                "--chunk-tokens",
                type=int,
                help="Tokens that one step of the serving engine takes (in vLLM "
                "max_num_batched_tokens) [what suits each deployment best].",
            ),
            option(
                "--max-num-seqs",
                type=int,
                help="Requests that a replica runs at once (in vLLM max_num_seqs) "
                "[what suits each deployment best].",
            ),
            SIZED_MODE,
            KV_BANDWIDTH,
            option(
                "--headroom",
                type=float,
                help="Share of the capacity to keep free, e.g. 0.2 [0].",
            ),
            option(
                "--framework",
                metavar="NAME",
                help="Serving framework that is assumed [vllm].",
            ),
            option(
                "--confidence",
                type=float,
                help="Chance with which targets should hold, given how far predictions "
                "have been off, e.g. 0.9 [about even, for a target that is just met].",
            ),
            option(
                "--minimize",
                type=click.Choice(["cost", "npus", "power"]),
                help="What to minimise [cost].",
            ),
        ],
    )
