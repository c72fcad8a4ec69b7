"""The tables of docs/studies.md: the use cases of the GenZ paper, sized.

Run: ``python tests/benchmarks/studies.py``; half a minute. Each use case on a dense
model and on a mixture of experts, at one request per second and for one request now
and then; beside what the paper's authors ask of a platform.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from problems.changes import Change, changed
from problems.examples import example_path
from problems.problem import problem_of, read_toml
from sizing.report.solved import replicas_line
from sizing.solved import Answers

PAPER = Path(__file__).parents[1] / "reference" / "genz_paper_requirements.csv"

CASES = {
    "question-answering": "QA",
    "chat": "Chat Bots",
    "rag": "QA + RAG",
    "summarization": "Summarization",
    "code-generation": "Code Generation",
}
"""Our use cases, by the names of theirs."""

MODELS = {"llama-3.1-70b": "LLaMA3-70B", "mixtral-8x7b": "Mixtral-8x7B"}
RATES = ("0.01x", "1x")

MIB_OVER_MB = 1.048576
"""Their TB/s in units of 1e12 bytes a second."""


def rows() -> Iterator[list[str]]:
    """Yield a row per model and use case: theirs, then our plan at each rate."""
    with PAPER.open(encoding="utf-8") as file:
        theirs = {(row["Usecase"], row["Model"]): row for row in csv.DictReader(file)}
    answers = Answers()
    for model, name in MODELS.items():
        for case, called in CASES.items():
            base = problem_of(read_toml(example_path(f"use-case-{case}")), "file")
            paper = theirs[called, name]
            row = [
                model,
                case,
                f"{float(paper['prefill_PFLOPS']):.2f}",
                f"{float(paper['decode_membw_TBps']) * MIB_OVER_MB:.2f}",
            ]
            for rate in RATES:
                changes = [Change("model", model), Change("rate", rate)]
                found = answers.of(changed(base, changes))
                if found.plan is None:
                    row += ["", found.clash]
                else:
                    cost = f"{found.plan.usd_per_hour:.2f}"
                    row += [cost, replicas_line(found.plan)]
            yield row


def main() -> None:
    """Print the table as Markdown."""
    head = ["model", "use case", "PFLOP/s", "TB/s"]
    head += ["USD/h, idle", "plan", "USD/h, 1 req/s", "plan"]
    print("| " + " | ".join(head) + " |")  # noqa: T201
    print("|" + "---|" * len(head))  # noqa: T201
    for row in rows():
        print("| " + " | ".join(row) + " |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
