"""Measured kernels: the parameters that operator tables were fitted to, as data.

One file per measured NPU in ``kernels/``. An NPU without a file, or a file without a
kernel, takes it from the NPUs that its efficiency profile names as measured.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Annotated, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_ops.dtypes import Dtype
from model_ops.errors import CatalogueError, nearest
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import KernelKey
from model_ops.platform.kernels import FORMS, Kernel
from model_ops.platform.kernels.gemm import GemmKernel
from model_ops.units import Bytes, FlopPerSecond, Unit
from problems.catalogue.schema import FOLDER, CatalogueFile

FOLDER_NAME = "kernels"


class KernelFit(BaseModel):
    """A kernel on one NPU, as one software stack runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: KernelFamily
    format: Annotated[Dtype, Field(description="of weights or cache in memory")]
    engine: Annotated[Dtype | None, Field(description="arithmetic")] = None
    stack: Annotated[str, Field(description="framework or library", min_length=2)]
    version: str
    rows: Annotated[int, Field(description="measurements", gt=0)]
    error: Annotated[float, Field(description="median |ln|, fitted", ge=0)]
    left_out: Annotated[
        float, Field(description="the same, of shapes that were left out", ge=0)
    ]
    bias: Annotated[float, Field(description="median ln of shapes left out")] = 0.0
    benchmark_cache: Annotated[
        Bytes | None,
        Field(description="weights that the benchmark found half in a cache"),
    ] = None
    benchmark_speedup: Annotated[
        float | None, Field(description="of that cache over the memory", ge=1)
    ] = None
    parameters: dict[str, float | str]

    @property
    def key(self) -> KernelKey:
        """What the kernel is found by."""
        return KernelKey(self.family, self.format, self.engine)

    @model_validator(mode="after")
    def _fits_its_form(self) -> Self:
        self.kernel()
        return self

    def kernel(self) -> Kernel:
        """Return the form with its parameters.

        Raises
        ------
        ValueError
            If a parameter is missing, unknown or no quantity of its kind.
        """
        form = FORMS[self.family]
        known = {f.name for f in fields(form)}  # type: ignore[arg-type]
        if unknown := set(self.parameters) - known:
            first = sorted(unknown)[0]
            raise ValueError(f"unknown parameter '{first}'{nearest(first, known)}")
        if missing := {*form.BOUNDS, *form.CHOICES} - set(self.parameters):
            raise ValueError(f"lacks the parameter '{sorted(missing)[0]}'")
        hints = get_type_hints(form, include_extras=True)
        return form(
            **{
                name: _number(value, hints[name])
                for name, value in self.parameters.items()
            }
        )


class KernelsFile(CatalogueFile):
    """The measured kernels of one NPU."""

    fits: Annotated[tuple[KernelFit, ...], Field(min_length=1)]


def _number(value: float | str, hint: object) -> float:
    if not isinstance(value, str):
        return float(value)
    unit = unit_of(hint)
    if unit is None:
        raise ValueError(f"'{value}' is no number")
    return unit.parse(value)


def unit_of(hint: object) -> Unit | None:
    """Return the unit that a type names, alone or beside others; None for none."""
    marks = getattr(hint, "__metadata__", ())
    own = next((mark for mark in marks if isinstance(mark, Unit)), None)
    parts = (unit_of(part) for part in getattr(hint, "__args__", ()))
    return own or next((part for part in parts if part), None)


@cache
def measured_npus() -> tuple[str, ...]:
    """Return the NPUs whose kernels were measured, sorted."""
    return tuple(sorted(p.stem for p in (FOLDER / FOLDER_NAME).glob("*.toml")))


@cache
def kernels_file(npu: str) -> KernelsFile:
    """Return the measured kernels of an NPU, by its catalogue name.

    Raises
    ------
    CatalogueError
        If nobody measured it.
    """
    path = FOLDER / FOLDER_NAME / f"{npu}.toml"
    if not path.is_file():
        raise CatalogueError(
            f"no measured kernels of {npu}{nearest(npu, measured_npus())}"
        )
    text = path.read_text(encoding="utf-8")
    return KernelsFile.model_validate(tomllib.loads(text), context={"source": "file"})


