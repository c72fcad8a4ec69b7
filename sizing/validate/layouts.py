"""Degrees of parallelism that a source leaves out, or that the model cannot take."""

from collections.abc import Iterator

import numpy as np

from model_ops.dtypes import Dtype, Precision
from model_ops.platform.npu import Npu
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.parallelism import Parallelism
from problems.measured.served import Layout

_MOST_RANKS = 64


def legal(arch: ModelArch, tp: int, pp: int = 1) -> int:
    """Return the most ranks, up to `tp`, that the model can be split over.

    Where heads do not divide, some engines pad them, at a loss; the model does not.
    """
    for ranks in range(tp, 1, -1):
        if arch.rule_broken_by(Parallelism(ranks, pp)) is None:
            return ranks
    return 1


def degrees(arch: ModelArch, npus: int) -> Iterator[int]:
    """Yield the tensor parallel degrees that whole replicas of `npus` may have."""
    ranks = 1
    while ranks <= min(npus, _MOST_RANKS):
        if npus % ranks == 0 and arch.rule_broken_by(Parallelism(ranks)) is None:
            yield ranks
        ranks *= 2


def holds(arch: ModelArch, split: Parallelism, precision: Precision, npu: Npu) -> bool:
    """Return whether the weights leave a tenth of the memory to the cache."""
    needed = np.max(weight_bytes(arch, arch.shard(split, precision)))
    return bool(needed <= 0.9 * npu.usable_memory)


def tensor_ranks(
    layout: Layout, arch: ModelArch, precision: Precision, npu: Npu, *, whole: bool
) -> int:
    """Return the tensor parallel degree, chosen where the source does not say.

    Parameters
    ----------
    whole
        Whether one replica takes all accelerators, as for the least latency; else the
        least that hold the model do, as for throughput.
    """
    pp, dp = layout.pp or 1, layout.dp or 1
    if layout.tp is not None:
        return legal(arch, layout.tp, pp)
    most = max(1, layout.npus // (pp * dp))
    if whole:
        return legal(arch, most, pp)
    some = list(degrees(arch, most)) or [1]
    fit = (n for n in some if holds(arch, Parallelism(n, pp), precision, npu))
    return next(fit, some[-1])


def stored(
    arch: ModelArch, weights: Dtype | None, kv_cache: Dtype | None, npu: Npu
) -> Precision:
    """Return the formats, those that an NPU cannot compute in taken as its own."""
    precision = arch.precision.stored(weights, kv_cache)
    return precision if npu.computes(precision) else Precision()
