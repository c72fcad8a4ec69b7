"""A design problem: the use cases, what of the platform may vary, what it costs."""

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from model_ops.dtypes import Precision
from model_ops.errors import DeploymentError, GenzSizeError, ProblemError
from model_ops.platform.npu import Npu
from model_ops.platform.specification import Specification
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.work import RequestShape
from model_ops.units import Bytes, RequestsPerSecond, Seconds, Watts
from problems import catalogue
from problems.design.cost import DEFAULT, CostModel, cost_model
from problems.design.ladders import LEVELS, MOST_LEVELS, Ladders, around, between
from problems.design.parameters import PARAMETERS, USUAL, Parameter, parameter
from problems.fields import Name, Part, stated, twice
from problems.problem import PrecisionName, read_toml

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Mean decoding requests of a replica that are tried, where none are stated."""

CHUNKS = (512, 1024)
"""Tokens of a step that are tried beside the framework's own: fewer are shorter."""

Tokens = Annotated[int, Field(ge=1, le=100_000_000)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field()]
Limit = Annotated[Seconds, Field(gt=0, le=86_400)]


class DesignUseCase(Part):
    """Requests of one model that the platform must serve.

    Parameters
    ----------
    model
        Catalogue name, or path of a Hugging Face ``config.json``.
    precisions
        Formats that may be used; empty: the checkpoint's own.
    input_tokens, output_tokens, beams, prefix_hit
        Of a request; `prefix_hit` of its prompt is in the cache already.
    rate
        Requests per second, of all replicas together.
    ttft, tpot
        Means, at most; see `docs/design.md` for what they mean here.
    batches, chunk_tokens
        Mean decoding requests per replica, and tokens per step, that are tried; no
        batches: powers of two and halves between; no chunks: the framework's own and
        `CHUNKS`.
    max_npus
        NPUs of the use case, at most.
    """

    name: Name = "traffic"
    model: Name
    precisions: tuple[PrecisionName, ...] = ()
    input_tokens: Tokens
    output_tokens: Tokens
    beams: Annotated[int, Field(ge=1, le=64)] = 1
    prefix_hit: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rate: Annotated[RequestsPerSecond, Field(gt=0, le=1e7)]
    ttft: Limit | None = None
    tpot: Limit | None = None
    batches: Counts = ()
    chunk_tokens: Counts = ()
    max_npus: Annotated[int, Field(gt=0, le=10_000_000)] | None = None

    @property
    def shape(self) -> RequestShape:
        """Tokens of a request."""
        cached = self.input_tokens * self.prefix_hit
        return RequestShape(self.input_tokens, self.output_tokens, cached, self.beams)

    @cached_property
    def arch(self) -> ModelArch:
        """The model."""
        return catalogue.load_model(self.model)

    @property
    def is_too_long(self) -> bool:
        """Whether a request is longer than the model was made for."""
        longest = self.arch.max_position_embeddings
        return longest is not None and self.input_tokens + self.output_tokens > longest

    def formats(self) -> tuple[Precision, ...]:
        """Return the precisions that may be used."""
        if self.precisions:
            return tuple(Precision.of(name) for name in self.precisions)
        return (self.arch.precision,)

    def chunks(self, framework: str) -> tuple[int, ...]:
        """Return the tokens of a step that are tried, the framework's own first."""
        own = catalogue.chunk_tokens_under(framework)
        return self.chunk_tokens or tuple(dict.fromkeys((own, *CHUNKS)))

    @property
    def targets(self) -> dict[str, float]:
        """The latency targets by name; infinite where none is stated."""
        none = math.inf
        return {
            "ttft": none if self.ttft is None else self.ttft,
            "tpot": none if self.tpot is None else self.tpot,
        }


def _ladder(stated: Any) -> Any:
    """Read a figure: a quantity, a list of them, or a table of ends and levels."""
    if isinstance(stated, dict):
        return stated
    return {"values": stated if isinstance(stated, list | tuple) else [stated]}


