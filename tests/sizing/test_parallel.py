"""Several processes find what one finds, and say what one would say."""

import os
import signal
import threading
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

from model_ops.errors import ProblemError
from problems.changes import Change, changed
from problems.problem import SizingProblem, problem_of
from sizing.journal import Journal
from sizing.parallel import _parts, in_parallel, processes_for
from sizing.scenarios import product
from sizing.solved import Answers, Modelled, Solved
from solver.model import SolveOptions


def small(**changes: Any) -> SizingProblem:
    traffic = {
        "input_tokens": 1000,
        "output_tokens": 200,
        "rate": 5.0,
        "targets": [{"metric": "tpot", "at_most": 0.05}],
    }
    data = {
        "model": "llama-3.1-8b",
        "traffic": [traffic],
        "hardware": {"npus": ["l40s"]},
        "chunk_tokens": 2048,
        "max_num_seqs": 256,
    }
    return problem_of(data | changes, "python")


def asked(*axes: tuple[str, list[str]]) -> dict[str, SizingProblem]:
    return {each.name: each.problem for each in product(small(), axes)}


def test_processes_pay_for_their_start() -> None:
    assert [processes_for(n, 4) for n in (0, 1, 6, 7, 18, 19, 1000)] == [
        *(0, 1, 1, 2, 3, 4, 4),
    ]


def test_problems_that_share_targets_are_dealt_to_one_process() -> None:
    every = asked(("tpot", ["40 ms", "50 ms", "60 ms"]), ("rate", ["1x", "2x"]))
    first, second = _parts(every, 2)
    assert first | second == every
    assert {len(first), len(second)} == {2, 4}
    for part in (first, second):
        targets = {problem.traffic[0].targets for problem in part.values()}
        assert len(targets) == len(part) / 2


def test_fewer_targets_than_processes_are_dealt_by_rate_and_then_one_by_one() -> None:
    rates = _parts(asked(("rate", ["1x", "2x"]), ("price", ["1x", "2x"])), 2)
    assert [len({p.traffic[0].rate for p in part.values()}) for part in rates] == [1, 1]
    prices = _parts(asked(("price", ["1x", "2x", "3x"])), 2)
    assert sorted(map(len, prices)) == [1, 2]


@pytest.mark.slow
def test_many_processes_find_what_one_finds(tmp_path: Path) -> None:
    every = asked(("tpot", ["40 ms", "50 ms", "1 us"]), ("rate", ["1x", "9x", "7x"]))
    alone = list(Answers().each(every.values()))
    path = tmp_path / "kept.jsonl"
    together = Answers(journal=Journal.at(path), jobs=2).each(every.values())
    assert list(together) == alone
    # All was kept as it came, and nobody is asked again.
    again = Answers(journal=Journal.at(path), jobs=2).each(every.values())
    assert list(again) == alone


def test_what_goes_wrong_in_a_process_is_said_here() -> None:
    unpriced = changed(small(), [Change("prices.providers", "nobody")])
    with pytest.raises(ProblemError, match="there is no provider 'nobody'"):
        list(in_parallel({"a": unpriced}, SolveOptions(), 1, Modelled()))


def test_answers_come_in_the_order_of_the_questions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reversed_(every: dict[str, SizingProblem], *_: Any) -> Any:
        for key in reversed(every):
            yield key, Solved(status="optimal", value=every[key].traffic[0].rate)

    monkeypatch.setattr("sizing.solved.in_parallel", reversed_)
    rates = [f"{n} req/s" for n in range(1, 10)]
    problems = [*asked(("rate", rates)).values()]
    found = Answers(jobs=2).each([*problems, problems[0]])
    assert [answer.value for answer in found] == [*range(1, 10), 1]


def test_an_interrupt_while_processes_start_ends_them_all(
    monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    real, started = SpawnProcess.start, []

    def interrupted(process: SpawnProcess) -> None:
        if not started:
            # Another thread hears what this one has masked, as those of solvers do.
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        real(process)
        started.append(process)

    monkeypatch.setattr(SpawnProcess, "start", interrupted)
    ended = threading.Event()
    threading.Thread(target=ended.wait).start()
    every = asked(("rate", ["1x", "2x"]))
    try:
        with pytest.raises(KeyboardInterrupt):
            next(in_parallel(every, SolveOptions(), 2, Modelled()))
    finally:
        ended.set()
    assert [process.exitcode for process in started] == [-signal.SIGTERM] * 2
