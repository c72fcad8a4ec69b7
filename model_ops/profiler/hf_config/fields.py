"""A config's fields, read one by one with a clear error for each that is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_ops.errors import ConfigError

_MOST_LAYERS = 10_000
_LARGEST = 10**9
"""No dimension of a model comes near; a larger one is a damaged config."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A config's fields, read with a clear error for what is missing or wrong."""

    values: Mapping[str, Any]
    name: str

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
                raise ConfigError(
                    f"{self.name}: {key} must be a whole number: {value!r}"
                )
            most = _MOST_LAYERS if "layer" in key else _LARGEST
            if not least <= value <= most:
                raise ConfigError(
                    f"{self.name}: {key} must be from {least} to {most}: {str(value)[:20]}"
                )
            return value
        if default is None:
            raise ConfigError(f"{self.name}: the config lacks {' or '.join(keys)}")
        return default

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a yes-or-no field."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.name}: {key} must be true or false: {value!r}")
        return value
