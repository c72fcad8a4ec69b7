"""What every test may use.

Goldens, rewritten with ``--update-golden``; toys small enough to compute by hand: an
NPU of round rates, a model of few layers; and plain NPUs, for tests of plans that no
new measurement may change. All are immutable; a test that wants another value takes
`dataclasses.replace`.
"""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import ConstantEfficiency
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.kernels import KernelEfficiency
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.step import Replica
from problems import accuracy, catalogue, stations
from problems.catalogue import hardware


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the golden files with what the tests now produce",
    )


@pytest.fixture(autouse=True)
def _any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reports be as wide as they may, whatever terminal the tests run in."""
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with a file of `goldens/` next to the test."""
    folder = Path(request.path).parent / "goldens"

    def check(name: str, text: str) -> None:
        path = folder / name
        text = text.strip() + "\n"
        if request.config.getoption("--update-golden"):
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no golden {path}; run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return check


INNER = Tier("toy switch", npus=4, bandwidth=1e10, latency=1e-6, direct=True)
OUTER = Tier("toy ring", npus=64, bandwidth=1e9, latency=1e-5, direct=False)


@pytest.fixture(scope="session")
def two_tiers() -> Fabric:
    return Fabric((INNER, OUTER))


@pytest.fixture(scope="session")
def toy_npu(two_tiers: Fabric) -> Npu:
    """1 TFLOP/s in 16 and 32 bits, 2 in FP8; 100 GB/s; 1 MB; ideal kernels."""
    return Npu(
        name="toy",
        flop_per_s={Dtype.BF16: 1e12, Dtype.FP32: 1e12, Dtype.FP8: 2e12},
        memory_bandwidth=1e11,
        memory_capacity=1e6,
        node_npus=4,
        fabric=two_tiers,
        step_overhead=1e-6,
    )


@pytest.fixture(scope="session")
def toy_layer() -> Layer:
    return Layer(
        mixer=Attention(num_attention_heads=4, num_key_value_heads=2, head_dim=8),
        ffn=DenseFfn(intermediate_size=64),
    )


@pytest.fixture(scope="session")
def toy_arch(toy_layer: Layer) -> ModelArch:
    return ModelArch(
        name="toy",
        model_type="llama",
        hidden_size=32,
        vocab_size=128,
        layers=(toy_layer,) * 6,
        extra_parameters=32,
    )


@pytest.fixture(scope="session")
def toy_replica(toy_arch: ModelArch, toy_npu: Npu) -> Replica:
    return Replica(toy_arch, Parallelism(1, 1), Precision(), Supply.of(toy_npu))


PLAIN_KERNELS = ConstantEfficiency(
    families={
        KernelFamily.GEMM: KernelEfficiency(compute=0.75, memory=0.8, launch=3e-6),
        KernelFamily.ATTENTION_PREFILL: KernelEfficiency(0.5, 0.25, 12e-6),
        KernelFamily.ATTENTION_DECODE: KernelEfficiency(0.07, 0.9, 14e-6),
        KernelFamily.ELEMENTWISE: KernelEfficiency(1.0, 0.55, 2e-6),
    },
    by_engine={},
)


PLAIN_LAW = accuracy.ErrorLaw(
    tuple(math.log(1.5) * x for x in (-1.5, -1.0, -0.7, -0.3, 0, 0.3, 0.7, 1.0, 1.5))
)
"""Nine measurements of ten are within 1.5 times the prediction, or its 1.5th part."""


def plain(npu: Npu) -> Npu:
    """Return an NPU of the catalogue as its datasheet has it, with round shares."""
    return replace(
        npu.ideal(),
        efficiency=PLAIN_KERNELS,
        link_efficiency=0.75,
        memory_usable=0.9,
        runtime_reserve=1.5e9,
        step_overhead=1.5e-3,
        request_overhead=5e-3,
    )


@pytest.fixture(scope="module")
def plain_npus() -> Iterator[None]:
    """Let the catalogue's NPUs and their errors be plain: no measurement moves them."""
    derived = (
        accuracy.assumed_npu,
        catalogue.load_npu,
        catalogue.load_npu_as,
        stations.step_times,
    )
    load = catalogue.load_npu_under
    with pytest.MonkeyPatch.context() as patch:
        for where in (catalogue, hardware):
            patch.setattr(where, "load_npu_under", lambda *names: plain(load(*names)))
        patch.setattr(accuracy, "error_law", lambda *_: PLAIN_LAW)
        for cached in derived:
            cached.cache_clear()
        yield
    for cached in derived:
        cached.cache_clear()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt, also where tests run in the background of a shell."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread alone")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
