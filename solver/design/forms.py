"""Step times of deployments as functions of a platform's reciprocal rates.

For a fixed shape (split, formats, batch, chunk) an operator on constant efficiencies
takes ``launch + max(flop / (e C), bytes / (e M), tiles / (e M sqrt(S)))`` with S bytes
of on-chip memory, attention ``sweeps / (e M S)`` for the last, and each algorithm of a
collective a line in the link's latency and reciprocal bandwidth. So an operator is the
largest of linear functions of x = (1/C, 1/C8, 1/M, 1/(M sqrt(S)), 1/(M S)), a
collective the least of several of the links', and a step a sum of both.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from model_ops.dtypes import Precision
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.steady_state import Waits

Floats = npt.NDArray[np.float64]


Indices = npt.NDArray[np.int64]


RATES = ("flop_per_s", "flop_per_s_8bit", "memory_bandwidth")
"""Figures whose reciprocals operators are linear in."""


ON_CHIP = "on_chip_memory"
"""The figure that says how often operands cross the memory interface."""


RELOADS = {"tiles": 0.5, "sweeps": 1.0}
"""What operators are linear in besides: the reciprocal memory bandwidth times a power
of the reciprocal on-chip memory, of matrix products and of attention."""


LINKS = (
    "scale_up_latency",
    "scale_up_bandwidth",
    "scale_out_latency",
    "scale_out_bandwidth",
)
"""Figures that collectives are linear in: latencies, and reciprocal bandwidths."""


_BLOCK = 1024
"""Pairs that are evaluated together: few enough for the processor's caches, and for
the linear algebra library not to start threads."""


@dataclass(frozen=True)
class Forms:
    """Shapes of one use case that differ only in numbers: same formats, stages, chunk.

    Parameters
    ----------
    use_case
        Position in the problem.
    precision, chunk_tokens
        Of all shapes.
    splits, batch
        Of each; shaped [shape].
    npus
        Of a replica; shaped [shape].
    memory
        Bytes of capacity that an NPU must have; shaped [shape].
    compute, compute_8bit, traffic
        Seconds of each operator with arithmetic at the base's rates; shaped
        [shape, operator]. Each computes in one format, those of 8 bits last.
    tiles, sweeps
        Seconds of what the base's on-chip memory makes matrix products, and attention,
        move through the memory interface at least; shaped [shape, operator].
    streamed
        Seconds of those without, in each path: they take what memory says; shaped
        [path, shape].
    lines
        Seconds of each collective by algorithm at the base's links, per figure of
        `LINKS`; infinite where an algorithm is impossible; shaped
        [domain, shape, collective, algorithm, figure].
    paths
        Weights of operators, and of collectives, in each path through a step, and
        seconds besides: [path, operator], [path, collective], [path, shape].
    mixed, plain
        Paths that a mixed step's period is the longest of, times the stages, and a
        plain one's; path 0 is the latency of a mixed step.
    waits
        Weights of the periods in TTFT and TPOT; shaped [shape].
    stages
        Pipeline stages of all shapes.
    """

    use_case: int
    precision: Precision
    chunk_tokens: int
    splits: tuple[Parallelism, ...]
    batch: Floats
    npus: Floats
    memory: Floats
    compute: Floats
    compute_8bit: Floats
    traffic: Floats
    tiles: Floats
    sweeps: Floats
    streamed: Floats
    lines: Floats
    operator_weights: Floats
    collective_weights: Floats
    constants: Floats
    mixed: tuple[int, ...]
    plain: tuple[int, ...]
    waits: Waits
    stages: int

    @property
    def shapes(self) -> int:
        """How many there are."""
        return len(self.batch)

    @cached_property
    def tp(self) -> Floats:
        """Tensor parallel ranks of each shape: they stay in one domain."""
        return np.array([split.tp for split in self.splits], dtype=float)

    @cached_property
    def share(self) -> Floats:
        """Share of mixed steps; shaped [shape]."""
        return np.broadcast_to(self.waits.share, self.batch.shape)

    @cached_property
    def waited(self) -> Floats:
        """Periods of mixed steps that a first token waits at most; shaped [shape].

        The step that a newcomer finds running counts as a mixed one, the longest.
        """
        waits = self.waits
        total = waits.running + waits.queued + waits.chunks
        return np.broadcast_to(total, self.batch.shape)

    @cached_property
    def _arithmetic(self) -> Floats:
        return self.compute + self.compute_8bit

    @cached_property
    def _wide(self) -> int:
        """Operators that do not compute in 8 bits."""
        return int(np.count_nonzero(~np.any(self.compute_8bit > 0, axis=0)))

    @cached_property
    def _reloads(self) -> tuple[float, float]:
        """Most seconds of tiles, and of sweeps, over an operator's arithmetic."""
        busy = np.maximum(self._arithmetic, 1e-300)
        tiles, sweeps = (
            float(np.max(each / busy, initial=0.0))
            for each in (self.tiles, self.sweeps)
        )
        return tiles, sweeps

    def paths(
        self, rates: Floats, links: Floats, domain: Indices, which: Indices
    ) -> Floats:
        """Return the seconds of each path for pairs of platform and shape.

        Parameters
        ----------
        rates, links
            Reciprocals over the base's, latencies as they are over the base's;
            shaped [pair, 5] (`RATES`, then `RELOADS`) and [pair, 4].
        domain, which
            Level of the scale-up domain, and shape; [pair].

        Returns
        -------
        Floats
            Shaped [pair, path].
        """
        found = np.empty((len(which), len(self.operator_weights)))
        for start in range(0, len(which), _BLOCK):
            some = slice(start, start + _BLOCK)
            found[some] = self._paths(
                rates[some], links[some], domain[some], which[some]
            )
        return found

    def _paths(
        self, rates: Floats, links: Floats, domain: Indices, which: Indices
    ) -> Floats:
        """Return the same for few pairs."""
        busy = self._arithmetic[which]
        busy[:, : self._wide] *= rates[:, 0, None]
        busy[:, self._wide :] *= rates[:, 1, None]
        np.maximum(busy, self.traffic[which] * rates[:, 2, None], out=busy)
        self._reload(busy, rates, which)
        seconds = busy @ self.operator_weights.T
        seconds += self.streamed.T[which] * rates[:, 2, None]
        seconds += self.constants.T[which]
        if self.lines.shape[2]:
            seconds += self._moved(links, domain, which) @ self.collective_weights.T
        return seconds

    @cached_property
    def _algorithms(self) -> list[list[tuple[int, Floats]]]:
        """Lines by algorithm: each figure that counts, [domain and shape, collective].

        Rows of memory that lie together are read faster than `lines` are.
        """
        rows = self.lines.reshape(-1, *self.lines.shape[2:])
        return [
            [
                (figure, np.ascontiguousarray(rows[:, :, algorithm, figure]))
                for figure in range(len(LINKS))
                if rows[:, :, algorithm, figure].any()
            ]
            for algorithm in range(rows.shape[2])
        ]

    def _moved(self, links: Floats, domain: Indices, which: Indices) -> Floats:
        """Return the seconds of each collective by its best algorithm; see `paths`."""
        row = domain * self.shapes + which
        best = np.full((len(row), self.lines.shape[2]), np.inf)
        for terms in self._algorithms:
            seconds = np.zeros_like(best)
            for figure, line in terms:
                seconds += line[row] * links[:, figure, None]
            np.minimum(best, seconds, out=best)
        return best

    def _reload(self, busy: Floats, rates: Floats, which: Indices) -> None:
        """Raise operators to what on-chip memory makes them move, where it is short.

        Parameters
        ----------
        busy
            Seconds of each operator without it; shaped [pair, operator].
        rates, which
            As in `paths`.
        """
        fastest = np.minimum(rates[:, 0], rates[:, 1])
        each = (self.tiles, self.sweeps)
        for column, (most, seconds) in enumerate(
            zip(self._reloads, each, strict=True), start=len(RATES)
        ):
            few = np.flatnonzero(most * rates[:, column] > fastest)
            if len(few):
                moved = seconds[which[few]] * rates[few, column, None]
                busy[few] = np.maximum(busy[few], moved)

    def periods(self, seconds: Floats) -> tuple[Floats, Floats, Floats]:
        """Return latency and period of mixed steps, and the period of plain ones."""
        mixed = np.max(seconds[:, self.mixed], axis=1) * self.stages
        plain = np.max(seconds[:, self.plain], axis=1) * self.stages
        return seconds[:, 0], mixed, plain

    def latencies(
        self, rates: Floats, links: Floats, domain: Indices, which: Indices
    ) -> tuple[Floats, Floats]:
        """Return TTFT and TPOT for pairs; see `paths`."""
        first, mixed, plain = self.periods(self.paths(rates, links, domain, which))
        share = self.share[which]
        ttft = first + self.waited[which] * mixed
        return ttft, share * mixed + (1.0 - share) * plain
