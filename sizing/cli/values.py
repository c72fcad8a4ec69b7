"""Values of options that are more than a word or a number."""

import re
from collections.abc import Callable

import click

from model_ops.errors import ProblemError, UnitError, nearest
from model_ops.units import SECOND, Unit

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
"""Of a latency, as a problem file names them."""


def quantity(unit: Unit, most: float) -> Callable[..., str | None]:
    """Return a callback that checks a quantity with its unit, above zero.

    The value stays text, as in a problem file.
    """

    def check(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            number = unit.parse(value)
        except UnitError as error:
            raise click.BadParameter(str(error)) from None
        if not 0 < number <= most:
            limit = f"{most:,.0f} {unit.base}"
            raise click.BadParameter(f"'{value}' must be above 0 and at most {limit}")
        return value

    return check


_LIMIT = re.compile(r"\s*([A-Za-z]\w*)\s+([-+\d.].*)")
"""A statistic, and the quantity behind it."""


def latency_limits(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return the statistic and the limit of each text like ``p99 2 s``.

    Without a statistic, the mean is meant; of one statistic the last limit counts, as
    of any option given twice. The limits stay text.
    """
    check = quantity(SECOND, 86_400)
    found = {}
    for value in values:
        match = _LIMIT.fullmatch(value)
        statistic, limit = match.groups() if match else ("mean", value)
        if statistic.lower() not in STATISTICS:
            hint = nearest(statistic, STATISTICS)
            raise click.BadParameter(f"unknown statistic '{statistic:.20}'{hint}")
        check(context, parameter, limit)
        found[statistic.lower()] = limit
    return tuple(found.items())


_TOKENS = re.compile(r"\s*([-+]?\d{1,18})(?:\s+cv\s+([-+]?[\d.]+))?\s*")


def token_lengths(
    _: click.Context, __: click.Parameter, value: str | None
) -> int | dict[str, float] | None:
    """Return a text like ``512`` or ``512 cv 1`` as a problem file states it."""
    if value is None:
        return None
    match = _TOKENS.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        tokens, variation = match.groups()
        if variation is None:
            return int(tokens)
        return {"mean": float(tokens), "cv": float(variation)}
    except ValueError:
        shown = " ".join(value.split())[:60]
        raise click.BadParameter(
            f"'{shown}' is no number of tokens; write it like '512' or '512 cv 1'"
        ) from None


def assignment(option: str, text: str) -> tuple[str, str]:
    """Return the two sides of ``NAME=VALUE``.

    Raises
    ------
    ProblemError
        If a side is missing.
    """
    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise ProblemError(f"{option}: '{text}' is not like NAME=VALUE")
    return name.strip(), value.strip()
