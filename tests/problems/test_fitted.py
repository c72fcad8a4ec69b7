"""Fitted figures are counted from the catalogue itself."""

from problems import catalogue
from problems.catalogue.fitted import fitted
from problems.catalogue.measured_kernels import kernels_file


def test_every_kind_has_fewer_parameters_than_measurements() -> None:
    found = {each.what: each for each in fitted()}
    assert set(found) == {"kernels", "collectives", "engines"}
    for each in (found["kernels"], found["collectives"]):
        assert 0 < 5 * each.parameters < each.measurements
    assert found["engines"].measurements is None


def test_kernels_are_counted_fit_by_fit() -> None:
    (count,) = (each for each in fitted() if each.what == "kernels")
    parameters = rows = 0
    for npu in catalogue.names("kernels"):
        for fit in kernels_file(npu).fits:
            parameters += len(fit.parameters)
            rows += fit.rows
    assert (count.parameters, count.measurements) == (parameters, rows)
