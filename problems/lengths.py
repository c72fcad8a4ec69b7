"""Token lengths as problems and the catalogue state them, and the model's own limit."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist
from typing import Annotated, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from model_ops.errors import ProblemError
from model_ops.profiler.arch import ModelArch
from model_ops.serving.engine import Profile
from model_ops.serving.lengths import Lengths, fixed, lognormal, quantiles
from problems.fields import Part

Tokens = Annotated[int, Field(gt=0, le=100_000_000, strict=True)]
MeasuredTokens = Annotated[
    float, Field(ge=1, le=100_000_000, strict=True, allow_inf_nan=False)
]

LEVELS = {
    "p10": 0.10,
    "p25": 0.25,
    "p50": 0.50,
    "p75": 0.75,
    "p90": 0.90,
    "p95": 0.95,
    "p99": 0.99,
}
"""Share of the requests that are no longer than each quantile."""

TOO_LONG = 0.01
"""Share of the requests that may be longer than the model takes: it refuses those."""

_MEAN_KEPT = 0.01
"""A stated mean is kept to this share, or else the statement contradicts itself."""

_FARTHEST = 1e-4
"""Share of the requests at either end that are taken as no more extreme than this."""


class LengthTable(Part):
    """A distribution of lengths: a mean and its spread, or quantiles.

    Parameters
    ----------
    mean
        Tokens on average; beside quantiles it may be left out.
    cv
        Coefficient of variation (standard deviation over mean) of a lognormal law.
    min, max
        Shortest and longest. Within them the tails go on as those of lognormal laws
        through the last two quantiles, as far as one request in ten thousand, or as
        far as the mean asks.
    p10, p25, p50, p75, p90, p95, p99
        Tokens that this share of the requests does not exceed; at least two of them.
    """

    mean: MeasuredTokens | None = None
    cv: Annotated[float, Field(ge=0, le=3, strict=True, allow_inf_nan=False)] | None = (
        None
    )
    min: MeasuredTokens | None = None
    p10: MeasuredTokens | None = None
    p25: MeasuredTokens | None = None
    p50: MeasuredTokens | None = None
    p75: MeasuredTokens | None = None
    p90: MeasuredTokens | None = None
    p95: MeasuredTokens | None = None
    p99: MeasuredTokens | None = None
    max: MeasuredTokens | None = None

    @model_validator(mode="after")
    def _is_one_distribution(self) -> Self:
        stated = self._stated()
        if self.cv is not None:
            if stated:
                raise ValueError("give either cv or quantiles, and not both")
            if self.mean is None:
                raise ValueError("cv needs mean beside it")
        elif len(set(stated) & set(LEVELS)) < 2:
            known = ", ".join(LEVELS)
            raise ValueError(f"needs mean and cv, or two or more of {known}")
        names = list(stated)
        for lower, upper in pairwise(names):
            if stated[upper] < stated[lower]:
                raise ValueError(
                    f"quantiles must ascend: {upper} ({stated[upper]:,.10g}) is below "
                    f"{lower} ({stated[lower]:,.10g})"
                )
        self._check_mean()
        return self

    def _stated(self) -> dict[str, float]:
        """Return the quantiles that are stated, in order."""
        names = ("min", *LEVELS, "max")
        return {n: v for n in names if (v := getattr(self, n)) is not None}

    def _check_mean(self) -> None:
        if self.mean is None:
            return
        found = self.lengths.mean
        if not _keeps(self.lengths, self.mean):
            side = "more" if found > self.mean else "less"
            given = "this cv" if self.cv is not None else "these quantiles"
            raise ValueError(
                f"mean {self.mean:,.10g} contradicts {given}, whose mean is "
                f"{found:,.4g} or {side}"
            )

    @property
    def lengths(self) -> Lengths:
        """The distribution."""
        return _lengths(self)


@lru_cache(maxsize=256)
def _lengths(table: LengthTable) -> Lengths:
    if table.cv is not None and table.mean is not None:
        return lognormal(table.mean, table.cv)
    points = {LEVELS[n]: v for n in LEVELS if (v := getattr(table, n)) is not None}
    least, most = table.min or 1.0, table.max or np.inf
    levels = sorted(points)
    low = max(least, _beyond(points, _FARTHEST, levels[0], levels[1]))
    high = min(most, _beyond(points, 1.0 - _FARTHEST, levels[-1], levels[-2]))
    likely = quantiles(points | {0.0: low, 1.0: high}, table.mean)
    if table.mean is None or _keeps(likely, table.mean):
        return likely
    widest = table.max or high
    return quantiles(points | {0.0: least, 1.0: widest}, table.mean)


def _beyond(
    points: Mapping[float, float], level: float, outer: float, inner: float
) -> float:
    """Return the quantile of a level beyond the outer of two, of a lognormal law."""
    score = NormalDist().inv_cdf
    steps = (score(level) - score(outer)) / (score(outer) - score(inner))
    return points[outer] * float((points[outer] / points[inner]) ** steps)


def _keeps(lengths: Lengths, mean: float) -> bool:
    return abs(lengths.mean - mean) <= _MEAN_KEPT * mean


def _form(given: object) -> str:
    return "#table" if isinstance(given, Mapping | LengthTable) else "#count"


StatedLengths = Annotated[
    Annotated[Tokens, Tag("#count")] | Annotated[LengthTable, Tag("#table")],
    Discriminator(_form),
]
"""A whole number of tokens, if all requests are alike, or a table."""


def lengths_of(stated: int | LengthTable) -> Lengths:
    """Return the distribution of stated lengths."""
    return stated.lengths if isinstance(stated, LengthTable) else fixed(float(stated))


def mean_of(lengths: Lengths) -> float:
    """Return mean tokens, without rounding where all requests are alike."""
    return lengths.tokens[0] if lengths.is_fixed else lengths.mean


def check_length(field: str, arch: ModelArch, tokens: float) -> None:
    """Raise `ProblemError` naming the field if a request is longer than the model's."""
    longest = arch.max_position_embeddings
    if longest is not None and tokens > longest:
        raise ProblemError(
            f"{field}: input_tokens + output_tokens = {tokens:.0f} exceeds "
            f"max_position_embeddings {longest} of {arch.name}"
        )


def check_lengths(field: str, arch: ModelArch, profile: Profile) -> None:
    """Raise `ProblemError` naming the field if too many requests are too long.

    Of requests that differ in length, `TOO_LONG` may be longer than the model takes.
    """
    prompt, output = profile.prompt, profile.output
    if prompt.is_fixed and output.is_fixed:
        check_length(field, arch, prompt.tokens[0] + output.tokens[0])
        return
    if arch.max_position_embeddings is None:
        return
    share = _share_above(prompt, output, arch.max_position_embeddings)
    if share > TOO_LONG:
        raise ProblemError(
            f"{field}: {share:.1%} of the requests are longer than "
            f"max_position_embeddings {arch.max_position_embeddings} of {arch.name}; "
            f"at most {TOO_LONG:.0%} may be"
        )


def _share_above(prompt: Lengths, output: Lengths, tokens: float) -> float:
    """Return the share of requests with more tokens, prompt and answer independent."""
    levels = (np.arange(1000) + 0.5) / 1000
    together = prompt.quantile(levels)[:, None] + output.quantile(levels)
    return float(np.mean(together > tokens))
