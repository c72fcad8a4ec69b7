"""Silence for libraries that print on the standard output, whatever they are told."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

_STDOUT = 1
_lock = Lock()
_kept: list[int] = []
_users = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what is written to the process's standard output meanwhile.

    Also by other threads, of which several may be here: nothing of ours prints while
    it solves.
    """
    _change(+1)
    try:
        yield
    finally:
        _change(-1)


def _change(by: int) -> None:
    """Let the first one that comes close the output, and the last one open it."""
    global _users
    with _lock:
        # What C still holds back would come out on the wrong side.
        _flush()
        if by > 0 and not _users:
            _kept.append(os.dup(_STDOUT))
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, _STDOUT)
            os.close(nowhere)
        _users += by
        if not _users:
            kept = _kept.pop()
            os.dup2(kept, _STDOUT)
            os.close(kept)


def _flush() -> None:
    with suppress(ValueError, AttributeError):
        sys.stdout.flush()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)
