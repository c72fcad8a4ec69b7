"""Options of `estimate` and `size` that split further, or optimise inference."""

from collections.abc import Callable
from typing import Any

import pytest

Genz = Callable[..., Any]

LOAD = ("--input-tokens", "1000", "--output-tokens", "200", "--concurrency", "16")
DENSE = ("estimate", "--model", "llama-3.1-8b", "--npu", "h100-sxm", *LOAD)
EXPERTS = ("estimate", "--model", "mixtral-8x7b", "--npu", "h200-sxm", *LOAD)
LATENT = ("estimate", "--model", "deepseek-v3", "--npu", "h200-sxm", *LOAD)
SIZE = (
    *("size", "--model", "llama-3.1-8b", "--npu", "h100-sxm"),
    *("--input-tokens", "1000", "--output-tokens", "200", "--rate", "2 req/s"),
)
NGRAM = ("--speculate", "ngram", "--guessed", "3", "--acceptance", "0.7")


def answered(genz: Genz, *options: object) -> Any:
    ran = genz(*options, "--format", "json")
    assert (ran.err, ran.code) == ("", 0)
    return ran.json


def mean(answer: Any, metric: str) -> float:
    return float(answer[f"{metric}_s"]["mean"])


# ---- what an estimate says ----


@pytest.mark.parametrize(
    "options",
    [
        (*EXPERTS, "--tp", 4, "--ep", 4),
        (*EXPERTS, "--dp", 4, "--ep", 4),
        (*EXPERTS, "--tp", 2, "--dp", 2, "--ep", 2, "--cp", 2, "--pp", 2),
        (*LATENT, "--dp", 8, "--ep", 8, "--speculate", "mtp", *NGRAM[2:]),
        (*DENSE, "--cp", 2),
        (*DENSE, *NGRAM),
        (*DENSE, "--speculate", "eagle", *NGRAM[2:]),
        (*DENSE, "--speculate", "llama-3.2-1b", *NGRAM[2:]),
        (*DENSE, "--prefix-hit", 0.5),
        (*DENSE, "--beams", 4),
        (*DENSE, "--lora-rank", 16, "--lora-adapters", 8),
        (*EXPERTS, "--tp", 4, "--ep", 4, "--expert-alpha", 0.5),
        (*DENSE, "--offload-weights", 0.2, "--offload-cache", 0.1),
    ],
)
def test_options_are_taken(genz: Genz, options: tuple[object, ...]) -> None:
    answer = answered(genz, *options)
    for metric in ("ttft", "tpot", "e2e"):
        assert 0 < mean(answer, metric) < 1e4
    assert answer["peak_memory_bytes"]["total"] <= answer["peak_memory_bytes"]["usable"]


def test_the_title_names_what_is_used(genz: Genz) -> None:
    ran = genz(
        *(*EXPERTS, "--tp", 2, "--dp", 2, "--ep", 4, *NGRAM, "--prefix-hit", 0.25),
        *("--lora-rank", 16, "--expert-alpha", 0.5, "--redundant-experts", 4),
        *("--offload-weights", 0.1),
    )
    text = " ".join(ran.out.split())
    for part in (
        "tp=2 pp=1 ep=4 dp=2",
        "speculation by ngram, 3 tokens, 70% accepted",
        "1 LoRA adapters of rank 16",
        "i^-0.5, 4 redundant experts",
        "10% of the weights offloaded",
        "250 prompt tokens cached",
    ):
        assert part in text
    assert "4 beams" in genz(*DENSE, "--beams", 4).out


def test_none_of_them_is_plain(genz: Genz) -> None:
    plain = answered(genz, *DENSE)
    neutral = answered(
        genz,
        *(*DENSE, "--cp", 1, "--prefix-hit", 0, "--beams", 1),
        *("--offload-weights", 0, "--offload-cache", 0, "--expert-alpha", 0),
    )
    assert neutral == plain


