"""Ctrl-C ends a search, and is not taken for an answer."""

import signal
import threading
from typing import Any

import pytest

from solver.search import _searched


class Endless:
    """A search that goes on until it is stopped."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.started = threading.Event()

    def solve(self, _: Any) -> int:
        self.started.set()
        assert self.stopped.wait(30)
        return 0

    def stop_search(self) -> None:
        self.stopped.set()


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(),
    reason="signals reach the main thread alone",
)
def test_an_interrupt_stops_the_search_and_is_passed_on() -> None:
    search: Any = Endless()

    def interrupt() -> None:
        assert search.started.wait(30)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        _searched(search, None)  # type: ignore[arg-type]
    assert search.stopped.is_set()
