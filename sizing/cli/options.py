"""Options that several commands share, and how they override a problem file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from model_ops.errors import ProblemError
from model_ops.units import REQUEST_PER_SECOND, USD_PER_HOUR, WATT
from sizing.cli.files import in_folder
from sizing.cli.fleet_options import FIELDS, stated_fleet
from sizing.cli.pools import KV_BANDWIDTH, SIZED_MODE
from sizing.cli.values import assignment, latency_limits, quantity, token_lengths

F = TypeVar("F", bound=Callable[..., Any])

_LATENCIES = ("ttft", "tpot", "e2e")
_TRAFFIC = (
    "input_tokens",
    "output_tokens",
    "lengths",
    "rate",
    "concurrency",
    "burstiness",
    "router",
    "prefix_hit",
    "beams",
)
_REPLACED = {
    "input_tokens": ("lengths", "trace"),
    "output_tokens": ("lengths", "trace"),
    "lengths": ("input_tokens", "output_tokens", "trace"),
    "rate": ("concurrency",),
    "concurrency": ("rate", "burstiness", "diurnal"),
}
"""What of a file's traffic gives way to an option, unless it is an option too."""
_FIELDS = {
    "npu": ("hardware", "npus"),
    "exclude": ("hardware", "exclude"),
    "term": ("prices", "terms"),
    "provider": ("prices", "providers"),
    "region": ("prices", "regions"),
    "price_confidence": ("prices", "confidence"),
    "max_npus": ("limits", "npus"),
    "max_nodes": ("limits", "nodes"),
    "budget": ("limits", "usd_per_hour"),
    "max_power": ("limits", "power"),
    **FIELDS,
}


OPTIMISATIONS: Mapping[str, tuple[str, str]] = {
    "speculate": ("speculation", "drafter"),
    "guessed": ("speculation", "guessed"),
    "acceptance": ("speculation", "acceptance"),
    "lora_rank": ("lora", "rank"),
    "lora_adapters": ("lora", "adapters"),
    "expert_alpha": ("experts", "alpha"),
    "redundant_experts": ("experts", "redundant"),
    "offload_weights": ("offload", "weights"),
    "offload_cache": ("offload", "cache"),
}
"""Table and field of a problem's optimisations that each option states."""


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


def optimisations_given(
    options: Mapping[str, Any], base: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the optimisations of a problem with those that options give."""
    tables = {name: dict(fields) for name, fields in base.items()}
    for option, (table, field) in OPTIMISATIONS.items():
        if options.get(option) is not None:
            tables.setdefault(table, {})[field] = options[option]
    return tables


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


def overridden(data: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a problem's content with the given options in place of its own.

    Raises
    ------
    ProblemError
        If an option of one traffic class meets a problem with several, or an
        assignment has no ``=``.
    """
    problem = dict(data)
    given = {key: value for key, value in options.items() if value not in (None, ())}
    for key, field in (
        ("model", "model"),
        ("minimize", "objective"),
        ("chunk_tokens", "chunk_tokens"),
        ("max_num_seqs", "max_num_seqs"),
        ("headroom", "headroom"),
        ("confidence", "confidence"),
        ("framework", "framework"),
        ("kv_bandwidth", "kv_bandwidth"),
    ):
        if key in given:
            problem[field] = given[key]
    for key, field in (("precision", "precisions"), ("mode", "modes")):
        if key in given:
            problem[field] = list(given[key])
    base = problem.get("optimisations", {})
    if any(key in given for key in OPTIMISATIONS) and _is_table_of_tables(base):
        problem["optimisations"] = optimisations_given(given, base)
    _override_traffic(problem, given)
    _override_tables(problem, given)
    return problem


def _override_traffic(problem: dict[str, Any], given: Mapping[str, Any]) -> None:
    changed = [key for key in (*_TRAFFIC, *_LATENCIES) if key in given]
    classes = problem.get("traffic", [{}])
    # What is no list of tables is left to the problem's own check.
    if not changed or not _is_list_of_tables(classes):
        return
    if len(classes) > 1:
        raise ProblemError(
            f"--{changed[0].replace('_', '-')}: the problem has several traffic "
            "classes; change it in the file"
        )
    traffic = dict(classes[0]) if classes else {}
    for option, others in _REPLACED.items():
        if option in given:
            for other in others:
                traffic.pop(other, None)
    traffic |= {key: given[key] for key in _TRAFFIC if key in given}
    if _is_list_of_tables(traffic.get("targets", [])):
        kept = [t for t in traffic.get("targets", []) if t.get("metric") not in given]
        asked = [
            {"metric": metric, "statistic": statistic, "at_most": limit}
            for metric in _LATENCIES
            for statistic, limit in given.get(metric, ())
        ]
        traffic["targets"] = kept + asked
    problem["traffic"] = [traffic]


def _is_table_of_tables(content: Any) -> bool:
    return isinstance(content, dict) and _is_list_of_tables(list(content.values()))


def _is_list_of_tables(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(c, dict) for c in content)


def _override_tables(problem: dict[str, Any], given: Mapping[str, Any]) -> None:
    for option, (table, field) in _FIELDS.items():
        if option in given:
            value = given[option]
            plain = list(value) if isinstance(value, tuple) else value
            _set(problem, table, field, plain)
    if "price" in given:
        pairs = (assignment("--price", text) for text in given["price"])
        prices = [{"npu": npu, "usd_per_hour": price} for npu, price in pairs]
        _set(problem, "prices", "given", prices)
    for field, parts in stated_fleet(given).items():
        if field in ("quota", "npus_per_type"):
            _set(problem, "limits", field, parts)
        else:
            problem[field] = parts


def _set(problem: dict[str, Any], table: str, field: str, value: Any) -> None:
    content = problem.get(table, {})
    if isinstance(content, dict):
        problem[table] = {**content, field: value}
