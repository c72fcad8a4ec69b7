"""Inference optimisations as a problem states them."""

from typing import Any

import pytest

from model_ops.errors import DeploymentError, GenzSizeError, ProblemError
from model_ops.opcost import RESIDENT, Placement
from model_ops.profiler.expert_load import BALANCED, ExpertLoad
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Lora
from problems import catalogue
from problems.optimisations import Optimisations, optimisations_of
from problems.problem import problem_of

GUESS = {"guessed": 3, "acceptance": 0.7}


def used(name: str, **tables: Any) -> dict[str, Any]:
    arch = catalogue.load_model(name)
    return optimisations_of(tables).features(arch, arch.precision)


# ---- what they say to the model ----


def test_nothing_is_used_unless_it_is_given() -> None:
    features = used("llama-3-8b")
    assert features["speculation"] is None
    assert features["lora"] is None
    assert features["experts"] is BALANCED
    assert features["placement"] is RESIDENT
    assert optimisations_of({}).text == ""


def test_each_table_sets_its_feature() -> None:
    features = used(
        "mixtral-8x7b",
        lora={"rank": 16, "adapters": 4},
        experts={"alpha": 0.5, "redundant": 2},
        offload={"weights": 0.25},
        speculation={"drafter": "ngram", **GUESS},
    )
    assert features["lora"] == Lora(16, 4)
    assert features["experts"] == ExpertLoad(0.5, 2)
    assert features["placement"] == Placement(0.25, 0.0)
    guess = features["speculation"]
    assert (guess.guessed, guess.acceptance, guess.drafter) == (3, 0.7, None)
    assert guess.tokens_per_step == pytest.approx((1 - 0.7**4) / 0.3)


def test_drafters() -> None:
    def drafter(model: str, name: str) -> Any:
        return used(model, speculation={"drafter": name, **GUESS})["speculation"]

    deepseek = catalogue.load_model("deepseek-v3")
    mtp = drafter("deepseek-v3", "mtp")
    assert mtp.drafter.layers == deepseek.predictors
    assert mtp.drafter.shares_embedding
    assert mtp.precision == deepseek.precision
    eagle = drafter("llama-3-70b", "eagle").drafter
    assert eagle.layers == catalogue.load_model("llama-3-70b").layers[-1:]
    small = drafter("llama-3-70b", "llama-3.2-1b")
    assert small.drafter == catalogue.load_model("llama-3.2-1b")
    assert small.precision == small.drafter.precision
    assert not small.drafter.shares_embedding


def test_text_names_what_is_used() -> None:
    text = optimisations_of(
        {
            "lora": {"rank": 16, "adapters": 4},
            "experts": {"alpha": 0.5, "redundant": 2},
            "offload": {"cache": 0.25},
            "speculation": {"drafter": "eagle", **GUESS},
        }
    ).text
    for part in ("eagle", "3 tokens", "70%", "4 LoRA adapters of rank 16"):
        assert part in text
    for part in ("i^-0.5", "2 redundant experts", "25% of the KV cache offloaded"):
        assert part in text


# ---- bad input ----

BAD: list[tuple[dict[str, Any], str]] = [
    ({"speculation": {"drafter": "ngram"}}, "speculation.guessed: required"),
    ({"speculation": GUESS}, "speculation.drafter: required"),
    ({"speculation": {"drafter": "", **GUESS}}, "speculation.drafter"),
    (
        {"speculation": {"drafter": "ngram", "guessed": 0, "acceptance": 1}},
        "speculation.guessed: must be at least 1",
    ),
    (
        {"speculation": {"drafter": "ngram", "guessed": 65, "acceptance": 1}},
        "speculation.guessed: must be at most 64",
    ),
    *(
        (
            {"speculation": {"drafter": "ngram", "guessed": 1, "acceptance": share}},
            "speculation.acceptance",
        )
        for share in (-0.1, 1.1, float("nan"), float("inf"), "often", None)
    ),
    ({"lora": {"adapters": 2}}, "lora.rank: required"),
    ({"lora": {"rank": 0}}, "lora.rank: must be at least 1"),
    ({"lora": {"rank": 8, "adapters": 0}}, "lora.adapters: must be at least 1"),
    ({"lora": {"rank": 2.5}}, "lora.rank"),
    ({"experts": {"alpha": -1}}, "experts.alpha: must be at least 0"),
    ({"experts": {"alpha": 6}}, "experts.alpha: must be at most 5"),
    ({"experts": {"redundant": 3}}, "experts.redundant has no use where alpha is 0"),
    ({"experts": {"alpha": 1, "redundant": -1}}, "experts.redundant"),
    ({"offload": {"weights": 1.01}}, "offload.weights: must be at most 1"),
    ({"offload": {"cache": -0.5}}, "offload.cache: must be at least 0"),
    ({"offload": {"kv": 0.5}}, "kv"),
    ({"quantum": {}}, "quantum"),
    ({"lora": 8}, "lora"),
    ({"lora": [8]}, "lora"),
]


