"""The catalogue's files, read and checked: one function per kind of item."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from model_ops.errors import CatalogueError, ConfigError, nearest
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.hf_config import read_config
from model_ops.serving.steady_state import DEFAULT_CHUNK_TOKENS
from problems.catalogue.schema import (
    FOLDER,
    EfficiencyFile,
    FrameworkFile,
    LinkFile,
    ModelFile,
    NpuFile,
    Price,
    PriceFile,
    TraceFile,
    UseCaseFile,
)
from problems.fields import messages, read_text, shown

_Item = TypeVar("_Item", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Quote:
    """A price and who asks it."""

    provider: str
    price: Price


@cache
def names(kind: str) -> tuple[str, ...]:
    """Return the names of a kind of item (a folder of the catalogue), sorted."""
    return tuple(sorted(path.stem for path in (FOLDER / kind).glob("*.toml")))


@cache
def _parsed(path: Path) -> Mapping[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _load(kind: str, name: str, schema: type[_Item]) -> _Item:
    path = FOLDER / kind / f"{name}.toml"
    if not path.is_file():
        raise CatalogueError(f"no {name}.toml in {kind}{nearest(name, names(kind))}")
    try:
        return schema.model_validate(_parsed(path), context={"source": "file"})
    except ValidationError as error:
        raise CatalogueError(f"{kind}/{path.name}: {messages(error, schema)}") from None


@cache
def _aliases(kind: str) -> Mapping[str, str]:
    return {
        alias.lower(): name
        for name in names(kind)
        for alias in _parsed(FOLDER / kind / f"{name}.toml").get("aliases", ())
    }


@cache
def canonical(kind: str, given: str) -> str:
    """Return the catalogue name for a name or alias.

    Raises
    ------
    CatalogueError
        If there is neither; the message names the nearest.
    """
    key = given.strip().lower()
    if key in names(kind):
        return key
    aliases = _aliases(kind)
    if key in aliases:
        return aliases[key]
    what = kind[:-1].replace("_", " ")
    hint = nearest(key, names(kind), aliases)
    raise CatalogueError(f"unknown {what} {shown(given)}{hint}")


@cache
def npu_file(name: str) -> NpuFile:
    """Return an NPU's file; `name` may be an alias."""
    return _load("npus", canonical("npus", name), NpuFile)


@cache
def link_file(name: str) -> LinkFile:
    """Return a link technology's file."""
    return _load("links", name, LinkFile)


@cache
def efficiency_file(name: str) -> EfficiencyFile:
    """Return an efficiency profile's file."""
    return _load("efficiencies", name, EfficiencyFile)


@cache
def framework_file(name: str) -> FrameworkFile:
    """Return a serving framework's file; `name` may be an alias."""
    return _load("frameworks", canonical("frameworks", name), FrameworkFile)


def chunk_tokens_under(framework: str) -> int:
    """Return the tokens that a step of a framework may process by default."""
    return framework_file(framework).chunk_tokens or DEFAULT_CHUNK_TOKENS


@cache
def model_file(name: str) -> ModelFile:
    """Return a model's file; `name` may be an alias."""
    return _load("models", canonical("models", name), ModelFile)


@cache
def load_model(name_or_path: str) -> ModelArch:
    """Return a model of the catalogue, or the one a ``config.json`` describes.

    Raises
    ------
    CatalogueError
        If it is no path and the catalogue lacks the name.
    ConfigError
        If the config cannot be read as a model.
    """
    path = model_path(name_or_path)
    if path is not None:
        return _model_at(path)
    return read_config(
        model_file(name_or_path).config, canonical("models", name_or_path)
    )


def model_path(name_or_path: str) -> Path | None:
    """Return the path of a config, if the text is one, and no catalogue name."""
    path = Path(name_or_path)
    is_path = path.suffix == ".json" or ("/" in name_or_path and path.exists())
    return path if is_path else None


def _model_at(path: Path) -> ModelArch:
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ConfigError(
                f"model: there is no file config.json in the folder {path}"
            )
        path = path / "config.json"
    try:
        config = json.loads(read_text(path, "model"))
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"model: {path} is not valid JSON: {why}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"model: {path} is not a JSON object")
    label = path.parent.name if path.name == "config.json" else path.stem
    try:
        return read_config(config, label or str(path))
    except ConfigError as error:
        why = str(error).removeprefix(f"{label}: ")
        raise ConfigError(f"model: {path}: {why}") from None


@cache
def use_case_file(name: str) -> UseCaseFile:
    """Return a use case's file; `name` may be an alias."""
    return _load("use_cases", canonical("use_cases", name), UseCaseFile)


@cache
def trace_file(name: str) -> TraceFile:
    """Return a trace's file; `name` may be an alias."""
    return _load("traces", canonical("traces", name), TraceFile)


@cache
def load_quotes() -> tuple[Quote, ...]:
    """Return every price of the catalogue with its provider."""
    return tuple(
        Quote(file.provider, price)
        for file in (_load("prices", name, PriceFile) for name in names("prices"))
        for price in file.prices
    )


def raw(kind: str, name: str) -> Mapping[str, Any]:
    """Return an item as its file states it; `name` may be an alias."""
    return _parsed(FOLDER / kind / f"{canonical(kind, name)}.toml")
