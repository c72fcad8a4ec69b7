"""The time of a step as a function of what is in it, tabulated once per deployment.

    t = base(T) + decoding(N) + k K + q A

for T tokens in all, of which N are of decoding requests with K tokens in the cache
together, and A query-key pairs of prompts. `base` holds the linear layers, collectives
and overheads: about ``max(weights, T x per token)`` for a dense model, concave where
more tokens read more experts. Queueing and simulation ask for millions of steps, which
operators are too slow for; between the nodes of its grid the curve is linear.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from model_ops.opcost import Number
from model_ops.profiler.work import Step, decode, prefill
from model_ops.serving.step import Replica, StepTime, step_time
from model_ops.units import Seconds

Floats = npt.NDArray[np.float64]

NODES_PER_OCTAVE = 8
"""Nodes of the token grid between a count and its double.

Inside a cell a bend from flat to steep is cut off by at most 2.2 % of the step.
"""

_MANY, _FAR = 1024.0, 4096.0
"""Tokens of a step, and of context, at which slopes are taken."""

_NEAR = 512.0
"""Tokens of context at which `decoding` is exact: a usual one."""


def token_grid(most: int) -> Floats:
    """Return token counts from 1 to at least `most`, in equal ratios, shaped [node]."""
    octaves = int(np.ceil(np.log2(max(most, 2)))) * NODES_PER_OCTAVE
    return np.asarray(2.0 ** (np.arange(octaves + 1) / NODES_PER_OCTAVE))


@dataclass(frozen=True)
class StepCurve:
    """Seconds of a step; options along leading axes, nodes of `token_grid` last.

    Parameters
    ----------
    base
        Of a step's tokens, attention apart; shaped [option..., node].
    decoding
        Added by so many decoding requests, attention apart from what grows with
        their context included; below zero where tokens of prompts are read at a slower
        pace; same shape.
    per_cached
        Per cached token that decoding requests read; shaped [option...].
    per_pair
        Per query-key pair of prompts; shaped [option...].
    """

    base: Floats
    decoding: Floats
    per_cached: Seconds | Number
    per_pair: Seconds | Number

    def base_at(self, tokens: Number) -> Floats:
        """Return `base` at token counts shaped [option..., k]; flat beyond the grid."""
        return _interpolated(self.base, tokens)

    def decoding_at(self, sequences: Number) -> Floats:
        """Return `decoding` at counts shaped [option..., k]; flat beyond the grid."""
        return _interpolated(self.decoding, sequences)

    @classmethod
    def line(
        cls,
        *,
        overhead: Number,
        weights: Number,
        per_token: Number,
        per_sequence: Number,
        per_cached: Number,
        per_pair: Number,
        most_tokens: int,
    ) -> Self:
        """Return the curve ``o + max(w, g T) + r N + k K + q A`` of six numbers.

        Parameters
        ----------
        overhead, weights
            Seconds o of every step, and w of reading the weights.
        per_token, per_sequence, per_cached, per_pair
            Seconds g, r, k, q per unit; numbers, or arrays over options.
        most_tokens
            Largest step.
        """
        grid = token_grid(most_tokens)
        column = [
            np.asarray(value, dtype=float)[..., None]
            for value in (overhead, weights, per_token, per_sequence)
        ]
        fixed, least, each, decode_each = column
        base = fixed + np.maximum(least, each * grid)
        decoding = np.broadcast_to(decode_each * grid, base.shape)
        return cls(base, decoding, per_cached, per_pair)

    @classmethod
    def of(cls, replica: Replica, most_tokens: int, beams: int = 1) -> Self:
        """Return the curve of a replica whose arrays have no node axis yet.

        With pipeline stages a step is a round of micro-batches, one per stage: T, N
        and K are those of the round.

        Parameters
        ----------
        replica
            One deployment, or an array of them with a last axis of length one that
            the nodes take.
        most_tokens
            Largest step.
        beams
            Answers that a decoding request writes side by side, each of which reads
            the prompt's cache. `decoding` holds what these and guesses to check cost.
        """
        slots, guessed = replica.schedule.slots, replica.schedule.guessed
        grid = token_grid(most_tokens) / slots

        def period(step: Step) -> Floats:
            times: StepTime = step_time(replica, step)
            return np.asarray(times.period(slots), dtype=float)

        def reading(tokens: Number, context: float) -> Floats:
            return period(Step((prefill(1.0, tokens, context),)))

        def writing(requests: Number, context: float) -> Floats:
            return period(Step((decode(requests * beams, context, guessed),)))

        def slope(of: Callable[[Number, float], Floats]) -> Floats:
            near, far = of(_MANY / slots, 0.0), of(_MANY / slots, _FAR)
            return np.asarray((far - near) / (_MANY * _FAR))

        per_pair, per_cached = slope(reading), slope(writing)
        pairs = slots * grid**2 / 2
        base = np.maximum.accumulate(reading(grid, 0.0) - per_pair * pairs, axis=-1)
        near = per_cached * (slots * grid * _NEAR)
        decoding = writing(grid, _NEAR) - near - base
        return cls(base, decoding, _last(per_cached), _last(per_pair))


def _last(values: Floats) -> Floats:
    """Return figures without the axis of length one that the token grid takes."""
    return values[..., 0] if values.ndim else values


def _interpolated(table: Floats, counts: Number) -> Floats:
    """Return values of a table [option..., node] at counts [option..., k]."""
    at = np.asarray(counts, dtype=float)
    rows = max(_CACHED // max(at.shape[-1], 1), 1) if at.ndim > 1 else 1
    if at.ndim < 2 or at.shape[:-1] != table.shape[:-1] or len(at) <= rows:
        return _looked_up(table, at)
    found = np.empty(at.shape)
    for start in range(0, len(at), rows):
        some = slice(start, start + rows)
        found[some] = _looked_up(table[some], at[some])
    return found


_CACHED = 16_384
"""Counts looked up at once: few enough for the processor's cache."""


def _looked_up(table: Floats, counts: Floats) -> Floats:
    at = np.maximum(counts, 1.0)
    *lead, nodes = table.shape
    grid = 2.0 ** (np.arange(nodes) / NODES_PER_OCTAVE)
    cell = np.minimum((np.log2(at) * NODES_PER_OCTAVE).astype(np.int64), nodes - 2)
    # The nodes stand in equal ratios: so do the widths of the cells.
    share = np.minimum((at / grid[cell] - 1.0) / (grid[1] - 1.0), 1.0)
    cell = cell + np.arange(0, table.size, nodes).reshape(*lead, 1)
    flat = np.ravel(table)
    low = flat[cell]
    return np.asarray(low + share * (flat[cell + 1] - low))
