"""Engines of deployments: arrays as scalars, the curve as the operators, the cache."""

from dataclasses import replace

import numpy as np
import pytest

from model_ops.dtypes import BF16, Precision
from model_ops.opcost import Placement
from model_ops.platform.memory import OuterMemory
from model_ops.platform.supply import Supply
from model_ops.profiler.cache import kv_bytes_per_sequence
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.parallelism import Parallelism, stacked
from model_ops.profiler.work import Segment, Step, decode, prefill
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import fixed, lognormal
from model_ops.serving.load import Load
from model_ops.serving.speculative import Speculation, expected_tokens
from model_ops.serving.step import Replica, step_time
from problems import catalogue

CHAT = Profile(lognormal(1000, 0.8, 8), lognormal(200, 0.8, 2))
CHUNK, MOST = 2048, 256
DENSE_SPLITS = [Parallelism(tp, pp) for tp in (1, 2, 8) for pp in (1, 2, 3, 8)]
EXPERT_SPLITS = [
    Parallelism(2),
    Parallelism(4, 2),
    Parallelism(2, 2, ep=2),
    Parallelism(8, ep=8),
    Parallelism(1, ep=8, dp=8),
    Parallelism(2, 2, ep=4, dp=2),
]
SPLITS = {"llama-3.1-8b": DENSE_SPLITS, "mixtral-8x7b": EXPERT_SPLITS}
NPUS = [catalogue.load_npu(name) for name in ("h100-sxm", "l40s", "mi300x")]
GUESSES = Speculation(guessed=3, acceptance=0.6)


def replica_of(model: str, split: Parallelism, **changes: object) -> Replica:
    arch = catalogue.load_model(model)
    made = Replica(arch, split, BF16, Supply.of(NPUS[0]))
    return replace(made, **changes)


def engine(replica: Replica, profile: Profile = CHAT, beams: int = 1) -> Engine:
    return engine_of(
        replica, profile, chunk_tokens=CHUNK, max_sequences=MOST, beams=beams
    )


FIELDS = (
    "chunk_tokens",
    "max_sequences",
    "cache_tokens",
    "request_overhead",
    "tokens_per_step",
)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("speculation", [None, GUESSES], ids=["plain", "guesses"])
@pytest.mark.parametrize("model", SPLITS)
def test_arrays_equal_scalars(
    model: str, speculation: Speculation | None, beams: int
) -> None:
    splits = SPLITS[model]
    made = replica_of(
        model,
        stacked(splits, point_axes=1),
        supply=Supply.stack(NPUS, axes=2),
        speculation=speculation,
    )
    shape = (len(NPUS), len(splits))
    together = engine(made, beams=beams)
    for i, npu in enumerate(NPUS):
        for j, split in enumerate(splits):
            alone = engine(
                replica_of(
                    model, split, supply=Supply.of(npu), speculation=speculation
                ),
                beams=beams,
            )
            for name in FIELDS:
                found = np.broadcast_to(getattr(together, name), shape)[i, j]
                assert found == pytest.approx(float(getattr(alone, name)), rel=1e-9)
            nodes = alone.curve.base.shape[-1]
            for name in ("base", "decoding"):
                expected = getattr(alone.curve, name)
                found = getattr(together.curve, name)[i, j, :nodes]
                assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
            for name in ("per_cached", "per_pair"):
                expected = float(getattr(alone.curve, name))
                found = np.broadcast_to(getattr(together.curve, name), shape)[i, j]
                assert found == pytest.approx(expected, rel=1e-9)


# The curve


def steps() -> list[tuple[float, float, float]]:
    """Return (prompt tokens, decoding requests, their context) of common steps."""
    return [
        (prompt, requests, context)
        for prompt in (0.0, 100.0, 700.0, 1500.0)
        for requests in (1.0, 16.0, 100.0, 256.0)
        for context in (100.0, 1000.0, 4000.0)
    ]


