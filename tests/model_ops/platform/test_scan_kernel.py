"""A recurrence's kernel, derived by hand."""

import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelShape
from model_ops.platform.kernels import KernelEfficiency, ScanKernel, Work


def work(sequences: float, tokens: float) -> Work:
    """1 us of FLOP and 2 us of bytes per token."""
    return Work(
        compute=sequences * tokens * 1e-6,
        memory=sequences * tokens * 2e-6,
        launches=1.0,
        shape=KernelShape(format=Dtype.BF16, rows=tokens, groups=sequences),
        processors=100.0,
    )


def test_tokens_of_a_sequence_follow_each_other() -> None:
    # 10 tokens of 4 sequences: 40 us of FLOP at half the rate, and 10 steps of 3 us.
    kernel = ScanKernel(compute=0.5, memory=0.8, launch=1e-5, step=3e-6)
    found = kernel.time(work(4.0, 10.0))
    assert found.compute == pytest.approx(80e-6 + 30e-6)
    assert found.memory == pytest.approx(100e-6)
    assert found.total == pytest.approx(120e-6)


def test_sequences_do_not() -> None:
    kernel = ScanKernel(compute=1.0, memory=1.0, launch=0.0, step=1e-3)
    one, many = (kernel.time(work(n, 10.0)).total for n in (1.0, 100.0))
    assert one == pytest.approx(10e-3 + 10e-6)
    assert many == pytest.approx(10e-3 + 1e-3)


def test_what_is_exposed_is_added() -> None:
    kernel = ScanKernel(compute=1.0, memory=1.0, launch=1e-5, exposed=0.5)
    assert kernel.time(work(1.0, 10.0)).total == pytest.approx(20e-6 + 5e-6 + 1e-5)


def test_constant_shares_alone_are_the_roofline() -> None:
    own = KernelEfficiency(0.5, 0.8, 1e-5)
    given_work = work(3.0, 7.0)
    assert ScanKernel.plain(own).time(given_work).total == pytest.approx(
        own.time(given_work).total
    )
