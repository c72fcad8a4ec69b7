"""Seconds that a sizing question takes, stage by stage.

Run: ``python tests/benchmarks/size_seconds.py [--pairs] [MODEL]...``; two minutes.
``--pairs`` lets plans have prefill and decode pools. Each model
is sized over the whole priced catalogue for 200 requests per second of 1,024 tokens in
and 256 out, with a p99 of TTFT and a p95 of TPOT. Wall and CPU seconds of this process,
and the work behind them: rates that were evaluated. What ``--explain`` asks besides
comes last.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from model_ops.serving import queueing
from problems.offers import offers
from problems.plan import Plan
from problems.problem import SizingProblem, problem_of
from problems.verify import violations
from solver.alternatives import runners_up
from solver.margins import margins
from solver.model import SolveOptions
from solver.solve import Feasible, Optimal, Workspace

MODELS = ("llama-3.1-70b", "deepseek-v3")


def question(model: str, *, pairs: bool = False) -> SizingProblem:
    """Return the problem that is sized."""
    targets = [
        {"metric": "ttft", "statistic": "p99", "at_most": 2.0},
        {"metric": "tpot", "statistic": "p95", "at_most": 0.05},
    ]
    traffic = {"input_tokens": 1024, "output_tokens": 256, "rate": 200.0}
    return problem_of(
        {
            "model": model,
            "traffic": [traffic | {"targets": targets}],
            "modes": ["aggregated", *(["disaggregated"] if pairs else [])],
        },
        "python",
    )


class Stages:
    """What each stage took."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float]] = []

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time what runs within."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.rows.append((name, wall, cpu))


class Counted:
    """Counts the rates at which the laws of latencies are evaluated."""

    def __init__(self) -> None:
        self.evaluated = 0
        self._mix = queueing.step_mix

    def __enter__(self) -> "Counted":
        def counted(*arguments):  # type: ignore[no-untyped-def]
            self.evaluated += np.size(arguments[2])
            return self._mix(*arguments)

        queueing.step_mix = counted
        return self

    def __exit__(self, *_: object) -> None:
        queueing.step_mix = self._mix


def sized(model: str, *, pairs: bool) -> None:
    """Print the stages of a model's question."""
    stages = Stages()
    with Counted() as counted:
        with stages.timed("offers"):
            problem = question(model, pairs=pairs)
            offers(problem)
        with stages.timed("table"):
            workspace = Workspace.of(problem)
        with stages.timed("candidates"):
            instance = workspace.instance(problem)
        with stages.timed("solve"):
            outcome = workspace.solve_instance(problem, instance, SolveOptions())
        assert isinstance(outcome, Optimal | Feasible)
        with stages.timed("verify"):
            wrong = violations(problem, outcome.plan)
        evaluated = counted.evaluated
        with stages.timed("runners-up"):
            near = [r.npu for r in runners_up(workspace, outcome.plan, SolveOptions())]
        for name, deep in (("margins", False), ("--explain", True)):
            with stages.timed(name):
                margins(workspace, outcome.plan, near, SolveOptions(), deep=deep)
    options = sum(table.options for table in workspace.tables)
    settings = len(workspace.tables[0].settings)
    _print(f"{model}: {_text(outcome.plan)}; {len(wrong)} violations")
    _print(
        f"{options:,} deployments at {settings} settings, {evaluated:,} rates "
        f"evaluated, {len(instance.candidates)} candidates"
    )
    for name, wall, cpu in (*stages.rows, _sum(stages.rows)):
        _print(f"  {name:<11}{wall:7.2f} s wall {cpu:7.2f} s CPU")


def _sum(rows: list[tuple[str, float, float]]) -> tuple[str, float, float]:
    return "together", sum(row[1] for row in rows), sum(row[2] for row in rows)


def _text(plan: Plan) -> str:
    parts = [f"{d.replicas} x {d.npu} {d.parallelism.text}" for d in plan.deployments]
    return f"{' and '.join(parts)} for {plan.usd_per_hour:,.2f} USD/h"


def _print(text: str) -> None:
    print(text)  # noqa: T201


if __name__ == "__main__":
    asked = [argument for argument in sys.argv[1:] if argument != "--pairs"]
    for named in asked or MODELS:
        sized(named, pairs="--pairs" in sys.argv)
