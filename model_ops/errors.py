"""Every error of genz-size.

GenzSizeError
├── UnitError          a text that is not a quantity of the wanted unit
├── ConfigError        a Hugging Face config that cannot be read as a model
├── DeploymentError    a deployment that breaks a rule of its model or platform
├── CatalogueError     a catalogue item that is unknown or malformed
├── ProblemError       a sizing problem that is malformed or contradicts itself
└── SolverError        the solver was misused or broke a promise
"""

from collections.abc import Iterable
from difflib import get_close_matches


class GenzSizeError(Exception):
    """Base of every error a user of genz-size may meet."""


class UnitError(GenzSizeError, ValueError):
    """A text is not a quantity of the wanted unit."""


class ConfigError(GenzSizeError):
    """A Hugging Face config cannot be read as a model."""


class DeploymentError(GenzSizeError):
    """A deployment breaks a rule of its model or platform."""


class CatalogueError(GenzSizeError):
    """A catalogue item is unknown or malformed."""


class ProblemError(GenzSizeError):
    """A sizing problem is malformed or contradicts itself."""


class SolverError(GenzSizeError):
    """The solver was misused or broke a promise."""


def nearest(given: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """Return a hint that names the known words closest to the given one.

    Parameters
    ----------
    given
        What somebody wrote.
    known
        The words to choose from.
    also
        Further spellings, proposed where they are close but not listed otherwise.

    Returns
    -------
    str
        ``"; did you mean 'x' or 'y'?"`` or, when nothing is close, the first
        known words in order.
    """
    words = sorted(known)
    lower = {word.lower(): word for word in (*also, *words)}
    close = get_close_matches(given.lower(), lower, n=3, cutoff=0.5)
    if close:
        found = " or ".join(f"'{lower[word]}'" for word in close)
        return f"; did you mean {found}?"
    listed = ", ".join(words[:12]) + (", ..." if len(words) > 12 else "")
    return f"; known: {listed}"
