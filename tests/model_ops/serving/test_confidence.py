"""Intervals over runs, and verdicts on limits."""

import numpy as np
import pytest

from model_ops.serving.confidence import (
    Confidence,
    Interval,
    Verdict,
    confidence,
    open_loop,
)
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.lengths import fixed, lognormal
from model_ops.serving.step_curve import StepCurve
from model_ops.serving.trace import Counters, Trace

CURVE = StepCurve.line(
    overhead=1e-3,
    weights=8e-3,
    per_token=4e-5,
    per_sequence=1e-5,
    per_cached=5e-8,
    per_pair=1e-8,
    most_tokens=512,
)
TOY = Engine(CURVE, 512, 64, 20_000)


def of_ttft(seconds: float) -> Trace:
    """Return the trace of requests that all have this TTFT, and a second per token."""
    start = np.arange(10.0)
    two = np.full(10, 2)
    counters = Counters(10, 10, 0, 1.0, 1.0, 1)
    return Trace(start, start, start + seconds, start + seconds + 1, two, two, counters)


class TestInterval:
    def test_students_t_by_hand(self) -> None:
        # Five values of mean 3 and standard deviation sqrt(2.5); t(4) is 2.776.
        interval = Interval.of(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
        assert interval.mean == 3.0
        assert interval.half_width == pytest.approx(2.776 * np.sqrt(2.5 / 5))

    def test_one_run_says_nothing(self) -> None:
        assert Interval.of(np.array([1.0])).verdict(1e9) is Verdict.UNDECIDED

    @pytest.mark.parametrize(
        ("most", "verdict"),
        [
            (10.0, Verdict.UNDECIDED),
            (10.9, Verdict.UNDECIDED),
            (11.0, Verdict.PASS),
            (9.0, Verdict.UNDECIDED),
            (8.9, Verdict.FAIL),
        ],
    )
    def test_verdict(self, most: float, verdict: Verdict) -> None:
        assert Interval(10.0, 1.0).verdict(most) is verdict

    def test_covers_the_truth_19_times_of_20(self) -> None:
        rng = np.random.default_rng(0)
        runs = rng.normal(7.0, 2.0, (4_000, 5))
        intervals = [Interval.of(values) for values in runs]
        covered = [abs(each.mean - 7.0) <= each.half_width for each in intervals]
        assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


class TestConfidence:
    def test_doubles_the_runs_up_to_the_cap_while_undecided(self) -> None:
        told: list[tuple[int, int]] = []
        found = confidence(
            lambda seed, requests: of_ttft(1.0 + seed % 2),
            {"ttft_mean": 1.5},
            runs=2,
            most_runs=7,
            progress=lambda done, total: told.append((done, total)),
        )
        assert found.verdict is Verdict.UNDECIDED
        assert found.runs == 7
        assert told == [(1, 2), (2, 2), (3, 4), (4, 4), (5, 7), (6, 7), (7, 7)]

    def test_stops_when_decided(self) -> None:
        def run(limits: dict[str, float]) -> Confidence:
            return confidence(lambda seed, _: of_ttft(1.0 + seed / 1e3), limits)

        kept, exceeded = {"ttft_p99": 1.1}, {"tpot_p50": 0.9}
        assert run(kept).verdict is Verdict.PASS
        assert run(exceeded).verdict is Verdict.FAIL
        assert run(kept | exceeded).verdict is Verdict.FAIL
        assert run({}).verdict is Verdict.PASS
        assert run(kept).runs == 5
        assert run(kept).intervals["ttft_mean"].mean == pytest.approx(1.002)

    def test_unknown_statistic(self) -> None:
        with pytest.raises(KeyError, match="ttft_p42"):
            confidence(lambda *_: of_ttft(1.0), {"ttft_p42": 1.0})

    def test_no_run(self) -> None:
        with pytest.raises(ValueError, match="at least one run"):
            confidence(lambda *_: of_ttft(1.0), {}, runs=0)


class TestOpenLoop:
    def test_equal_seeds_give_equal_traces(self) -> None:
        profile = Profile(lognormal(200, 1.0), lognormal(60, 0.8))
        run = open_loop(TOY, profile, 8.0)
        assert run(3, 500).finish.tolist() == run(3, 500).finish.tolist()
        assert run(3, 500).finish.tolist() != run(4, 500).finish.tolist()

    def test_a_limit_between_two_loads(self) -> None:
        profile = Profile(lognormal(200, 1.0), lognormal(60, 0.8))
        light, heavy = (
            confidence(open_loop(TOY, profile, rate), {"ttft_p95": 0.5}, requests=4_000)
            for rate in (5.0, 300.0)
        )
        assert light.verdict is Verdict.PASS
        assert heavy.verdict is Verdict.FAIL

    def test_prefix_hits_shorten_prefill(self) -> None:
        plain = open_loop(TOY, Profile(fixed(400), fixed(10)), 1.0)
        hits = open_loop(TOY, Profile(fixed(400), fixed(10), cached_share=0.75), 1.0)
        saved = plain(0, 1).ttft - hits(0, 1).ttft
        pairs = 400**2 / 2 - 100 * 300 - 100**2 / 2
        base = CURVE.base_at(np.array([400, 100]))
        assert saved == pytest.approx([base[0] - base[1] + 1e-8 * pairs])

    def test_rejected_requests_are_counted(self) -> None:
        profile = Profile(fixed(19_000), fixed(2_000))
        assert confidence(open_loop(TOY, profile, 1.0), {}, requests=3).rejected == 15
