"""The currency between demand and supply: what an operator costs, without a clock.

A profiler's operator says what it needs (`OpCost`) and of what kind it is
(`KernelFamily`, or a collective); a platform says how long that takes. Numbers
are Python floats for one point or numpy arrays that broadcast for a million.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from model_ops.dtypes import Dtype
from model_ops.units import Bytes

Number: TypeAlias = float | npt.NDArray[np.floating[Any]] | npt.NDArray[np.integer[Any]]
"""A scalar, or an array whose axes broadcast over deployment points."""

Mask: TypeAlias = bool | np.bool_ | npt.NDArray[np.bool_]
"""Yes or no, for one point or for each."""


class KernelFamily(StrEnum):
    """Kernels that share an implementation, and so an efficiency."""

    GEMM = "gemm"
    ATTENTION_PREFILL = "attention_prefill"
    ATTENTION_DECODE = "attention_decode"
    ELEMENTWISE = "elementwise"
    MLA_PREFILL = "mla_prefill"
    MLA_DECODE = "mla_decode"
    MOE = "moe"
    SCAN = "scan"
    SCAN_DECODE = "scan_decode"

    @property
    def label(self) -> str:
        """Its name in sentences."""
        return _LABELS.get(self, self.value.replace("_", " "))

    @property
    def relative(self) -> "KernelFamily":
        """The family whose efficiency it takes where nobody measured its own."""
        return _RELATIVES.get(self, self)


_RELATIVES = {
    KernelFamily.MLA_PREFILL: KernelFamily.ATTENTION_PREFILL,
    KernelFamily.MLA_DECODE: KernelFamily.ATTENTION_DECODE,
    KernelFamily.MOE: KernelFamily.GEMM,
    KernelFamily.SCAN: KernelFamily.ELEMENTWISE,
    KernelFamily.SCAN_DECODE: KernelFamily.ELEMENTWISE,
}


_LABELS = {
    KernelFamily.GEMM: "GEMM",
    KernelFamily.MLA_PREFILL: "MLA prefill",
    KernelFamily.MLA_DECODE: "MLA decode",
    KernelFamily.MOE: "expert",
    KernelFamily.SCAN: "state-space scan",
    KernelFamily.SCAN_DECODE: "state-space step",
}


class CollectiveKind(StrEnum):
    """What a group of NPUs does together."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    DISPATCH = "dispatch"
    """Tokens to the ranks of their experts: an all-to-all with kernels of its own."""
    COMBINE = "combine"
    """The experts' outputs back to the ranks of their tokens."""
    BROADCAST = "broadcast"
    SEND = "send"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCost:
    """What an operator needs from one NPU; costs add and scale.

    Parameters
    ----------
    flop
        Floating-point operations (a multiply-add is two) per arithmetic engine.
    read, written
        Bytes that cross the NPU's memory interface.
    weights, cache
        Bytes of `read` that are weights, and that are KV cache or state: what a
        deployment may keep in a second, larger memory.
    link_bytes
        Bytes that the NPU must send to others, at the least.
    launches
        Kernels started.
    """

    flop: Mapping[Dtype, Number] = field(default_factory=dict)
    read: Number = 0.0
    written: Number = 0.0
    weights: Bytes | Number = 0.0
    cache: Bytes | Number = 0.0
    link_bytes: Number = 0.0
    launches: Number = 0.0

    # An array to the left leaves the product to __rmul__, which scales by all of it.
    __array_ufunc__: ClassVar[None] = None

    @property
    def bytes(self) -> Number:
        """Bytes read and written."""
        return self.read + self.written

    @property
    def total_flop(self) -> Number:
        """FLOP over all engines."""
        return sum(self.flop.values(), start=0.0)

    @property
    def intensity(self) -> Number:
        """FLOP per byte of memory traffic."""
        return self.total_flop / np.maximum(self.bytes, 1e-300)

    def __add__(self, other: "OpCost") -> "OpCost":
        engines = self.flop.keys() | other.flop.keys()
        return OpCost(
            flop={e: self.flop.get(e, 0.0) + other.flop.get(e, 0.0) for e in engines},
            read=self.read + other.read,
            written=self.written + other.written,
            weights=self.weights + other.weights,
            cache=self.cache + other.cache,
            link_bytes=self.link_bytes + other.link_bytes,
            launches=self.launches + other.launches,
        )

    def __mul__(self, times: Number) -> "OpCost":
        return OpCost(
            flop={engine: flop * times for engine, flop in self.flop.items()},
            read=self.read * times,
            written=self.written * times,
            weights=self.weights * times,
            cache=self.cache * times,
            link_bytes=self.link_bytes * times,
            launches=self.launches * times,
        )

    __rmul__ = __mul__


@dataclass(frozen=True, slots=True)
class Placement:
    """Shares kept in the NPU's second, larger memory, and read from there.

    Parameters
    ----------
    weights, cache
        Shares of the weights, and of the KV cache and state; 0 to 1.
    """

    weights: Number = 0.0
    cache: Number = 0.0


