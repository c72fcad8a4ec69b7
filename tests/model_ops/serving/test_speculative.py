"""Speculative decoding: what a step gains, and what it costs."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import Precision
from model_ops.estimate import Load, LoadMode, estimate
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.cache import kv_bytes_per_sequence
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.ops import Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Lora, RequestShape, Step, decode, prefill
from model_ops.serving.speculative import Speculation, expected_tokens
from model_ops.serving.step import (
    Replica,
    draft_steps,
    step_time,
    timed_operators,
)
from problems import catalogue

SHAPE = RequestShape(100, 41)
STATIC = Load(SHAPE, LoadMode.STATIC_BATCH, concurrency=8)
CLOSED = Load(SHAPE, LoadMode.CLOSED_LOOP, concurrency=8)


@pytest.fixture(scope="module")
def replica(toy_arch: ModelArch, toy_npu: Npu) -> Replica:
    roomy = replace(toy_npu, memory_capacity=1e9)
    return Replica(toy_arch, Parallelism(), Precision(), Supply.of(roomy))


@pytest.fixture(scope="module")
def drafter(toy_arch: ModelArch) -> ModelArch:
    """A model of one layer like the toy's, with embedding and head of its own."""
    return replace(toy_arch, name="draft", layers=toy_arch.layers[:1])


# ---- tokens of a step ----


@pytest.mark.parametrize("guessed", [1, 2, 5, 64])
@pytest.mark.parametrize("acceptance", [0.1, 0.5, 0.8, 0.99])
def test_tokens_of_a_step(guessed: int, acceptance: float) -> None:
    # Leviathan et al. 2023, equation 1: (1 - a^(N + 1)) / (1 - a).
    closed = (1 - acceptance ** (guessed + 1)) / (1 - acceptance)
    assert expected_tokens(guessed, acceptance) == pytest.approx(closed)
    assert Speculation(guessed, acceptance).tokens_per_step == pytest.approx(closed)


@pytest.mark.parametrize("guessed", [1, 3, 64])
def test_never_or_always_right(guessed: int) -> None:
    assert expected_tokens(guessed, 0.0) == 1
    assert expected_tokens(guessed, 1.0) == guessed + 1


def test_two_guesses_half_right_by_simulation() -> None:
    rng = np.random.default_rng(7)
    right = rng.random((200_000, 2)) < 0.5
    gained = 1 + right[:, 0] + right[:, 0] * right[:, 1]
    assert gained.mean() == pytest.approx(expected_tokens(2, 0.5), rel=5e-3)
    assert expected_tokens(2, 0.5) == 1.75


# ---- what it costs ----


@pytest.mark.parametrize("guessed", [1, 4])
@pytest.mark.parametrize("with_drafter", [False, True])
def test_never_right_costs_checks_and_drafts(
    replica: Replica, drafter: ModelArch, guessed: int, with_drafter: bool
) -> None:
    guess = Speculation(guessed, 0.0, drafter if with_drafter else None)
    slower = estimate(replace(replica, speculation=guess), STATIC)
    # One step checks all guesses of 8 sequences, half written on average.
    context = 100 + 41 / 2
    step = step_time(replica, Step((decode(8, context, guessed),))).latency
    if with_drafter:
        alone = replace(replica, arch=drafter)
        one = step_time(alone, Step((decode(8, context),))).latency
        step += guessed * (one - 1e-6)  # no scheduling of its own
    assert slower.tpot == pytest.approx(step, rel=1e-12)
    assert slower.tpot > estimate(replica, STATIC).tpot


@pytest.mark.parametrize("mode", [STATIC, CLOSED])
def test_always_right_gains_all_guesses(replica: Replica, mode: Load) -> None:
    never, always = (
        estimate(replace(replica, speculation=Speculation(3, right)), mode)
        for right in (0.0, 1.0)
    )
    if mode is STATIC:
        assert always.tpot == pytest.approx(never.tpot / 4)
        assert always.ttft == pytest.approx(never.ttft)
    assert always.tpot < never.tpot
    assert always.rate > never.rate


def test_tpot_of_a_step_is_shared_by_its_tokens(replica: Replica) -> None:
    never, half = (
        estimate(replace(replica, speculation=Speculation(2, right)), STATIC)
        for right in (0.0, 0.5)
    )
    assert half.tpot == pytest.approx(never.tpot / 1.75)


def test_ngrams_cost_nothing_but_the_check(replica: Replica) -> None:
    guess = replace(replica, speculation=Speculation(3, 0.5))
    step = Step((prefill(1, 50), decode(8, 100, 3)))
    assert guess.drafter is None
    assert step_time(guess, step) == step_time(replica, step)
    assert len(guess.held) == 1
    names = [each.name for each in timed_operators(guess, step)]
    assert not [name for name in names if name.startswith("draft")]


