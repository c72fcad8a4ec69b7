"""Measured collectives: the lines that tables of latencies were fitted to, as data.

They belong to the link technology, not to the NPU: devices on the same links share
them (H100 and H200 within a few percent), and the bandwidth is each device's own.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from model_ops.opcost import CollectiveKind
from model_ops.platform.collective_kernel import CollectiveKernel
from model_ops.units import Seconds


class LineFile(BaseModel):
    """One algorithm and protocol; fields as in `CollectiveKernel`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    launch: Annotated[Seconds, Field(ge=0, le=1e-2)]
    hop: Annotated[Seconds, Field(ge=0, le=1e-2)]
    share: Annotated[float, Field(gt=0, le=1)]
    contention: Annotated[float, Field(ge=-1, le=2)]

    def kernel(self) -> CollectiveKernel:
        """Return the algorithm as the model takes it."""
        return CollectiveKernel(self.launch, self.hop, self.share, self.contention)


class CollectiveFit(BaseModel):
    """What one software takes for some kinds of collectives on a link technology."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    library: Annotated[str, Field(description="of the vendor, e.g. nccl")]
    framework: Annotated[
        str | None, Field(description="whose own kernels they are; None: the library's")
    ] = None
    version: str
    kinds: Annotated[tuple[CollectiveKind, ...], Field(min_length=1)]
    rows: Annotated[int, Field(description="measurements", gt=0)]
    error: Annotated[float, Field(description="median |ln|, fitted", ge=0)]
    left_out: Annotated[
        float, Field(description="the same, of sizes that were left out", ge=0)
    ]
    lines: Annotated[tuple[LineFile, ...], Field(min_length=1, max_length=3)]


def _of_use(kernels: tuple[CollectiveKernel, ...]) -> tuple[CollectiveKernel, ...]:
    """Leave out kernels that another beats always: a library's behind a framework's."""
    return tuple(
        kernel
        for kernel in kernels
        if not any(k.never_slower(kernel) for k in kernels if k is not kernel)
    )


def collective_kernels(
    links: Sequence[Sequence[CollectiveFit]], library: str | None, framework: str | None
) -> Mapping[CollectiveKind, tuple[CollectiveKernel, ...]]:
    """Return what a library does on a link and, where there is some, a framework's own.

    All-reduces run by whichever is faster. The exchange of experts' tokens is the
    framework's own, as it moves rows whose number only the router knows; without
    one it is the library's all-to-all.

    Parameters
    ----------
    links
        Fits of a link, then of those that stand for what it lacks.
    library, framework
        Whose fits are meant; None for those of neither.
    """
    found: dict[tuple[CollectiveKind, str | None], CollectiveFit] = {}
    for fits in links:
        for fit in fits:
            if fit.library == library and fit.framework in (None, framework):
                for kind in fit.kinds:
                    found.setdefault((kind, fit.framework), fit)
    kernels: dict[CollectiveKind, tuple[CollectiveKernel, ...]] = {}
    for (kind, _), fit in found.items():
        own = tuple(line.kernel() for line in fit.lines)
        kernels[kind] = _of_use((*kernels.get(kind, ()), *own))
    if exchange := kernels.get(CollectiveKind.ALL_TO_ALL):
        kernels.setdefault(CollectiveKind.DISPATCH, exchange)
        kernels.setdefault(CollectiveKind.COMBINE, exchange)
    return kernels
