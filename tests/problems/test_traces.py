"""The traces of the catalogue: their laws keep what was measured."""

import numpy as np
import pytest

from problems import catalogue

TRACES = catalogue.names("traces")


@pytest.mark.parametrize("name", TRACES)
def test_quantiles_and_mean_are_kept(name: str) -> None:
    file = catalogue.trace_file(name)
    for stated in (file.prompt, file.output):
        for level in (0.5, 0.9, 0.99):
            measured = getattr(stated, f"p{level * 100:.0f}")
            kept = stated.lengths.quantile(np.array(level))
            assert kept == pytest.approx(measured, rel=1e-6)
        assert stated.lengths.mean == pytest.approx(stated.mean, rel=1e-3)
        assert stated.max is not None
        assert stated.lengths.tokens[-1] <= stated.max


@pytest.mark.parametrize("name", TRACES)
def test_variation_is_near_the_measured_one(name: str) -> None:
    """The quantiles and the mean alone decide it; the tail beyond p99 is a guess."""
    file = catalogue.trace_file(name)
    assert 0.7 < file.prompt.lengths.variation / file.prompt_cv < 1.55
    assert 0.7 < file.output.lengths.variation / file.output_cv < 1.55


def test_figures_of_the_azure_traces() -> None:
    """github.com/Azure/AzurePublicDataset, 2023: rows counted and averaged."""
    code, conv = map(catalogue.trace_file, ("azure-2023-code", "azure-2023-conv"))
    assert (code.requests, conv.requests) == (8819, 19366)
    assert (code.prompt.mean, code.output.mean) == (2048, 27.88)
    assert (conv.prompt.mean, conv.output.mean) == (1155, 211.1)
    assert {code.licence, conv.licence} == {"CC-BY-4.0"}


@pytest.mark.parametrize("name", TRACES)
def test_rate_and_length_give_the_requests(name: str) -> None:
    file = catalogue.trace_file(name)
    if file.rate is not None and file.hours is not None:
        assert file.rate * file.hours * 3600 == pytest.approx(file.requests, rel=0.05)


def test_names_are_short_and_aliases_lead_to_them() -> None:
    assert all(len(name) <= 22 and name == name.lower() for name in TRACES)
    assert catalogue.canonical("traces", "ShareGPT") == "sharegpt-llama"
