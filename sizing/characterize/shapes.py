"""What is measured: operators at the shapes that serving meets, and their columns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from model_ops.units import Bytes

Cell = str | int | float


class Shape(Protocol):
    """An operator at one shape."""

    table: ClassVar[str]

    @property
    def bytes(self) -> Bytes:
        """Memory that its operands take."""
        ...

    def columns(self) -> Mapping[str, Cell]:
        """Return its cells, by the columns of its table."""
        ...


@dataclass(frozen=True, slots=True)
class GemmShape:
    """``y[m, n] = x[m, k] w[k, n]``: m tokens through weights of k x n.

    `dtype` is ``bfloat16`` or ``fp8``, scaled per tensor; outputs have 16 bits.
    """

    table: ClassVar[str] = "gemm"

    dtype: str
    m: int
    n: int
    k: int

    @property
    def bytes(self) -> Bytes:
        """Memory of inputs, weights and outputs, the latter two bytes each."""
        wide = 1.0 if self.dtype == "fp8" else 2.0
        return wide * (self.m * self.k + self.k * self.n) + 2.0 * self.m * self.n

    def columns(self) -> Mapping[str, Cell]:
        """Return its cells."""
        return {"gemm_dtype": self.dtype, "m": self.m, "n": self.n, "k": self.k}


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Causal attention of `queries` new tokens after `context` cached ones, in bf16.

    Parameters
    ----------
    sequences
        Sequences, alike.
    queries, context
        New tokens of each and those in its cache: none of either in a plain prompt,
        one query in decode.
    heads, kv_heads, head_size
        On this accelerator.
    """

    sequences: int
    queries: int
    context: int
    heads: int
    kv_heads: int
    head_size: int = 128

    @property
    def table(self) -> str:
        """Prompts and answers have tables of their own."""
        return "generation_attention" if self.context else "context_attention"

    @property
    def bytes(self) -> Bytes:
        """Memory of queries and outputs, keys and values."""
        rows = self.queries * self.heads + (self.queries + self.context) * self.kv_heads
        return 4.0 * self.sequences * rows * self.head_size

    def columns(self) -> Mapping[str, Cell]:
        """Return its cells."""
        return {
            "batch_size": self.sequences,
            "isl": self.queries,
            "num_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "window_size": 0,
            "attn_dtype": "bfloat16",
            "kv_cache_dtype": "bfloat16",
            "step": self.context,
        }


@dataclass(frozen=True, slots=True)
class ElementwiseShape:
    """A pass over bf16 tensors: ``copy`` reads and writes one, ``add`` reads two."""

    table: ClassVar[str] = "elementwise"

    op: str
    elements: int

    @property
    def read(self) -> int:
        """Bytes read per element."""
        return {"copy": 2, "add": 4}[self.op]

    @property
    def bytes(self) -> Bytes:
        """Memory of what is read and written."""
        return float(self.elements * (self.read + 2))

    def columns(self) -> Mapping[str, Cell]:
        """Return its cells."""
        return {
            "op_name": self.op,
            "elements": self.elements,
            "read_bytes": self.read,
            "written_bytes": 2,
        }


AnyShape = GemmShape | AttentionShape | ElementwiseShape

_WEIGHTS = (
    # n x k of layers with a hidden size of 4096, 5120 and 8192, whole and split in 8.
    (6144, 4096),
    (4096, 4096),
    (28672, 4096),
    (4096, 14336),
    (10240, 5120),
    (5120, 3200),
    (1280, 8192),
    (8192, 1024),
    (7168, 8192),
    (57344, 8192),
    (8192, 28672),
)
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_HEADS = ((32, 8), (8, 1), (64, 8), (32, 32))
_PROMPTS = ((1, 128), (1, 512), (8, 512), (1, 2048), (4, 2048), (1, 8192), (1, 32768))
_DECODES = (
    (1, 1024),
    (1, 16384),
    (8, 512),
    (8, 4096),
    (32, 2048),
    (64, 1024),
    (64, 8192),
    (256, 1024),
)
_ELEMENTS = tuple(2**power for power in range(10, 31, 2))


def full() -> Iterator[AnyShape]:
    """Yield the shapes of a characterisation: some minutes on a large accelerator."""
    for dtype in ("bfloat16", "fp8"):
        for n, k in _WEIGHTS:
            yield from (GemmShape(dtype, m, n, k) for m in _TOKENS)
    for heads, kv_heads in _HEADS:
        for sequences, tokens in _PROMPTS:
            yield AttentionShape(sequences, tokens, 0, heads, kv_heads)
        for sequences, tokens in _DECODES:
            yield AttentionShape(sequences, 1, tokens - 1, heads, kv_heads)
    for op in ("copy", "add"):
        yield from (ElementwiseShape(op, elements) for elements in _ELEMENTS)


def small() -> Iterator[AnyShape]:
    """Yield a few small shapes of each operator: seconds, even on a processor."""
    yield from (
        GemmShape("bfloat16", m, 256, k) for m in (1, 16, 64) for k in (128, 256)
    )
    for heads in (2, 4):
        for tokens in (16, 64, 256):
            yield AttentionShape(1, tokens, 0, heads, 2, 64)
            yield AttentionShape(2, 1, tokens - 1, heads, 2, 64)
    for op in ("copy", "add"):
        yield from (ElementwiseShape(op, 2**power) for power in (10, 14, 18))


SUITES = {"full": full, "small": small}
"""Lists of shapes by name."""
