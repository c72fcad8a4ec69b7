"""Ctrl-C ends a search, and is not taken for an answer."""

import subprocess
import sys

_SEARCH = """
import signal, threading
from solver.search import _searched

# Where tests run in the background of a shell, its Ctrl-C is not for them.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Endless:
    def __init__(self):
        self.stopped, self.started = threading.Event(), threading.Event()

    def solve(self, _):
        self.started.set()
        assert self.stopped.wait(30)
        return 0

    def stop_search(self):
        self.stopped.set()

search = Endless()

def interrupt():
    assert search.started.wait(30)
    signal.raise_signal(signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    _searched(search, None)
except KeyboardInterrupt:
    print("stopped" if search.stopped.is_set() else "still searching")
"""
"""A signal may end a process that runs tests beside others: it has one of its own."""


def test_an_interrupt_stops_the_search_and_is_passed_on() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _SEARCH],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("stopped\n", "")
