"""CPU seconds to prove a design as its ladders grow, by bounds, CP-SAT, enumeration.

    python tests/benchmarks/design.py [--model NAME] [--levels N]... [--limit SECONDS]

One use case (2,000 tokens in, 250 out, 50 req/s, TTFT 500 ms, TPOT 30 ms) at one chunk
and the six figures of a datasheet, with CP-SAT alone besides; then all chunks, nine
figures, all ten with on-chip memory, and five use cases at once. Enumeration evaluates
a sample of platforms with all shapes and says how long all of them would take.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from problems.design.parameters import PARAMETERS
from problems.design.statement import DesignProblem, design_problem_of
from solver.design.solve import (
    DesignFeasible,
    DesignOptimal,
    DesignWorkspace,
)
from solver.options import SolveOptions

ONE_CHUNK = "six figures, one chunk"
"""Problems of few enough shapes for CP-SAT to be asked without bounds."""

SAMPLE = 200
"""Platforms that enumeration is timed on."""

PAPER = (
    ("question-answering", 1000, 200, 0.2, 0.01, 20.0),
    ("chat", 3000, 1000, 0.2, 0.01, 20.0),
    ("rag", 10000, 200, 0.4, 0.01, 10.0),
    ("summarization", 15000, 1000, 2.0, 0.02, 5.0),
    ("code-generation", 20000, 50, 5.0, 0.02, 5.0),
)
"""Use cases of arXiv:2406.01698, one beam, with rates of our own."""


def _case(model: str, *figures: Any) -> dict[str, Any]:
    name, prompt, answer, ttft, tpot, rate = figures
    return {
        "name": name,
        "model": model,
        "input_tokens": prompt,
        "output_tokens": answer,
        "ttft": ttft,
        "tpot": tpot,
        "rate": rate,
    }


def _problems(model: str, levels: list[int]) -> Iterator[tuple[str, DesignProblem]]:
    chat = _case(model, "chat", 2000, 250, 0.5, 0.03, 50.0)
    one = chat | {"chunk_tokens": [8192]}
    for count in levels:
        yield f"{ONE_CHUNK}, {count} levels", _problem([one], count)
    five = [_case(model, *figures) for figures in PAPER]
    ten = {name: dict[str, Any]() for name in PARAMETERS}
    nine = {name: ladder for name, ladder in ten.items() if name != "on_chip_memory"}
    most = max(levels)
    yield f"six figures, {most} levels", _problem([chat], most)
    yield f"nine figures, {most} levels", _problem([chat], most, platform=nine)
    yield f"ten figures, {most} levels", _problem([chat], most, platform=ten)
    yield f"five use cases, {most} levels", _problem(five, most)
    yield "nine figures, five use cases", _problem(five, most, platform=nine)
    yield "ten figures, five use cases", _problem(five, most, platform=ten)


def _problem(cases: list[dict[str, Any]], levels: int, **more: Any) -> DesignProblem:
    stated = {"use_case": cases, "levels": levels} | more
    return design_problem_of(stated, "python")


def _solved(problem: DesignProblem, options: SolveOptions, *, presolve: bool) -> str:
    started = time.process_time()
    outcome = DesignWorkspace(problem).solve(options, presolve=presolve)
    seconds = time.process_time() - started
    certificate = outcome.certificate
    if isinstance(outcome, DesignOptimal):
        return f"{seconds:7.2f} s  proved {outcome.design.value(problem):.4g}"
    if isinstance(outcome, DesignFeasible):
        return f"{seconds:7.2f} s  gap {certificate.gap or 0.0:.1%}"
    return f"{seconds:7.2f} s  {type(outcome).__name__}"


def _enumeration(problem: DesignProblem) -> str:
    """Return what numpy would take for every platform and shape, from a sample."""
    workspace = DesignWorkspace(problem)
    space, evaluator = workspace.space, workspace.evaluator
    rng, figures = np.random.default_rng(0), len(space.sizes)
    levels = rng.integers(space.sizes, size=(SAMPLE, figures))
    started = time.process_time()
    for group, forms in enumerate(workspace.forms):
        which = np.tile(np.arange(forms.shapes), SAMPLE)
        evaluator.npus(group, np.repeat(levels, forms.shapes, axis=0), which)
    each = (time.process_time() - started) / SAMPLE
    return f"{each * problem.ladders.points:9.2g} s"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3-70b")
    parser.add_argument("--levels", type=int, action="append")
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    for label, problem in _problems(given.model, given.levels or [12, 24, 48, 96]):
        options = SolveOptions(time_limit=given.limit, workers=given.workers)
        both = _solved(problem, options, presolve=True)
        few = label.startswith(ONE_CHUNK)
        alone = _solved(problem, options, presolve=False) if few else "-"
        print(  # noqa: T201
            f"{label:28} {problem.ladders.points:8.1e} platforms | bounds and CP-SAT "
            f"{both} | CP-SAT alone {alone} | enumeration {_enumeration(problem)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
