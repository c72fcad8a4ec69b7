"""genz-size: the cheapest hardware that serves a language model, with a proof.

The public functions are imported when they are first used, so that the command
line starts fast.
"""

from typing import TYPE_CHECKING, Any

from sizing._siblings import check_siblings

if TYPE_CHECKING:
    from sizing.api import Answer, size

__all__ = ["Answer", "size"]

check_siblings()


def __getattr__(name: str) -> Any:
    if name in __all__:
        from sizing import api

        return getattr(api, name)
    raise AttributeError(f"module 'sizing' has no attribute '{name}'")
