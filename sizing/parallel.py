"""Many problems at once, each in one of several processes."""

import json
import math
import multiprocessing
import os
import queue
import signal
import threading
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from model_ops.errors import SolverError
from problems.problem import SizingProblem
from solver.model import SolveOptions

if TYPE_CHECKING:
    from sizing.solved import Figures, Solved

MOST_JOBS = 8
"""Processes that are started unasked."""

_WORTHWHILE = 6
"""Problems per process that pay for its start, and for making its own tables."""

_PATIENCE = 1.0
"""Seconds without an answer after which the processes are looked after."""

Asked: TypeAlias = Mapping[str, SizingProblem]


def usable_cpus() -> int:
    """Return the processors that this process may use, up to `MOST_JOBS`."""
    try:
        found = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        found = os.cpu_count() or 1
    return min(found, MOST_JOBS)


def processes_for(problems: int, jobs: int) -> int:
    """Return the processes that so many problems are worth."""
    return min(jobs, math.ceil(problems / _WORTHWHILE))


def in_parallel(
    asked: Asked, options: SolveOptions, jobs: int, figures: "Figures"
) -> Generator[tuple[str, "Solved"], None, None]:
    """Yield the answer to each problem as it is found, by its key.

    Raises
    ------
    GenzSizeError
        What a process met; or if one ended without a word.
    """
    context = multiprocessing.get_context("spawn")
    found: Any = context.Queue()
    workers = [
        context.Process(target=_work, args=(part, options, figures, found), daemon=True)
        for part in _parts(asked, jobs)
    ]
    try:
        with _undisturbed():
            for worker in workers:
                worker.start()
        for _ in asked:
            key, answer = _next(found, workers)
            if isinstance(answer, BaseException):
                raise answer
            yield key, answer
    finally:
        started = [worker for worker in workers if worker.pid is not None]
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.join()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let processes start to the end: a Ctrl-C is heard once all have.

    They themselves never hear it: who asks hears it and ends them.
    """
    with _held_back(), _deaf():
        yield


@contextmanager
def _held_back() -> Iterator[None]:
    """Keep a Ctrl-C until the end; another thread may be told of one that is masked."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that start here inherit that they hear no Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):  # not on every system
        yield
        return
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _next(found: Any, workers: list[Any]) -> Any:
    while True:
        try:
            return found.get(timeout=_PATIENCE)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise SolverError("a process that solves ended: memory?") from None


def _work(part: Asked, options: SolveOptions, figures: "Figures", found: Any) -> None:
    """Answer some problems one after the other, in a process of its own."""
    for key, problem in part.items():
        try:
            found.put((key, figures.solved(problem, options)))
        except Exception as error:
            found.put((key, error))


def _parts(asked: Asked, jobs: int) -> list[dict[str, SizingProblem]]:
    """Deal problems out, those that share what they need to know to one process.

    Problems with the same requests and targets share most; where there are fewer such
    groups than processes, those that ask for the same rates, too.
    """
    for without in ({"rate", "concurrency"}, set()):
        groups: dict[str, list[str]] = defaultdict(list)
        for key, problem in asked.items():
            groups[_alike(problem, without)].append(key)
        if len(groups) >= jobs:
            break
    else:
        groups = {key: [key] for key in asked}
    parts: list[dict[str, SizingProblem]] = [{} for _ in range(min(jobs, len(groups)))]
    for keys in sorted(groups.values(), key=len, reverse=True):
        least = min(parts, key=len)
        least.update({key: asked[key] for key in keys})
    return parts


def _alike(problem: SizingProblem, without: set[str]) -> str:
    classes = [
        traffic.model_dump(mode="json", exclude=without) for traffic in problem.traffic
    ]
    return json.dumps([problem.models, classes])