@pytest.mark.parametrize("npu", ["h100-sxm", "l40s"])
@pytest.mark.parametrize(
    "split",
    [
        Parallelism(),
        Parallelism(2),
        Parallelism(8),
        Parallelism(1, 2),
        Parallelism(2, 4),
    ],
    ids=lambda split: split.text,
)
def test_curve_agrees_with_the_operators(npu: str, split: Parallelism) -> None:
    replica = replica_of(
        "llama-3.1-8b", split, supply=Supply.of(catalogue.load_npu(npu))
    )
    curve, slots = engine(replica).curve, float(replica.schedule.slots)

    def exact(*parts: Segment) -> float:
        return float(step_time(replica, Step(parts)).period(slots))

    # The curve knows one attention kernel per layer, a mixed step here runs two.
    alone, two = prefill(1.0, 2.0), (prefill(1.0, 1.0), decode(1.0, 1.0))
    second = max(exact(*two) - exact(alone), 0.0)
    assert second < 1e-3
    for prompt, requests, context in steps():
        parts = [decode(requests / slots, context)]
        if prompt:
            parts.append(prefill(1.0, prompt / slots))
        whole = exact(*parts)
        tokens = np.array([prompt + requests])
        pairs = slots * (prompt / slots) ** 2 / 2
        found = (
            float(curve.base_at(tokens)[0])
            + float(curve.decoding_at(np.array([requests]))[0])
            + float(curve.per_cached) * requests * context
            + float(curve.per_pair) * pairs
        )
        # Decodes beside a prompt keep their own pace, where weights bind both.
        pace = float(replica.supply.prefill_pace)
        least = (whole - second) / pace if prompt else whole
        # Few key heads draw less of the bandwidth than many: no line knows that.
        off = 0.07 if requests <= 16 else 0.03
        assert (1 - off) * least <= found <= (1 + off) * whole, (
            prompt,
            requests,
            context,
        )


def test_a_group_of_a_replica_is_timed_in_lockstep_with_the_others() -> None:
    # Eight groups that share the experts: each group's step has the traffic of all.
    replica = replica_of("mixtral-8x7b", Parallelism(1, ep=8, dp=8))
    curve = engine(replica).curve
    for requests in (1.0, 16.0, 128.0):
        exact = float(step_time(replica, Step((decode(requests, 1000.0),))).latency)
        found = curve.base_at(np.array([requests])) + curve.decoding_at(
            np.array([requests])
        )
        found = float(found[0]) + float(curve.per_cached) * requests * 1000.0
        assert found == pytest.approx(exact, rel=0.02)


# The cache


def test_cache_tokens_by_hand() -> None:
    replica = replica_of("llama-3.1-8b", Parallelism())
    profile = Profile(fixed(1000), fixed(200))
    (held,) = replica.held
    # 2 x 32 layers x 8 KV heads x 128 elements of 2 bytes.
    per_token = 2 * 32 * 8 * 128 * 2
    assert per_token == 131_072
    # Blocks of 16 tokens: a request seen at a random instant has 1,000 + 100.
    length = 1100.0
    assert Load.of(profile).cached == pytest.approx(length)
    kept = float(kv_bytes_per_sequence(held.arch, held.shard, length)) / length
    assert kept == pytest.approx(per_token, rel=0.02)
    weights = float(weight_bytes(held.arch, held.shard))
    assert weights == pytest.approx(16.06e9, rel=1e-3)
    found = float(engine(replica, profile).cache_tokens)
    room = float(replica.supply.usable_memory) - weights
    # Activations of 2,048 tokens take less than 3 GB of what is left.
    assert (room - 3e9) / kept < found < room / kept


