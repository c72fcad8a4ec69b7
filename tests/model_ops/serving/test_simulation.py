"""The simulator against an obvious reference, by hand, and by its laws."""

from collections import deque
from dataclasses import replace
from functools import cache
from importlib.util import find_spec

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import fixed, lognormal
from model_ops.serving.simulation import (
    Router,
    arrivals,
    simulate,
    simulate_disaggregated,
    simulate_routes,
)
from model_ops.serving.step_curve import StepCurve
from model_ops.serving.trace import Trace

settings = hypothesis.settings(derandomize=True, deadline=None, max_examples=150)
KERNELS = [
    False,
    pytest.param(
        True,
        marks=pytest.mark.skipif(find_spec("numba") is None, reason="needs numba"),
    ),
]


def engine(
    chunk: int = 512, sequences: int = 64, cache: int = 100_000, overhead: float = 0.0
) -> Engine:
    """8 ms to read the weights, 40 us per token beyond 200 of them."""
    curve = StepCurve.line(
        overhead=1e-3,
        weights=8e-3,
        per_token=4e-5,
        per_sequence=1e-5,
        per_cached=5e-8,
        per_pair=1e-8,
        most_tokens=max(chunk, 2),
    )
    return Engine(curve, chunk, sequences, cache, overhead)


@cache
def tables() -> tuple[list[float], list[float]]:
    """Return `base` and `decoding` of all toy engines by count, from their curve."""
    curve = engine(chunk=16_384).curve
    counts = np.arange(1, 600)
    return [0.0, *curve.base_at(counts)], [0.0, *curve.decoding_at(counts)]


def step_seconds(
    of: Engine, prompt: int, decoding: int, context: int, pairs: float
) -> float:
    """Return the time of a step by its definition."""
    base, added = tables()
    read = of.curve.per_cached * context + of.curve.per_pair * pairs
    return base[prompt + decoding] + added[decoding] + read


class Reference:
    """One replica, one step at a time, nothing skipped."""

    def __init__(
        self,
        of: Engine,
        entered: list[float],
        prompt: list[int],
        output: list[int],
        users: int = 0,
        reused: int = 0,
    ) -> None:
        self.of, self.prompt, self.output, self.reused = of, prompt, output, reused
        count = len(prompt)
        self.entered = entered
        self.unsent = count
        if users:
            self.entered = [float(of.request_overhead)] * min(users, count)
            self.unsent = len(self.entered)
        self.now, self.steps, self.mixed, self.preempted, self.peak = 0.0, 0, 0, 0, 0
        self.running_seconds, self.cached_seconds = 0.0, 0.0
        self.first: dict[int, float] = {}
        self.finish: dict[int, float] = {}
        self.waiting: deque[int] = deque()
        self.running: list[int] = []
        self.left: dict[int, int] = {}
        """Prompt tokens to be processed, of who runs and does not decode yet."""
        self.held = [0] * count
        self.made = [0] * count

    def run(self) -> None:
        seen = 0
        while len(self.finish) < len(self.prompt):
            if not self.running and not self.waiting:
                self.now = max(self.now, self.entered[seen])
            while seen < len(self.entered) and self.entered[seen] <= self.now:
                self.waiting.append(seen)
                seen += 1
            self.step()

    def step(self) -> None:
        short = self.make_room()
        decoding = self.decoding()
        context = sum(self.held[i] for i in decoding)
        self.budget = self.of.chunk_tokens - len(decoding)
        self.tokens, self.pairs = 0, 0.0
        for request in self.left:
            self.process(request)
        if not short:
            self.admit(len(decoding))
        seconds = step_seconds(self.of, self.tokens, len(decoding), context, self.pairs)
        self.now += seconds
        for request in decoding:
            self.held[request] += 1
        self.count(seconds)
        for request in decoding + [i for i in self.left if self.left[i] == 0]:
            self.emit(request)

    def decoding(self) -> list[int]:
        return [i for i in self.running if i not in self.left]

    def make_room(self) -> bool:
        short = False
        while (
            sum(self.held) + len(self.decoding()) > self.of.cache_tokens
            and len(self.running) > 1
        ):
            victim = self.running.pop()
            self.held[victim] = 0
            self.left.pop(victim, None)
            self.waiting.appendleft(victim)
            self.preempted += 1
            short = True
        return short

    def process(self, request: int) -> None:
        chunk = min(self.left[request], self.budget)
        before = self.held[request] - self.left[request]
        self.pairs += chunk * before + chunk**2 / 2
        self.tokens += chunk
        self.budget -= chunk
        self.left[request] -= chunk

    def admit(self, decoding: int) -> None:
        while (
            self.waiting
            and self.budget
            and len(self.running) < self.of.max_sequences
            and not any(self.left.values())
        ):
            request = self.waiting[0]
            need = self.prompt[request] + self.made[request]
            if sum(self.held) + decoding + need > self.of.cache_tokens:
                return
            self.waiting.popleft()
            self.running.append(request)
            self.held[request] = need
            self.left[request] = need - min(self.reused, self.prompt[request] - 1)
            self.process(request)

    def count(self, seconds: float) -> None:
        self.steps += 1
        self.mixed += self.tokens > 0
        self.peak = max(self.peak, sum(self.held))
        self.running_seconds += len(self.running) * seconds
        self.cached_seconds += sum(self.held) * seconds

    def emit(self, request: int) -> None:
        self.left.pop(request, None)
        if self.made[request] == 0:
            self.first[request] = self.now
        self.made[request] += 1
        if self.made[request] < self.output[request]:
            return
        self.finish[request] = self.now
        self.running.remove(request)
        self.held[request] = 0
        if self.unsent < len(self.prompt):
            self.unsent += 1
            self.entered.append(self.now + float(self.of.request_overhead))


