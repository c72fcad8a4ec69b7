"""A config's fields, read one by one with a clear error for each that is wrong."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from model_ops.errors import ConfigError, nearest

_MOST_LAYERS = 10_000
"""No model comes near; layers are listed one by one, so a damaged count costs time."""

_LARGEST = 10**9
"""No dimension of a model comes near; a larger one is a damaged config."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A config's fields, read with a clear error for what is missing or wrong.

    Parameters
    ----------
    values
        The fields.
    name
        What the model is called.
    inside
        The way to these fields in the config, e.g. ``"quantization_config."``.
    """

    values: Mapping[str, Any]
    name: str
    inside: str = ""

    def wrong(self, key: str, why: str) -> ConfigError:
        """Return the error that says what is wrong with a field."""
        return ConfigError(f"{self.name}: {self.inside}{key} {why}")

    def lacks(self, *keys: str) -> ConfigError:
        """Return the error that says which field is missing."""
        wanted = " or ".join(self.inside + key for key in keys)
        return ConfigError(f"{self.name}: the config lacks {wanted}")

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field, or the default where it is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def count(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """Return the first of the fields that is present, a whole number.

        Raises
        ------
        ConfigError
            If all are absent without a default, or the value is no whole number
            of at least `least`.
        """
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise self.wrong(key, f"must be a whole number: {value!r}")
            most = _MOST_LAYERS if "layer" in key else _LARGEST
            if not least <= value <= most:
                raise self.wrong(
                    key, f"must be from {least} to {most}: {str(value)[:20]}"
                )
            return value
        if default is None:
            raise self.lacks(*keys)
        return default

    def given(self, **changes: Any) -> "Fields":
        """Return the fields with some of them set otherwise."""
        return replace(self, values={**self.values, **changes})

    def listed(self, key: str, layers: int, beyond: int = 0) -> list[Any]:
        """Return the entries of a field that lists one for each layer.

        Parameters
        ----------
        key
            The field.
        layers
            Layers of the model.
        beyond
            Entries that may follow for predictors; they are left out.

        Raises
        ------
        ConfigError
            If it is absent, no list, or of another length.
        """
        value = self.get(key)
        if value is None:
            raise self.lacks(key)
        if not isinstance(value, list) or len(value) not in (layers, layers + beyond):
            raise self.wrong(key, f"must list num_hidden_layers {layers} entries")
        return value[:layers]

    def kinds(
        self, key: str, layers: int, known: Collection[Any], beyond: int = 0
    ) -> list[Any]:
        """Return the entries of a field that lists each layer's kind; see `listed`.

        Raises
        ------
        ConfigError
            As `listed`, or if an entry is none of `known`.
        """
        entries = self.listed(key, layers, beyond)
        for entry in entries:
            if not isinstance(entry, str | int) or entry not in known:
                words = [str(word) for word in known]
                text = str(entry)[:40]
                raise self.wrong(key, f"has unknown '{text}'{nearest(text, words)}")
        return entries

    def number(self, key: str, most: float) -> float:
        """Return a number above zero.

        Raises
        ------
        ConfigError
            If it is absent, no number, or not above zero and at most `most`.
        """
        value = self.get(key)
        if value is None:
            raise self.lacks(key)
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not 0 < value <= most:  # which NaN is not either
            raise self.wrong(
                key, f"must be a number above 0, at most {most}: {str(value)[:20]!r}"
            )
        return float(value)

    def part(self, key: str) -> "Fields":
        """Return the fields of a nested mapping, which know the way to them.

        Raises
        ------
        ConfigError
            If it is absent or no mapping.
        """
        value = self.get(key)
        if value is None:
            raise self.lacks(key)
        if not isinstance(value, Mapping):
            raise self.wrong(key, f"must be a mapping: {str(value)[:40]!r}")
        return Fields(value, self.name, f"{self.inside}{key}.")

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a yes-or-no field."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false: {value!r}")
        return value
