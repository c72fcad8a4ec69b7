"""The suite on devices that are made up, and on a processor where PyTorch is."""

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from model_ops.errors import ProblemError
from problems.measured.operators import operator_rows, reader_of
from problems.measured.tables import read_rows
from sizing.characterize import torch_device
from sizing.characterize.run import Measurement, measure, tables
from sizing.characterize.shapes import (
    SUITES,
    AttentionShape,
    ElementwiseShape,
    GemmShape,
)
from sizing.characterize.timing import Sampling, kernel_seconds
from sizing.characterize.torch_device import TorchDevice, load_torch
from sizing.cli import cli

GEMM = GemmShape("bfloat16", m=2, n=3, k=5)


class Clockwork:
    """A device on which a kernel takes what its shape's bytes say, and no less."""

    version = "0"
    launch, flushing = 1e-5, 1e-3

    def __init__(self) -> None:
        self.now = 0.0
        self.recorded: list[int] = []

    def lacks(self, shape: object) -> str | None:
        return "too large" if shape.bytes > 1e9 else None

    def kernel(self, shape: object) -> tuple[str, Callable[[], None]]:
        def run() -> None:
            self.now += self.launch + shape.bytes / 1e9

        return "clockwork", run

    def flush(self) -> None:
        self.now += self.flushing

    def record(self, kernel: Callable[[], None], calls: int) -> Callable[[], float]:
        self.recorded.append(calls)

        def run() -> float:
            start = self.now
            for _ in range(calls):
                kernel()
            return self.now - start

        return run


def test_bytes_of_shapes_by_hand() -> None:
    assert GEMM.bytes == 2 * (2 * 5 + 5 * 3 + 2 * 3)
    assert GemmShape("fp8", 2, 3, 5).bytes == (2 * 5 + 5 * 3) + 2 * (2 * 3)
    # Queries and outputs of 4 heads, keys and values of 2, of 8 numbers of 2 bytes.
    decode = AttentionShape(3, 1, 9, heads=4, kv_heads=2, head_size=8)
    assert decode.bytes == 3 * (2 * (1 * 4) + 2 * (10 * 2)) * 8 * 2
    assert ElementwiseShape("copy", 10).bytes == 10 * (2 + 2)
    assert ElementwiseShape("add", 10).bytes == 10 * (4 + 2)


@pytest.mark.parametrize("suite", SUITES)
def test_suites_have_every_table_and_no_shape_twice(suite: str) -> None:
    shapes = list(SUITES[suite]())
    assert len(set(shapes)) == len(shapes)
    assert {shape.table for shape in shapes} == {
        "gemm",
        "context_attention",
        "generation_attention",
        "elementwise",
    }


@pytest.mark.parametrize("flush", [False, True])
def test_one_call_of_many(flush: bool) -> None:
    device = Clockwork()
    _, kernel = device.kernel(GEMM)
    sampling = Sampling(sample_seconds=1e-3, flush=flush)
    expected = 1e-5 + GEMM.bytes / 1e9
    assert kernel_seconds(kernel, device, sampling) == pytest.approx(expected)
    # A sample lasts a millisecond: 100 calls of 10 us, or one with its flush.
    longest = 1 if flush else 100
    assert device.recorded == ([1, 1, 1] if flush else [1, longest])


def test_the_median_ignores_a_hiccup() -> None:
    class Hiccups(Clockwork):
        def record(self, kernel: Callable[[], None], calls: int) -> Callable[[], float]:
            run, taken = super().record(kernel, calls), []

            def timed() -> float:
                taken.append(run())
                return taken[-1] * (100 if len(taken) == 2 else 1)

            return timed

    device = Hiccups()
    _, kernel = device.kernel(GEMM)
    expected = 1e-5 + GEMM.bytes / 1e9
    assert kernel_seconds(kernel, device, Sampling(samples=5)) == pytest.approx(
        expected
    )


def test_what_vanishes_behind_the_flushes_is_refused() -> None:
    device = Clockwork()
    with pytest.raises(ProblemError, match="too short"):
        kernel_seconds(lambda: None, device, Sampling(flush=True))


def test_nonsense_samplings_are_refused() -> None:
    with pytest.raises(ProblemError, match="at least 1"):
        Sampling(samples=0)


def test_what_does_not_fit_or_fails_is_told_and_the_rest_goes_on() -> None:
    class Fragile(Clockwork):
        def kernel(self, shape: object) -> tuple[str, Callable[[], None]]:
            if shape == ElementwiseShape("add", 8):
                raise RuntimeError("out of memory\nwith a long trace")
            return super().kernel(shape)

    large = ElementwiseShape("copy", 10**9)
    shapes = [large, ElementwiseShape("add", 8), GEMM]
    told: list[tuple[object, str]] = []
    found = list(
        measure(shapes, Fragile(), Sampling(), lambda *what: told.append(what))
    )
    assert [each.shape for each in found] == [GEMM]
    assert told == [
        (large, "too large"),
        (ElementwiseShape("add", 8), "out of memory"),
    ]


def test_tables_are_read_back_as_operators(tmp_path: Path) -> None:
    measured = list(
        measure(SUITES["small"](), Clockwork(), Sampling(samples=1), lambda *_: None)
    )
    texts = tables(measured, "h100-sxm", "pytorch", "2")
    for table, text in texts.items():
        path = tmp_path / f"{table}.csv"
        path.write_text(text, encoding="utf-8")
        columns, rows = read_rows(path)
        reader = reader_of(columns)
        assert reader is not None
        groups = list(operator_rows(reader, rows))
        assert {group.table for group in groups} == {table}
        assert {(g.npu, g.stack) for g in groups} == {("h100-sxm", "pytorch")}
        seconds = sorted(s for group in groups for s in group.seconds)
        own = sorted(each.seconds for each in measured if each.shape.table == table)
        assert seconds == pytest.approx(own, rel=1e-5)


def test_a_row_as_the_tables_have_it() -> None:
    text = tables([Measurement(GEMM, "mm", 2.5e-6)], "a100", "pytorch", "2")["gemm"]
    (row,) = csv.DictReader(text.splitlines())
    assert row == {
        "system": "a100",
        "framework": "pytorch",
        "version": "2",
        "kernel_source": "mm",
        "gemm_dtype": "bfloat16",
        "m": "2",
        "n": "3",
        "k": "5",
        "latency_ms": "0.0025",
    }


def test_without_pytorch_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(torch_device.importlib, "import_module", absent)
    with pytest.raises(ProblemError, match=r"pip install 'genz-size\[measure\]'"):
        load_torch()


def test_without_a_gpu_one_message() -> None:
    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: False), __version__="2"
    )
    with pytest.raises(ProblemError, match="no GPU here; 'cpu' runs the suite"):
        TorchDevice(torch, "cuda")
    assert TorchDevice(torch, "cpu").lacks(GemmShape("fp8", 1, 1, 1)) == (
        "no FP8 arithmetic"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--npu", "h1000"], "did you mean"),
        (
            ["--npu", "h100-sxm", "-o", "nowhere/at/all"],
            "there is no folder nowhere/at",
        ),
    ],
)
def test_bad_input_is_told(arguments: list[str], message: str) -> None:
    found = CliRunner().invoke(cli, ["characterize", *arguments])
    assert message in str(found.exception)


def test_on_a_processor(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    arguments = ["characterize", "--npu", "xeon-8480plus", "--device", "cpu"]
    arguments += ["--suite", "small", "--repeats", "1", "-o", str(tmp_path)]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 0, found.output
    written = {path.name for path in tmp_path.iterdir()}
    assert "gemm.csv" in written
