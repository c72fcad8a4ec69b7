"""Attention with a cache: prompts in tiles of queries, answers key head by key head.

Sources of the forms: T. Dao, "FlashAttention-2", 2023 (tiles of queries, causal mask),
and T. Dao et al., "Flash-Decoding", 2023 (splits of the keys).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from model_ops.opcost import KernelShape, Mask, Number
from model_ops.platform.kernels.base import KernelEfficiency, OpTime, Work
from model_ops.units import Seconds

HEAD_SIZES = (64.0, 128.0, 192.0, 256.0)
"""Elements of a key that kernels are compiled for; others lie between."""

SPLIT = 512.0
"""Keys at which half of `combine` is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillKernel:
    """Softmax(q k') v of many queries: tiles of queries pass over the keys they see.

    With n queries of g heads per key head, which see c keys on average, on P
    processors, which together take s seconds for a query, key and head::

        tokens  = n + padding / (1 + packing (g - 1))
        seen    = c + lead + cut_lead x share of queries that a window cuts off
        last    = tile x keys that the last query sees
        compute = s (heads tokens seen + P last) / efficiency of the head size
        memory  = bytes / (bandwidth efficiency)
        t       = launch + longer of both + exposed x shorter of both

    More queries, context or heads never take less time, nor do slower rates.

    Parameters
    ----------
    compute, memory
        Shares of the peak rates that long prompts reach, with 128 elements per key.
    size_64, size_192, size_256
        `compute` with other sizes over that with 128: kernels are compiled per size,
        and softmax costs the same whatever the size.
    launch
        Start of the kernel, and of those that prepare queries and cache.
    exposed
        Share of the shorter of compute and memory that the longer does not hide.
    padding
        Queries that a sequence's last tile computes in vain.
    packing
        Whether the heads of a key head share a tile (1) or each has its own (0).
    lead
        Keys whose time a tile takes besides: half a tile that the causal mask hides,
        filling and draining the pipeline, the last division.
    cut_lead
        The same of a sliding window's far edge.
    tile
        Queries that pass over the keys together.
    """

    compute: Number
    memory: Number
    launch: Seconds | Number
    exposed: Number = 0.0
    padding: Number = 0.0
    packing: Number = 0.0
    lead: Number = 0.0
    cut_lead: Number = 0.0
    tile: Number = 0.0
    size_64: Number = 1.0
    size_192: Number = 1.0
    size_256: Number = 1.0

    CHOICES: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "compute": (0.02, 1.0),
        "memory": (0.02, 1.0),
        "launch": (1e-6, 2e-4),
        "exposed": (1e-3, 1.0),
        "padding": (1.0, 512.0),
        "packing": (1e-3, 1.0),
        "lead": (1.0, 3000.0),
        "cut_lead": (1.0, 3000.0),
        "tile": (8.0, 512.0),
        "size_64": (0.04, 25.0),
        "size_192": (0.04, 25.0),
        "size_256": (0.04, 25.0),
    }

    def time(self, work: Work) -> OpTime:
        """Return the seconds of the work."""
        shape = work.shape
        queries, seen = shape.rows / shape.repeats, shape.columns
        lead = self.lead + self.cut_lead * shape.cut
        packed = 1.0 + self.packing * (shape.repeats - 1.0)
        heads = shape.groups * shape.repeats
        each = work.compute / np.maximum(heads * queries * seen, 1e-300)
        pairs = heads * (queries + self.padding / packed) * (seen + lead)
        last = seen + queries * (0.5 * (1.0 - shape.cut) ** 2) + lead
        pairs = pairs + (self.tile * work.processors) * last
        return OpTime(
            compute=each * pairs * (1.0 / self._efficiency(shape.depth)),
            memory=work.memory * (1.0 / self.memory),
            tiles=work.tiles(1.0 / self.memory),
            launch=work.launches * self.launch,
            exposed=self.exposed,
        )

    def _efficiency(self, size: Number) -> Number:
        """Return the share of the arithmetic's rate for a head size."""
        near = [np.interp(size, HEAD_SIZES, row) for row in np.eye(len(HEAD_SIZES))]
        others = (self.size_64, 1.0, self.size_192, self.size_256)
        return self.compute * sum(
            (share * value for share, value in zip(near, others, strict=True)),
            start=0.0,
        )

    @classmethod
    def plain(cls, kernel: KernelEfficiency) -> "PrefillKernel":
        """Return the form with constant shares alone."""
        return cls(compute=kernel.compute, memory=kernel.memory, launch=kernel.launch)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeKernel:
    """Softmax(q k') v of a few queries per sequence: key heads are dealt to processors.

    With B key heads of all sequences, whose r query rows see c keys each, on P
    processors, which together take s seconds for a row and key::

        tiles   = B, or B r where heads run alone
        rows    = r, at least `tile`; 1 where heads run alone
        compute = tiles rows s (c + lead) / efficiency
                + item x max(1, tiles / (slots P))
        memory  = bytes / (bandwidth x at most `memory`, and `stream` per key head)
        t       = launch + combine c / (c + SPLIT)
                + longer of both + exposed x shorter of both

    More sequences, context or heads never take less time, nor do slower rates.

    Parameters
    ----------
    memory
        Share of the bandwidth that long contexts reach.
    launch
        Start and end of the kernel.
    exposed
        Share of the shorter of compute and memory that the longer does not hide.
    compute
        Share of the arithmetic's rate where the rows of a key head are multiplied
        together.
    tile
        Rows of such a multiplication, whether there are so many or not.
    alone_above
        Query heads per key head from which on each of them runs alone; so does one
        that shares its key head with none. Kernels of latent attention, measured up
        to 32 heads, multiply 128 together (FlashMLA, github.com/deepseek-ai/FlashMLA).
    window_alone
        Whether heads run alone, too, in layers with a sliding window (1) or not (0).
    vector
        Share of the arithmetic's rate where heads run alone, on vector units.
    lead
        Keys whose time a tile takes besides.
    item
        A tile's start and end: queries loaded, outputs written.
    alone_item
        The same where heads run alone.
    slots
        Tiles that one processor starts at a time.
    stream
        Share of the bandwidth that one key head draws at most, its keys split.
    combine
        Sum over the splits of long contexts.
    """

    memory: Number
    launch: Seconds | Number
    compute: Number = 1.0
    vector: Number = 1.0
    exposed: Number = 0.0
    tile: Number = 1.0
    alone_above: Number = 1e6
    window_alone: Number = 0.0
    lead: Number = 0.0
    item: Seconds | Number = 0.0
    alone_item: Seconds | Number = 0.0
    slots: Number = 1.0
    stream: Number = np.inf
    combine: Seconds | Number = 0.0

    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {
        "memory": (0.2, 1.0),
        "launch": (1e-6, 1e-4),
        "compute": (0.01, 1.0),
        "vector": (1e-3, 1.0),
        "exposed": (1e-3, 1.0),
        "tile": (4.0, 128.0),
        "lead": (4.0, 1000.0),
        "item": (1e-8, 3e-5),
        "alone_item": (1e-8, 3e-5),
        "slots": (0.3, 8.0),
        "stream": (0.003, 3.0),
        "combine": (1e-8, 3e-5),
    }
    CHOICES: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "alone_above": (1e6, 128.0, 32.0),  # of equal fits, the first is taken
        "window_alone": (0.0, 1.0),
    }

    def time(self, work: Work) -> OpTime:
        """Return the seconds of the work."""
        shape = work.shape
        keys, together = shape.columns, shape.rows
        each = work.compute / np.maximum(shape.groups * together * keys, 1e-300)
        tiles, cost = shape.groups, self._rows(together)
        item, alone = self.item, self._alone(shape)
        if np.any(alone):
            tiles = np.where(alone, tiles * together, tiles)
            cost = np.where(alone, 1.0 / self.vector, cost)
            item = np.where(alone, self.alone_item, item)
        busy = each * (keys + self.lead) * (cost * tiles)
        waves = tiles * (1.0 / (self.slots * work.processors))
        drawn = self.stream * np.maximum(shape.groups, 1.0)
        slowed = np.maximum(1.0 / self.memory, 1.0 / drawn)
        start = self.launch + self.combine * (keys / (keys + SPLIT))
        return OpTime(
            compute=busy + item * np.maximum(waves, 1.0),
            memory=work.memory * slowed,
            tiles=work.tiles(slowed),
            launch=work.launches * start,
            exposed=self.exposed,
        )

    def _rows(self, together: Number) -> Number:
        """Return the time of the rows of a key head over that of one at full rate."""
        return np.maximum(together, self.tile) / self.compute

    def _alone(self, shape: KernelShape) -> Mask:
        """Return whether each head runs alone."""
        single = (shape.repeats <= 1.0) & (self.alone_above < _NEVER)
        cut = shape.windowed & (self.window_alone > 0)
        return (shape.repeats > self.alone_above) | single | cut

    @classmethod
    def plain(cls, kernel: KernelEfficiency) -> Self:
        """Return the form with constant shares alone."""
        return cls(compute=kernel.compute, memory=kernel.memory, launch=kernel.launch)