@pytest.mark.parametrize(("tables", "said"), BAD)
def test_bad_tables_are_named(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(ProblemError) as error:
        optimisations_of(tables)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "tables", "said"),
    [
        ("llama-3-8b", {"experts": {"alpha": 1}}, "experts.alpha: llama-3-8b has no"),
        (
            "llama-3-8b",
            {"speculation": {"drafter": "mtp", **GUESS}},
            "speculation.drafter: llama-3-8b has no multi-token prediction",
        ),
        (
            "llama-3-8b",
            {"speculation": {"drafter": "ngrams", **GUESS}},
            "unknown drafter 'ngrams'; did you mean 'ngram'?",
        ),
        (
            "llama-3-8b",
            {"speculation": {"drafter": "llama-3.2-1c", **GUESS}},
            "unknown drafter 'llama-3.2-1c'; did you mean 'llama-3.2-1b'",
        ),
        (
            "llama-3-8b",
            {"speculation": {"drafter": "no/such/config.json", **GUESS}},
            "speculation.drafter: model: there is no file no/such/config.json",
        ),
    ],
)
def test_what_the_model_lacks(model: str, tables: dict[str, Any], said: str) -> None:
    with pytest.raises(ProblemError) as error:
        used(model, **tables)
    assert said in str(error.value)


def test_a_problem_says_so_before_it_is_solved(stated: Any) -> None:
    with pytest.raises(GenzSizeError, match=r"experts\.alpha"):
        problem_of(stated(optimisations={"experts": {"alpha": 1}}), "file")
    guess = {"speculation": {"drafter": "ngram", **GUESS}}
    traffic = {**stated()["traffic"][0], "beams": 4}
    with pytest.raises(GenzSizeError, match="beams"):
        problem_of(stated(optimisations=guess, traffic=[traffic]), "file")
    assert problem_of(stated(optimisations=guess), "file").optimisations.speculation


# ---- splits ----


def test_the_drafter_must_be_split_too() -> None:
    arch = catalogue.load_model("llama-3-70b")
    # 64 heads over 64 ranks, but the drafter has 32.
    split = Parallelism(64)
    assert Optimisations().rule_broken_by(arch, split) is None
    guess = {"drafter": "llama-3.2-1b", **GUESS}
    found = optimisations_of({"speculation": guess})
    assert "drafter llama-3.2-1b: tp 64" in (found.rule_broken_by(arch, split) or "")
    with pytest.raises(DeploymentError, match="llama-3-70b: drafter llama"):
        found.check(arch, split)
    assert found.rule_broken_by(arch, Parallelism(8)) is None
    # Stages are the model's alone.
    assert found.rule_broken_by(arch, Parallelism(8, 40)) is None


def test_a_dense_drafter_beside_experts() -> None:
    arch = catalogue.load_model("mixtral-8x7b")
    guess = {"drafter": "llama-3.2-1b", **GUESS}
    found = optimisations_of({"speculation": guess})
    assert found.rule_broken_by(arch, Parallelism(2, ep=4, dp=2)) is None
    broken = found.rule_broken_by(arch, Parallelism(2, ep=3))
    assert broken == "ep 3 does not divide the 2 ranks that share a layer"
