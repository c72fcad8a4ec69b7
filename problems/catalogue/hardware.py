"""NPUs put together from their files: rates, links, and kernels under a framework."""

import math
from dataclasses import replace
from functools import cache

from model_ops.dtypes import Dtype
from model_ops.errors import CatalogueError
from model_ops.platform.efficiency import (
    ConstantEfficiency,
    Evidence,
    MeasuredEfficiency,
)
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.npu import Npu
from problems.catalogue.files import (
    canonical,
    efficiency_file,
    framework_file,
    link_file,
    npu_file,
)
from problems.catalogue.measured_collectives import collective_kernels
from problems.catalogue.measured_kernels import (
    as_served,
    at_power,
    fits_for,
    measured_npus,
)
from problems.catalogue.schema import EfficiencyFile, NpuFile, TierFile

DEFAULT_FRAMEWORK = "vllm"
"""The serving framework whose habits an NPU's profile assumes."""

_FRAMEWORK_FIELDS = (
    "memory_usable",
    "runtime_reserve",
    "step_overhead",
    "sequence_overhead",
    "pace",
    "prefill_pace",
    "exposed_launch",
    "host_time",
    "request_overhead",
)


@cache
def load_npu(name: str) -> Npu:
    """Return an NPU as the usual framework uses it; `name` may be an alias.

    Raises
    ------
    CatalogueError
        If the catalogue lacks it, or its file is malformed.
    """
    return load_npu_under(name, DEFAULT_FRAMEWORK)


@cache
def _bare(own: str) -> Npu:
    """Return an NPU as its own files describe it, whatever framework uses it."""
    file = npu_file(own)
    profile = efficiency_file(file.efficiency)
    return Npu(
        name=own,
        flop_per_s=file.flop_per_s,
        memory_bandwidth=file.memory_bandwidth,
        memory_capacity=file.memory_capacity,
        node_npus=file.node_npus,
        fabric=load_fabric(own, None),
        evidence=_evidence(own, profile),
        processors=_processors(file, profile),
        on_chip_memory=file.on_chip_memory,
        link_efficiency=profile.link_efficiency,
        memory_usable=profile.memory_usable,
        runtime_reserve=profile.runtime_reserve,
        step_overhead=profile.step_overhead,
        tdp=file.tdp,
        idle_power=file.idle_power,
        provisioned_power=file.provisioned_power,
        outer_memory=file.outer_memory.memory() if file.outer_memory else None,
    )


def _evidence(npu: str, profile: EfficiencyFile) -> Evidence:
    measured = {*measured_npus(), *profile.measured_on}
    if npu in measured:
        return Evidence.MEASURED
    near = profile.measured_on or npu in profile.fitted_on
    return Evidence.RELATIVE if near else Evidence.ASSUMED


def _processors(file: NpuFile, profile: EfficiencyFile) -> float:
    """Return an NPU's processors, or those of the one whose kernels it takes."""
    known = (npu_file(n).processors for n in profile.measured_on)
    return float(file.processors or next((n for n in known if n), 1))


def _nearest_first(file: NpuFile, profile: EfficiencyFile) -> list[str]:
    """Return the NPUs that a profile names as measured, the most alike first.

    A kernel's tiles take as long as one processor's rate lets them, so that is what
    NPUs of one architecture differ in: a data-centre part and a graphics card.
    """

    def rate(each: NpuFile) -> float:
        flop_per_s = each.flop_per_s.get(Dtype.BF16, 1.0)
        return math.log(flop_per_s / _processors(each, profile))

    own = rate(file)
    return sorted(profile.measured_on, key=lambda n: abs(rate(npu_file(n)) - own))


def _power_share(file: NpuFile, measured: NpuFile) -> float:
    """Return an NPU's watts per FLOP/s over those of one whose kernels it takes."""
    if file.tdp is None or measured.tdp is None:
        return 1.0
    slower = measured.flop_per_s[Dtype.BF16] / file.flop_per_s[Dtype.BF16]
    return float(file.tdp / measured.tdp * slower)


@cache
def _efficiency(
    npu: str, framework: str, *, measured: bool = False
) -> MeasuredEfficiency:
    """Return the kernels that a framework runs on an NPU, or as they were measured."""
    file = npu_file(npu)
    profile = efficiency_file(file.efficiency)
    stack = framework_file(framework).kernels or framework
    own = profile.stacks.get(framework) or profile.stacks.get(stack, {})
    constants = {**profile.kernels, **own}.items()
    fits = fits_for(npu, _nearest_first(file, profile), stack)
    kernels = {
        fit.key: at_power(fit.kernel(), _power_share(file, npu_file(whose)))
        for whose, fit in fits
        if not {fit.family, fit.family.relative} & own.keys()
    }
    return MeasuredEfficiency(
        kernels=kernels if measured else as_served(kernels, file.flop_per_s),
        otherwise=ConstantEfficiency(
            families={family: kernel.efficiency() for family, kernel in constants},
            by_engine={
                (family, engine): special.efficiency()
                for family, kernel in constants
                for engine, special in kernel.by_dtype.items()
            },
        ),
    )


@cache
def load_npu_under(name: str, framework: str) -> Npu:
    """Return an NPU as a serving framework uses it.

    Raises
    ------
    CatalogueError
        If the catalogue lacks either.
    """
    file = framework_file(framework)
    npu, under = _bare(canonical("npus", name)), canonical("frameworks", framework)
    profile = efficiency_file(npu_file(npu.name).efficiency)
    stated = {
        field: value
        for field in _FRAMEWORK_FIELDS
        if (value := getattr(file, field)) is not None
    }
    return replace(
        npu,
        fabric=load_fabric(npu.name, under),
        efficiency=_efficiency(npu.name, under),
        activation_factor=file.activation_factor,
        layer_time=(file.layer_time or 0.0) * profile.host_pace,
        **stated,
    )


@cache
def load_npu_as(name: str, stack: str) -> Npu:
    """Return an NPU with its kernels and links as they were measured one by one.

    Parameters
    ----------
    name
        Of the NPU.
    stack
        The software that ran them: a framework, or a library alone.

    Raises
    ------
    CatalogueError
        If the catalogue lacks the NPU.
    """
    links: str | None
    try:
        framework = canonical("frameworks", stack)
    except CatalogueError:
        npu, kernels, links = load_npu(name), DEFAULT_FRAMEWORK, None
    else:
        npu, kernels = load_npu_under(name, framework), framework
        links = framework
    return replace(
        npu,
        fabric=load_fabric(npu.name, links),
        efficiency=_efficiency(npu.name, kernels, measured=True),
        pace=1.0,
        exposed_launch=1.0,
    )


@cache
def load_fabric(npu: str, framework: str | None) -> Fabric:
    """Return an NPU's fabric as a framework drives it; None: a library alone.

    Raises
    ------
    CatalogueError
        If the catalogue lacks either.
    """
    file = npu_file(npu)
    library = efficiency_file(file.efficiency).collective_library
    own = framework and canonical("frameworks", framework)
    own = own and (framework_file(own).kernels or own)

    def tier(stated: TierFile) -> Tier:
        link = link_file(stated.link)
        like = link_file(link.like).collectives if link.like else ()
        kernels = collective_kernels((link.collectives, like), library, own)
        return replace(stated.tier(link), kernels=kernels)

    return Fabric(tuple(tier(stated) for stated in file.fabric))