def test_each_does_what_it_is_for(genz: Genz) -> None:
    plain = answered(genz, *DENSE)
    assert mean(answered(genz, *DENSE, "--prefix-hit", 0.9), "ttft") < mean(
        plain, "ttft"
    )
    assert mean(answered(genz, *DENSE, *NGRAM), "tpot") < mean(plain, "tpot")
    assert mean(answered(genz, *DENSE, "--beams", 4), "tpot") > mean(plain, "tpot")
    adapted = answered(genz, *DENSE, "--lora-rank", 64, "--lora-adapters", 20)
    away = answered(genz, *DENSE, "--offload-weights", 0.5)
    weights = [a["peak_memory_bytes"]["weights"] for a in (adapted, plain, away)]
    assert weights == sorted(weights, reverse=True)
    assert weights[2] == pytest.approx(weights[1] / 2)
    # 32 layers: q, k, v and o of 4096 x (6144 + 4096), gate, up, down of 14336.
    widths = (4096 + 6144) + (4096 + 4096) + (4096 + 28_672) + (14_336 + 4096)
    assert weights[0] - weights[1] == 20 * 64 * 32 * widths * 2
    assert mean(away, "tpot") > mean(plain, "tpot")


def test_experts_are_dealt(genz: Genz) -> None:
    split = answered(genz, *EXPERTS, "--dp", 4, "--ep", 4)
    skewed = answered(genz, *EXPERTS, "--dp", 4, "--ep", 4, "--expert-alpha", 1)
    assert mean(skewed, "ttft") > mean(split, "ttft")
    copies = ("--expert-alpha", 1, "--redundant-experts", 4)
    copied = answered(genz, *EXPERTS, "--dp", 4, "--ep", 4, *copies)
    assert mean(copied, "ttft") < mean(skewed, "ttft")
    # One more of 32 layers' 3 x 4096 x 14336 on each of the four ranks.
    few, many = (a["peak_memory_bytes"]["weights"] for a in (skewed, copied))
    assert many - few == 32 * 3 * 4096 * 14_336 * 2


# ---- bad input of an estimate: one message that names the field ----

BAD: list[tuple[tuple[object, ...], str]] = [
    (("--ep", 0), "--ep"),
    (("--ep", "two"), "--ep"),
    (("--ep", 2), "ep 2 and dp 1 need experts"),
    (("--dp", 0), "--dp"),
    (("--dp", 2), "dp 2 need experts"),
    (("--cp", 0), "--cp"),
    (("--cp", 5000), "--cp"),
    (("--beams", 0), "--beams: 0 must be from 1 to 64"),
    (("--beams", -1), "--beams: -1"),
    (("--beams", 65), "--beams: 65"),
    (("--beams", 2, *NGRAM), "--beams: beam search cannot be speculated on"),
    (("--prefix-hit", 1), "--prefix-hit: 1 must be at least 0 and below 1"),
    (("--prefix-hit", -0.1), "--prefix-hit: -0.1"),
    (("--prefix-hit", "nan"), "--prefix-hit: nan"),
    (("--prefix-hit", "half"), "--prefix-hit"),
    (("--speculate", "ngram"), "--guessed: required"),
    (("--guessed", 3), "--speculate: required"),
    (("--acceptance", 0.5), "--speculate: required"),
    ((*NGRAM[:4], "--acceptance", 1.5), "--acceptance"),
    ((*NGRAM[:4], "--acceptance", "nan"), "--acceptance"),
    ((*NGRAM, "--guessed", 0), "--guessed"),
    ((*NGRAM, "--speculate", "mtp"), "--speculate: llama-3.1-8b has no"),
    ((*NGRAM, "--speculate", "ngrm"), "did you mean 'ngram'?"),
    ((*NGRAM, "--speculate", ""), "--speculate"),
    (("--lora-adapters", 2), "--lora-rank: required"),
    (("--lora-rank", 0), "--lora-rank"),
    (("--lora-rank", 8, "--lora-adapters", 0), "--lora-adapters"),
    (("--expert-alpha", 1), "--expert-alpha: llama-3.1-8b has no experts"),
    (("--expert-alpha", -1), "--expert-alpha"),
    (("--redundant-experts", 4), "experts.redundant"),
    (("--offload-weights", 2), "--offload-weights"),
    (("--offload-cache", -1), "--offload-cache"),
    (("--offload-cache", "nan"), "--offload-cache"),
]


