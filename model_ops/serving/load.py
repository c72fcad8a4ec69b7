"""What queueing needs of a class of requests, beyond its mean lengths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from model_ops.serving.engine import Profile
from model_ops.serving.lengths import Floats, Lengths

_CELLS = 400


@dataclass(frozen=True)
class Load:
    """Statistics of a profile; plain numbers, and nodes to average over.

    Parameters
    ----------
    prompts, prompt_weights
        Prompt tokens to compute at the nodes, and the nodes' weights; shaped [node].
    pairs
        Query-key pairs of each of these prompts.
    outputs, output_weights
        Tokens after the first at the nodes of the answer; shaped [node].
    moments
        Means of the whole prompt's tokens to the powers 0 to 6.
    computed
        Share of the prompt that is computed.
    more_tokens
        Mean tokens after the first.
    cached, cached_deviation
        Tokens in the KV cache of a decoding request seen at a random instant.
    alike
        2 E[min(O, O')] / E[O] for the answers O, O' of two requests: 1 for
        exponential answers, 2 for answers of one length.
    """

    prompts: Floats
    prompt_weights: Floats
    pairs: Floats
    outputs: Floats
    output_weights: Floats
    moments: tuple[float, ...]
    computed: float
    more_tokens: float
    cached: float
    cached_deviation: float
    alike: float

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """Return the statistics of a profile."""
        prompts, prompt_weights = profile.prompt.nodes
        answers, output_weights = profile.output.nodes
        computed = 1.0 - profile.cached_share
        moments = tuple(profile.prompt.moment(power) for power in range(7))
        cached, deviation = _cached(profile)
        outputs = np.maximum(answers - 1.0, 0.0)
        levels = np.cumsum(output_weights) - output_weights / 2
        least = 2.0 * np.sum(output_weights * (1.0 - levels) * outputs)
        more = float(output_weights @ outputs)
        return cls(
            prompts=computed * prompts,
            prompt_weights=prompt_weights,
            pairs=_pairs_per_square(computed) * prompts**2,
            outputs=outputs,
            output_weights=output_weights,
            moments=moments,
            computed=computed,
            more_tokens=more,
            cached=cached,
            cached_deviation=deviation,
            alike=float(2.0 * least / max(more, 1e-9)),
        )

    @property
    def prompt_tokens(self) -> float:
        """Mean prompt tokens to compute."""
        return self.computed * self.moments[1]

    @property
    def mean_pairs(self) -> float:
        """Mean query-key pairs of a prompt."""
        return _pairs_per_square(self.computed) * self.moments[2]

    def cost_moments(self, per_token: Floats, per_pair: Floats) -> Sequence[Floats]:
        """Return means of powers 0 to 3 of the cost of a prompt, linear in its tokens.

        Exact for the distribution of lengths, which nodes are too coarse for: a heavy
        tail decides the third moment.
        """
        line = per_token * self.computed
        square = per_pair * _pairs_per_square(self.computed)
        s = self.moments
        return (
            np.ones_like(line),
            line * s[1] + square * s[2],
            line**2 * s[2] + 2 * line * square * s[3] + square**2 * s[4],
            line**3 * s[3]
            + 3 * line**2 * square * s[4]
            + 3 * line * square**2 * s[5]
            + square**3 * s[6],
        )


def _pairs_per_square(computed: float) -> float:
    """Return a prompt's query-key pairs over its squared length.

    The computed tail attends to the cached head, and to itself from its start.
    """
    return computed * (1.0 - computed) + computed**2 / 2


def _cached(profile: Profile) -> tuple[float, float]:
    """Return mean and deviation of a decoding request's tokens in the cache.

    A request seen at a random instant is biased towards long answers by their length,
    and anywhere within its own with equal chance.
    """
    s1, s2 = (profile.prompt.moment(power) for power in (1, 2))
    o1, o2, o3 = (profile.output.moment(power) for power in (1, 2, 3))
    mean = s1 + o2 / (2 * o1)
    square = s2 + s1 * o2 / o1 + o3 / (3 * o1)
    return mean, float(np.sqrt(max(square - mean**2, 0.0)))


def mixed(profiles: Sequence[Profile], weights: Sequence[float]) -> Profile:
    """Return the profile of several classes that share a replica.

    Prompt and answer of the mixture are taken as independent, though classes pair long
    with long: the shares of the cache and of the compute stay right on average, their
    spread does not.

    Parameters
    ----------
    profiles
        The classes.
    weights
        Requests of each class; any scale.
    """
    shares = np.asarray(weights, dtype=float) / np.sum(weights)
    prompts = [profile.prompt for profile in profiles]
    tokens = np.array([prompt.mean for prompt in prompts]) * shares
    hits = np.array([profile.cached_share for profile in profiles])
    return replace(
        profiles[0],
        prompt=_mixture(prompts, shares),
        output=_mixture([profile.output for profile in profiles], shares),
        cached_share=float(tokens @ hits / tokens.sum()),
    )


def _mixture(kinds: Sequence[Lengths], shares: Floats) -> Lengths:
    """Return the law of a length that is drawn from one of several laws."""
    tail = 1.0 - np.geomspace(1.0 / _CELLS, 1e-6, _CELLS // 8)
    bounds = np.concatenate([np.arange(_CELLS - 1) / _CELLS, tail, [1.0]])
    middles, cells = (bounds[1:] + bounds[:-1]) / 2.0, np.diff(bounds)
    values = np.concatenate([kind.quantile(middles) for kind in kinds])
    weights = np.concatenate([share * cells for share in shares])
    order = np.argsort(values, kind="stable")
    levels = np.cumsum(weights[order]) - weights[order] / 2.0
    least = min(kind.tokens[0] for kind in kinds)
    most = max(kind.tokens[-1] for kind in kinds)
    return Lengths((0.0, *levels.tolist(), 1.0), (least, *values[order].tolist(), most))
