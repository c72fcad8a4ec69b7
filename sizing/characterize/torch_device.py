"""The local accelerator, or the processor, through PyTorch."""

import importlib
import time
from collections.abc import Callable
from typing import Any

from model_ops.errors import ProblemError
from model_ops.units import Bytes, Seconds
from sizing.characterize.shapes import AnyShape, AttentionShape, GemmShape
from sizing.characterize.timing import Kernel

PROCESSOR_CACHE: Bytes = 64e6
"""Bytes of a processor's last-level cache; a GPU says its own."""

FP8_CAPABILITY = (8, 9)
"""CUDA compute capability from which on tensor cores compute FP8 (Ada, Hopper)."""


def load_torch() -> Any:
    """Return the PyTorch module.

    Raises
    ------
    ProblemError
        If it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise ProblemError(
            "characterize needs PyTorch: pip install 'genz-size[measure]'"
        ) from None


class TorchDevice:
    """Operators of PyTorch on a device: ``cuda`` (NVIDIA and AMD) or ``cpu``.

    Raises
    ------
    ProblemError
        If PyTorch sees no such device.
    """

    def __init__(self, torch: Any, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ProblemError(
                "--device: PyTorch sees no GPU here; 'cpu' runs the suite on the "
                "processor, to try it"
            )
        self.torch = torch
        self.device = device
        self.version: str = torch.__version__
        self._scratch: Any = None

    @property
    def _flushed(self) -> Bytes:
        """Bytes to write so that a cache holds nothing else: twice its own."""
        if self.device == "cpu":
            return 2 * PROCESSOR_CACHE
        return 2.0 * float(self.torch.cuda.get_device_properties(0).L2_cache_size)

    @property
    def name(self) -> str:
        """What the device calls itself."""
        if self.device == "cpu":
            return "cpu"
        return str(self.torch.cuda.get_device_name())

    @property
    def free_memory(self) -> Bytes:
        """Bytes that operands may take; without limit on a processor."""
        if self.device == "cpu":
            return float("inf")
        return float(self.torch.cuda.mem_get_info()[0])

    def lacks(self, shape: AnyShape) -> str | None:
        """Return why a shape cannot be measured here; None if it can."""
        if shape.bytes + self._flushed > self.free_memory:
            return f"{shape.bytes / 1e9:.1f} GB do not fit"
        if isinstance(shape, GemmShape) and shape.dtype == "fp8" and not self._fp8():
            return "no FP8 arithmetic"
        return None

    def _fp8(self) -> bool:
        if self.device == "cpu" or not hasattr(self.torch, "_scaled_mm"):
            return False
        return bool(self.torch.cuda.get_device_capability() >= FP8_CAPABILITY)

    def kernel(self, shape: AnyShape) -> tuple[str, Kernel]:
        """Return the name of the kernel that runs a shape, and what starts it."""
        if isinstance(shape, GemmShape):
            return self._gemm(shape)
        if isinstance(shape, AttentionShape):
            return self._attention(shape)
        first, second = self._random(shape.elements), self._random(shape.elements)
        if shape.op == "copy":
            return "torch.copy_", lambda: second.copy_(first)
        out = self.torch.empty_like(first)
        return "torch.add", lambda: self.torch.add(first, second, out=out)

    def _gemm(self, shape: GemmShape) -> tuple[str, Kernel]:
        torch = self.torch
        x, w = self._random(shape.m, shape.k), self._random(shape.n, shape.k)
        if shape.dtype != "fp8":
            y = torch.empty(shape.m, shape.n, dtype=x.dtype, device=self.device)
            return "torch.mm", lambda: torch.mm(x, w.t(), out=y)
        one = torch.ones((), device=self.device)
        x8, w8 = (each.to(torch.float8_e4m3fn) for each in (x, w))
        scaled_mm = torch._scaled_mm  # noqa: SLF001 - the only FP8 product there is
        return "torch._scaled_mm", lambda: scaled_mm(
            x8, w8.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16
        )

    def _attention(self, shape: AttentionShape) -> tuple[str, Kernel]:
        attend = self.torch.nn.functional.scaled_dot_product_attention
        tokens = shape.queries + shape.context
        q = self._random(shape.sequences, shape.heads, shape.queries, shape.head_size)
        k, v = (
            self._random(shape.sequences, shape.kv_heads, tokens, shape.head_size)
            for _ in range(2)
        )
        # A single query sees all that is cached; a causal mask would be a prompt's.
        causal = shape.context == 0
        return "torch.scaled_dot_product_attention", lambda: attend(
            q, k, v, is_causal=causal, enable_gqa=shape.heads != shape.kv_heads
        )

    def _random(self, *size: int) -> Any:
        """Return random numbers: power, and so clocks, depend on the data."""
        return self.torch.randn(*size, dtype=self.torch.bfloat16, device=self.device)

    def flush(self) -> object:
        """Overwrite more than the last-level cache holds."""
        if self._scratch is None:
            dtype = self.torch.int8
            size = int(self._flushed)
            self._scratch = self.torch.empty(size, dtype=dtype, device=self.device)
        return self._scratch.zero_()

    def record(self, kernel: Kernel, calls: int) -> Callable[[], Seconds]:
        """Return what runs a kernel so many times and returns its seconds.

        On a GPU the calls are one CUDA graph, so that no launch waits for the host.
        """
        if self.device == "cpu":
            return lambda: _on_the_host(kernel, calls)
        return self._graph(kernel, calls)

    def _graph(self, kernel: Kernel, calls: int) -> Callable[[], Seconds]:
        cuda = self.torch.cuda
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            kernel()
        cuda.current_stream().wait_stream(side)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            for _ in range(calls):
                kernel()
        graph.replay()
        start, end = (cuda.Event(enable_timing=True) for _ in range(2))

        def run() -> Seconds:
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end)) * 1e-3

        return run


def _on_the_host(kernel: Kernel, calls: int) -> Seconds:
    start = time.perf_counter()
    for _ in range(calls):
        kernel()
    return time.perf_counter() - start
