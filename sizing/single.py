"""One deployment under one load, from options."""

import math
from collections.abc import Mapping
from typing import Any

from model_ops.arrivals import under_arrivals
from model_ops.dtypes import Precision
from model_ops.errors import DeploymentError, ProblemError, UnitError
from model_ops.estimate import REQUESTS_PER_USER, Estimate, Load, LoadMode, estimate
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape
from model_ops.serving.step import Replica
from model_ops.units import BYTE, REQUEST_PER_SECOND
from problems import catalogue
from problems.catalogue import DEFAULT_FRAMEWORK
from problems.lengths import check_length
from problems.optimisations import Optimisations, optimisations_of
from sizing.report.estimate import Prediction

_MOST_TOKENS = 100_000_000
_MOST_BEAMS = 64


def predict(  # noqa: PLR0913 - one parameter per option of the command
    *,
    model: str | None,
    npu: str | None,
    tp: int | None,
    pp: int,
    ep: int,
    dp: int,
    cp: int,
    replicas: int,
    precision: str | None,
    input_tokens: int | None,
    output_tokens: int | None,
    concurrency: int | None,
    rate: str | None,
    mode: str | None,
    chunk_tokens: int | None,
    ideal: bool,
    framework: str | None,
    prefix_hit: float | None,
    beams: int | None,
    optimisations: Mapping[str, Any],
) -> Prediction:
    """Return the prediction for one deployment.

    Raises
    ------
    GenzSizeError
        If something is missing, unknown or contradictory, the model does not fit,
        or more requests arrive than the replicas can finish.
    """
    arch = catalogue.load_model(required("--model", model))
    chip = npu_under(required("--npu", npu), framework)
    chunk = chunk_tokens or catalogue.chunk_tokens_under(framework or DEFAULT_FRAMEWORK)
    split = Parallelism(tp or 1, pp, ep, dp, cp)
    used = optimisations_of(optimisations)
    formats = Precision.of(precision) if precision else arch.precision
    replica = replica_on(chip.ideal() if ideal else chip, arch, split, formats, used)
    shape = shape_of(arch, input_tokens, output_tokens, prefix_hit or 0.0, beams)
    if shape.beams != 1 and used.speculation:
        raise ProblemError("--beams: beam search cannot be speculated on")
    load = _load(shape, mode, concurrency, rate, replicas, chunk)
    result, tails = estimate(replica, load), None
    if load.mode is LoadMode.OPEN_LOOP:
        arriving = under_arrivals(replica, load, result, replicas=replicas)
        result, tails = arriving.estimate, arriving.latencies
    where = f"{replicas} x ({chip.name} {split.text})"
    _check(result, arch.name, where, replicas)
    title = (
        f"{arch.name} in {formats.name} on {where}, "
        f"{load.mode.value.replace('_', ' ')}, "
        f"{shape.input_tokens:,.0f} tokens in and {shape.output_tokens:,.0f} out"
        + besides(shape, used)
    )
    return Prediction(title, replica, load, replicas, result, tails)


def npu_under(npu: str, framework: str | None) -> Npu:
    """Return an NPU as a framework uses it, or as the model takes it by itself."""
    if framework is None:
        return catalogue.load_npu(npu)
    return catalogue.load_npu_under(npu, framework)


def replica_on(
    chip: Npu,
    arch: ModelArch,
    split: Parallelism,
    formats: Precision,
    used: Optimisations,
) -> Replica:
    """Return a replica on NPUs of a type.

    Raises
    ------
    DeploymentError
        If the model cannot be split so, or the NPU has no rate for its formats.
    """
    used.check(arch, split)
    chip.engine(formats.compute)
    supply, features = Supply.of(chip), used.features(arch, formats)
    return Replica(arch, split, formats, supply, **features)