def test_weights_on_the_host_leave_room_for_the_cache() -> None:
    replica = replica_of("llama-3.1-8b", Parallelism())
    outer = OuterMemory("host", 480e9, 400e9)
    (npu,) = replica.supply.npus
    replica = replace(replica, supply=Supply.of(replace(npu, outer_memory=outer)))
    profile = Profile(fixed(1000), fixed(200))
    (held,) = replica.held
    kept = float(kv_bytes_per_sequence(held.arch, held.shard, 1100.0)) / 1100.0
    weights = float(weight_bytes(held.arch, held.shard))
    resident = float(engine(replica, profile).cache_tokens)
    half = replace(replica, placement=Placement(weights=0.5))
    more = float(engine(half, profile).cache_tokens) - resident
    assert more == pytest.approx(weights / 2 / kept, abs=1)
    # With nine tenths of the cache on the host, its memory is what fills first.
    moved = replace(replica, placement=Placement(cache=0.9))
    beyond = float(engine(moved, profile).cache_tokens)
    assert beyond == pytest.approx(480e9 / (0.9 * kept), abs=1)
    small = replace(npu, outer_memory=replace(outer, capacity=1e9))
    full = replace(half, supply=Supply.of(small))
    assert float(engine(full, profile).cache_tokens) == 0


def test_no_token_is_kept_where_the_model_does_not_fit() -> None:
    small = replica_of("llama-3.1-70b", Parallelism())
    assert float(engine(small).cache_tokens) == 0
    assert float(engine(replace(small, parallelism=Parallelism(4))).cache_tokens) > 0


def test_stages_and_ranks_share_the_cache() -> None:
    one, pair, deep = (
        float(engine(replica_of("llama-3.1-8b", split)).cache_tokens)
        for split in (Parallelism(), Parallelism(2), Parallelism(1, 2))
    )
    # Half the weights and half the cache per token on each of the two.
    assert pair > 2 * one
    assert deep == pytest.approx(pair, rel=0.05)


def test_fewer_bytes_keep_more_tokens() -> None:
    wide = replica_of("llama-3.1-8b", Parallelism())
    narrow = replace(wide, precision=Precision.of("fp8"))
    assert float(engine(narrow).cache_tokens) > float(engine(wide).cache_tokens)


# Beams, guesses, pipelines


def test_beams_have_a_row_and_an_answers_cache_each() -> None:
    replica = replica_of("llama-3.1-8b", Parallelism())
    profile = Profile(fixed(1000), fixed(200))
    one, four = (engine(replica, profile, beams) for beams in (1, 4))
    # Prompts are shared, answers are not: 1,000 + 100 become 1,000 + 4 x 100.
    kept = float(four.cache_tokens) / float(one.cache_tokens)
    # The logits of their rows take some room, too.
    assert kept == pytest.approx(1100 / 1400, rel=0.02)
    assert kept < 1100 / 1400
    assert np.array_equal(four.curve.base, one.curve.base)
    # 64 requests decode 256 rows, where the roofline bends late.
    at = np.array([64.0])
    exact = float(step_time(replica, Step((decode(4 * 64.0, 512.0),))).latency)
    cached = 64.0 * 512.0 * four.curve.per_cached
    found = four.curve.base_at(at) + four.curve.decoding_at(at) + cached
    assert float(found[0]) == pytest.approx(exact, rel=0.02)
    # Each beam reads the prompt and its answer.
    assert four.curve.per_cached == pytest.approx(4 * one.curve.per_cached, rel=0.05)


def test_guesses_gain_tokens_and_cost_rows() -> None:
    plain = replica_of("llama-3.1-8b", Parallelism())
    guessing = replace(plain, speculation=GUESSES)
    found = engine(guessing)
    assert found.tokens_per_step == expected_tokens(3, 0.6) == pytest.approx(2.176)
    assert engine(plain).tokens_per_step == 1
    # Three guesses and the token itself are rows, but read the cache once.
    assert np.all(found.curve.decoding >= engine(plain).curve.decoding)
    assert found.curve.decoding[-1] > engine(plain).curve.decoding[-1]
    assert found.curve.per_cached < engine(plain, beams=4).curve.per_cached / 2
    # Guesses are rejected or become the answer: they keep no cache of their own.
    assert float(found.cache_tokens) > float(engine(plain, beams=4).cache_tokens)


@pytest.mark.parametrize("stages", [1, 2, 8])
def test_a_round_of_a_pipeline_takes_a_chunk_per_stage(stages: int) -> None:
    found = engine(replica_of("llama-3.1-8b", Parallelism(1, stages)))
    assert float(found.chunk_tokens) == stages * CHUNK
    assert float(found.max_sequences) == MOST
