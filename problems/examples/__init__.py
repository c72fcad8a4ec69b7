"""Complete problems: to start from, to document, to test."""

import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent


def example_path(name: str) -> Path:
    """Return the file of an example."""
    return FOLDER / f"{name}.toml"


def example_text(name: str) -> str:
    """Return an example's TOML text, comments included."""
    return example_path(name).read_text(encoding="utf-8")


def example_names() -> dict[str, str]:
    """Return the names of the examples and their titles, sorted by name."""
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return {name: tomllib.loads(example_text(name))["title"] for name in names}
