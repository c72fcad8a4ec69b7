"""Libraries that print for themselves are not heard."""

import ctypes
import os
import sys

import pytest

from solver.quiet import quiet


@pytest.mark.skipif(sys.platform == "win32", reason="C's output is another there")
def test_what_others_print_is_dropped_and_ours_is_kept(
    capfd: pytest.CaptureFixture[str],
) -> None:
    sys.stdout.write("before\n")
    with quiet():
        os.write(1, b"at once\n")
        ctypes.CDLL(None).printf(b"held back\n")
    sys.stdout.write("after\n")
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == "before\nafter\n"


def test_an_error_leaves_the_output_as_it_was(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RuntimeError), quiet():
        raise RuntimeError
    sys.stdout.write("heard\n")
    sys.stdout.flush()
    assert capfd.readouterr().out == "heard\n"


def test_the_last_of_several_opens_the_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    first, second = quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    os.write(1, b"still dropped\n")
    second.__exit__(None, None, None)
    os.write(1, b"heard\n")
    assert capfd.readouterr().out == "heard\n"