def shape_of(
    arch: ModelArch,
    input_tokens: int | None,
    output_tokens: int | None,
    hit: float,
    beams: int | None,
) -> RequestShape:
    """Return the tokens of a request.

    Raises
    ------
    ProblemError
        If one is missing, or beyond what makes sense or the model takes.
    """
    prompt = float(_tokens("--input-tokens", input_tokens))
    answer = float(_tokens("--output-tokens", output_tokens))
    if not 0 <= hit < 1:
        raise ProblemError(f"--prefix-hit: {hit:g} must be at least 0 and below 1")
    beams = 1 if beams is None else beams
    if not 1 <= beams <= _MOST_BEAMS:
        raise ProblemError(f"--beams: {beams} must be from 1 to {_MOST_BEAMS}")
    check_length("--input-tokens", arch, prompt + answer)
    return RequestShape(prompt, answer, prompt * hit, beams)


def besides(shape: RequestShape, used: Optimisations) -> str:
    """Return what a deployment uses besides, for its title."""
    parts = [used.text] if used.text else []
    if shape.cached_tokens:
        parts.append(f"{shape.cached_tokens:,.0f} prompt tokens cached")
    if shape.beams != 1:
        parts.append(f"{shape.beams} beams")
    return "".join(f"; {part}" for part in parts)


def _check(result: Estimate, model: str, where: str, replicas: int) -> None:
    """Raise `DeploymentError` if the model does not fit or the load is too much."""
    outer, room = float(result.memory.outer), float(result.room.outer)
    if outer > room:
        raise DeploymentError(
            f"{model} does not fit on {where}: {BYTE.format(outer)} per NPU are "
            f"offloaded, and its second memory has {BYTE.format(room)}"
        )
    if not result.fits:
        raise DeploymentError(
            f"{model} does not fit on {where}: it needs "
            f"{BYTE.format(float(result.memory.total))} per NPU, "
            f"{BYTE.format(float(result.room.own))} are usable"
        )
    if result.overloaded:
        raise DeploymentError(
            f"--rate: {where} can finish at most "
            f"{float(result.rate) * replicas:.3g} req/s; give more --replicas"
        )


def required(option: str, value: str | None) -> str:
    """Return an option's value.

    Raises
    ------
    ProblemError
        If it is missing.
    """
    if not value:
        raise ProblemError(f"{option}: required, but missing")
    return value


def _tokens(option: str, value: int | None) -> int:
    if value is None:
        raise ProblemError(f"{option}: required, but missing")
    if not 0 < value <= _MOST_TOKENS:
        raise ProblemError(f"{option}: {value} must be from 1 to {_MOST_TOKENS:,}")
    return value


def _load(
    shape: RequestShape,
    mode: str | None,
    concurrency: int | None,
    rate: str | None,
    replicas: int,
    chunk_tokens: int,
) -> Load:
    if rate is not None and concurrency is not None:
        raise ProblemError("--rate: give either --rate or --concurrency, not both")
    if concurrency is not None and not 1 <= concurrency <= 1_000_000_000:
        raise ProblemError(
            f"--concurrency: {concurrency:.6g} must be from 1 to 1,000,000,000"
        )
    implied = (
        LoadMode.OPEN_LOOP
        if rate is not None
        else LoadMode.CLOSED_LOOP
        if concurrency is not None
        else LoadMode.OFFLINE
    )
    kind = LoadMode(mode) if mode else implied
    if kind is LoadMode.OPEN_LOOP and rate is None:
        raise ProblemError("--rate: an open loop needs it")
    if kind in (LoadMode.CLOSED_LOOP, LoadMode.STATIC_BATCH) and concurrency is None:
        raise ProblemError(f"--concurrency: {kind.value} needs it")
    if kind is not LoadMode.OPEN_LOOP and rate is not None:
        raise ProblemError(f"--rate has no effect in mode {kind.value}; leave it out")
    return Load(
        shape,
        kind,
        concurrency=math.inf if concurrency is None else concurrency / replicas,
        rate=0.0 if rate is None else rate_of(rate) / replicas,
        chunk_tokens=chunk_tokens,
        requests_per_user=REQUESTS_PER_USER,
    )


def rate_of(text: str) -> float:
    """Return requests per second from text.

    Raises
    ------
    ProblemError
        If it is none, or none arrive.
    """
    try:
        value = REQUEST_PER_SECOND.parse(text)
    except UnitError as error:
        raise ProblemError(f"--rate: {error}") from None
    if value == 0:
        raise ProblemError("--rate: must be above 0")
    return value