def check(trace: Trace, reference: Reference) -> None:
    """Compare every time and counter."""
    count = len(reference.prompt)
    for times, expected in (
        (trace.first_token, reference.first),
        (trace.finish, reference.finish),
    ):
        assert times == pytest.approx([expected[i] for i in range(count)], rel=1e-9)
    counters = trace.counters
    assert counters.steps == reference.steps
    assert counters.mixed_steps == reference.mixed
    assert counters.preemptions == reference.preempted
    assert counters.peak_cached_tokens == reference.peak
    span = max(reference.finish.values()) - min(reference.entered)
    assert counters.running * span == pytest.approx(reference.running_seconds, rel=1e-9)
    assert counters.cached_tokens * span == pytest.approx(
        reference.cached_seconds, rel=1e-9
    )


@st.composite
def loads(draw: st.DrawFn) -> tuple[Engine, list[float], list[int], list[int]]:
    """Small engines, so that every limit binds in turn, and up to 40 requests."""
    count = draw(st.integers(1, 40))
    longest = draw(st.sampled_from([3, 40, 300]))
    lengths = st.lists(st.integers(1, longest), min_size=count, max_size=count)
    prompt, output = draw(lengths), draw(lengths)
    least = max(a + b - 1 for a, b in zip(prompt, output, strict=True))
    of = engine(
        chunk=draw(st.sampled_from([1, 7, 64, 512])),
        sequences=draw(st.sampled_from([1, 3, 16, 64])),
        cache=least + draw(st.sampled_from([0, 5, 100, 10_000])),
        overhead=draw(st.sampled_from([0.0, 0.0123])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rate = draw(st.sampled_from([0.3, 3.0, 30.0, 1e4]))
    return of, arrivals(rng, count, rate).tolist(), prompt, output


class TestAgainstReference:
    @settings
    @hypothesis.given(loads(), st.sampled_from([0, 4, 30]))
    def test_open_loop(
        self, load: tuple[Engine, list[float], list[int], list[int]], reused: int
    ) -> None:
        of, entered, prompt, output = load
        late = [t + of.request_overhead for t in entered]
        reference = Reference(of, late, prompt, output, reused=reused)
        reference.run()
        kept = np.minimum(reused, np.array(prompt) - 1)
        trace = simulate(of, entered, prompt, output, reused=kept, fast=False)
        check(trace, reference)

    @settings
    @hypothesis.given(loads(), st.integers(1, 12))
    def test_closed_loop(
        self, load: tuple[Engine, list[float], list[int], list[int]], users: int
    ) -> None:
        of, _, prompt, output = load
        reference = Reference(of, [], prompt, output, users=users)
        reference.run()
        trace = simulate(of, 0.0, prompt, output, users=users, fast=False)
        check(trace, reference)
        assert trace.arrival + of.request_overhead == pytest.approx(reference.entered)

    @pytest.mark.parametrize("fast", KERNELS)
    def test_preemptions_are_among_what_is_compared(self, fast: bool) -> None:
        rng = np.random.default_rng(5)
        of = engine(cache=1_000)
        prompt, output = rng.integers(1, 200, 300), rng.integers(1, 200, 300)
        entered = arrivals(rng, 300, 20.0)
        reference = Reference(of, entered.tolist(), prompt.tolist(), output.tolist())
        reference.run()
        assert reference.preempted > 50
        check(simulate(of, entered, prompt, output, fast=fast), reference)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("router", list(Router))
@pytest.mark.parametrize("users", [0, 20])
def test_compiled_equals_plain(replicas: int, router: Router, users: int) -> None:
    pytest.importorskip("numba")
    of = engine(cache=4_000, overhead=0.01)
    entered, prompt, output = chat(3_000, 12.0 * replicas)
    both = [
        simulate(
            of, entered, prompt, output,
            replicas=replicas, router=router, users=users, fast=fast,
        )
        for fast in (False, True)
    ]  # fmt: skip
    same(*both)
    assert both[0].counters.preemptions > 0


@pytest.mark.parametrize("router", list(Router))
def test_compiled_equals_plain_in_two_pools(router: Router) -> None:
    pytest.importorskip("numba")
    load = chat(3_000, 20.0)
    both = [
        simulate_disaggregated(
            engine(), engine(cache=4_000), *load, router=router,
            prefill_replicas=2, decode_replicas=2, fast=fast,
        )
        for fast in (False, True)
    ]  # fmt: skip
    same(*both)
    assert both[0].counters.preemptions > 0


def same(one: Trace, other: Trace) -> None:
    for name in ("arrival", "scheduled", "first_token", "finish"):
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), rtol=1e-9, equal_nan=True
        )
    assert one.counters.steps == other.counters.steps
    assert one.counters.preemptions == other.counters.preemptions
    assert one.counters.cached_tokens == pytest.approx(other.counters.cached_tokens)