class StatedLadder(Part):
    """A ladder as written: its ends and levels, or its values; quantities as text."""

    from_: Annotated[str | float | None, Field(alias="from")] = None
    to: str | float | None = None
    levels: Annotated[int, Field(ge=2, le=MOST_LEVELS)] | None = None
    values: tuple[str | float, ...] = ()

    @model_validator(mode="after")
    def _is_one_form(self) -> Self:
        ends = (self.from_ is not None, self.to is not None)
        if any(ends) != all(ends):
            raise ValueError("a ladder has both ends, from and to, or neither")
        if self.values and (any(ends) or self.levels):
            raise ValueError("a ladder has either values, or ends and levels")
        return self

    def resolved(self, one: Parameter, today: float, levels: int) -> tuple[float, ...]:
        """Return the levels of a figure.

        Raises
        ------
        UnitError, ProblemError
            If something is no quantity of its unit.
        """
        if self.values:
            return tuple(_level(one, value) for value in self.values)
        many = self.levels or levels
        if self.from_ is None or self.to is None:
            return around(one, today, many)
        low, high = _level(one, self.from_), _level(one, self.to)
        if low >= high:
            raise ProblemError("'from' must be below 'to'")
        return between(low, high, many, whole=one.unit is None)


def _level(one: Parameter, value: str | float) -> float:
    if isinstance(value, str):
        return one.parse(value)
    if one.unit is not None:
        raise ProblemError(f"'{value}' has no unit; write it like '{one.unit.example}'")
    if value != int(value) or not 1 <= value <= 1_000_000:
        raise ProblemError(f"{value} is no whole number from 1 to 1,000,000")
    return float(value)


StatedFigure = Annotated[StatedLadder, BeforeValidator(_ladder)]


class StatedCost(Part):
    """Which cost model, and what is changed in it."""

    file: Name = DEFAULT
    set: Mapping[str, float] = {}


class DesignLimits(Part):
    """What one NPU of the design, and all of them, may be at most.

    Parameters
    ----------
    npus
        Of all use cases together.
    watts, die_mm2, stacks
        Of one NPU: at full load with its share of the server; of all its dies; memory
        stacks. The latter two are at most those of the largest package announced
        (NVIDIA Rubin Ultra, GTC 2025: four dies of the reticle's size, 16 stacks).
    """

    npus: Annotated[int, Field(gt=0, le=10_000_000)] | None = None
    watts: Annotated[Watts, Field(gt=0, le=1e7)] | None = None
    die_mm2: Annotated[float, Field(gt=0, le=1e6)] = 4 * 858.0
    stacks: Annotated[int, Field(gt=0, le=1_000)] = 16


