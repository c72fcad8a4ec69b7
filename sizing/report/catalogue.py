"""The catalogue's items as text, JSON and CSV."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from model_ops.errors import CatalogueError
from model_ops.units import BYTE, BYTE_PER_SECOND, FLOP_PER_SECOND, WATT
from problems import catalogue
from sizing.report.console import new_console, plain_table, print_table, text_of
from sizing.report.data import csv_text, json_text

Rows = list[dict[str, str]]


def rows_of(kind: str, name: str | None) -> Rows:
    """Return the items of a kind as rows, or the facts of one item.

    Raises
    ------
    CatalogueError
        If there is no item of that name, or no price for that NPU.
    """
    if name is None:
        special = {"npus": _npus, "models": _models, "prices": _prices}
        return special[kind]() if kind in special else _titles(kind)
    if kind == "prices":
        return _prices_of(name)
    return _facts(catalogue.canonical(kind, name), catalogue.raw(kind, name))


def _titles(kind: str) -> Rows:
    return [
        {"name": name, "title": str(catalogue.raw(kind, name)["title"])}
        for name in catalogue.names(kind)
    ]


def _npus() -> Rows:
    rows = []
    for name in catalogue.names("npus"):
        file = catalogue.npu_file(name)
        dense = max(
            rate
            for dtype, rate in file.flop_per_s.items()
            if dtype.bytes == 2 or "bf16" not in file.flop_per_s
        )
        rows.append(
            {
                "npu": name,
                "title": file.title,
                "year": str(file.year),
                "dense 16-bit": FLOP_PER_SECOND.format(dense),
                "memory": BYTE.format(file.memory_capacity),
                "bandwidth": BYTE_PER_SECOND.format(file.memory_bandwidth),
                "per node": str(file.node_npus),
                "TDP": "" if file.tdp is None else WATT.format(file.tdp),
            }
        )
    return rows


def _models() -> Rows:
    rows = []
    for name in catalogue.names("models"):
        file, arch = catalogue.model_file(name), catalogue.load_model(name)
        rows.append(
            {
                "model": name,
                "title": file.title,
                "parameters": f"{file.parameters / 1e9:.2f} B",
                "layers": str(arch.num_hidden_layers),
                "precision": arch.precision.name,
            }
        )
    return rows


def _prices() -> Rows:
    quotes = sorted(
        catalogue.load_quotes(),
        key=lambda q: (q.price.npu, q.price.term, q.price.usd_per_hour / q.price.npus),
    )
    return [
        {
            "npu": quote.price.npu,
            "term": quote.price.term,
            "provider": quote.provider,
            "instance": quote.price.instance,
            "USD/h per NPU": f"{quote.price.usd_per_hour / quote.price.npus:.4g}",
            "sold in": f"{quote.price.npus}"
            + (" whole" if quote.price.whole_instance else ""),
            "as of": quote.price.as_of,
            "confidence": quote.price.confidence,
        }
        for quote in quotes
    ]


def _prices_of(name: str) -> Rows:
    npu = catalogue.canonical("npus", name)
    quotes = [quote for quote in catalogue.load_quotes() if quote.price.npu == npu]
    if not quotes:
        raise CatalogueError(f"no price for {npu}; give one with --price '{npu}=PRICE'")
    rows: Rows = []
    for quote in quotes:
        rows += _facts(quote.provider, quote.price.model_dump(mode="json"))
    return rows


def _facts(name: str, content: Mapping[str, Any]) -> Rows:
    return [{"field": "name", "value": name}, *_flat("", content)]


def _flat(prefix: str, content: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for field, value in content.items():
        where = f"{prefix}{field}"
        if isinstance(value, Mapping):
            yield from _flat(f"{where}.", value)
        elif isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, Mapping):
                    yield from _flat(f"{where}.{number}.", each)
                else:
                    yield {"field": where, "value": str(each)}
        elif value not in (None, ""):
            yield {"field": where, "value": str(value)}


def as_text(rows: Rows) -> str:
    """Return rows as a table."""
    console = new_console()
    table = plain_table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    print_table(console, table)
    return text_of(console)


def as_json(rows: Rows) -> str:
    """Return rows as a JSON list."""
    return json_text(rows)


def as_csv(rows: Rows) -> str:
    """Return rows as CSV."""
    return csv_text(list(rows[0]), rows)


FORMATS: dict[str, Callable[[Rows], str]] = {
    "text": as_text,
    "json": as_json,
    "csv": as_csv,
}