def fits_for(
    npu: str, relatives: Sequence[str], stack: str
) -> list[tuple[str, KernelFit]]:
    """Return the fit of each kernel that serves an NPU best, and whose it is.

    First the NPU's own under the stack, then its relatives' under it, then its own
    and theirs under any other: another stack runs another kernel.
    """
    chain = [n for n in (npu, *relatives) if n in measured_npus()]
    every = [
        (name, fit) for name in dict.fromkeys(chain) for fit in kernels_file(name).fits
    ]
    found: dict[KernelKey, tuple[str, KernelFit]] = {}
    for wanted in (True, False):
        for name, fit in every:
            if (fit.stack == stack) is wanted:
                found.setdefault(fit.key, (name, fit))
    return list(found.values())


def at_power(kernel: Kernel, share: float) -> Kernel:
    """Return a kernel where its NPU has so much of the power that its rates need.

    Matrix units alone draw so much that clocks give way: a card of half the power per
    FLOP/s sustains half the share of its peak, as NVIDIA's base clocks have it (H100
    PCIe, 350 W: 1,095 of 1,755 MHz).
    """
    if not isinstance(kernel, GemmKernel) or share >= 1.0:
        return kernel
    return replace(kernel, compute=kernel.compute * share)


def as_served(
    kernels: Mapping[KernelKey, Kernel], rates: Mapping[Dtype, FlopPerSecond]
) -> dict[KernelKey, Kernel]:
    """Return measured kernels as serving engines run them on an NPU of such rates."""
    return narrow_inputs(static_scales(kernels), rates)


def static_scales(kernels: Mapping[KernelKey, Kernel]) -> dict[KernelKey, Kernel]:
    """Return the kernels without the quantisation of their inputs.

    The tables time it with each multiplication, as a kernel before it. Engines do it
    in the pass that writes the inputs (norm, activation), by scales that the
    checkpoint brings: what starts then is the multiplication, like that of 16 bits.
    """
    found = dict(kernels)
    plain = kernels.get(KernelKey(KernelFamily.GEMM, Dtype.BF16, Dtype.BF16))
    for key, kernel in kernels.items():
        quantised = key.family is KernelFamily.GEMM and key.engine in _QUANTISED
        if (
            quantised
            and isinstance(kernel, GemmKernel)
            and isinstance(plain, GemmKernel)
        ):
            found[key] = replace(
                kernel,
                launch=min(kernel.launch, plain.launch),
                row_latency=min(kernel.row_latency, plain.row_latency),
                staging=min(kernel.staging, plain.staging),
            )
    return found


_QUANTISED = (Dtype.FP8, Dtype.FP4, Dtype.INT8)


def narrow_inputs(
    kernels: Mapping[KernelKey, Kernel], rates: Mapping[Dtype, FlopPerSecond]
) -> dict[KernelKey, Kernel]:
    """Return the kernels with which MXFP4 weights meet 16-bit inputs on an NPU.

    Where it computes FP4, engines round the inputs to FP8 first (vLLM and TensorRT-LLM
    run gpt-oss on Blackwell so, as MXFP4 x MXFP8); the work stays counted in 16 bits.
    """
    found = dict(kernels)
    if Dtype.FP4 not in rates or Dtype.FP8 not in rates:
        return found
    for family in (KernelFamily.GEMM, KernelFamily.MOE):
        narrow = kernels.get(KernelKey(family, Dtype.MXFP4, Dtype.FP8))
        if isinstance(narrow, GemmKernel):
            faster = rates[Dtype.FP8] / rates[Dtype.BF16]
            found[KernelKey(family, Dtype.MXFP4, Dtype.BF16)] = replace(
                narrow, compute=narrow.compute * faster
            )
    return found
