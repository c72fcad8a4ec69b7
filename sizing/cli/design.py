"""``genz-size design``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from model_ops.units import REQUEST_PER_SECOND, SECOND
from sizing.cli import INFEASIBLE, TIMED_OUT
from sizing.cli.fields import naming_options
from sizing.cli.options import chosen_format, output_options
from sizing.cli.proof import proof_options
from sizing.cli.values import quantity

if TYPE_CHECKING:
    from problems.design.parameters import Parameter

_USE_CASE = (
    "model",
    "input_tokens",
    "output_tokens",
    "beams",
    "prefix_hit",
    "rate",
    "ttft",
    "tpot",
)
"""Options that state the only use case, or change every one of a file."""

_FIELDS = {
    "npu": "base",
    "framework": "framework",
    "levels": "levels",
    "minimize": "objective",
    "max_npus": "limits.npus",
    "max_npu_power": "limits.watts",
    "cost": "cost.file",
    "set": "cost.set",
}
"""Field of a design problem that each option states, besides those of use cases."""

_CODES = {"infeasible": INFEASIBLE, "timed_out": TIMED_OUT}


@click.command("design")
@click.argument(
    "problem_file",
    metavar="[PROBLEM.toml]",
    required=False,
    type=click.Path(path_type=Path),
)
@click.option(
    "--model",
    metavar="MODEL",
    help="Name in the catalogue (genz-size catalogue list models), or path of a "
    "Hugging Face config.json.",
)
@click.option(
    "--use-case",
    "use_cases",
    metavar="NAME",
    multiple=True,
    help="Use case of the catalogue (genz-size catalogue list use_cases), e.g. chat or "
    "rag, with its tokens, beams and targets; repeatable: one accelerator serves all "
    "of them. Options below change their figures.",
)
@click.option("--input-tokens", type=int, help="Prompt tokens of a request.")
@click.option("--output-tokens", type=int, help="Generated tokens of a request.")
@click.option("--beams", type=int, help="Beams of beam search [1, no search].")
@click.option(
    "--prefix-hit",
    type=float,
    help="Share of the prompt that the prefix cache holds already [0].",
)
@click.option(
    "--rate",
    metavar="RATE",
    callback=quantity(REQUEST_PER_SECOND, 1e7),
    help="Requests that arrive of each use case, e.g. '50 req/s'.",
)
@click.option(
    "--ttft",
    metavar="TIME",
    callback=quantity(SECOND, 86_400),
    help="Mean time to first token, at most, e.g. '300 ms' [any].",
)
@click.option(
    "--tpot",
    metavar="TIME",
    callback=quantity(SECOND, 86_400),
    help="Mean time per output token after the first, at most, e.g. '20 ms' [any].",
)
@click.option(
    "--precision",
    "precisions",
    metavar="FORMAT",
    multiple=True,
    help="Formats that may be used, e.g. bf16, fp8, int4; repeatable [the checkpoint's "
    "own].",
)
@click.option(
    "--npu",
    "base",
    metavar="NPU",
    help="Today's part, whose figures change: name or alias (genz-size catalogue list "
    "npus) [h200-sxm].",
)
@click.option(
    "--framework", metavar="NAME", help="Serving framework that is assumed [vllm]."
)
@click.option(
    "--vary",
    multiple=True,
    metavar="FIGURE[=FROM..TO]",
    help="Let a figure vary, about today's or between two ends, e.g. "
    "'memory_bandwidth=2 TB/s..16 TB/s'; repeatable [compute, memory_bandwidth, "
    "memory_capacity, scale_up_bandwidth, domain, scale_out_bandwidth].",
)
@click.option(
    "--fix",
    multiple=True,
    metavar="FIGURE[=VALUE]",
    help="Hold a figure at today's or at another value, e.g. 'domain=8'; repeatable.",
)
@click.option(
    "--levels",
    type=int,
    help="Values that are tried of each figure that varies [24].",
)
@click.option(
    "--set",
    "changed",
    multiple=True,
    metavar="COEFFICIENT=VALUE",
    help="Change a coefficient of the cost model, e.g. 'usd_per_gb=10'; repeatable.",
)
@click.option(
    "--cost",
    "cost_file",
    metavar="COST",
    help="What an accelerator costs: a cost model's name, or path of a TOML file "
    "[accelerator-2026].",
)
@click.option("--max-npus", type=int, help="NPUs of all use cases, at most.")
@click.option(
    "--max-npu-power",
    metavar="POWER",
    help="Power of one NPU with its share of the server, at most, e.g. '1500 W'.",
)
@click.option(
    "--minimize",
    type=click.Choice(["cost", "distance"]),
    help="What to minimise: the cost of all NPUs, or how far the figures are from "
    "today's part [cost].",
)
@proof_options
@output_options("text", "json")
def command(
    problem_file: Path | None,
    time_limit: float,
    workers: int,
    format_: str | None,
    output: Path | None,
    **options: Any,
) -> int:
    """Find which accelerator should exist for a model and its latency targets.

    FLOP/s, memory bandwidth and size, links and scale-up domain are chosen together
    with how each use case is split and batched, at the least cost. State the problem
    in a TOML file, by options, or both: an option replaces what the file says. Without
    a file, --model and --rate are needed, and --use-case, or --input-tokens and
    --output-tokens; --ttft and --tpot are the targets.

    [Brackets] after an option say what holds without it.
    """
    from problems.design.statement import design_problem_of
    from problems.problem import read_toml
    from sizing.design import design
    from sizing.files import write
    from sizing.report.design import FORMATS
    from solver.options import SolveOptions

    data = read_toml(problem_file) if problem_file is not None else {}
    named = {"base": "npu", "cost_file": "cost", "changed": "set"}
    given = {named.get(option, option): value for option, value in options.items()}
    data = _overridden(data, options)
    fields = _fields(len(options["use_cases"]))
    with naming_options(given, alone=problem_file is None, known=fields):
        problem = design_problem_of(data, "file")
    answer = design(problem, SolveOptions(time_limit=time_limit, workers=workers))
    write(FORMATS[chosen_format(format_, output, FORMATS)](answer), output)
    return _CODES.get(answer.status, 0)


def _fields(use_cases: int) -> dict[str, str]:
    """Return the option that states each field, of so many use cases or of one."""
    fields = {field: option for option, field in _FIELDS.items()}
    for number in range(max(use_cases, 1)):
        fields |= {f"use_case.{number}.{name}": name for name in _USE_CASE}
        fields[f"use_case.{number}.precisions"] = "precision"
    return {field: f"--{name.replace('_', '-')}" for field, name in fields.items()}


def _overridden(data: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's problem with what options state in its place."""
    changed = dict(data)
    for option, field in (
        ("base", "base"),
        ("framework", "framework"),
        ("levels", "levels"),
        ("minimize", "objective"),
    ):
        if options[option] is not None:
            changed[field] = options[option]
    _limits(changed, options)
    _cost(changed, options)
    _platform(changed, options)
    _use_cases(changed, options)
    return changed


