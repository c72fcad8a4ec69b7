"""The use cases of the catalogue."""

from typing import Any

import pytest
from pydantic import ValidationError

from model_ops.errors import CatalogueError
from problems import catalogue
from problems.catalogue.schema import UseCaseFile

# arXiv:2406.01698: tokens in and out, beams, TTFT and TPOT in seconds.
PAPER = {
    "question-answering": (1000, 200, 4, 0.2, 0.01),
    "chat": (3000, 1000, 2, 0.2, 0.01),
    "rag": (10000, 200, 4, 0.4, 0.01),
    "summarization": (15000, 1000, 4, 2.0, 0.02),
    "code-generation": (20000, 50, 4, 5.0, 0.02),
}
GOOD: dict[str, Any] = {
    "title": "Mine",
    "as_of": "2026-01-01",
    "sources": ["somebody"],
    "input_tokens": 10,
    "output_tokens": 5,
    "tpot": "10 ms",
}


@pytest.mark.parametrize("name", PAPER)
def test_figures_of_the_paper(name: str) -> None:
    file = catalogue.use_case_file(name)
    found = (file.input_tokens, file.output_tokens, file.beams, file.ttft, file.tpot)
    assert found == PAPER[name]


def test_extreme_scale_assistant() -> None:
    file = catalogue.use_case_file("extreme-scale-assistant")
    assert file.input_tokens + file.output_tokens == 2_000_000
    assert (file.beams, file.ttft, file.tpot) == (4, None, 1 / 5)


@pytest.mark.parametrize("alias", ["QA", " qa + rag ", "Summarisation"])
def test_aliases(alias: str) -> None:
    assert catalogue.use_case_file(alias).title


def test_unknown_use_case_names_the_nearest() -> None:
    with pytest.raises(CatalogueError, match=r"unknown use case 'summary'.*summari"):
        catalogue.use_case_file("summary")


def test_beams_default_to_one_and_a_target_may_be_absent() -> None:
    file = UseCaseFile.model_validate(GOOD, context={"source": "file"})
    assert (file.beams, file.ttft, file.tpot) == (1, None, 0.01)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"tpot": None}, "ttft, tpot or both"),
        ({"tpot": 10}, "unit"),
        ({"tpot": "0 ms"}, "tpot"),
        ({"input_tokens": 0}, "input_tokens"),
        ({"output_tokens": -1}, "output_tokens"),
        ({"beams": 65}, "beams"),
        ({"sources": []}, "sources"),
        ({"batch": 2}, "batch"),
    ],
)
def test_bad_file_is_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        UseCaseFile.model_validate(GOOD | change, context={"source": "file"})
