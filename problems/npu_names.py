"""Where the NPUs that a problem names are looked up."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from typing import Protocol

from model_ops.errors import CatalogueError, ProblemError, nearest
from problems import catalogue


class Names(Protocol):
    """The NPUs that there are, by their names."""

    @property
    def known(self) -> Sequence[str]:
        """Every one of them."""

    def npu(self, field: str, name: str) -> str:
        """Return the NPU that a name or an alias means.

        Raises
        ------
        ProblemError
            If it means none; the message begins with the field.
        """

    def matching(
        self, field: str, patterns: Iterable[str], *, strict: bool = True
    ) -> set[str]:
        """Return the NPUs that names, aliases or globs match.

        Raises
        ------
        ProblemError
            If one of them matches none; unless `strict`, only if it would match none
            elsewhere either.
        """


def is_glob(pattern: str) -> bool:
    """Return whether a pattern may match several names."""
    return any(mark in pattern for mark in "*?[")


def globbed(pattern: str, names: Iterable[str]) -> set[str]:
    """Return the names that a glob matches, whatever their case."""
    return {name for name in names if fnmatch(name.lower(), pattern.lower())}


class CatalogueNames:
    """The NPUs of the catalogue."""

    @property
    def known(self) -> Sequence[str]:
        """Every one of them."""
        return catalogue.names("npus")

    def npu(self, field: str, name: str) -> str:
        """Return the NPU that a name or an alias means; see `Names`."""
        try:
            return catalogue.canonical("npus", name)
        except CatalogueError as error:
            raise ProblemError(f"{field}: {error}") from None

    def matching(
        self, field: str, patterns: Iterable[str], *, strict: bool = True
    ) -> set[str]:
        """Return the NPUs that names, aliases or globs match; see `Names`."""
        kept: set[str] = set()
        for pattern in patterns:
            if is_glob(pattern):
                found = globbed(pattern, self.known)
                if not found:
                    raise ProblemError(
                        f"{field}: '{pattern}' matches no NPU"
                        f"{nearest(pattern.strip('*'), self.known)}"
                    )
                kept |= found
            else:
                kept.add(self.npu(field, pattern))
        return kept


CATALOGUE: Names = CatalogueNames()
