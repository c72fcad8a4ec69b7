"""An accelerator by its figures alone: what may be chosen when one is designed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from model_ops.dtypes import Dtype
from model_ops.errors import DeploymentError
from model_ops.platform.efficiency import Efficiency, Evidence, MeasuredEfficiency
from model_ops.platform.fabric import UNLIMITED, Fabric, Tier
from model_ops.platform.npu import Npu
from model_ops.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds

_WIDE: Bytes = 2.0
_NARROW: Bytes = 1.0
"""A number of 16 bits, and of 8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """The figures of one accelerator.

    Parameters
    ----------
    flop_per_s
        Dense rate of 16-bit arithmetic; wider formats keep their ratio to it.
    flop_per_s_8bit
        Of 8-bit arithmetic, the best of integers and floats; narrower formats keep
        their ratio to it.
    memory_bandwidth, memory_capacity
        Of the memory that holds weights and KV cache.
    scale_up_bandwidth, scale_up_latency
        Of the links inside a domain, per direction and per hop.
    scale_up_npus
        NPUs of a domain, behind switches that let any two talk at full bandwidth.
    scale_out_bandwidth, scale_out_latency
        Of the links between domains.
    on_chip_memory
        Bytes of scratchpad, or of the last cache before the memory; None where nobody
        states the known part's: then it bounds nothing, and is no figure.
    """

    flop_per_s: FlopPerSecond
    flop_per_s_8bit: FlopPerSecond
    memory_bandwidth: BytesPerSecond
    memory_capacity: Bytes
    scale_up_bandwidth: BytesPerSecond
    scale_up_npus: int
    scale_up_latency: Seconds
    scale_out_bandwidth: BytesPerSecond
    scale_out_latency: Seconds
    on_chip_memory: Bytes | None = None

    @classmethod
    def of(cls, npu: Npu) -> "Specification":
        """Return the figures of a known part.

        Raises
        ------
        DeploymentError
            If it lacks 16-bit arithmetic, or links of two reaches.
        """
        if len(npu.fabric.tiers) < 2:
            raise DeploymentError(
                f"{npu.name} has no links beyond its fastest, so there is no scale-up "
                "domain to size"
            )
        up, out = npu.fabric.tiers[0], npu.fabric.tiers[-1]
        wide = _best(npu, _WIDE)
        if wide is None:
            raise DeploymentError(f"{npu.name} has no rate for 16-bit arithmetic")
        return cls(
            flop_per_s=wide,
            flop_per_s_8bit=_best(npu, _NARROW) or wide,
            memory_bandwidth=npu.memory_bandwidth,
            memory_capacity=npu.memory_capacity,
            scale_up_bandwidth=float(up.bandwidth),
            scale_up_npus=int(up.npus),
            scale_up_latency=float(up.latency),
            scale_out_bandwidth=float(out.bandwidth),
            scale_out_latency=float(out.latency),
            on_chip_memory=npu.on_chip_memory,
        )

    @property
    def figures(self) -> dict[str, float]:
        """The figures by name: all that are known."""
        each = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in each.items() if value is not None}


def _best(npu: Npu, width: Bytes) -> FlopPerSecond | None:
    rates = [rate for dtype, rate in npu.flop_per_s.items() if dtype.bytes == width]
    return max(rates, default=None)


def is_narrow(engine: Dtype) -> bool:
    """Return whether a format is computed at the pace of 8-bit arithmetic."""
    return engine.bytes <= _NARROW


def hypothetical(base: Npu, chosen: Specification) -> Npu:
    """Return a part of the given figures that is as good with them as a known one.

    From the base come the shares of the rates that kernels and links reach, the time
    that kernels take to start, and the engine's host time; of the kernels only the
    constants (`KernelEfficiency`): measured forms speak of the base's tiles, waves and
    library, not of rates, and no other part has them. Its links are a switched domain
    and what lies beyond, without measured collectives; its power is unknown.

    Parameters
    ----------
    base
        A known part.
    chosen
        The figures that it has.
    """
    today = Specification.of(base)
    out = base.fabric.tiers[-1]
    inner = Tier(
        technology="scale-up",
        npus=chosen.scale_up_npus,
        bandwidth=chosen.scale_up_bandwidth,
        latency=chosen.scale_up_latency,
        in_network_reduction=base.fabric.tiers[0].in_network_reduction,
    )
    outer = replace(
        out,
        npus=UNLIMITED,
        bandwidth=chosen.scale_out_bandwidth,
        latency=chosen.scale_out_latency,
        kernels={},
    )
    return replace(
        base,
        name=f"{base.name}-based design",
        flop_per_s=_rates(base, today, chosen),
        memory_bandwidth=chosen.memory_bandwidth,
        memory_capacity=chosen.memory_capacity,
        on_chip_memory=chosen.on_chip_memory,
        fabric=Fabric((inner, outer)),
        efficiency=_constants(base.efficiency),
        evidence=Evidence.ASSUMED,
        tdp=None,
        idle_power=None,
        provisioned_power=None,
        outer_memory=None,
    )


def _rates(
    base: Npu, today: Specification, chosen: Specification
) -> Mapping[Dtype, FlopPerSecond]:
    wide = chosen.flop_per_s / today.flop_per_s
    narrow = chosen.flop_per_s_8bit / today.flop_per_s_8bit
    return {
        dtype: rate * (narrow if is_narrow(dtype) else wide)
        for dtype, rate in base.flop_per_s.items()
    }


def _constants(efficiency: Efficiency) -> Efficiency:
    if isinstance(efficiency, MeasuredEfficiency):
        return efficiency.otherwise
    return efficiency
