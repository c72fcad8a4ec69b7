"""How options are fields of a problem: what they replace, and how errors name them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from model_ops.errors import GenzSizeError, ProblemError
from sizing.cli.fleet_options import FIELDS, stated_fleet
from sizing.cli.values import assignment

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

_PLAIN = {
    "model": "model",
    "minimize": "objective",
    "chunk_tokens": "chunk_tokens",
    "max_num_seqs": "max_num_seqs",
    "headroom": "headroom",
    "confidence": "confidence",
    "framework": "framework",
    "kv_bandwidth": "kv_bandwidth",
}
"""Field of a problem that each option states."""

_LISTS = {"precision": "precisions", "mode": "modes"}
"""Field of a problem that a repeatable option states."""

_NAMES: Mapping[str, str] = {
    field: f"--{option.replace('_', '-')}"
    for fields in (
        _PLAIN,
        _LISTS,
        {option: f"traffic.0.{option}" for option in _TRAFFIC},
        {option: ".".join(path) for option, path in _FIELDS.items()},
        {option: ".".join(path) for option, path in OPTIMISATIONS.items()},
        {o: ".".join(("optimisations", *path)) for o, path in OPTIMISATIONS.items()},
        {"price": "prices.given", "owned": "owned", "current": "current"},
        {"available": "limits.npus_per_type", "quota": "limits.quota"},
    )
    for option, field in fields.items()
}
"""The option that states each field, as errors name the field."""

_WHOLE_TRAFFIC = "--input-tokens, --output-tokens, and --rate or --concurrency"


def optimisations_given(
    options: Mapping[str, Any], base: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the optimisations of a problem with those that options give."""
    tables = {name: dict(fields) for name, fields in base.items()}
    for option, (table, field) in OPTIMISATIONS.items():
        if options.get(option) is not None:
            tables.setdefault(table, {})[field] = options[option]
    return tables


def overridden(data: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a problem's content with the given options in place of its own.

    Raises
    ------
    ProblemError
        If an option of one traffic class meets a problem with several, an assignment
        has no ``=``, or a change has nothing that it changes.
    """
    problem = dict(data)
    given = {key: value for key, value in options.items() if value not in (None, ())}
    for key, field in _PLAIN.items():
        if key in given:
            problem[field] = given[key]
    for key, field in _LISTS.items():
        if key in given:
            problem[field] = list(given[key])
    base = problem.get("optimisations", {})
    if any(key in given for key in OPTIMISATIONS) and _is_table_of_tables(base):
        problem["optimisations"] = optimisations_given(given, base)
    _override_traffic(problem, given)
    _override_tables(problem, given)
    if "max_change" in given and not problem.get("current"):
        raise ProblemError("--max-change: goes with --current, what is in use today")
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


# How errors name them

_CLAUSE = re.compile(
    r"(?:^|(?<=; ))([a-z_]+(?:\.[\w-]+)*(?:: targets)?)(?=: (required, but missing)?)"
)
"""The name of a field, before what is wrong with it."""


@contextmanager
def naming_options(
    options: Mapping[str, Any],
    *,
    alone: bool = False,
    tabled: bool = False,
    known: Mapping[str, str] = _NAMES,
) -> Iterator[None]:
    """Let errors in fields name the options that state them.

    Parameters
    ----------
    options
        What was given, by the names of the command's parameters.
    alone
        Whether there is no file: what is missing is an option then, too.
    tabled
        Whether figures come from a table, which knows the lengths of its requests.
    known
        The option that states each field.
    """
    given = {
        f"--{option.replace('_', '-')}"
        for option, value in options.items()
        if value not in (None, ())
    }
    names = {field: name for field, name in known.items() if alone or name in given}
    # What is missing of a table that options begin is missing as an option.
    tables = {field.rpartition(".")[0] for field in names} - {""}
    rest = {f: name for f, name in known.items() if f.rpartition(".")[0] in tables}

    def told(found: re.Match[str]) -> str:
        if alone and found[1] == "traffic.0: targets":
            return " and ".join(f"--{name}" for name in _LATENCIES if options.get(name))
        if alone and found[1] in ("traffic", "traffic.0"):
            return "--rate" if tabled else _WHOLE_TRAFFIC
        return _named(found[1], rest | names if found[2] else names)

    try:
        yield
    except GenzSizeError as error:
        raise type(error)(_CLAUSE.sub(told, str(error))) from None


def _named(field: str, names: Mapping[str, str]) -> str:
    """Return the option that states a field, or what it is a part of; else itself."""
    parts = field.split(".")
    for size in range(len(parts), 0, -1):
        option = names.get(".".join(parts[:size]))
        if option is not None:
            inner = (p for p in parts[size:] if not p.isdigit() and p not in _SHOWN)
            return ": ".join((option, *inner))
    return field


_SHOWN = ("npu", "npus", "nodes", "usd_per_hour", "region")
"""Parts of what an option states in one text, which an error quotes."""
