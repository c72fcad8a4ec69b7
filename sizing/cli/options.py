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
                help="Share of the prompt that is in the cache already.",
            ),
            option("--beams", type=int, help="Beams of the search [no search]."),
            option(
                "--speculate",
                metavar="DRAFTER",
                help="Guess tokens: ngram, mtp, eagle, or a draft model.",
            ),
            option("--guessed", type=int, help="Tokens guessed per step."),
            option(
                "--acceptance",
                type=float,
                help="Probability that a guess is accepted; it has no default.",
            ),
            option("--lora-rank", type=int, help="Rank of LoRA adapters [none]."),
            option("--lora-adapters", type=int, help="Adapters in memory [1]."),
            option(
                "--expert-alpha",
                type=float,
                help="Popularity of experts as a power law; 0 is balance.",
            ),
            option(
                "--redundant-experts",
                type=int,
                help="Further copies of popular experts in each layer.",
            ),
            option(
                "--offload-weights",
                type=float,
                help="Share of the weights in the second memory.",
            ),
            option(
                "--offload-cache",
                type=float,
                help="Share of the KV cache in the second memory.",
            ),
        ],
    )


def problem_options(function: F) -> F:
    """Add the options that state or override a problem."""
    option = click.option
    return _decorate(
        function,
        [
            option("--model", help="Catalogue name, or path of a config.json."),
            option(
                "--input-tokens",
                metavar="TOKENS",
                callback=token_lengths,
                help="Prompt tokens of a request: '512', or '512 cv 1' (lognormal).",
            ),
            option(
                "--output-tokens",
                metavar="TOKENS",
                callback=token_lengths,
                help="Generated tokens of a request, written alike.",
            ),
            option(
                "--lengths",
                metavar="TRACE",
                help="Both, as measured in a trace of the catalogue.",
            ),
            option(
                "--rate",
                callback=quantity(REQUEST_PER_SECOND, 1e7),
                help="Requests that arrive, e.g. '10 req/s'.",
            ),
            option("--concurrency", type=int, help="Requests in flight, not a rate."),
            option(
                "--burstiness",
                type=float,
                help="Variation of the times between arrivals [1, at random].",
            ),
            option(
                "--router",
                type=click.Choice(["round_robin", "least_loaded", "random"]),
                help="How requests find their replica [round_robin].",
            ),
            option(
                "--ttft",
                multiple=True,
                callback=latency_limits,
                help="Time to first token, at most: '2 s' of the mean, 'p99 2 s' of "
                "99 % of the requests (p50, p90, p95 alike); repeatable.",
            ),
            option(
                "--tpot",
                multiple=True,
                callback=latency_limits,
                help="Time per output token, e.g. '50 ms'; repeatable.",
            ),
            option(
                "--e2e",
                multiple=True,
                callback=latency_limits,
                help="Time from arrival to last token; repeatable.",
            ),
            option("--npu", multiple=True, help="NPU name, alias or glob; repeatable."),
            option("--exclude", multiple=True, help="NPU not to use; repeatable."),
            option("--precision", multiple=True, help="Formats allowed; repeatable."),
            option("--term", multiple=True, help="Price terms; repeatable."),
            option("--provider", multiple=True, help="Price providers; repeatable."),
            option("--region", multiple=True, help="Price regions; repeatable."),
            option(
                "--price-confidence",
                type=click.Choice(["high", "medium", "low"]),
                help="Least confidence of prices.",
            ),
            option(
                "--price",
                multiple=True,
                metavar="NPU=PRICE",
                help="A price of your own per NPU, e.g. 'h100=2 USD/h'; repeatable.",
            ),
            option("--max-npus", type=int, help="NPUs, at most."),
            option("--max-nodes", type=int, help="Servers, at most."),
            option(
                "--budget",
                callback=quantity(USD_PER_HOUR, 1e9),
                help="Cost, at most, e.g. '100 USD/h'.",
            ),
            option(
                "--max-power",
                callback=quantity(WATT, 1e12),
                help="Power, at most, e.g. '40 kW'.",
            ),
            option(
                "--chunk-tokens",
                type=int,
                help="Tokens of one engine step; if not given, what suits best.",
            ),
            option(
                "--max-num-seqs",
                type=int,
                help="Requests that run at once; if not given, as many as suit best.",
            ),
            SIZED_MODE,
            KV_BANDWIDTH,
            option("--headroom", type=float, help="Share of capacity to keep free."),
            option("--framework", help="Serving framework [vllm]."),
            option(
                "--confidence",
                type=float,
                help="Chance with which targets hold, e.g. 0.9 [as predicted].",
            ),
            option(
                "--minimize",
                type=click.Choice(["cost", "npus", "power"]),
                help="What to minimise.",
            ),
        ],
    )