class DesignProblem(Part):
    """Which accelerator serves these use cases at the least cost, or changes least.

    Parameters
    ----------
    base
        A catalogue NPU: today's figures, and how well a part does with its own.
    platform
        Figures that vary or are changed; others stay the base's. Without it, the six
        of `USUAL` vary.
    levels
        Of a ladder that states none.
    objective
        USD/h of all NPUs, or how far the figures are from the base's: the sum of their
        absolute log ratios, each with its weight (1).
    """

    title: str = ""
    base: Name = "h200-sxm"
    framework: Name = catalogue.DEFAULT_FRAMEWORK
    platform: Mapping[str, StatedFigure] | None = None
    levels: Annotated[int, Field(ge=2, le=MOST_LEVELS)] = LEVELS
    use_case: Annotated[tuple[DesignUseCase, ...], Field(min_length=1, max_length=32)]
    cost: StatedCost = StatedCost()
    limits: DesignLimits = DesignLimits()
    objective: Literal["cost", "distance"] = "cost"
    weights: Mapping[str, Annotated[float, Field(ge=0, le=1e6)]] = {}

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        given = [each.name for each in self.use_case]
        if len(given) != len(set(given)):
            raise ValueError(
                f"use_case: each needs a name of its own, '{twice(given)}' is not"
            )
        return self

    @cached_property
    def base_npu(self) -> Npu:
        """The known part, as the framework uses it."""
        return catalogue.load_npu_under(self.base, self.framework)

    @cached_property
    def today(self) -> Specification:
        """The known part's figures."""
        return Specification.of(self.base_npu)

    @cached_property
    def ladders(self) -> Ladders:
        """The levels of every figure.

        Raises
        ------
        ProblemError
            If a figure is unknown, given twice, or not written in its unit.
        """
        stated: dict[str, tuple[float, ...]] = {}
        usual = dict.fromkeys(USUAL, StatedLadder())
        platform = usual if self.platform is None else self.platform
        for name, written in platform.items():
            one = parameter(name)
            if one.name in stated:
                raise ProblemError(f"platform.{name}: {one.name} is stated twice")
            if one.name not in self.today.figures:
                raise ProblemError(
                    f"platform.{name}: nobody states the {one.label} of {self.base}; "
                    "choose another base, e.g. h200-sxm"
                )
            today = float(self.today.figures[one.name])
            try:
                stated[one.name] = written.resolved(one, today, self.levels)
            except GenzSizeError as error:
                raise ProblemError(f"platform.{name}: {error}") from None
        return Ladders.of(stated, self.today)

    @cached_property
    def cost_model(self) -> CostModel:
        """What an NPU of given figures costs."""
        return cost_model(self.cost.file, self.cost.set)

    @cached_property
    def stack_least(self) -> Bytes:
        """Bytes that a memory stack holds at least; no more than those of the base."""
        model, today = self.cost_model, self.today
        own = today.memory_capacity / model.parts(today).stacks
        return min(model.stack_least_gb * 1e9, own)

    @cached_property
    def weight_of(self) -> Mapping[str, float]:
        """The weight of each figure's distance."""
        stated = {parameter(name).name: w for name, w in self.weights.items()}
        return {name: stated.get(name, 1.0) for name in PARAMETERS}

    def distance(self, chosen: Specification) -> float:
        """Return the weighted sum of the figures' absolute log ratios to today's.

        A figure that follows another is not counted twice.
        """
        today = self.today.figures
        return sum(
            self.weight_of[name] * abs(math.log(value / today[name]))
            for name, value in chosen.figures.items()
            if name in self.ladders.levels
        )

    def as_today(self) -> Self:
        """Return the problem with nothing to choose but how today's part is used.

        Its limits on NPUs and on one NPU are dropped.
        """
        stated = {name: getattr(self, name) for name in type(self).model_fields}
        free = DesignLimits(die_mm2=1e6, stacks=1_000)
        cases = tuple(
            each.model_copy(update={"max_npus": None}) for each in self.use_case
        )
        changed = {"platform": {}, "limits": free, "use_case": cases}
        return type(self).model_validate(stated | changed | {"objective": "cost"})

    def checked(self) -> Self:
        """Return the problem with its names looked up.

        Raises
        ------
        GenzSizeError
            If a name is unknown, or a statement cannot be.
        """
        catalogue.framework_file(self.framework)
        base = catalogue.canonical("npus", self.base)
        problem = self.model_copy(update={"base": base})
        try:
            _ = problem.today
        except DeploymentError as error:
            raise ProblemError(f"base: {error}") from None
        if problem.base_npu.layer_time > 0:
            raise ProblemError(
                f"framework: {self.framework} waits for its host to start each layer's "
                "kernels, which no figure of an accelerator changes; choose another"
            )
        _ = problem.ladders, problem.cost_model, problem.weight_of
        for each in self.use_case:
            _ = each.arch
            for precision in each.formats():
                if not problem.base_npu.computes(precision):
                    raise ProblemError(
                        f"use_case: {base} cannot compute {precision.name}; "
                        "choose other precisions or another base"
                    )
        limited = self.limits.npus is not None or all(
            each.max_npus is not None for each in self.use_case
        )
        if self.objective == "distance" and not limited:
            raise ProblemError(
                "objective: distance needs limits.npus (--max-npus): with as many NPUs "
                "as one likes, today's part may do"
            )
        return problem


def design_problem_of(data: Mapping[str, Any], source: str) -> DesignProblem:
    """Return the checked design problem that a mapping states.

    `data` and `source` are as `stated` takes them.

    Raises
    ------
    GenzSizeError
        One message that names every wrong field.
    """
    return stated(DesignProblem, data, source).checked()


def read_design(path: Path) -> DesignProblem:
    """Return the checked design problem of a file; see `design_problem_of`."""
    return design_problem_of(read_toml(path), "file")
