"""From how long an operator keeps an NPU's parts busy to the energy it takes.

An NPU draws its least power with nothing to run, and at most its TDP:

``P = least + (TDP - least) * min(1, 0.9 u_c + 0.45 u_m + 0.225 u_n)``

with u_c, u_m and u_n the shares of the operator's time in which arithmetic, memory
and links work. Power linear in the use of each part follows GenZ (A. Bambhaniya et
al., 2024, ``GenZ/power.py``: 30 % of the power static, 40 % compute, 20 % memory,
10 % network). One part alone is measured above those shares:

- Arithmetic. Prompts take an NPU near its TDP (P. Patel et al., "Splitwise", ISCA
  2024, and "POLCA", ASPLOS 2024); large batches took an H100 to 680 W and an H200 to
  663 W of 700 W (ALICE GPU energy benchmark, June 2026). A matrix product moves some
  bytes too, so that 0.9 brings it there.
- Memory. Token generation takes about half of the TDP: on an H100 300 W at batch 1
  (vLLM Semantic Router, power model reference, after ML.ENERGY Benchmark v3.0), on an
  H200 up to 300 W (B. Ma et al., arXiv:2605.11999, 2026), gaps between kernels
  included. At 0.45 memory alone takes 54 % of an H100's TDP while it works.
- Links keep GenZ's ratio to memory, one half.
"""

from dataclasses import dataclass

import numpy as np

from model_ops.opcost import Number
from model_ops.platform.kernels import OpTime
from model_ops.platform.supply import Supply
from model_ops.units import Joules, Seconds, Watts

COMPUTE, MEMORY, NETWORK = 0.9, 0.45, 0.225
"""Share of the power above the least that each part takes when it alone works."""


def full_power_seconds(time: OpTime) -> Seconds | Number:
    """Return the time at TDP that takes the same energy above the least power.

    Parameters
    ----------
    time
        Seconds of one operator. What starts kernels takes no power of its own.

    Returns
    -------
    Seconds
        From 0 to `time.total`, linear in the time below that.
    """
    active = COMPUTE * time.compute + MEMORY * time.memory + NETWORK * time.network
    return np.minimum(active, time.total)


@dataclass(frozen=True, slots=True)
class PowerRange:
    """Watts between which an NPU works; numbers, or arrays over NPUs.

    Parameters
    ----------
    least
        With a model in memory and nothing to run.
    tdp
        Thermal design power.
    """

    least: Watts | Number
    tdp: Watts | Number

    @classmethod
    def of(cls, supply: Supply) -> "PowerRange | None":
        """Return the range of the NPUs; None if the TDP of one is unknown."""
        if any(npu.tdp is None for npu in supply.npus):
            return None
        return cls(supply.least_power, supply.tdp)

    def joules(
        self, seconds: Seconds | Number, at_full_power: Seconds | Number
    ) -> Joules | Number:
        """Return the energy of a span of which so many seconds count as at TDP."""
        return self.least * seconds + (self.tdp - self.least) * at_full_power

    def energy(self, time: OpTime) -> Joules | Number:
        """Return the energy that one NPU takes for one execution of an operator."""
        return self.joules(time.total, full_power_seconds(time))