RESIDENT = Placement()
"""Everything in the NPU's own memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelShape:
    """How an operator's work can be cut, as far as its kernel's speed depends on it.

    A kernel solves `groups` independent problems, each a matrix of `rows` by `columns`
    whose elements are sums over `depth` terms.

    Parameters
    ----------
    format
        How the operand that is kept in memory is stored: weights, KV cache.
    rows, columns, depth
        Of a linear layer m, n and k; of attention the query rows that share a key, the
        keys that a query sees, and the elements of a key.
    groups
        Weight matrices; of attention sequences times KV heads.
    repeats
        Rows that stand for the same token: query heads that share a KV head.
    cut
        Share of the rows whose first columns a sliding window cuts off.
    windowed
        Whether there is such a window, however long.
    tile_bytes
        Of a product of matrices: the geometric mean of the bytes of an input, a weight
        and a sum; 0 of what is none. See `reload`.
    sweep_bytes
        Of attention: the geometric mean of the bytes of a row and of a key, over the
        root of the FLOP of the two.
    """

    format: Dtype
    rows: Number = 1.0
    columns: Number = 1.0
    depth: Number = 1.0
    groups: Number = 1.0
    repeats: Number = 1.0
    cut: Number = 0.0
    windowed: Mask = False
    tile_bytes: Bytes | Number = 0.0
    sweep_bytes: Bytes | Number = 0.0

    def reload(self, on_chip_memory: Bytes | Number) -> Bytes | Number:
        """Return the least bytes per FLOP that cross the memory interface.

        A product of m rows, n columns and depth k, whose numbers take a, b and c bytes
        (inputs, weights, sums), moves through S bytes of on-chip memory at least ::

            2 m n k sqrt(a b c / S)

        whatever its order: J.-W. Hong, H. T. Kung, "I/O complexity: the red-blue pebble
        game", STOC 1981; D. Irony, S. Toledo, A. Tiskin, JPDC 64(9), 2004; the constant
        for numbers of one width: T. M. Smith et al., arXiv:1702.02017, and G.
        Kwasniewski et al., "Red-blue pebbling revisited", SC 2019. Sums that fill S,
        with a column of inputs and a row of weights at a time, reach it. The proof
        bounds the products among what is on the chip in one stretch by the root of
        the three counts' product, and so holds for three widths.

        Attention keeps rows of queries and of outputs (r bytes each) while all keys and
        values (p bytes each) pass by: ``pairs r p / S``, the order of T. Dao,
        "FlashAttention-2", 2023, the least up to a constant: B. Saha, C. Ye, "The I/O
        complexity of attention", ICML 2024 (S of a key's size squared or more).

        Parameters
        ----------
        on_chip_memory
            Bytes of the NPU's scratchpad or last cache; infinite where nothing is
            known of it.
        """
        tiles = self.tile_bytes * (self.tile_bytes / on_chip_memory) ** 0.5
        return tiles + self.sweep_bytes * (self.sweep_bytes / on_chip_memory)


class Operator(Protocol):
    """Work of one NPU on its own arithmetic and memory."""

    @property
    def name(self) -> str:
        """What the operator does, e.g. ``"qkv_proj"``."""
        ...

    @property
    def family(self) -> KernelFamily:
        """Kernels it shares its efficiency with."""
        ...

    def cost(self) -> OpCost:
        """Return what one execution needs."""
        ...

    def shape(self) -> KernelShape:
        """Return how its work can be cut."""
        ...


@dataclass(frozen=True, slots=True)
class Collective:
    """Work of a group of NPUs on their links.

    Parameters
    ----------
    name
        What it carries, e.g. ``"attention_all_reduce"``.
    kind
        The collective operation.
    payload
        Bytes of the whole message, as one rank holds it before or after: what is
        reduced, gathered, sent or broadcast, and in an all-to-all what one rank
        hands out to all, itself included.
    ranks
        NPUs of the group; for a send, the NPUs of the whole replica.
    stride
        NPUs from one member to the next: 1 if the group is placed innermost
        first, 8 if each member is one of a tensor-parallel group of 8.
    """

    name: str
    kind: CollectiveKind
    payload: Number
    ranks: Number
    stride: Number = 1

    def cost(self) -> OpCost:
        """Return the least bytes each rank must send; none if it is alone.

        With n ranks and a payload of B bytes, where no switch helps:

        - all-gather: what a rank lacks, others send it: ``(n - 1) / n B``.
        - reduce-scatter: the same backwards.
        - all-reduce: both, one after the other: ``2 (n - 1) / n B``.
        - all-to-all, dispatch, combine: all parts but a rank's own: ``(n - 1) / n B``.
        - broadcast: n - 1 ranks receive B, sent by all alike: ``(n - 1) / n B``.
        - send: ``B``.

        Source: E. Chan et al., "Collective communication: theory, practice, and
        experience", CCPE 19(13), 2007 (its lower bounds).
        """
        if self.kind is CollectiveKind.SEND:
            share = np.minimum(self.ranks - 1, 1)
        else:
            phases = 2.0 if self.kind is CollectiveKind.ALL_REDUCE else 1.0
            share = phases * ((self.ranks - 1) / self.ranks)
        return OpCost(link_bytes=self.payload * share, launches=1.0)
