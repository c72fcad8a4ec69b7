"""The rates of one NPU, or of many stacked along a leading axis.

The demand of a deployment does not depend on the NPU, so one demand array of
shape [point...] and stacked rates of shape [npu, 1...] give times of shape
[npu, point...] by broadcasting.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from model_ops.dtypes import Dtype
from model_ops.opcost import CollectiveKind, KernelFamily, Mask, Number
from model_ops.platform.collective_kernel import UNMEASURED, CollectiveKernel
from model_ops.platform.efficiency import KernelKey
from model_ops.platform.fabric import UNLIMITED, Fabric, Tier
from model_ops.platform.kernels import Kernel, stacked
from model_ops.platform.memory import NO_OUTER_MEMORY
from model_ops.platform.npu import Npu
from model_ops.units import Bytes, Watts


@dataclass(frozen=True)
class Supply:
    """NPUs seen as rates.

    Parameters
    ----------
    npus
        One NPU (rates are then scalars) or several.
    axes
        Number of point axes that stacked rates must broadcast over; None for
        one NPU with scalar rates.
    """

    npus: tuple[Npu, ...]
    axes: int | None = None
    _kernels: dict[KernelKey, Kernel] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, npu: Npu) -> "Supply":
        """Return the rates of one NPU, as scalars."""
        return cls((npu,))

    @classmethod
    def stack(cls, npus: Sequence[Npu], axes: int) -> "Supply":
        """Return the rates of several NPUs, shaped [npu, 1 x axes]."""
        return cls(tuple(npus), axes)

    def _each(self, value: Callable[[Npu], Number]) -> Number:
        if self.axes is None:
            return value(self.npus[0])
        values = [np.asarray(value(npu)) for npu in self.npus]
        shape = np.broadcast_shapes(*(v.shape for v in values))
        padded = (1,) * (self.axes - len(shape)) + shape
        return np.stack([np.broadcast_to(v, padded) for v in values])

    @cached_property
    def memory_bandwidth(self) -> Number:
        """Bytes per second of each NPU's memory."""
        return self._each(lambda npu: npu.memory_bandwidth)

    @cached_property
    def processors(self) -> Number:
        """Units of each NPU that work side by side."""
        return self._each(lambda npu: npu.processors)

    @cached_property
    def on_chip_memory(self) -> Bytes | Number:
        """Bytes of each NPU's on-chip memory; infinite where nobody states them."""
        return self._each(
            lambda n: np.inf if n.on_chip_memory is None else n.on_chip_memory
        )

    @cached_property
    def usable_memory(self) -> Number:
        """Bytes of each NPU that weights, KV cache and activations may fill."""
        return self._each(lambda npu: npu.usable_memory)

    @cached_property
    def outer_capacity(self) -> Number:
        """Bytes of each NPU's second memory; 0 where it has none."""
        return self._each(lambda npu: (npu.outer_memory or NO_OUTER_MEMORY).capacity)

    @cached_property
    def outer_bandwidth(self) -> Number:
        """Bytes per second and direction of it; 1 where an NPU has none."""
        return self._each(lambda npu: (npu.outer_memory or NO_OUTER_MEMORY).bandwidth)

    @cached_property
    def link_efficiency(self) -> Number:
        """Share of link bandwidth that collectives reach."""
        return self._each(lambda npu: npu.link_efficiency)

    @cached_property
    def runtime_reserve(self) -> Number:
        """Bytes of each NPU that context and communicators take."""
        return self._each(lambda npu: npu.runtime_reserve)

    @cached_property
    def request_overhead(self) -> Number:
        """Seconds that a request spends outside the steps."""
        return self._each(lambda npu: npu.request_overhead)

    @cached_property
    def activation_factor(self) -> Number:
        """Activations kept alive over those that must be."""
        return self._each(lambda npu: npu.activation_factor)

    @cached_property
    def pace(self) -> Number:
        """Seconds that operators take over what their kernels and links say."""
        return self._each(lambda npu: npu.pace)

    @cached_property
    def prefill_pace(self) -> Number:
        """Seconds that prompt tokens take besides over what operators say."""
        return self._each(lambda npu: npu.prefill_pace)

    @cached_property
    def host_time(self) -> Number:
        """Seconds of the engine's host that each request takes alone."""
        return self._each(lambda npu: npu.host_time)

    @cached_property
    def exposed_launch(self) -> Number:
        """Share of the kernels' starts that an engine does not hide."""
        return self._each(lambda npu: npu.exposed_launch)

    @cached_property
    def step_overhead(self) -> Number:
        """Seconds of scheduling per step."""
        return self._each(lambda npu: npu.step_overhead)

    @cached_property
    def sequence_overhead(self) -> Number:
        """Seconds of each step that each sequence in it takes besides."""
        return self._each(lambda npu: npu.sequence_overhead)

    @cached_property
    def layer_time(self) -> Number:
        """Seconds in which the host starts the kernels of a layer."""
        return self._each(lambda npu: npu.layer_time)

    @cached_property
    def tdp(self) -> Watts | Number:
        """Thermal design power of each NPU; NaN where it is unknown."""
        return self._each(lambda n: np.nan if n.tdp is None else n.tdp)

    @cached_property
    def least_power(self) -> Watts | Number:
        """Watts of each NPU with nothing to run; NaN where its TDP is unknown."""
        return self._each(lambda n: np.nan if n.least_power is None else n.least_power)

    @cached_property
    def fabric(self) -> Fabric:
        """The tiers; an NPU with fewer of them repeats its outermost."""
        depth = max(len(npu.fabric.tiers) for npu in self.npus)
        return Fabric(tuple(self._tier(level, depth) for level in range(depth)))

    def _tier(self, level: int, depth: int) -> Tier:
        def tier(npu: Npu) -> Tier:
            own = npu.fabric.tiers
            return own[min(level, len(own) - 1)]

        def members(npu: Npu) -> Number:
            # The inner of a repeated outermost tier must end somewhere: it holds all.
            own = npu.fabric.tiers
            return UNLIMITED if level >= len(own) - 1 else own[level].npus

        return Tier(
            technology=" | ".join(sorted({tier(n).technology for n in self.npus})),
            npus=self._each(members),
            bandwidth=self._each(lambda npu: tier(npu).bandwidth),
            latency=self._each(lambda npu: tier(npu).latency),
            direct=self._mask(lambda npu: tier(npu).direct),
            dimensions=self._each(lambda npu: tier(npu).dimensions),
            links=self._each(lambda npu: tier(npu).links),
            oversubscription=self._each(lambda npu: tier(npu).oversubscription),
            in_network_reduction=self._mask(lambda n: tier(n).in_network_reduction),
            kernels={} if level else self._collectives(),
        )

    def _collectives(self) -> Mapping[CollectiveKind, tuple[CollectiveKernel, ...]]:
        """Stack what was measured inside the innermost tiers.

        An NPU with fewer kernels of a kind repeats its last.
        """
        measured = [npu.fabric.tiers[0].kernels for npu in self.npus]
        if self.axes is None:
            return measured[0]
        kinds = sorted({kind for kernels in measured for kind in kernels})
        return {
            kind: self._collective([of.get(kind, (UNMEASURED,)) for of in measured])
            for kind in kinds
        }

    def _collective(
        self, measured: Sequence[tuple[CollectiveKernel, ...]]
    ) -> tuple[CollectiveKernel, ...]:
        most = max(len(kernels) for kernels in measured)
        repeated = [
            kernels + kernels[-1:] * (most - len(kernels)) for kernels in measured
        ]
        shape = (len(measured), *(1,) * (self.axes or 0))
        return tuple(
            CollectiveKernel(
                *(np.reshape(column, shape) for column in np.array(rows).T),
            )
            for rows in (
                [[k.launch, k.hop, k.share, k.contention] for k in each]
                for each in zip(*repeated, strict=True)
            )
        )

    def _mask(self, value: Callable[[Npu], Mask]) -> Mask:
        return np.asarray(self._each(lambda npu: np.asarray(value(npu), float)), bool)

    def flop_per_s(self, engine: Dtype) -> Number:
        """Return the rate at which the NPUs compute a format, wider ones allowed.

        Raises
        ------
        DeploymentError
            If an NPU can compute neither it nor any wider format.
        """
        return self._each(lambda npu: npu.flop_per_s[npu.engine(engine)])

    def kernel(
        self, family: KernelFamily, format_: Dtype, engine: Dtype | None
    ) -> Kernel:
        """Return the kernel of a family on all NPUs; its parameters stacked as rates.

        Parameters
        ----------
        family, format_
            What runs, and how its weights or cache are stored.
        engine
            The arithmetic; None where it has no FLOP.
        """
        key = KernelKey(family, format_, engine)
        if key not in self._kernels:
            self._kernels[key] = self._kernel(key)
        return self._kernels[key]

    def _kernel(self, key: KernelKey) -> Kernel:
        def of(npu: Npu) -> Kernel:
            own = None if key.engine is None else npu.engine(key.engine)
            return npu.efficiency.kernel(key._replace(engine=own))

        if self.axes is None:
            return of(self.npus[0])
        found: Kernel = stacked([of(npu) for npu in self.npus], self.axes)
        return found
