"""From what an operator needs to how long it takes.

Its FLOP and bytes at the NPU's peak rates are its ideal work; the kernel that runs it
(`kernels`) says what becomes of that.
"""

import numpy as np

from model_ops.opcost import (
    RESIDENT,
    Collective,
    KernelShape,
    Number,
    OpCost,
    Operator,
    Placement,
)
from model_ops.platform.collectives import collective_seconds
from model_ops.platform.kernels import OpTime, Work
from model_ops.platform.supply import Supply


def op_time(
    operator: Operator | Collective, supply: Supply, placement: Placement = RESIDENT
) -> OpTime:
    """Return the time of one execution on each of the supply's NPUs.

    What is kept in the second memory is read from it before or after the rest: a
    kernel's weights are either here or there, and kernels follow each other.
    """
    if isinstance(operator, Collective):
        seconds = collective_seconds(operator, supply.fabric, supply.link_efficiency)
        return OpTime(network=seconds).times(supply.pace)
    cost = operator.cost()
    work = ideal_work(cost, operator.shape(), supply, placement)
    first = next(iter(cost.flop), None)
    kernel = supply.kernel(operator.family, work.shape.format, first)
    return kernel.time(work).times(supply.pace, supply.exposed_launch)


def ideal_work(
    cost: OpCost, shape: KernelShape, supply: Supply, placement: Placement = RESIDENT
) -> Work:
    """Return an operator's work at the peak rates of each of the supply's NPUs."""
    compute: Number = 0.0
    for engine, flop in cost.flop.items():
        compute = compute + flop * (1.0 / supply.flop_per_s(engine))
    memory = cost.bytes * (1.0 / supply.memory_bandwidth)
    if placement is not RESIDENT:
        moved = placement.weights * cost.weights + placement.cache * cost.cache
        own, outer = supply.memory_bandwidth, supply.outer_bandwidth
        memory = memory + moved * (1.0 / outer - 1.0 / own)
    first = next(iter(cost.flop), None)
    reload: Number = 0.0
    if first is not None:
        reload = shape.reload(supply.on_chip_memory) * (1.0 / supply.memory_bandwidth)
    return Work(
        compute=compute,
        memory=memory,
        launches=cost.launches,
        shape=shape,
        processors=supply.processors,
        flop_per_s=np.inf if first is None else supply.flop_per_s(first),
        bandwidth=supply.memory_bandwidth,
        flop=0.0 if first is None else cost.total_flop,
        reload=reload,
    )
