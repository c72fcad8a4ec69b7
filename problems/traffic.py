"""Classes of requests: their lengths, their arrivals, and how fast they must be."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from model_ops.errors import CatalogueError, ProblemError
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.work import RequestShape
from model_ops.serving.engine import Profile
from model_ops.serving.lengths import Lengths
from model_ops.units import RequestsPerSecond, Seconds
from problems import catalogue
from problems.fields import Name, Part, twice
from problems.lengths import StatedLengths, check_lengths, lengths_of, mean_of
from problems.recorded import Recording, TraceSource

Metric = Literal["ttft", "tpot", "e2e"]
RouterName = Literal["round_robin", "least_loaded", "random"]
Statistic = Literal["mean", "p50", "p90", "p95", "p99"]
PERCENTILES: Mapping[str, float] = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
"""Share of the requests that must be as fast as the target of each statistic."""

Limit = Annotated[Seconds, Field(gt=0, le=86_400)]
HourlyLoad = Annotated[float, Field(ge=0, le=1e9, strict=True, allow_inf_nan=False)]

Day = Annotated[tuple[HourlyLoad, ...], Field(min_length=24, max_length=24)]

LEAST_BURSTINESS, MOST_BURSTINESS = 0.1, 20.0
Burstiness = Annotated[
    float,
    Field(ge=LEAST_BURSTINESS, le=MOST_BURSTINESS, strict=True, allow_inf_nan=False),
]


_HAIR = 1e-9
"""Forgives the rounding of shares."""


class LatencyTarget(Part):
    """A bound on one statistic of one latency over a class's requests."""

    metric: Metric
    statistic: Statistic = "mean"
    at_most: Limit

    @property
    def label(self) -> str:
        """The target's name in reports, e.g. ``p99 TTFT``."""
        return f"{self.statistic} {self.metric.upper()}"

    @property
    def level(self) -> float | None:
        """Share of the requests that must be as fast; None where the mean is meant."""
        return PERCENTILES.get(self.statistic)


class Goodput(Part):
    """A share of a class's requests of which each must keep all these limits."""

    share: Annotated[float, Field(gt=0, lt=1, strict=True, allow_inf_nan=False)]
    ttft: Limit | None = None
    tpot: Limit | None = None
    e2e: Limit | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if not self.limits:
            raise ValueError("needs at least one of ttft, tpot or e2e")
        return self

    @model_validator(mode="after")
    def _can_be_sized_for(self) -> Self:
        least = 1.0 - max(PERCENTILES.values())
        most = 1.0 - least * len(self.limits)
        if self.share > most + _HAIR:
            raise ValueError(
                f"share: with {len(self.limits)} limits at most {most:.2f} can be "
                f"sized for, got {self.share:g}"
            )
        return self

    @property
    def targets(self) -> tuple[LatencyTarget, ...]:
        """Percentiles that suffice: their misses add up to no more than may miss.

        The limits are shared out evenly (Bonferroni), so that a plan may be larger
        than needed where the same requests miss several limits.
        """
        missing = (1.0 - self.share) / len(self.limits)
        statistic = min(
            (s for s, level in PERCENTILES.items() if 1.0 - level <= missing + _HAIR),
            key=lambda s: PERCENTILES[s],
        )
        return tuple(
            LatencyTarget(metric=metric, statistic=statistic, at_most=limit)
            for metric, limit in self.limits.items()
        )

    @property
    def limits(self) -> dict[Metric, Seconds]:
        """The most that each latency of a request may be."""
        each: dict[Metric, Seconds | None] = {
            "ttft": self.ttft,
            "tpot": self.tpot,
            "e2e": self.e2e,
        }
        return {metric: most for metric, most in each.items() if most is not None}


