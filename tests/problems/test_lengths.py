"""Stated lengths: each form keeps what it states."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_ops.errors import ProblemError
from model_ops.serving.engine import Profile
from model_ops.serving.lengths import fixed, lognormal
from problems import catalogue
from problems.lengths import (
    LEVELS,
    LengthTable,
    check_lengths,
    lengths_of,
    mean_of,
)


def quantile(table: LengthTable, level: float) -> float:
    return float(table.lengths.quantile(np.array(level)))


@given(st.integers(1, 10**8))
def test_a_whole_number_is_every_request(tokens: int) -> None:
    lengths = lengths_of(tokens)
    assert lengths.is_fixed
    assert mean_of(lengths) == tokens
    assert lengths.variation == pytest.approx(0.0, abs=1e-6)


@given(st.floats(50, 1e5), st.floats(0.05, 1.5), st.floats(2.0, 8.0))
def test_a_cut_law_keeps_its_mean(mean: float, cv: float, times: float) -> None:
    lengths = lognormal(mean, cv, most=times * mean)
    assert lengths.mean == pytest.approx(mean, rel=0.01)
    assert lengths.tokens[-1] <= times * mean
    assert lengths.variation <= lognormal(mean, cv).variation + 1e-9


@given(st.floats(50, 1e5), st.floats(0.05, 1.5))
def test_mean_and_cv_are_kept(mean: float, cv: float) -> None:
    lengths = LengthTable(mean=mean, cv=cv).lengths
    assert lengths.mean == pytest.approx(mean, rel=2e-3)
    assert lengths.variation == pytest.approx(cv, rel=0.02)


def test_lognormal_quantiles_by_hand() -> None:
    # cv 1: sigma^2 = ln 2, median = mean / sqrt(1 + cv^2), p90 = median e^(1.28 sigma).
    table = LengthTable(mean=512.0, cv=1.0)
    median = 512 / math.sqrt(2)
    assert quantile(table, 0.5) == pytest.approx(median, rel=5e-3)
    p90 = median * math.exp(1.2816 * math.sqrt(math.log(2)))
    assert quantile(table, 0.9) == pytest.approx(p90, rel=5e-3)


def test_cv_zero_is_a_fixed_length() -> None:
    assert lengths_of(LengthTable(mean=512.0, cv=0.0)) == fixed(512.0)


@given(
    st.lists(st.floats(1, 1e5), min_size=7, max_size=7, unique=True),
    st.sets(st.sampled_from(sorted(LEVELS)), min_size=2),
)
def test_quantiles_are_kept_and_ascend(values: list[float], names: set[str]) -> None:
    stated = dict(zip(sorted(LEVELS), sorted(values), strict=True))
    table = LengthTable(**{name: stated[name] for name in names})
    for name in names:
        assert quantile(table, LEVELS[name]) == pytest.approx(stated[name])
    levels = np.linspace(0, 1, 500)
    assert (np.diff(table.lengths.quantile(levels)) >= 0).all()
    assert table.lengths.tokens[0] >= 1


@given(st.floats(0.75, 1.3))
def test_a_stated_mean_is_kept_with_the_quantiles(share: float) -> None:
    plain = LengthTable(p50=1020.0, p90=2734.0, p99=4142.0)
    mean = share * plain.lengths.mean
    table = plain.model_copy(update={"mean": mean})
    assert table.lengths.mean == pytest.approx(mean, rel=0.01)
    assert quantile(table, 0.5) == pytest.approx(1020.0)
    assert quantile(table, 0.99) == pytest.approx(4142.0)


def test_ends_are_kept() -> None:
    table = LengthTable(min=900.0, p50=1000.0, p90=1500.0, max=1600.0)
    assert table.lengths.tokens[0] == 900.0
    assert table.lengths.tokens[-1] == 1600.0


def test_a_tail_goes_on_as_a_lognormal_one_by_hand() -> None:
    # Scores of 50 %, 90 % and 99.99 %: 0, 1.2816 and 3.7190.
    table = LengthTable(p50=100.0, p90=200.0)
    assert table.lengths.tokens[-1] == pytest.approx(
        200 * 2 ** (3.7190 / 1.2816 - 1), 1e-3
    )


def test_a_mean_may_ask_for_a_longer_tail_than_the_lognormal_one() -> None:
    narrow = LengthTable(p50=100.0, p90=110.0, max=50_000.0)
    assert narrow.lengths.tokens[-1] < 200
    wide = LengthTable(p50=100.0, p90=110.0, max=50_000.0, mean=1500.0)
    assert wide.lengths.tokens[-1] == 50_000.0
    assert wide.lengths.mean == pytest.approx(1500.0, rel=0.01)


def test_equal_quantiles_are_no_contradiction() -> None:
    table = LengthTable(p10=5.0, p50=5.0, p90=5.0)
    assert quantile(table, 0.3) == 5.0


def test_requests_of_one_length_must_all_fit() -> None:
    arch = catalogue.load_model("gpt2")  # 1024 positions
    check_lengths("traffic.x", arch, Profile(fixed(1000), fixed(24)))
    with pytest.raises(ProblemError, match=r"traffic\.x: .* = 1025 exceeds"):
        check_lengths("traffic.x", arch, Profile(fixed(1000), fixed(25)))


def test_one_request_in_a_hundred_may_be_too_long() -> None:
    arch = catalogue.load_model("gpt2")
    fits = LengthTable(p50=100.0, p99=900.0, max=5000.0).lengths
    check_lengths("traffic.x", arch, Profile(fits, fixed(100)))
    # The 90th percentile is 1000 of the 1024 positions; 10 % are longer than 900.
    long = LengthTable(p50=100.0, p90=924.0, max=2000.0).lengths
    with pytest.raises(ProblemError, match=r"traffic\.x: 10\.\d% .* 1024"):
        check_lengths("traffic.x", arch, Profile(long, fixed(100)))
