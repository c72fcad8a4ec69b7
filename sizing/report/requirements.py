"""What models need of any platform, as text, JSON and CSV."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.table import Table as RichTable

from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Phase
from model_ops.requirements import Need
from model_ops.units import BYTE, BYTE_PER_SECOND, FLOP, FLOP_PER_SECOND, SECOND
from problems import catalogue
from sizing.report.console import new_console, plain_table, section, text_of
from sizing.report.data import csv_text, json_text
from sizing.requirements import PlatformNeeds

_LISTED = 5
"""NPU types that the text names."""


def as_text(found: Sequence[PlatformNeeds]) -> str:
    """Return the needs as readable text."""
    console = new_console()
    alone = len(found) == 1
    if alone:
        console.print(_title(found[0]))
    else:
        console.print("The least that any platform must have")
    section(console, _UNITS, _table(found))
    if alone:
        console.print()
        for line in _sentences(found[0]):
            console.print(f"- {line}")
    else:
        section(console, "What sets them, and the fewest NPUs", _reasons(found))
        console.print()
        console.print(f"NPUs: {_PEAKS}.")
    return text_of(console)


_UNITS = "FLOP/s, memory: all NPUs together; links: each NPU, in one direction"
_PEAKS = "by peak figures alone, links aside; a real deployment needs more"


def _title(one: PlatformNeeds) -> str:
    work = one.workload
    shape = work.shape
    parts = [
        f"{shape.input_tokens:,} tokens in and {shape.output_tokens:,} out",
        *([f"{shape.beams} beams"] if shape.beams != 1 else []),
        *([f"{work.batch:,} requests together"] if work.batch != 1 else []),
        *(
            f"{name} {SECOND.format(float(seconds))}"
            for name, seconds in (("TTFT", work.ttft), ("TPOT", work.tpot))
            if math.isfinite(float(seconds))
        ),
    ]
    what = catalogue.use_case_file(one.use_case).title if one.use_case else ""
    return (
        f"The least that any platform must have for {one.arch.name} in "
        f"{one.precision.name}{f', {what}' if what else ''}: {', '.join(parts)}"
    )


def _label(split: Parallelism) -> str:
    return " ".join(f"{k}={v}" for k, v in split.degrees.items() if k != "pp")


def _finite(each: Need) -> bool:
    return math.isfinite(float(each.seconds))


def _names(one: PlatformNeeds, found: Sequence[PlatformNeeds]) -> tuple[str, ...]:
    """Return the first cells of a row: nothing where there is one thing to name."""
    return () if len(found) == 1 else (one.arch.name, one.use_case or "as stated")


def _naming(found: Sequence[PlatformNeeds]) -> tuple[str, ...]:
    return () if len(found) == 1 else ("model", "use case")


def _none(text: str, found: Sequence[PlatformNeeds]) -> tuple[str, ...]:
    """Return the cell of the links where nothing is split; long tables have none."""
    return (text,) if len(found) == 1 else ()


def _table(found: Sequence[PlatformNeeds]) -> RichTable:
    links = [f">links {_label(split)}" for split, _ in found[0].splits]
    table = plain_table(
        *_naming(found), "phase", ">FLOP/s", ">memory bandwidth", ">capacity",
        *(links or _none(">links", found)),
    )  # fmt: skip
    for one in found:
        for number, each in enumerate(one.phases):
            rates = [
                FLOP_PER_SECOND.format(float(each.flop_per_s)),
                BYTE_PER_SECOND.format(float(each.memory_bandwidth)),
            ]
            sent = [
                BYTE_PER_SECOND.format(float(both[number].link_bandwidth))
                for _, both in one.splits
            ]
            if not _finite(each):
                rates, sent = ["-", "-"], ["-" for _ in sent]
            capacity = BYTE.format(float(each.capacity))
            cells = (*rates, capacity, *(sent or _none("one NPU: none", found)))
            table.add_row(*_names(one, found), each.phase.value, *cells)
    return table


def _sentences(one: PlatformNeeds) -> Iterator[str]:
    for each in one.phases:
        name = each.phase.value.capitalize()
        if not _finite(each):
            why = "there is no target for it"
            if each.phase is Phase.DECODE and one.workload.shape.output_tokens == 1:
                why = "the prompt's step gives the only token"
            yield f"{name} needs no rates: {why}."
            continue
        verb = "written" if each.phase is Phase.PREFILL else "read"
        yield (
            f"{name} FLOP/s: {FLOP.format(float(each.total_flop))} in "
            f"{SECOND.format(float(each.seconds))}, of which "
            f"{_most(_flop(each), 'attention')}."
        )
        yield (
            f"{name} bandwidth: {BYTE.format(float(each.bytes_moved))} in "
            f"{SECOND.format(float(each.seconds))}, of which "
            f"{_most(_moved(each), f'KV cache {verb}')}."
        )
    longest = one.phases[1]
    yield (
        f"Capacity: weights {BYTE.format(float(longest.weights))} and KV cache "
        f"{BYTE.format(float(longest.cache))} at its longest, of which "
        f"{_most(_kept(longest), 'KV cache')}."
    )
    yield _npus(one)
    if one.too_long:
        yield (
            f"{one.arch.name} was made for {one.arch.max_position_embeddings:,} "
            "tokens; the figures are those of the same model with a longer reach."
        )


_Shares = tuple[float, float]
"""What weights take of a need, and what the context takes."""


def _flop(each: Need) -> _Shares:
    context = float(each.context_flop)
    return float(each.total_flop) - context, context


def _moved(each: Need) -> _Shares:
    return float(each.weights_read), float(each.cache_moved)


def _kept(each: Need) -> _Shares:
    return float(each.weights), float(each.cache)


def _most(shares: _Shares, context: str) -> str:
    """Return what takes most of a need, and its share."""
    share = max(shares) / sum(shares)
    return f"{'weights' if shares[0] >= shares[1] else context} {share:.0%}"


def _npus(one: PlatformNeeds) -> str:
    enough = [name for name, least in one.npus if least.npus == 1]
    of = f"of the {len(one.npus)} NPU types"
    if enough:
        named = ", ".join(enough[:_LISTED])
        more = f" and {len(enough) - _LISTED} more" if len(enough) > _LISTED else ""
        return f"One NPU is enough for {len(enough)} {of}: {named}{more} ({_PEAKS})."
    fewest = ", ".join(
        f"{least.npus:,} x {name} ({least.bound})" for name, least in one.npus[:_LISTED]
    )
    return f"One NPU is enough for none {of}; fewest: {fewest} ({_PEAKS})."


def _reasons(found: Sequence[PlatformNeeds]) -> RichTable:
    table = plain_table(
        *_naming(found), "decode FLOP/s", "decode bandwidth", "capacity", "NPU"
    )
    table.columns[1].no_wrap = True
    for one in found:
        _, last = one.phases
        name, least = one.npus[0]
        timed = _finite(last)
        table.add_row(
            *_names(one, found),
            _most(_flop(last), "attention") if timed else "-",
            _most(_moved(last), "KV cache") if timed else "-",
            _most(_kept(last), "KV cache"),
            f"{least.npus:,} x {name}",
        )
    return table


def _record(one: PlatformNeeds) -> dict[str, Any]:
    work = one.workload
    return {
        "model": one.arch.name,
        "precision": one.precision.name,
        "use_case": one.use_case or None,
        "input_tokens": work.shape.input_tokens,
        "output_tokens": work.shape.output_tokens,
        "beams": work.shape.beams,
        "batch": work.batch,
        "beams_copy_prompt": work.copied_prompt,
    }


def _figures(each: Need) -> dict[str, Any]:
    timed = _finite(each)
    return {
        "seconds": float(each.seconds) if timed else None,
        "flop_per_s": float(each.flop_per_s) if timed else None,
        "memory_bytes_per_s": float(each.memory_bandwidth) if timed else None,
        "capacity_bytes": float(each.capacity),
        "context_flop_share": float(each.context_flop) / float(each.total_flop),
        "weights_read_bytes": float(each.weights_read),
        "cache_moved_bytes": float(each.cache_moved),
        "weights_bytes": float(each.weights),
        "cache_bytes": float(each.cache),
    }


def _links(one: PlatformNeeds, number: int) -> dict[str, float | None]:
    """Return the link bandwidth of a phase under each split."""
    return {
        _label(split): float(both[number].link_bandwidth)
        if _finite(both[number])
        else None
        for split, both in one.splits
    }


def as_json(found: Sequence[PlatformNeeds]) -> str:
    """Return the needs as a JSON list in SI units, an object per model and use case."""
    result = [
        _record(one)
        | {
            each.phase.value: _figures(each)
            | {"flop_by_engine": {e: float(flop) for e, flop in each.flop.items()}}
            | {"link_bytes_per_s": _links(one, number)}
            for number, each in enumerate(one.phases)
        }
        | {
            "least_npus": {
                name: {"npus": least.npus, "bound": least.bound}
                for name, least in one.npus
            }
        }
        for one in found
    ]
    return json_text(result)


def as_csv(found: Sequence[PlatformNeeds]) -> str:
    """Return the needs as CSV in SI units, one row per model, use case and phase."""
    rows = [
        _record(one)
        | {"phase": each.phase.value}
        | _figures(each)
        | {f"link_bytes_per_s {k}": v for k, v in _links(one, number).items()}
        for one in found
        for number, each in enumerate(one.phases)
    ]
    return csv_text(list(rows[0]), rows)


FORMATS: dict[str, Callable[[Sequence[PlatformNeeds]], str]] = {
    "text": as_text,
    "json": as_json,
    "csv": as_csv,
}