class TrafficClass(Part):
    """Requests that are alike, how many of them, and how fast they must be.

    Give the lengths by `input_tokens` and `output_tokens`, by the name of a catalogue
    trace (`lengths`), or by a file of recorded requests (`trace`). Give either `rate`
    (requests arrive at random) or `concurrency` (so many are in flight at any time);
    the times of a recording stand for a rate.

    Parameters
    ----------
    model
        That these requests ask for; None: the problem's.
    rate
        Requests per second; the mean over the day where `diurnal` is given, that of the
        peak window where a recording has times.
    burstiness
        Coefficient of variation of the times between arrivals. None: that of the
        recording at its peak, else 1, a Poisson process.
    diurnal
        Relative load in each hour of the day; what is bought covers the peak hour.
    router
        How requests find their replica.
    prefix_hit
        Share of the prompt that is in the cache already.
    beams
        Answers that are searched side by side.
    goodput
        Requests that must keep several limits at once.
    """

    name: Name = "traffic"
    model: Name | None = None
    input_tokens: StatedLengths | None = None
    output_tokens: StatedLengths | None = None
    lengths: Name | None = None
    trace: TraceSource | None = None
    rate: Annotated[RequestsPerSecond, Field(gt=0, le=10_000_000)] | None = None
    concurrency: Annotated[int, Field(gt=0, le=1_000_000_000)] | None = None
    burstiness: Burstiness | None = None
    diurnal: Day | None = None
    router: RouterName = "round_robin"
    prefix_hit: Annotated[float, Field(ge=0, lt=1)] = 0.0
    beams: Annotated[int, Field(ge=1, le=64)] = 1
    targets: tuple[LatencyTarget, ...] = ()
    goodput: Goodput | None = None

    @model_validator(mode="after")
    def _is_stated_once(self) -> Self:
        _check_lengths_stated(self)
        _check_arrivals_stated(self)
        _check_targets(self.targets)
        return self

    def checked(self, arch: ModelArch) -> Self:
        """Return the class, its lengths read and compared with the model.

        Raises
        ------
        ProblemError
            If a trace is unknown or cannot be read, or the requests are too long for
            the model or too short for their targets.
        """
        field = f"traffic.{self.name}"
        try:
            profile = self.profile
        except (CatalogueError, ProblemError) as error:
            raise ProblemError(f"{field}: {error}") from None
        check_lengths(field, arch, profile)
        timed = {str(target.metric) for target in self.targets}
        timed |= set(self.goodput.limits) if self.goodput else set()
        if "tpot" in timed and profile.output.tokens[-1] < 2:
            raise ProblemError(
                f"{field}: targets: TPOT needs output_tokens of at least 2"
            )
        return self

    @property
    def sized_targets(self) -> tuple[LatencyTarget, ...]:
        """Targets that a plan is sized for: those stated, and what goodput asks."""
        return self.targets + (self.goodput.targets if self.goodput else ())

    # Lengths

    @property
    def profile(self) -> Profile:
        """Distributions of the requests' lengths."""
        prompt, output = self._lengths()
        return Profile(prompt, output, self.prefix_hit)

    @property
    def shape(self) -> RequestShape:
        """Mean tokens of a request, as the model of the operators takes them."""
        prompt, output = (mean_of(lengths) for lengths in self._lengths())
        return RequestShape(prompt, output, prompt * self.prefix_hit, self.beams)

    def _lengths(self) -> tuple[Lengths, Lengths]:
        if self.lengths is not None:
            file = catalogue.trace_file(self.lengths)
            return file.prompt.lengths, file.output.lengths
        if self.trace is not None:
            return self.trace.read().lengths
        assert self.input_tokens is not None
        assert self.output_tokens is not None
        return lengths_of(self.input_tokens), lengths_of(self.output_tokens)

    # Arrivals

    @property
    def is_closed(self) -> bool:
        """Whether a number of users wait for answers before they ask again."""
        return self.concurrency is not None

    @property
    def kept_whole(self) -> str:
        """What it has that is read and answered by the same replica; empty if nothing.

        Neither users who wait for answers nor beams are disaggregated, and answers of
        one token need nobody to answer.
        """
        if self.is_closed:
            return "a concurrency"
        if self.beams > 1:
            return "beam search"
        return "answers of one token" if self.profile.output.tokens[-1] < 2 else ""

    @property
    def is_replayed(self) -> bool:
        """Whether the arrival times themselves are known."""
        return not self.is_closed and self.trace is not None and bool(self.trace.time)

    @property
    def recording(self) -> Recording | None:
        """The requests of a trace, with their times at this class's rate if known."""
        if self.trace is None:
            return None
        recording = self.trace.read()
        if self.is_replayed and self.rate is not None:
            return recording.at_peak_rate(self.rate)
        return recording

    @property
    def peak_rate(self) -> RequestsPerSecond | None:
        """Requests per second at the busiest time; None for a closed loop."""
        if self.rate is not None:
            return self.rate / self.utilisation
        recording = self.recording
        return None if self.is_closed or not recording else recording.peak_rate

    @property
    def mean_rate(self) -> RequestsPerSecond | None:
        """Requests per second over all the time; None for a closed loop."""
        recording = self.recording if self.is_replayed else None
        return self.rate if recording is None else recording.mean_rate

    @property
    def utilisation(self) -> float:
        """Mean load over the load at the peak of the day."""
        if self.diurnal is None:
            return 1.0
        return sum(self.diurnal) / len(self.diurnal) / max(self.diurnal)

    @property
    def arrival_variation(self) -> float:
        """Squared coefficient of variation of the times between arrivals."""
        if self.burstiness is not None:
            return self.burstiness**2
        if self.trace is None or not self.is_replayed:
            return 1.0
        found = max(LEAST_BURSTINESS, self.trace.read().gap_variation)
        return min(found, MOST_BURSTINESS) ** 2

    def demand(self, headroom: float) -> float:
        """Return what capacity must cover: peak rate or concurrency, and headroom."""
        stated = self.concurrency if self.is_closed else self.peak_rate
        assert stated is not None
        return stated / (1.0 - headroom)

    def scaled(self, share: float) -> Self:
        """Return the class with a share of its demand, at least one request."""
        if self.concurrency is not None:
            users = max(1, math.floor(self.concurrency * share))
            return self.model_copy(update={"concurrency": users})
        rate = self.rate if self.rate is not None else self.demand(headroom=0.0)
        return self.model_copy(update={"rate": rate * share})

    # As people read it

    @property
    def text(self) -> str:
        """What arrives and of what length, for reports."""
        return f"{self._load_text()} of {self.tokens_text}"

    def _load_text(self) -> str:
        if self.concurrency is not None:
            return f"{self.concurrency:,} requests in flight, each"
        rate = f"{self.demand(headroom=0.0):,.10g} req/s"
        notes = []
        if self.is_replayed and self.rate is None:
            rate = f"{self.demand(headroom=0.0):,.4g} req/s"
            notes.append(f"peak minute; {self.mean_rate:,.4g} on average")
        if self.diurnal is not None:
            notes.append(f"peak hour; {self.rate:,.10g} on average")
        if self.burstiness not in (None, 1.0):
            notes.append(f"burstiness {self.burstiness:g}")
        return f"{rate} ({'; '.join(notes)})" if notes else rate

    @property
    def tokens_text(self) -> str:
        """Of what length requests are, for reports."""
        prompt, output = self._lengths()
        tokens = f"{mean_of(prompt):,.0f} tokens in and {mean_of(output):,.0f} out"
        if self.lengths is not None:
            return f"{tokens} on average ({self.lengths})"
        if self.trace is not None:
            return f"{tokens} on average ({Path(self.trace.path).name})"
        alike = prompt.is_fixed and output.is_fixed
        return tokens if alike else f"{tokens} on average"


