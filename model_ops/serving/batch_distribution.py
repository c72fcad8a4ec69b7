"""How many requests decode at once: a birth-death chain over the batch.

    p(n) ~ product over i <= n of [rate (steps tau(i) + lag) / (i + delta)] ** psi

tau(i) is the time per step beside i decoding requests. With psi = 1 this is the product
form of processor sharing whose speed depends on the state, which no law of the answers'
lengths changes (J. W. Cohen, "The multiple phase service network with generalized
processor sharing", Acta Informatica 12, 1979). Requests that come in clusters, from
behind a busy period of prompts, spread it: psi = 1 / (index of dispersion), and delta
keeps the mean.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from model_ops.serving.lengths import Floats
from model_ops.serving.server import Server

Flags = npt.NDArray[np.bool_]

RUNGS = 64
"""Batch sizes that the chain is tabulated at, if there are more."""

_KNOTS = 12
_CROWDS = 2.0 ** np.arange(8)
"""Prompts that share a step, at which their costs are tabulated."""

_MOST_LOAD = 0.999


@dataclass(frozen=True)
class Ladder:
    """Costs at rising batch sizes; they do not depend on the rate. Shaped [..., rung].

    Parameters
    ----------
    batch
        The batch sizes: one by one, then further apart as the square of their number,
        as the spread of the batch grows with the root of its mean.
    width
        Distance from the rung below; 0 beyond what the scheduler lets happen.
    middle
        Mean batch size between a rung and the one below.
    step
        Seconds of a step without prompts, in the middle.
    prompts
        Seconds that a crowd of prompts adds to the steps it shares, by batch size and
        size of the crowd; shaped [..., knot * crowd].
    most
        The largest batch; shaped [..., 1].
    bounded
        Whether slots or cache end the ladder; otherwise prompts cannot come fast
        enough to reach its end. Shaped [..., 1].
    """

    batch: Floats
    width: Floats
    middle: Floats
    step: Floats
    prompts: Floats
    most: Floats
    bounded: Flags

    @classmethod
    def of(cls, server: Server, rungs: int = RUNGS, *, reads: bool = True) -> Self:
        """Return the ladder of engines under a load; prompts cost none if not read."""
        slots = np.maximum(np.floor(server.slot_cap()), 1.0)
        fed = server.chunk * server.steps / server.load.prompt_tokens
        fed = fed if reads else np.full_like(fed, np.inf)
        most = np.minimum(slots, np.maximum(fed, 2.0))
        number = np.arange(1.0, rungs + 1.0)
        batch = np.maximum(number, most * (number / rungs) ** 2)
        width = np.diff(batch, axis=-1, prepend=0.0)
        middle = batch - (width - 1.0) / 2.0
        knots = most * np.linspace(0.0, 1.0, _KNOTS + 1) ** 2
        costs = [reads * crowd * server.prompt_cost(knots, crowd) for crowd in _CROWDS]
        return cls(
            batch=batch,
            width=np.where(batch <= most + 1e-9, width, 0.0),
            middle=middle,
            step=server.decode_step(middle),
            prompts=np.stack(costs, axis=-1).reshape(*most.shape[:-1], -1),
            most=most,
            bounded=slots <= fed,
        )

    @property
    def states(self) -> Floats:
        """Whole batch sizes that each rung stands for."""
        above = np.concatenate([self.width[..., 1:], 0.0 * self.width[..., :1]], -1)
        alive = self.width > 0.0
        return alive * (self.width + np.where(above > 0.0, above, 1.0)) / 2.0

    def prompt_cost(self, batch: Floats, arrivals: Floats) -> Floats:
        """Return the seconds that a prompt adds to the steps, on average.

        Parameters
        ----------
        batch
            Decoding requests, shaped [..., k].
        arrivals
            Mean of the Poisson number of prompts that arrive during a step.
        """
        crowd = arrivals / -np.expm1(-np.maximum(arrivals, 1e-9))
        crowd = np.clip(crowd, 1.0, 0.999 * _CROWDS[-1])
        knot = np.sqrt(np.clip(batch / self.most, 0.0, 0.9999)) * _KNOTS
        row, place = knot.astype(np.int64), np.log2(crowd).astype(np.int64)
        across, along = knot - row, crowd / _CROWDS[place] - 1.0
        corner = row * len(_CROWDS) + place
        *lead, size = self.prompts.shape
        costs = np.ravel(self.prompts)
        corner = corner + np.arange(0, costs.size, size).reshape(*lead, 1)

        def at(offset: int) -> Floats:
            return np.asarray(costs[corner + offset])

        low = at(0) + along * (at(1) - at(0))
        width = len(_CROWDS)
        high = at(width) + along * (at(width + 1) - at(width))
        return np.asarray((low + across * (high - low)) / crowd)


@dataclass(frozen=True)
class Batch:
    """The decoding batch over time; every field shaped [..., 1].

    Parameters
    ----------
    mean, variance
        Of the decoding requests.
    empty
        Share of the time without any.
    blocked
        Probability that a request finds all slots taken.
    slot_wait
        Mean seconds until one is free, where they are.
    stable
        Whether the chain does not grow without end.
    """

    mean: Floats
    variance: Floats
    empty: Floats
    blocked: Floats
    slot_wait: Floats
    stable: Flags


def batch_distribution(
    server: Server,
    ladder: Ladder,
    rate: Floats,
    dispersion: Floats,
    lag: Floats,
    cost: Floats,
) -> Batch:
    """Return the batch at a rate.

    Parameters
    ----------
    server, ladder
        The engines, and their costs at rising batch sizes.
    rate
        Requests per second, shaped [..., 1].
    dispersion
        Variance of the batch over that of Poisson arrivals one by one.
    lag
        Seconds that a request decodes longer for starting behind a step with prompts.
    cost
        Seconds that a prompt adds to the steps beside each batch, shaped as the ladder.
    """
    n, width = ladder.batch, ladder.width
    step = ladder.step / (1.0 - np.minimum(rate * cost, _MOST_LOAD))
    decoding = server.steps * step
    joining = rate * (decoding + np.maximum(lag, -decoding / 2.0))
    delta = (dispersion - 1.0) / 2.0
    growth = np.log(joining / (ladder.middle + delta)) / dispersion
    heights = np.cumsum(growth * width, axis=-1)

    last = np.sum(width > 0.0, axis=-1, keepdims=True) - 1
    last = np.broadcast_to(last, (*growth.shape[:-1], 1))
    end = np.take_along_axis(growth, last, axis=-1)
    ratio = np.exp(np.minimum(end, -1e-4))
    peak = np.maximum(heights.max(axis=-1, keepdims=True), 0.0)
    none = np.exp(-peak)
    top = np.exp(np.take_along_axis(heights, last, axis=-1) - peak)
    beyond = np.where(ladder.bounded, top * ratio / (1.0 - ratio), 0.0)

    most = np.take_along_axis(np.broadcast_to(n, growth.shape), last, axis=-1)
    weights = np.exp(heights - peak) * ladder.states
    total = none * (1.0 + width[..., :1]) / 2.0 + beyond
    total = total + weights.sum(axis=-1, keepdims=True)
    mean = (np.sum(weights * n, axis=-1, keepdims=True) + beyond * most) / total
    square = np.sum(weights * n * n, axis=-1, keepdims=True) + beyond * most**2
    return Batch(
        mean=mean,
        variance=np.maximum(square / total - mean**2, 1e-9),
        empty=none / total,
        blocked=beyond / total / ratio,
        slot_wait=1.0 / (rate * (1.0 / ratio - 1.0)),
        stable=(end < 0.0) | ~ladder.bounded,
    )
