"""Seconds that a hundred scenarios take, and where they go.

Run: ``python tests/benchmarks/what_if.py [PROBLEM.toml]``; a minute. The chat
assistant of the examples (Llama-3.1-70B over the whole priced catalogue) at five rates,
five limits of TTFT and four prices of its NPU, each proved, verified and compared with
the base. First in one process, and where its seconds go; then in two.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from problems.problem import problem_of, read_toml
from problems.verify import violations
from sizing.scenarios import product
from sizing.solved import Answers
from sizing.what_if import WhatIf, reasons
from solver.certificate import decided
from solver.selection import select

EXAMPLE = Path(__file__).parents[2] / "problems" / "examples" / "chat.toml"

GRID = [
    ("rate", ["1x", "1.5x", "2x", "3x", "5x"]),
    ("ttft", ["0.3 s", "0.5 s", "1 s", "2 s", "4 s"]),
    ("price.b200-sxm", ["1x", "+20%", "+50%", "-20%"]),
]

PARTS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "candidates": (select, ("solver.solve",)),
    "proof": (decided, ("solver.outcome",)),
    "verification": (violations, ("solver.solve", "problems.standing")),
    "what became of the base": (reasons, ("sizing.what_if",)),
}
"""Functions that are timed, and where they are called from."""


@contextmanager
def timed(seconds: Counter[str], calls: Counter[str]) -> Iterator[None]:
    """Count the seconds and calls of the parts."""

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[name] += time.process_time() - start
                calls[name] += 1

        return run

    patches = [
        patch(f"{module}.{function.__name__}", wrapped(name, function))
        for name, (function, modules) in PARTS.items()
        for module in modules
    ]
    for each in patches:
        each.start()
    yield
    for each in patches:
        each.stop()


def main(path: Path) -> None:
    """Print what each part took."""
    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    problem = problem_of(read_toml(path), "file")
    wall, cpu = time.perf_counter(), time.process_time()
    scenarios = product(problem, GRID)
    with timed(seconds, calls):
        rows = list(WhatIf(problem, scenarios).rows())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    status = Counter(row.solved.status for row in rows)
    print(f"{len(rows) - 1} scenarios: {dict(status)}")  # noqa: T201
    print(f"{wall:.1f} s wall, {cpu:.1f} s CPU")  # noqa: T201
    for name, took in seconds.most_common():
        print(f"  {name:24} {took:6.2f} s CPU in {calls[name]} calls")  # noqa: T201
    wall = time.perf_counter()
    both = list(WhatIf(problem, scenarios, Answers(jobs=2)).rows())
    wall = time.perf_counter() - wall
    print(f"{wall:.1f} s wall in two processes, same rows: {both == rows}")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE)