@pytest.mark.parametrize(("options", "said"), BAD)
def test_bad_options_are_named(
    genz: Genz, options: tuple[object, ...], said: str
) -> None:
    ran = genz(*DENSE, *options)
    assert ran.code == 2
    assert ran.out == ""
    assert said in ran.err
    assert ran.err.startswith("genz-size: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tp", 2, "--ep", 3), "ep 3 does not divide the 2 ranks"),
        (("--tp", 4, "--dp", 4, "--ep", 16), "ep 16 exceeds num_experts 8"),
        (("--dp", 3), "3 ranks per expert"),
    ],
)
def test_splits_that_experts_do_not_allow(
    genz: Genz, options: tuple[object, ...], said: str
) -> None:
    ran = genz(*EXPERTS, *options)
    assert ran.code == 2
    assert said in ran.err


def test_what_a_second_memory_cannot_hold(genz: Genz) -> None:
    small = ("--model", "llama-3.1-8b", *LOAD, "--tp", 8)
    ran = genz("estimate", "--npu", "tpu-v5e", *small, "--offload-weights", 0.2)
    assert ran.code == 2
    assert "its second memory has 0 B" in ran.err
    ran = genz(*DENSE, "--lora-rank", 4096, "--lora-adapters", 10**5)
    assert ran.code == 2
    assert "usable" in ran.err


# ---- sizing ----


@pytest.mark.parametrize(
    "options",
    [
        (*NGRAM, "--prefix-hit", 0.5),
        ("--beams", 4, "--lora-rank", 16, "--lora-adapters", 8),
        ("--offload-weights", 0.1, "--offload-cache", 0.1),
    ],
)
def test_sizes_with_optimisations(genz: Genz, options: tuple[object, ...]) -> None:
    assert answered(genz, *SIZE, *options)["status"] == "optimal"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--beams", 0), "beams: must be at least 1"),
        (("--beams", 4, *NGRAM), "beams: beam search cannot be speculated on"),
        (("--prefix-hit", 1), "--prefix-hit: must be below 1"),
        (("--prefix-hit", "nan"), "--prefix-hit: must"),
        (("--speculate", "ngram"), "--guessed: required"),
        ((*NGRAM, "--speculate", "mtp"), "--speculate"),
        ((*NGRAM, "--acceptance", 2), "--acceptance"),
        (("--lora-adapters", 2), "--lora-rank: required"),
        (("--expert-alpha", 1), "--expert-alpha"),
        (("--redundant-experts", 4), "experts.redundant"),
        (("--offload-weights", 2), "--offload-weights"),
        (("--offload-cache", "most"), "--offload-cache"),
    ],
)
def test_bad_options_of_size_are_named(
    genz: Genz, options: tuple[object, ...], said: str
) -> None:
    ran = genz(*SIZE, *options)
    assert ran.code == 2
    assert ran.out == ""
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_options_override_the_files_optimisations(genz: Genz, tmp_path: Any) -> None:
    path = tmp_path / "problem.toml"
    path.write_text(
        """\
model = "llama-3.1-8b"
traffic = [{ input_tokens = 1000, output_tokens = 200, rate = "2 req/s" }]
hardware = { npus = ["h100-sxm"] }
[optimisations.speculation]
drafter = "ngram"
guessed = 99
acceptance = 0.7
""",
        encoding="utf-8",
    )
    assert "speculation.guessed" in genz("size", path).err
    assert genz("size", path, "--guessed", 3).code == 0
