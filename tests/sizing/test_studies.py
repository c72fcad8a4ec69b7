"""The use cases of the GenZ paper: solved, verified, and in the paper's direction."""

import csv
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from model_ops.profiler.parallelism import Parallelism
from problems import catalogue
from problems.changes import Change, changed
from problems.examples import example_path, example_text
from problems.problem import SizingProblem, problem_of, read_toml
from problems.verify import violations
from sizing.solved import Answers, Solved
from solver.solve import Optimal, Workspace

PAPER = Path(__file__).parents[1] / "reference" / "genz_paper_requirements.csv"
CASES = {
    "question-answering": "QA",
    "chat": "Chat Bots",
    "rag": "QA + RAG",
    "summarization": "Summarization",
    "code-generation": "Code Generation",
}
EXPERTS = Change("model", "mixtral-8x7b")
IDLE = (Change("rate", "0.01x"), Change("hardware.npus", "b200-sxm,gh200-96gb"))

Answer = Callable[..., tuple[SizingProblem, Solved]]


@pytest.fixture(scope="module")
def answer() -> Answer:
    answers = Answers()

    def found(case: str, *changes: Change) -> tuple[SizingProblem, Solved]:
        base = problem_of(read_toml(example_path(f"use-case-{case}")), "file")
        problem = changed(base, changes)
        return problem, answers.of(problem)

    return found


def cost(solved: Solved) -> float:
    assert solved.value is not None
    return solved.value


@pytest.mark.parametrize("case", CASES)
def test_the_problem_states_the_papers_use_case(case: str) -> None:
    (traffic,) = tomllib.loads(example_text(f"use-case-{case}"))["traffic"]
    known = catalogue.use_case_file(case)
    assert traffic["input_tokens"] == known.input_tokens
    assert traffic["output_tokens"] == known.output_tokens
    assert traffic["beams"] == known.beams
    problem = problem_of(read_toml(example_path(f"use-case-{case}")), "file")
    limits = {t.metric: t.at_most for t in problem.traffic[0].targets}
    assert limits == {"ttft": known.ttft, "tpot": known.tpot}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_experts_are_solved_too_and_cost_less(answer: Answer, case: str) -> None:
    problem, found = answer(case, EXPERTS)
    assert found.status == "optimal"
    assert found.plan is not None
    assert violations(problem, found.plan) == []
    _, dense = answer(case)
    assert cost(found) < cost(dense)


def test_one_request_costs_in_the_order_of_the_papers_requirements(
    answer: Answer,
) -> None:
    """What asks for no more FLOP/s and no more bandwidth never costs more."""
    with PAPER.open(encoding="utf-8") as file:
        rows = {
            row["Usecase"]: (
                float(row["prefill_PFLOPS"]),
                float(row["decode_membw_TBps"]),
            )
            for row in csv.DictReader(file)
            if row["Model"] == "LLaMA3-70B"
        }
    asked = {case: rows[name] for case, name in CASES.items()}
    costs = {case: cost(answer(case, *IDLE)[1]) for case in CASES}
    for case, (flop, bandwidth) in asked.items():
        for other, (more, wider) in asked.items():
            if flop <= more and bandwidth <= wider:
                assert costs[case] <= costs[other], (case, other)
    assert costs["rag"] == max(costs.values())
    assert costs["question-answering"] > costs["summarization"]


def test_sram_chips_serve_in_hundreds() -> None:
    # 230 MB a chip hold weights of 159 MB and steps of 512 tokens, not of 2,048.
    stated = read_toml(example_path("platforms")) | {"framework": "groqware"}
    stated["hardware"] = {"npus": ["groq-lpu-v1"]}
    problem = problem_of(stated, "file")
    outcome = Workspace.of(problem).solve()
    assert isinstance(outcome, Optimal)
    (row,) = outcome.plan.deployments
    assert (row.npus, row.parallelism) == (256, Parallelism(8, 32))
    assert row.chunk_tokens == 512
    assert violations(problem, outcome.plan) == []