def _table(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of a table; what is none is left for the check to name."""
    found = data.get(name, {})
    return dict(found) if isinstance(found, Mapping) else {name: found}


def _limits(changed: dict[str, Any], options: Mapping[str, Any]) -> None:
    stated = {"npus": options["max_npus"], "watts": options["max_npu_power"]}
    given = {name: value for name, value in stated.items() if value is not None}
    if given:
        changed["limits"] = _table(changed, "limits") | given


def _cost(changed: dict[str, Any], options: Mapping[str, Any]) -> None:
    cost = _table(changed, "cost")
    if options["cost_file"] is not None:
        cost["file"] = options["cost_file"]
    values = {}
    for text in options["changed"]:
        name, _, value = text.partition("=")
        try:
            values[name.strip()] = float(value)
        except ValueError:
            raise click.BadParameter(
                f"'{text[:60]}': write it like 'usd_per_gb=12'", param_hint="--set"
            ) from None
    if values:
        cost["set"] = _table(cost, "set") | values
    if cost:
        changed["cost"] = cost


def _platform(changed: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Put what options vary or fix into the platform, under the figures' own names."""
    from problems.design.parameters import USUAL, parameter

    if not options["vary"] and not options["fix"]:
        return
    _refuse_both(options)
    platform = {
        parameter(name).name: stated
        for name, stated in _table(changed, "platform").items()
    }
    if not options["vary"] and not platform:
        platform = {name: {} for name in USUAL}
    for text in options["vary"]:
        name, _, ends = text.partition("=")
        platform[parameter(name).name] = _ends(parameter(name), ends, text)
    for text in options["fix"]:
        name, _, value = text.partition("=")
        one = parameter(name)
        platform.pop(one.name, None)
        if value:
            platform[one.name] = _level(one, value)
    changed["platform"] = platform


def _refuse_both(options: Mapping[str, Any]) -> None:
    """Refuse a figure that is varied or fixed more than once."""
    from problems.design.parameters import parameter

    said: dict[str, str] = {}
    for option in ("vary", "fix"):
        for text in options[option]:
            name = parameter(text.partition("=")[0]).name
            this = f"--{option} {text[:60]}"
            if name in said:
                raise click.UsageError(
                    f"{name}: stated by both '{said[name]}' and '{this}'; give one"
                )
            said[name] = this


def _ends(one: "Parameter", ends: str, text: str) -> dict[str, Any]:
    """Return a ladder between two ends as a file states it; none: about today's."""
    if not ends:
        return {}
    low, _, high = ends.partition("..")
    if not (low.strip() and high.strip()):
        raise click.BadParameter(
            f"'{text[:60]}': write it like 'memory_bandwidth=2 TB/s..16 TB/s', or "
            "without ends",
            param_hint="--vary",
        )
    return {"from": _level(one, low), "to": _level(one, high)}


def _level(one: "Parameter", text: str) -> Any:
    """Return a level as a file states it: text with its unit, or a whole number."""
    text = text.strip()
    return int(text) if one.unit is None and text.isdigit() else text


def _use_cases(changed: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Put what options state into every use case; those of the catalogue come first."""
    given = {n: options[n] for n in _USE_CASE if options[n] is not None}
    if options["precisions"]:
        given["precisions"] = list(options["precisions"])
    known = [_known(name) for name in options["use_cases"]]
    if known:
        changed["use_case"] = [each | given for each in known]
    elif "use_case" not in changed:
        changed["use_case"] = [given]
    elif given and isinstance(changed["use_case"], list):
        changed["use_case"] = [
            dict(each) | given if isinstance(each, Mapping) else each
            for each in changed["use_case"]
        ]


def _known(name: str) -> dict[str, Any]:
    """Return a use case of the catalogue as a problem file states it."""
    from problems import catalogue

    file = catalogue.use_case_file(name)
    stated: dict[str, Any] = {
        "name": catalogue.canonical("use_cases", name),
        "input_tokens": file.input_tokens,
        "output_tokens": file.output_tokens,
        "beams": file.beams,
    }
    for target in ("ttft", "tpot"):
        seconds = getattr(file, target)
        if seconds is not None:
            stated[target] = f"{seconds} s"
    return stated
