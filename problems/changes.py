"""Changes of a problem by key and value, as people write them: ``rate=2x``.

The keys are the fields of the problem, found in its schema: a new field can be changed
at once. What many ask for has a short key: a field of the traffic alone means every
class, ``ttft`` a target, ``price.h200`` a price.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from model_ops.errors import GenzSizeError, ProblemError, nearest
from model_ops.units import SECOND, USD_PER_HOUR
from problems.fields import shown
from problems.kinds import Kind, kind_of
from problems.npu_names import Names
from problems.problem import SizingProblem
from problems.traffic import PERCENTILES, TrafficClass

NONE = "none"
"""The value that takes a limit or a target away."""

WITHOUT = "without"
"""The key that takes NPUs away: names, aliases or globs."""

_NAMES = ("name", "title")
"""Fields that change nothing."""

_METRICS = ("ttft", "tpot", "e2e")
_STATISTICS = ("mean", *PERCENTILES)

_GIVES_WAY = {
    "rate": ("concurrency",),
    "concurrency": ("rate", "burstiness", "diurnal"),
    "lengths": ("input_tokens", "output_tokens", "trace"),
    "input_tokens": ("lengths", "trace"),
    "output_tokens": ("lengths", "trace"),
}
"""What of a class is stated instead of each field, and goes where that is set."""

Data: TypeAlias = dict[str, Any]
"""A problem, or a table of it, as plain dictionaries in SI units."""


class _UnknownKeyError(Exception):
    """A key is none of the problem's."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field of a problem and what it becomes.

    Parameters
    ----------
    key
        A path in the problem: ``limits.npus``, ``traffic.chat.rate``; or a short one.
    value
        With its unit (``500 ms``), relative (``2x``, ``+20%``, ``-20%``), or ``none``.
    """

    key: str
    value: str

    @classmethod
    def of(cls, text: str) -> "Change":
        """Return the change that a text like ``rate=2x`` states.

        Raises
        ------
        ProblemError
            If a side is missing.
        """
        key, _, value = (part.strip() for part in text.partition("="))
        if not key or not value:
            raise ProblemError(f"{shown(text)} is not like KEY=VALUE, e.g. 'rate=2x'")
        return cls(key, value)

    @property
    def text(self) -> str:
        """The change as it is written."""
        return f"{self.key}={self.value}"


def changed(problem: SizingProblem, changes: Iterable[Change]) -> SizingProblem:
    """Return the checked problem with some changes, made one after the other.

    Raises
    ------
    ProblemError
        If a key is none of the problem's, or a value none of the key's.
    """
    data = problem.model_dump()
    data["traffic"] = list(data["traffic"])
    done = []
    try:
        for change in changes:
            done.append(change.text)
            _apply(problem, data, change)
        return problem.restated(data)
    except _UnknownKeyError:
        hint = nearest(change.key, keys(problem))
        raise ProblemError(f"{shown(change.key)}: no such key{hint}") from None
    except GenzSizeError as error:
        raise ProblemError(f"{shown(', '.join(done))}: {error}") from None


def keys(problem: SizingProblem) -> list[str]:
    """Return every key that may be changed."""
    own = [*_paths(TrafficClass), *_METRICS]
    named = [f"traffic.{t.name}.{key}" for t in problem.traffic for key in own]
    prices = [f"price.{npu}" for npu in problem.names.known]
    found = [*own, *named, *_paths(SizingProblem), WITHOUT, *prices]
    return [key for key in found if problem.beyond.isdisjoint(key.split("."))]


@cache
def _paths(schema: Any) -> tuple[str, ...]:
    """Return the dotted names of a schema's fields that can be changed."""
    found: list[str] = []
    for name, field in schema.model_fields.items():
        kind = kind_of(field)
        if kind is None or name in _NAMES:
            continue
        if kind.table is not None:
            found += [f"{name}.{path}" for path in _paths(kind.table)]
        else:
            found.append(f"{name}.NPU" if kind.by_npu else name)
    return tuple(found)


def _apply(problem: SizingProblem, data: Data, change: Change) -> None:
    head, _, rest = change.key.partition(".")
    if head == "price":
        data["prices"] = dict(data["prices"])
        _change_price(problem.names, data["prices"], rest or "*", change.value)
    elif change.key == WITHOUT:
        gone = [part.strip() for part in change.value.split(",")]
        names = problem.names.matching(WITHOUT, gone)
        exclude = [*data["hardware"]["exclude"], *gone]
        data["hardware"] = {**data["hardware"], "exclude": exclude}
        data["owned"] = [each for each in data["owned"] if each["npu"] not in names]
    elif change.key == "model":
        _set(problem.names, SizingProblem, data, ["model"], change.value)
        data["traffic"] = [{**each, "model": None} for each in data["traffic"]]
    elif head in TrafficClass.model_fields or head in _METRICS:
        for number in range(len(problem.traffic)):
            _change_class(problem, data, number, Change(change.key, change.value))
    elif head == "traffic":
        number, key = _class_of(problem, rest)
        _change_class(problem, data, number, Change(key, change.value))
    else:
        _set(problem.names, SizingProblem, data, change.key.split("."), change.value)


def _class_of(problem: SizingProblem, path: str) -> tuple[int, str]:
    """Return the class that a path begins with, and the rest of the path."""
    fitting = [
        (len(traffic.name), number)
        for number, traffic in enumerate(problem.traffic)
        if path.startswith(f"{traffic.name}.")
    ]
    if not fitting:
        raise _UnknownKeyError
    length, number = max(fitting)
    return number, path[length + 1 :]


