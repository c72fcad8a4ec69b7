"""An NPU as its datasheet and measurements describe it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from model_ops.dtypes import ENGINES, Dtype, Precision
from model_ops.errors import DeploymentError
from model_ops.platform.efficiency import Efficiency, Evidence, IdealEfficiency
from model_ops.platform.fabric import UNLIMITED, Fabric
from model_ops.platform.memory import OuterMemory
from model_ops.units import Bytes, BytesPerSecond, FlopPerSecond, Seconds, Watts

PROVISIONED_PER_TDP = 2.17
"""All-in power over TDP where it is not published: the median of the nine parts with
both (1.75 to 2.47; SemiAnalysis InferenceX, 2026-04-03, kW provisioned per GPU)."""

IDLE_PER_TDP = 0.19
"""Power with a model in memory and nothing to run, over TDP, where nobody published a
measurement: the median of the catalogue's NPUs with one (0.13 to 0.33)."""


@dataclass(frozen=True)
class Npu:
    """One accelerator and the server and fabric it comes in.

    Parameters
    ----------
    name
        Catalogue name.
    flop_per_s
        Dense rate per arithmetic format that the NPU has.
    memory_bandwidth, memory_capacity
        Of the memory that holds weights and KV cache.
    node_npus
        NPUs in the server as bought.
    fabric
        Links to other NPUs, innermost first.
    efficiency
        Share of the rates that kernels reach.
    evidence
        How well its kernels are known.
    processors
        Units that work side by side: streaming multiprocessors, compute units, cores.
    on_chip_memory
        Bytes of scratchpad, or of the last cache before the memory; None where nobody
        states it: then it bounds nothing.
    link_efficiency
        Share of the link bandwidth that collectives reach where they were not
        measured.
    memory_usable
        Share of the capacity that the serving framework may fill.
    runtime_reserve
        Bytes of it that the driver's context and communicators take.
    step_overhead
        Seconds of scheduling between two steps of the engine.
    sequence_overhead
        Seconds of each step that each sequence in it takes besides: sampling, and what
        the engine does on the host for every token.
    layer_time
        Seconds in which the host starts the kernels of a layer, one by one; the NPU
        waits where it is faster. 0 for engines that start a whole step as one graph.
    request_overhead
        Seconds that a request spends outside the steps before its first token.
    host_time
        Seconds of the engine's host that each request takes alone before its first
        token: users who ask together wait for each other's.
    pace
        Seconds that operators take over what their kernels and links say: what an
        engine adds in running them, or how slow they are assumed to be.
    prefill_pace
        The same, besides, of the prompt tokens in a step: what they are read with is
        not in graphs, and draws the most power.
    exposed_launch
        Share of the kernels' starts that an engine does not hide: graphs and dependent
        launches start a kernel while the one before it ends.
    activation_factor
        Activations that the serving framework keeps alive over those that must be.
    tdp
        Thermal design power; None where the vendor does not publish it.
    idle_power
        Power with a model in memory and nothing to run; None if unknown.
    provisioned_power
        Power with the NPU's share of host, network and cooling; None if unknown.
    outer_memory
        A larger, slower memory behind the NPU's own; None if it has none.
    """

    name: str
    flop_per_s: Mapping[Dtype, FlopPerSecond] = field(hash=False)
    memory_bandwidth: BytesPerSecond
    memory_capacity: Bytes
    node_npus: int
    fabric: Fabric
    efficiency: Efficiency = field(default=IdealEfficiency(), hash=False)
    evidence: Evidence = Evidence.ASSUMED
    processors: float = 1.0
    on_chip_memory: Bytes | None = None
    link_efficiency: float = 1.0
    memory_usable: float = 1.0
    runtime_reserve: Bytes = 0.0
    step_overhead: Seconds = 0.0
    sequence_overhead: Seconds = 0.0
    layer_time: Seconds = 0.0
    request_overhead: Seconds = 0.0
    host_time: Seconds = 0.0
    pace: float = 1.0
    prefill_pace: float = 1.0
    exposed_launch: float = 1.0
    activation_factor: float = 1.0
    tdp: Watts | None = None
    idle_power: Watts | None = None
    provisioned_power: Watts | None = None
    outer_memory: OuterMemory | None = None

    @property
    def usable_memory(self) -> Bytes:
        """Bytes left for weights, KV cache and activations."""
        return self.memory_capacity * self.memory_usable - self.runtime_reserve

    @property
    def scale_up_npus(self) -> int:
        """NPUs that reach each other without the outermost tier, where there is one."""
        inner = self.fabric.tiers[:-1] or self.fabric.tiers
        limited = [int(tier.npus) for tier in inner if tier.npus < UNLIMITED]
        return max(limited, default=self.node_npus)

    @property
    def power(self) -> Watts | None:
        """Watts to provision, host, network and cooling included; None if unknown."""
        if self.provisioned_power is not None or self.tdp is None:
            return self.provisioned_power
        return self.tdp * PROVISIONED_PER_TDP

    @property
    def least_power(self) -> Watts | None:
        """Watts with nothing to run; None where the TDP is unknown."""
        if self.tdp is None:
            return None
        if self.idle_power is None:
            return self.tdp * IDLE_PER_TDP
        return self.idle_power

    def engine(self, wanted: Dtype) -> Dtype:
        """Return the format that computes `wanted` here: itself or a wider one.

        Raises
        ------
        DeploymentError
            If the NPU has no rate for the format or any wider one.
        """
        for engine in ENGINES[wanted.engine]:
            if engine in self.flop_per_s:
                return engine
        raise DeploymentError(
            f"{self.name} cannot compute {wanted}: it has rates for "
            + ", ".join(self.flop_per_s)
        )

    def computes(self, precision: Precision) -> bool:
        """Return whether the NPU has arithmetic for each of a precision's formats."""
        rates = set(self.flop_per_s)
        return all(set(ENGINES[engine.engine]) & rates for engine in precision.engines)

    def slower(self, factor: float) -> "Npu":
        """Return the NPU with everything that it does taking so many times as long."""
        return replace(
            self,
            pace=self.pace * factor,
            step_overhead=self.step_overhead * factor,
            sequence_overhead=self.sequence_overhead * factor,
            layer_time=self.layer_time * factor,
            request_overhead=self.request_overhead * factor,
            host_time=self.host_time * factor,
        )

    def ideal(self) -> "Npu":
        """Return the NPU with every efficiency at one and nothing reserved."""
        return replace(
            self,
            fabric=self.fabric.ideal(),
            efficiency=IdealEfficiency(),
            link_efficiency=1.0,
            pace=1.0,
            prefill_pace=1.0,
            exposed_launch=1.0,
            memory_usable=1.0,
            runtime_reserve=0.0,
            step_overhead=0.0,
            sequence_overhead=0.0,
            layer_time=0.0,
            request_overhead=0.0,
            host_time=0.0,
        )
