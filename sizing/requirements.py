"""What models need for use cases, from options."""

from collections.abc import Sequence
from dataclasses import dataclass

from model_ops.dtypes import Precision
from model_ops.errors import ProblemError
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape
from model_ops.requirements import Least, Need, Workload, least_npus, needs
from model_ops.units import SECOND, Seconds
from problems import catalogue
from problems.catalogue.schema import UseCaseFile

MOST_TOKENS = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What options state of a workload; None where they leave it to the use case."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    beams: int | None = None
    ttft: str | None = None
    tpot: str | None = None
    batch: int = 1
    beams_copy_prompt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformNeeds:
    """The least that a platform must have for one model and one use case.

    Parameters
    ----------
    arch, precision
        The model and its formats.
    use_case
        Catalogue name; empty where options state all.
    workload
        Requests and targets.
    phases
        The needs of prefill and of decode.
    splits
        Ways to share the layers among NPUs, and the needs under each: they differ in
        the links.
    npus
        The NPU types of the catalogue and how many of each have enough, fewest first.
    """

    arch: ModelArch
    precision: Precision
    use_case: str
    workload: Workload
    phases: tuple[Need, Need]
    splits: tuple[tuple[Parallelism, tuple[Need, Need]], ...]
    npus: tuple[tuple[str, Least], ...]

    @property
    def too_long(self) -> bool:
        """Whether a request is longer than the model was made for."""
        longest = self.arch.max_position_embeddings
        shape = self.workload.shape
        tokens = shape.input_tokens + shape.output_tokens
        return longest is not None and bool(tokens > longest)


def platform_needs(
    models: Sequence[str],
    use_cases: Sequence[str],
    stated: Stated,
    *,
    precision: str | None = None,
    splits: Sequence[Parallelism] = (),
) -> list[PlatformNeeds]:
    """Return the needs of every model in every use case.

    Raises
    ------
    GenzSizeError
        If something is missing or unknown, or a model cannot be split so.
    """
    if not models:
        raise ProblemError("--model: required, but missing")
    named = [catalogue.canonical("use_cases", name) for name in use_cases]
    asked = [(name, _workload(stated, catalogue.use_case_file(name))) for name in named]
    if not asked:
        asked = [("", _workload(stated, None))]
    return [
        _needs_of(catalogue.load_model(model), precision, name, workload, splits)
        for model in models
        for name, workload in asked
    ]


def _needs_of(
    arch: ModelArch,
    precision: str | None,
    use_case: str,
    workload: Workload,
    splits: Sequence[Parallelism],
) -> PlatformNeeds:
    formats = Precision.of(precision) if precision else arch.precision
    for split in splits:
        arch.check(split)
    phases = needs(arch, formats, workload)
    npus = [
        (name, least_npus(phases, catalogue.load_npu(name)))
        for name in catalogue.names("npus")
    ]
    return PlatformNeeds(
        arch=arch,
        precision=formats,
        use_case=use_case,
        workload=workload,
        phases=phases,
        splits=tuple((s, needs(arch, formats, workload, s)) for s in splits),
        npus=tuple(sorted(npus, key=lambda each: (each[1].npus, each[0]))),
    )


def _workload(stated: Stated, file: UseCaseFile | None) -> Workload:
    """Return the workload of a use case with what options change."""
    ttft = _target(stated.ttft, file.ttft if file else None)
    tpot = _target(stated.tpot, file.tpot if file else None)
    if ttft is None and tpot is None:
        raise ProblemError("--ttft: give --ttft, --tpot or both, or a --use-case")
    shape = RequestShape(
        _tokens(
            "--input-tokens", stated.input_tokens, file.input_tokens if file else None
        ),
        _tokens(
            "--output-tokens",
            stated.output_tokens,
            file.output_tokens if file else None,
        ),
        beams=stated.beams or (file.beams if file else 1),
    )
    targets = {"ttft": ttft, "tpot": tpot}
    return Workload(
        shape=shape,
        batch=stated.batch,
        copied_prompt=stated.beams_copy_prompt,
        **{name: value for name, value in targets.items() if value is not None},
    )


def _target(given: str | None, default: Seconds | None) -> Seconds | None:
    return default if given is None else SECOND.parse(given)


def _tokens(option: str, given: int | None, default: int | None) -> int:
    value = default if given is None else given
    if value is None:
        raise ProblemError(f"{option}: required, but missing (or give a --use-case)")
    if not 0 < value <= MOST_TOKENS:
        raise ProblemError(f"{option}: {value} must be from 1 to {MOST_TOKENS:,}")
    return value