def _change_class(
    problem: SizingProblem, data: Data, number: int, change: Change
) -> None:
    """Change a field or a target of one class."""
    content = data["traffic"][number] = dict(data["traffic"][number])
    head, *path = change.key.split(".")
    if head in _METRICS:
        content["targets"] = _targets(content["targets"], head, path, change.value)
        return
    if head == "rate" and content["rate"] is None:
        content["rate"] = problem.traffic[number].peak_rate
    _set(problem.names, TrafficClass, content, [head, *path], change.value)
    for other in _GIVES_WAY.get(head, ()):
        content[other] = None


# Targets and prices, which a problem has lists of


def _targets(
    targets: Sequence[Data], metric: str, path: Sequence[str], text: str
) -> list[Data]:
    """Return a class's targets with that of one latency set, moved or taken away.

    Without a statistic the one target that there is moves, else the mean is meant.
    """
    stated = {t["statistic"]: t["at_most"] for t in targets if t["metric"] == metric}
    word, _, rest = text.partition(" ")
    if not path and word.lower() in _STATISTICS:
        path, text = [word.lower()], rest.strip()
    if len(path) > 1 or (path and path[0] not in _STATISTICS):
        raise _UnknownKeyError
    relative = _factor(text)
    if path:
        moved = list(path)
    elif relative is not None or text == NONE:
        moved = list(stated)
    else:
        moved = list(stated) or ["mean"]
        if len(moved) > 1:
            known = " or ".join(f"{metric}.{statistic}" for statistic in moved)
            raise ProblemError(f"which of its targets? {known}")
    if not moved or (relative is not None and not set(moved) <= stated.keys()):
        raise ProblemError(f"there is no target of {'.'.join([metric, *path])} to move")
    others = [
        t for t in targets if t["metric"] != metric or t["statistic"] not in moved
    ]
    if text == NONE:
        return others
    return others + [
        {
            "metric": metric,
            "statistic": statistic,
            "at_most": SECOND.parse(text)
            if relative is None
            else relative * stated[statistic],
        }
        for statistic in moved
    ]


def _change_price(names: Names, prices: Data, pattern: str, text: str) -> None:
    """Scale the prices of some NPUs, or state one of them."""
    npus, factor = names.matching("price", (pattern,)), _factor(text)
    stated = {names.npu("price", price["npu"]): price for price in prices["given"]}
    if factor is None:
        price = USD_PER_HOUR.parse(text)
        stated |= {npu: {"npu": npu, "usd_per_hour": price} for npu in sorted(npus)}
    else:
        for npu in npus & stated.keys():
            scaled = stated[npu]["usd_per_hour"] * factor
            stated[npu] = {**stated[npu], "usd_per_hour": scaled}
        known = prices["factors"]
        prices["factors"] = {**known, pattern: factor * known.get(pattern, 1.0)}
    prices["given"] = list(stated.values())


# Fields


def _set(names: Names, schema: Any, data: Data, path: Sequence[str], text: str) -> None:
    """Set the field at a path of a table to a text's value."""
    name, *rest = path
    field = schema.model_fields.get(name)
    if field is not None and not rest and _is_left_out(name, field, text):
        data[name] = _default(field)
        return
    kind = None if field is None or name in _NAMES else kind_of(field)
    if kind is None:
        raise _UnknownKeyError
    if kind.table is not None:
        if not rest:
            raise _UnknownKeyError
        data[name] = dict(data.get(name) or {})
        _set(names, kind.table, data[name], rest, text)
    elif kind.by_npu:
        if not rest:
            raise _UnknownKeyError
        npu = names.npu(name, ".".join(rest))
        data[name] = {**data[name], npu: _value(kind, text, data[name].get(npu))}
        data[name] = {k: v for k, v in data[name].items() if v is not None}
    elif rest:
        raise _UnknownKeyError
    else:
        data[name] = _value(kind, text, data.get(name))


def _is_left_out(name: str, field: FieldInfo, text: str) -> bool:
    """Return whether a text takes a table, or a list of them, away.

    Raises
    ------
    ProblemError
        If it states a list of tables otherwise.
    """
    kind = kind_of(field)
    plain = kind is not None and kind.table is None and not kind.by_npu
    if plain or name in _NAMES or field.exclude or field.is_required():
        return False
    if text != NONE and kind is None:
        raise ProblemError("no short text states it; 'none' takes it away")
    return text == NONE


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    return value.model_dump() if isinstance(value, BaseModel) else value


def _value(kind: Kind, text: str, now: Any) -> Any:
    if text == NONE:
        return None
    factor = _factor(text)
    if factor is None:
        return kind.read(text)
    if now is None:
        raise ProblemError("it is not stated, so that nothing can be relative to it")
    return kind.scaled(now, factor)


_RELATIVE: Sequence[tuple[re.Pattern[str], Callable[[float], float]]] = (
    (re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*x\s*"), lambda number: number),
    (re.compile(r"\s*x\s*(\d+(?:\.\d*)?|\.\d+)\s*"), lambda number: number),
    (re.compile(r"\s*([-+]\d+(?:\.\d*)?)\s*%\s*"), lambda number: 1 + number / 100),
)


def _factor(text: str) -> float | None:
    """Return what a relative value multiplies by; None of an absolute one."""
    for pattern, factor_of in _RELATIVE:
        if match := pattern.fullmatch(text):
            factor = factor_of(float(match.group(1)))
            if not 0 < factor < math.inf:
                raise ProblemError(f"{shown(text)} leaves nothing")
            return factor
    return None
