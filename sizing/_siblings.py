"""Refuse to run beside a foreign package of the same name as one of ours.

`solver`, `problems` and `model_ops` are top-level packages; another distribution
or a file in the working folder may carry the same name and shadow ours.
"""

from importlib.util import find_spec
from pathlib import Path

_OURS = {"solver": "candidates.py", "problems": "verify.py", "model_ops": "opcost.py"}


def check_siblings() -> None:
    """Raise `ImportError` naming the package, and where the foreign one lies."""
    for name, mark in _OURS.items():
        spec = find_spec(name)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not any((Path(folder) / mark).is_file() for folder in folders):
            found = spec.origin if spec else "nowhere"
            raise ImportError(
                f"genz-size needs its own package '{name}', but Python finds {found}; "
                "install genz-size in an environment of its own"
            )