def test_guesses_are_checked_in_one_pass(replica: Replica) -> None:
    found = {
        each.name: each.operator
        for each in timed_operators(replica, Step((decode(8, 100, 3),)))
    }
    core = found["attention_decode"].cost()
    # Four queries see 101 to 104 tokens; the cache is read once.
    assert core.total_flop == 8 * (101 + 102 + 103 + 104) * 4 * 4 * 8
    assert core.cache == 8 * 104 * 2 * 2 * 8 * 2
    head = found["lm_head"]
    assert isinstance(head, Gemm)
    assert head.m == 8 * 4  # every guess needs its logits


def test_the_drafter_reads_prompts_and_writes_guesses(
    replica: Replica, drafter: ModelArch
) -> None:
    step = Step((prefill(1, 50, 10), decode(8, 100, 3)))
    assert draft_steps(step, 3) == [
        (1, Step((prefill(1, 50, 10),))),
        (3, Step((decode(8, 100),))),
    ]
    guess = replace(replica, speculation=Speculation(3, 0.5, drafter))
    timed = timed_operators(guess, step)
    counts = {t.name: t.count for t in timed}
    assert counts["draft_lm_head"] == 3  # the later one; the first reads the prompt
    total = sum(t.count * t.time.total for t in timed) + 1e-6
    assert step_time(guess, step).latency == pytest.approx(total, rel=1e-12)


# ---- what it holds ----


def test_a_draft_model_and_its_cache_are_held(
    replica: Replica, drafter: ModelArch
) -> None:
    guess = replace(replica, speculation=Speculation(3, 0.5, drafter))
    plain, more = (each.lockstep_footprint(SHAPE, 4) for each in (replica, guess))
    shard = replica.shard
    # One of the toy's six layers, and embedding and head besides: 2 x 128 x 32.
    own = weight_bytes(drafter, shard)
    layers = weight_bytes(replica.arch, shard) - 2 * 128 * 32 * 2
    assert own == layers / 6 + 2 * 128 * 32 * 2
    assert more.weights - plain.weights == own
    cache = kv_bytes_per_sequence(drafter, shard, 141)
    assert more.kv_cache - plain.kv_cache == 4 * cache == 4 * 144 * 2 * 2 * 8 * 2


def test_a_prediction_layer_shares_embedding_and_head(replica: Replica) -> None:
    arch = replica.arch
    predictor = arch.guessing_with(arch.layers[-1])
    shard = replica.shard
    layers = weight_bytes(arch, shard) - 2 * 128 * 32 * 2
    # And has a projection of 64 to 32 that joins it to the model.
    assert weight_bytes(predictor, shard) == layers / 6 + 64 * 32 * 2
    guess = replace(replica, speculation=Speculation(3, 0.5, predictor))
    timed = timed_operators(guess, Step((decode(8, 100, 3),)))
    (joined,) = [t for t in timed if t.name == "draft_eh_proj"]
    assert joined.count == 3
    assert joined.operator.cost().total_flop == 2 * 8 * 64 * 32
    assert predictor.num_hidden_layers == 1
    assert predictor.extra_parameters == 2 * 32**2


def test_adapters_are_the_models_alone(replica: Replica, drafter: ModelArch) -> None:
    adapted = replace(replica, lora=Lora(4), speculation=Speculation(3, 0.5, drafter))
    own, guess = adapted.held
    assert own.shard.lora == Lora(4)
    assert guess.shard.lora is None
    assert guess.shard.parallelism.pp == 1


def test_logits_of_all_checked_rows_need_memory(replica: Replica) -> None:
    # A short prompt, a wide vocabulary: 4 rows of each of 8 sequences.
    wide = replace(replica, arch=replace(replica.arch, vocab_size=100_000))
    guess = replace(wide, speculation=Speculation(3, 0.5))
    short = RequestShape(10, 10)
    for each, rows in ((wide, 8), (guess, 32)):
        assert each.lockstep_footprint(short, 8).activations >= rows * 100_000 * 8


def test_the_predictor_of_deepseek_v3() -> None:
    arch = catalogue.load_model("deepseek-v3")
    (layer,) = arch.predictors
    predictor = arch.guessing_with(layer)
    assert isinstance(layer.ffn, MoeFfn)
    # DeepSeek-V3 (2024): 671B of the main model, 14B of the module with the
    # embedding and head that it shares: 11.5B without.
    assert arch.predictor_parameters == pytest.approx(11.5e9, rel=0.01)
    own = predictor.layer_parameters + predictor.extra_parameters
    assert own == pytest.approx(arch.predictor_parameters, rel=1e-5)


# ---- pays where bandwidth binds ----


def test_guessing_pays_at_small_batches_only(drafter: ModelArch) -> None:
    arch, npu = catalogue.load_model("llama-3-8b"), catalogue.load_npu("h100")
    plain = Replica(arch, Parallelism(), arch.precision, Supply.of(npu.ideal()))
    guess = replace(plain, speculation=Speculation(4, 0.7))

    def gain(batch: int) -> float:
        load = Load(RequestShape(200, 200), LoadMode.STATIC_BATCH, concurrency=batch)
        return float(estimate(plain, load).tpot / estimate(guess, load).tpot)

    tokens = expected_tokens(4, 0.7)
    assert gain(1) == pytest.approx(tokens, rel=0.02)
    assert gain(4096) < 1 < gain(64)