FEW_HEADS = 32.0
"""Query heads per rank up to which kernels of latent attention were measured."""

FULL_TILES = 0.59
"""Share of the arithmetic's rate with 128 heads (deepseek-ai/FlashMLA, README of
2025-02: 580 TFLOP/s of an H800's 989 where decoding is bound by compute)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDecodeKernel(DecodeKernel):
    """The same of latent attention, whose one key head serves all query heads.

    Kernels multiply those together, however many: `alone_above` says whether a single
    one runs alone. Up to `FEW_HEADS` they were measured; more fill the tensor cores'
    tiles and take no less than so few.

    Parameters
    ----------
    full
        Share of the arithmetic's rate that full tiles reach at least.
    """

    full: Number = FULL_TILES

    def _alone(self, shape: KernelShape) -> Mask:
        """Return whether each head runs alone."""
        return (shape.repeats <= 1.0) & np.asarray(self.alone_above < _NEVER)

    def _rows(self, together: Number) -> Number:
        """Return the time of the rows of a key head over that of one at full rate."""
        few = np.maximum(np.minimum(together, FEW_HEADS), self.tile) / self.compute
        return np.maximum(few, together / np.maximum(self.compute, self.full))

    @classmethod
    def plain(cls, kernel: KernelEfficiency) -> Self:
        """Return the form with constant shares alone, whatever the heads."""
        return cls(
            compute=kernel.compute, memory=kernel.memory, launch=kernel.launch, full=0.0
        )


_NEVER = 1e6
"""Query heads that no key head has."""