def _check_lengths_stated(traffic: TrafficClass) -> None:
    counts = {
        "input_tokens": traffic.input_tokens,
        "output_tokens": traffic.output_tokens,
    }
    given = [name for name, stated in counts.items() if stated is not None]
    named = [n for n in ("lengths", "trace") if getattr(traffic, n) is not None]
    if len(named) == 2 or (named and given):
        raise ValueError(
            "give input_tokens and output_tokens, or lengths, or trace, and not "
            + " beside ".join([*given, *named])
        )
    if not named and len(given) < 2:
        missing = " and ".join(name for name in counts if name not in given)
        verb = "are" if not given else "is"
        raise ValueError(f"{missing} {verb} missing (or give lengths, or trace)")


def _check_arrivals_stated(traffic: TrafficClass) -> None:
    timed = traffic.trace is not None and traffic.trace.time is not None
    if traffic.rate is None and traffic.concurrency is None and not timed:
        raise ValueError("rate is missing (or give concurrency instead)")
    if traffic.rate is not None and traffic.concurrency is not None:
        raise ValueError("give either rate or concurrency, and not both")
    if traffic.concurrency is not None and traffic.burstiness is not None:
        raise ValueError("burstiness goes with a rate, not with concurrency")
    if traffic.diurnal is None:
        return
    if traffic.rate is None or timed:
        raise ValueError("diurnal shapes a rate, not concurrency or recorded times")
    if not max(traffic.diurnal) > 0:
        raise ValueError("diurnal: at least one hour must have a load above 0")


def _check_targets(targets: tuple[LatencyTarget, ...]) -> None:
    kinds = [f"{target.statistic} {target.metric}" for target in targets]
    if len(kinds) != len(set(kinds)):
        raise ValueError(
            "targets: each latency may have one target per statistic, not two for "
            + twice(kinds)
        )
    by_level = sorted((t.level, t.metric, t) for t in targets if t.level is not None)
    for level, metric, target in by_level:
        for higher, other, stricter in by_level:
            if other == metric and higher > level and stricter.at_most < target.at_most:
                raise ValueError(
                    f"targets: {stricter.label} of {stricter.at_most:g} s is below "
                    f"{target.label} of {target.at_most:g} s; a higher percentile is "
                    "a longer time"
                )