def chat(
    count: int, rate: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return arrivals, prompts of 200 tokens and answers of 60 in the mean."""
    rng = np.random.default_rng(seed)
    return (
        arrivals(rng, count, rate),
        lognormal(200, 1.0, 8).sample(rng, count),
        lognormal(60, 0.8, 2).sample(rng, count),
    )


class TestByHand:
    @pytest.mark.parametrize("fast", KERNELS)
    def test_one_request_takes_its_static_time(self, fast: bool) -> None:
        of = engine(overhead=0.25)
        trace = simulate(of, 3.0, 100, 5, fast=fast)
        first = step_seconds(of, 100, 0, 0, 100**2 / 2)
        rest = sum(step_seconds(of, 0, 1, 100 + i, 0.0) for i in range(4))
        assert trace.ttft == pytest.approx([0.25 + first])
        assert trace.e2e == pytest.approx([0.25 + first + rest])
        assert trace.tpot == pytest.approx([rest / 4])

    def test_long_prompt_goes_in_chunks(self) -> None:
        of = engine(chunk=64)
        trace = simulate(of, 0.0, 150, 1)
        chunks = [(64, 0), (64, 64), (22, 128)]
        times = [step_seconds(of, c, 0, 0, c * p + c * c / 2) for c, p in chunks]
        assert trace.ttft == pytest.approx([sum(times)])
        assert np.isnan(trace.tpot).all()

    def test_reused_tokens_need_no_compute_but_are_seen_and_kept(self) -> None:
        of = engine(cache=101)
        trace = simulate(of, 0.0, 100, 2, reused=60)
        first = step_seconds(of, 40, 0, 0, 40 * 60 + 40**2 / 2)
        assert trace.ttft == pytest.approx([first])
        assert trace.e2e == pytest.approx([first + step_seconds(of, 0, 1, 100, 0)])
        assert trace.counters.peak_cached_tokens == 101

    def test_newcomer_waits_for_the_running_step_and_rides_along(self) -> None:
        of = engine()
        first = step_seconds(of, 100, 0, 0, 5_000)
        trace = simulate(of, [0.0, first / 2], [100, 50], [2, 1])
        mixed = step_seconds(of, 50, 1, 100, 1_250)
        assert trace.scheduled == pytest.approx([0.0, first])
        assert trace.finish == pytest.approx([first + mixed, first + mixed])

    def test_preempted_request_is_computed_anew_with_its_tokens(self) -> None:
        # 10 + 10 prompt tokens and one more each fill the cache of 22; the next
        # token does not fit, so the second goes back and waits for the first.
        of = engine(cache=22)
        trace = simulate(of, 0.0, [10, 10], [6, 3])
        start = step_seconds(of, 20, 0, 0, 100)
        both = step_seconds(of, 0, 2, 20, 0)
        alone = sum(step_seconds(of, 0, 1, 11 + i, 0) for i in range(4))
        again = step_seconds(of, 12, 0, 0, 72)
        assert trace.counters.preemptions == 1
        assert trace.finish[0] == pytest.approx(start + both + alone)
        assert trace.finish[1] == pytest.approx(start + both + alone + again)

    def test_round_robin_deals_in_turn(self) -> None:
        of = engine()
        trace = simulate(of, [0, 0, 0, 0.0], [50, 60, 70, 80], 1, replicas=2,
                         router="round_robin")  # fmt: skip
        pairs = [50**2 / 2 + 70**2 / 2, 60**2 / 2 + 80**2 / 2]
        times = [
            step_seconds(of, 120, 0, 0, pairs[0]),
            step_seconds(of, 140, 0, 0, pairs[1]),
        ]
        assert trace.finish == pytest.approx(times * 2)

    def test_least_loaded_takes_the_emptier_replica(self) -> None:
        of = engine()
        # The first replica is busy for long, the second is free again at 0.5 s.
        trace = simulate(of, [0.0, 0.001, 0.5], 10, [400, 2, 1], replicas=2)
        assert trace.ttft[2] == pytest.approx(step_seconds(of, 10, 0, 0, 50))

    @pytest.mark.parametrize("fast", KERNELS)
    def test_disaggregated_is_prefill_then_travel_then_decode(self, fast: bool) -> None:
        prefill, decode = engine(overhead=0.1), engine(sequences=8)
        trace = simulate_disaggregated(
            prefill, decode, [0.0, 0.3], [100, 40], [4, 1],
            transfer_per_token=1e-4, transfer_latency=0.02, fast=fast,
        )  # fmt: skip
        first = 0.1 + step_seconds(prefill, 100, 0, 0, 5_000)
        rest = sum(step_seconds(decode, 0, 1, 100 + i, 0.0) for i in range(3))
        assert trace.first_token[0] == pytest.approx(first)
        assert trace.finish[0] == pytest.approx(first + 0.02 + 0.01 + rest)
        second = 0.3 + 0.1 + step_seconds(prefill, 40, 0, 0, 800)
        assert trace.first_token[1] == trace.finish[1] == pytest.approx(second)

    def test_each_request_takes_its_way_through_pools_of_several_kinds(self) -> None:
        # Two kinds read, one answers: of the latter both caches share the steps.
        quick, slow, decode = engine(), engine(overhead=0.5), engine()
        trace = simulate_routes(
            [(quick, 1), (slow, 1)], [(decode, 1)],
            [0.0, 0.0], [30, 30], [3, 3],
            routes=np.array([[0, 0], [1, 0]]),
            transfer_per_token=[[0.0], [1e-4]], transfer_latency=[[0.5], [0.0]],
        )  # fmt: skip
        read = step_seconds(quick, 30, 0, 0, 450)
        assert trace.first_token == pytest.approx([read, 0.5 + read])
        # One cache travels 0.5 s, the other 3 ms, and waits for the step that runs.
        first = step_seconds(decode, 0, 1, 30, 0)
        both = step_seconds(decode, 0, 2, 31 + 30, 0)
        last = step_seconds(decode, 0, 1, 31, 0)
        assert trace.finish[0] == pytest.approx(0.5 + read + first + both)
        assert trace.finish[1] == pytest.approx(0.5 + read + first + both + last)

    def test_ways_that_share_nothing_are_pairs_of_their_own(self) -> None:
        pairs = [(engine(overhead=0.1), engine()), (engine(), engine(sequences=2))]
        rng = np.random.default_rng(1)
        load = (np.sort(rng.uniform(0, 9, 80)), rng.integers(5, 200, 80), 6)
        to = rng.integers(2, size=80)
        both = simulate_routes(
            [(prefill, 2) for prefill, _ in pairs],
            [(decode, 1) for _, decode in pairs],
            *load,
            routes=np.stack([to, to], axis=1),
            transfer_per_token=np.full((2, 2), 1e-4),
            transfer_latency=np.zeros((2, 2)),
        )
        for number, pair in enumerate(pairs):
            own = to == number
            alone = simulate_disaggregated(
                *pair, load[0][own], load[1][own], load[2],
                prefill_replicas=2, transfer_per_token=1e-4,
            )  # fmt: skip
            assert np.array_equal(both.some(own).finish, alone.finish)
            assert np.array_equal(both.some(own).first_token, alone.first_token)

    def test_decode_pool_takes_a_cache_at_once(self) -> None:
        # Both caches arrive together and decode side by side from the first step.
        decode = engine()
        trace = simulate_disaggregated(
            engine(), decode, 0.0, 30, [3, 3], prefill_replicas=2
        )
        rest = step_seconds(decode, 0, 2, 60, 0) + step_seconds(decode, 0, 2, 62, 0)
        assert trace.finish - trace.first_token == pytest.approx([rest, rest])

    def test_decode_pool_computes_a_preempted_prompt_itself(self) -> None:
        decode = engine(cache=24)
        trace = simulate_disaggregated(
            engine(), decode, 0.0, [10, 10], [6, 5], prefill_replicas=2
        )
        both = [step_seconds(decode, 0, 2, 20 + 2 * i, 0) for i in range(2)]
        alone = [step_seconds(decode, 0, 1, 12 + i, 0) for i in range(3)]
        # It then has its prompt and three tokens, of which the cache held two.
        again = step_seconds(decode, 13, 0, 0, 13**2 / 2)
        last = step_seconds(decode, 0, 1, 13, 0)
        assert trace.counters.preemptions == 1
        rest = trace.finish - trace.first_token
        assert rest[0] == pytest.approx(sum(both + alone))
        assert rest[1] == pytest.approx(sum(both + alone) + again + last)


class TestLaws:
    def test_littles_law(self) -> None:
        # Requests that hold cache, by the replica's clock and by their own times.
        trace = simulate(engine(), *chat(20_000, 14.0))
        assert trace.counters.preemptions == 0
        held = (trace.finish - trace.scheduled).mean()
        assert trace.counters.running == pytest.approx(trace.rate * held, rel=0.01)

    @settings
    @hypothesis.given(loads(), st.integers(1, 3), st.sampled_from(list(Router)))
    def test_every_request_is_served_within_the_limits(
        self,
        load: tuple[Engine, list[float], list[int], list[int]],
        replicas: int,
        router: Router,
    ) -> None:
        of, entered, prompt, output = load
        trace = simulate(
            of, entered, prompt, output, replicas=replicas, router=router, fast=False
        )
        assert trace.rejected == 0
        assert (trace.arrival <= trace.scheduled).all()
        assert (trace.scheduled < trace.first_token).all()
        assert (trace.first_token <= trace.finish).all()
        assert trace.counters.peak_cached_tokens <= of.cache_tokens
        assert trace.counters.running <= of.max_sequences * replicas * (1 + 1e-9)

    @settings
    @hypothesis.given(loads(), st.integers(1, 3), st.integers(1, 3))
    def test_two_pools_serve_every_request_within_the_limits(
        self,
        load: tuple[Engine, list[float], list[int], list[int]],
        prefill_replicas: int,
        decode_replicas: int,
    ) -> None:
        of, entered, prompt, output = load
        trace = simulate_disaggregated(
            of, of, entered, prompt, output, transfer_latency=0.01,
            prefill_replicas=prefill_replicas, decode_replicas=decode_replicas,
            fast=False,
        )  # fmt: skip
        assert trace.rejected == 0
        assert (trace.scheduled < trace.first_token).all()
        assert (trace.e2e - trace.ttft >= 0.01 * (trace.output > 1)).all()
        assert trace.counters.peak_cached_tokens <= of.cache_tokens

    def test_every_token_takes_a_step(self) -> None:
        # One sequence at a time: steps are the tokens, mixed steps the prompts.
        _, prompt, output = chat(500, 1.0)
        trace = simulate(engine(chunk=16_384, sequences=1), 0.0, prompt, output)
        assert trace.counters.steps == output.sum()
        assert trace.counters.mixed_steps == 500

    def test_throughput_of_an_overload_is_the_capacity_whatever_the_order(self) -> None:
        entered, prompt, output = chat(4_000, 1e6)
        one = simulate(engine(), entered, prompt, output)
        other = simulate(engine(), entered, prompt[::-1], output[::-1])
        assert one.rate == pytest.approx(other.rate, rel=0.02)

    def test_closed_loop_keeps_its_users_in_flight(self) -> None:
        _, prompt, output = chat(5_000, 1.0)
        trace = simulate(engine(), 0.0, prompt, output, users=24)
        moments = np.linspace(1.0, trace.arrival.max(), 200, endpoint=False)
        flying = [
            int(((trace.arrival <= t) & (trace.finish > t)).sum()) for t in moments
        ]
        assert set(flying) == {24}

    def test_users_stay_with_their_replica(self) -> None:
        _, prompt, output = chat(3_000, 1.0)
        one = simulate(engine(), 0.0, prompt[::2], output[::2], users=3)
        both = simulate(engine(), 0.0, prompt, output, users=6, replicas=2)
        assert both.finish[::2] == pytest.approx(one.finish)

    def test_more_users_than_requests_or_replicas_than_users(self) -> None:
        many = simulate(engine(), 0.0, [10, 20], [2, 2], users=9)
        assert many.arrival.tolist() == [0.0, 0.0]
        few = simulate(engine(), 0.0, [10] * 6, 2, users=2, replicas=5)
        assert (few.arrival == 0.0).sum() == 2

    @pytest.mark.parametrize("rate", [10.0, 20.0, 24.0])
    def test_least_loaded_is_no_worse_than_random(self, rate: float) -> None:
        load = chat(20_000, 4 * rate)
        random, least = (
            simulate(engine(), *load, replicas=4, router=router).summary()
            for router in (Router.RANDOM, Router.LEAST_LOADED)
        )
        for name, seconds in least.flat().items():
            assert seconds <= random.flat()[name] * 1.01, name

    def test_order_of_a_trace_does_not_matter(self) -> None:
        entered, prompt, output = chat(800, 15.0)
        given = np.random.default_rng(1).permutation(800)
        plain = simulate(engine(), entered, prompt, output)
        mixed = simulate(engine(), entered[given], prompt[given], output[given])
        assert mixed.finish.tolist() == plain.finish[given].tolist()

    @pytest.mark.parametrize("origin", [-1e3, 1e3, 1.7e9])
    def test_origin_of_the_clock_does_not_matter(self, origin: float) -> None:
        entered, prompt, output = chat(800, 15.0)
        plain = simulate(engine(), entered, prompt, output)
        moved = simulate(engine(), entered + origin, prompt, output)
        assert moved.e2e == pytest.approx(plain.e2e, abs=1e-6)
        assert moved.counters.running == pytest.approx(plain.counters.running)

    def test_seeds(self) -> None:
        load = chat(500, 40.0)
        runs = [
            simulate(engine(), *load, replicas=3, router="random", seed=seed)
            for seed in (1, 1, 2)
        ]
        same(runs[0], runs[1])
        assert runs[0].finish.tolist() != runs[2].finish.tolist()


class TestArrivals:
    @pytest.mark.parametrize("variation", [0.0, 0.5, 1.0, 2.0])
    def test_rate_and_variation(self, variation: float) -> None:
        times = arrivals(np.random.default_rng(3), 200_000, 8.0, variation)
        gaps = np.diff(times)
        assert gaps.mean() == pytest.approx(1 / 8, rel=0.02)
        assert gaps.std() / gaps.mean() == pytest.approx(variation, abs=0.02)


class TestBadInput:
    @pytest.mark.parametrize("fast", KERNELS)
    def test_impossible_requests_are_rejected_without_hanging(self, fast: bool) -> None:
        of = engine(cache=100)
        trace = simulate(of, 0.0, [90, 101, 90, 50], [11, 1, 12, 51], fast=fast)
        assert np.isnan(trace.finish).tolist() == [False, True, True, False]
        assert trace.rejected == 2
        assert trace.attainment({"e2e": 1e9}, warm_up=0.0) == 0.5

    def test_nothing_fits(self) -> None:
        trace = simulate(engine(cache=10), 0.0, [20, 30], 1)
        assert trace.rejected == 2
        assert np.isnan(trace.summary().ttft.mean)
        assert trace.counters.steps == 0

    def test_rejected_by_either_pool_before_prefill(self) -> None:
        trace = simulate_disaggregated(
            engine(cache=50), engine(cache=60), 0.0, [50, 51, 40, 50], [1, 1, 30, 11]
        )
        assert np.isnan(trace.finish).tolist() == [False, True, True, False]
        assert np.isnan(trace.first_token).tolist() == [False, True, True, False]

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"chunk_tokens": 0}, "at least one"),
            ({"max_sequences": 0}, "at least one"),
            ({"cache_tokens": -5}, "at least one"),
            ({"chunk_tokens": 4_096}, "step curve ends"),
        ],
    )
    def test_engine(self, changes: dict[str, int], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            simulate(replace(engine(), **changes), 0.0, 10, 10)

    def test_speculation_is_not_simulated(self) -> None:
        with pytest.raises(ValueError, match="one token"):
            simulate(replace(engine(), tokens_per_step=1.8), 0.0, 10, 10)

    @pytest.mark.parametrize("reused", [-1, 10])
    def test_reused(self, reused: int) -> None:
        with pytest.raises(ValueError, match="reused"):
            simulate(engine(), 0.0, 10, 10, reused=reused)

    def test_lengths_and_counts(self) -> None:
        with pytest.raises(ValueError, match="at least one prompt"):
            simulate(engine(), 0.0, [10, 0], 5)
        with pytest.raises(ValueError, match="at least one prompt"):
            simulate(engine(), [], [], [])
        with pytest.raises(ValueError, match="not finite"):
            simulate(engine(), [np.nan], 10, 5)
        with pytest.raises(ValueError, match="at least one replica"):
            simulate(engine(), 0.0, 10, 5, replicas=0)
        with pytest.raises(ValueError, match="fastest"):
            simulate(engine(), 0.0, 10, 5, router="fastest")


def test_trace_of_a_profile_reads_as_numbers() -> None:
    profile = Profile(fixed(100), fixed(10))
    rng = np.random.default_rng(0)
    trace = simulate(
        engine(),
        arrivals(rng, 1_000, 5.0),
        profile.prompt.sample(rng, 1_000),
        profile.output.sample(rng, 1_000),
    )
    summary = trace.summary()
    assert summary.flat()["ttft_p99"] == summary.ttft.p99
    late = trace.ttft[100:]
    assert summary.ttft.mean == pytest.approx(late.mean())
    assert summary.ttft.p50 <= summary.ttft.p90 <= summary.ttft.p95 <= summary.ttft.p99
    share = trace.attainment({"ttft": summary.ttft.p90})
    assert share == pytest.approx(0.9, abs=0.005)
    with pytest.raises(KeyError, match="itl"):
        trace.attainment({"itl": 1.0})
