"""From what an operator needs to how long it takes.

``t = launch + max(flop / (rate * e_c), bytes / (bandwidth * e_m))``: S. Williams,
A. Waterman and D. Patterson, "Roofline", CACM 52(4), 2009, with the measured
efficiencies e_c and e_m of the operator's kernel family.
"""

from dataclasses import dataclass

import numpy as np

from model_ops.opcost import RESIDENT, Collective, Number, Operator, Placement
from model_ops.platform.collectives import collective_seconds
from model_ops.platform.supply import Supply
from model_ops.units import Seconds


@dataclass(frozen=True, slots=True)
class OpTime:
    """Seconds of one operator, by what they are spent on.

    Compute and memory overlap, so only the longer of the two counts.
    """

    compute: Seconds | Number = 0.0
    memory: Seconds | Number = 0.0
    network: Seconds | Number = 0.0
    launch: Seconds | Number = 0.0

    @property
    def total(self) -> Seconds | Number:
        """Seconds from start to end."""
        # Summed smallest first: launch and network often have fewer axes.
        return np.maximum(self.compute, self.memory) + (self.network + self.launch)


def op_time(
    operator: Operator | Collective, supply: Supply, placement: Placement = RESIDENT
) -> OpTime:
    """Return the time of one execution on each of the supply's NPUs.

    What is kept in the second memory is read from it before or after the rest: a
    kernel's weights are either here or there, and kernels follow each other.
    """
    if isinstance(operator, Collective):
        seconds = collective_seconds(operator, supply.fabric, supply.link_efficiency)
        return OpTime(network=seconds)
    cost = operator.cost()
    compute: Number = 0.0
    engine = next(iter(cost.flop), None)
    kernel = supply.kernel(operator, engine)
    for format_, flop in cost.flop.items():
        compute = compute + flop * (1.0 / (supply.flop_per_s(format_) * kernel.compute))
    memory = cost.bytes * (1.0 / (supply.memory_bandwidth * kernel.memory))
    if placement is not RESIDENT:
        moved = placement.weights * cost.weights + placement.cache * cost.cache
        own, outer = supply.memory_bandwidth, supply.outer_bandwidth
        memory = memory + moved * ((1.0 / outer - 1.0 / own) / kernel.memory)
    return OpTime(
        compute=compute,
        memory=memory,
        launch=cost.launches * kernel.launch,
    )
