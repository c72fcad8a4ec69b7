"""Laws of the error: quantiles by group, widened for groups that nobody saw."""

import tomllib

import numpy as np
import pytest

from model_ops.estimate import LoadMode
from model_ops.platform.efficiency import Evidence
from problems.accuracy import LEVELS, LawFile
from sizing.validate.laws import Error, Law, laws, laws_toml

MODE = LoadMode.CLOSED_LOOP
MEDIAN, HIGH = LEVELS.index(0.5), LEVELS.index(0.95)


def errors(source: str, offset: float, groups: int, spread: float = 0.1) -> list[Error]:
    """Ten errors around an offset in each of some groups."""
    return [
        Error(MODE, "tpot", Evidence.MEASURED, f"{source}{group}", source, offset + off)
        for group in range(groups)
        for off in np.linspace(-spread, spread, 10)
    ]


def found(measured: list[Error], evidence: Evidence = Evidence.MEASURED) -> Law:
    (law,) = [
        law
        for law in laws(measured)
        if (law.mode, law.metric, law.evidence) == (MODE, "tpot", evidence)
    ]
    return law


def test_groups_weigh_the_same_however_many_rows_they_have() -> None:
    large = [
        Error(MODE, "tpot", Evidence.MEASURED, "large", "a", 1.0) for _ in range(500)
    ]
    law = found(errors("a", 0.0, 8) + errors("b", 0.0, 8) + large)
    assert law.groups == 17
    assert law.quantiles[MEDIAN] == pytest.approx(1.0, abs=0.02)


def test_sources_that_agree_need_no_more_width_than_they_show() -> None:
    law = found([e for s in "abcd" for e in errors(s, 0.0, 4)])
    assert np.log(law.quantiles[HIGH]) == pytest.approx(0.1, abs=0.03)


def test_groups_that_differ_widen_the_law_beyond_what_they_show() -> None:
    rng = np.random.default_rng(1)
    offsets = rng.normal(0.0, 0.5, 12)
    unlike = [
        error
        for number, offset in enumerate(offsets)
        for error in errors(f"{number}-", float(offset), 1)
    ]
    logs = np.array([error.log for error in unlike])
    assert np.log(found(unlike).quantiles[HIGH]) > np.quantile(logs, 0.95)


def test_kernels_that_nobody_measured_borrow_a_wider_law() -> None:
    measured = [e for s in "ab" for e in errors(s, 0.0, 4)]
    own, borrowed = found(measured), found(measured, Evidence.ASSUMED)
    assert borrowed.rows == own.rows
    assert np.log(borrowed.quantiles[HIGH]) == pytest.approx(
        1.5 * np.log(own.quantiles[HIGH])
    )


def test_the_file_is_read_back() -> None:
    written = list(laws([e for s in "ab" for e in errors(s, 0.0, 4)]))
    read = tomllib.loads(laws_toml(written))["laws"]
    assert len(read) == len(written) > 0
    for law, item in zip(written, read, strict=True):
        file = LawFile.model_validate(item)
        assert file.evidence is law.evidence
        assert file.quantiles == pytest.approx(law.quantiles, abs=1e-3)
