"""The least that any platform must have to meet the targets of a request.

No platform is modelled: counts of work over the time that a target allows. What a
platform loses to efficiency, scheduling or traffic from others comes on top.

Source: A. Bambhaniya et al., "Demystifying AI platform design for distributed inference
of next-generation LLM models", arXiv:2406.01698 (platform requirements).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model_ops.dtypes import Dtype, Precision
from model_ops.opcost import KernelFamily, Number, OpCost
from model_ops.platform.npu import Npu
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.cache import kv_bytes_per_sequence
from model_ops.profiler.layers import (
    embedding_operators,
    head_operators,
    layer_operators,
)
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import (
    Phase,
    RequestShape,
    Shard,
    Step,
    decode,
    decode_beams,
    prefill,
)
from model_ops.units import Bytes, BytesPerSecond, Flop, FlopPerSecond, Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests that start together, and how fast they must be; numbers or arrays.

    Parameters
    ----------
    shape
        Tokens and beams of each; nothing of the prompt is cached before.
    ttft, tpot
        Seconds to the first token, and per further token; infinite for no target.
    batch
        How many requests.
    copied_prompt
        Whether each beam keeps and reads a copy of the prompt's KV cache of its own.
    """

    shape: RequestShape
    ttft: Seconds | Number = math.inf
    tpot: Seconds | Number = math.inf
    batch: Number = 1
    copied_prompt: bool = False

    def step(self, phase: Phase, groups: Number = 1) -> Step:
        """Return the whole prompts, or the last tokens, of one of `groups` groups.

        The last token's step is the longest: it sees S + O tokens.
        """
        shape, own = self.shape, self.batch / groups
        if phase is Phase.PREFILL:
            return Step((prefill(own, shape.input_tokens),))
        answer = shape.output_tokens - 1
        if self.copied_prompt:
            return Step((decode(own * shape.beams, shape.input_tokens + answer),))
        return Step((decode_beams(own, shape.input_tokens, answer, shape.beams),))

    def seconds(self, phase: Phase) -> Seconds | Number:
        """Return the time that a phase's step may take.

        Infinite in decode where the prompt's step gives the only token.
        """
        if phase is Phase.PREFILL:
            return self.ttft
        return np.where(self.shape.decode_steps > 0, self.tpot, np.inf)

    def cache(self, arch: ModelArch, shard: Shard, phase: Phase) -> Bytes | Number:
        """Return the KV cache and state behind the phase's step, unpaged."""

        def of(tokens: Number) -> Bytes | Number:
            return kv_bytes_per_sequence(arch, shard, tokens, block=1)

        shape = self.shape
        if phase is Phase.PREFILL:
            return self.batch * of(shape.input_tokens)
        whole = of(shape.input_tokens + shape.output_tokens)
        # Where they share the prompt, what each adds is the end of its own answer.
        further = whole if self.copied_prompt else of(shape.output_tokens)
        return self.batch * (whole + (shape.beams - 1) * further)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one phase needs of a platform; numbers or arrays.

    Parameters
    ----------
    phase, seconds
        Which phase, and the time that its step may take.
    flop
        FLOP of the step per arithmetic engine.
    context_flop
        Those of them that are no products with weights: attention, scans.
    weights_read
        Weights that the step reads, each once.
    cache_moved
        KV cache and state that the step writes (prefill) or reads (decode), once.
    weights, cache
        Bytes to keep: all weights; the KV cache and state behind the step.
    link_bytes
        Bytes that each NPU must send to others in the step, at the least.
    """

    phase: Phase
    seconds: Seconds | Number
    flop: Mapping[Dtype, Flop | Number]
    context_flop: Flop | Number
    weights_read: Bytes | Number
    cache_moved: Bytes | Number
    weights: Bytes | Number
    cache: Bytes | Number
    link_bytes: Bytes | Number

    @property
    def total_flop(self) -> Flop | Number:
        """FLOP of the step over all engines."""
        return sum(self.flop.values(), start=0.0)

    @property
    def flop_per_s(self) -> FlopPerSecond | Number:
        """FLOP/s of all NPUs together."""
        return self.total_flop / self.seconds

    @property
    def bytes_moved(self) -> Bytes | Number:
        """Bytes that cross the memory interface in the step."""
        return self.weights_read + self.cache_moved

    @property
    def memory_bandwidth(self) -> BytesPerSecond | Number:
        """Memory bandwidth of all NPUs together."""
        return self.bytes_moved / self.seconds

    @property
    def capacity(self) -> Bytes | Number:
        """Memory of all NPUs together."""
        return self.weights + self.cache

    @property
    def link_bandwidth(self) -> BytesPerSecond | Number:
        """Bandwidth of each NPU to the others, in one direction."""
        return self.link_bytes / self.seconds


def need(
    arch: ModelArch,
    precision: Precision,
    workload: Workload,
    phase: Phase,
    split: Parallelism | None = None,
) -> Need:
    """Return the least that a platform must have for a phase of a workload.

    With W(T) the weights that T tokens of a step read (of the experts only the distinct
    ones), K the KV cache behind the step (beams share the prompt's), and the target t::

        FLOP/s    = FLOP / t                 bandwidth = (W(T) + K) / t
        capacity  = all weights + K          links     = link bytes of an NPU / t

    Activations may stay on the chip and are not counted. FLOP, bandwidth and capacity
    are those of the unsplit model: a split adds to them (copied KV heads), never
    saves.

    Parameters
    ----------
    arch, precision
        The model and its formats.
    workload
        Requests and targets.
    phase
        Whether the prompts are read, or the last tokens written.
    split
        How the NPUs share the layers, without pipeline stages; one NPU if None. Its
        degrees may be arrays.
    """
    shard = arch.shard(Parallelism(), precision)
    of_weights, others = _costs(arch, shard, workload.step(phase))
    whole = of_weights + others
    cache = workload.cache(arch, shard, phase)
    return Need(
        phase=phase,
        seconds=workload.seconds(phase),
        flop=whole.flop,
        context_flop=others.total_flop,
        weights_read=whole.weights,
        # A prompt's keys and values are on the chip when they are first used.
        cache_moved=cache if phase is Phase.PREFILL else whole.cache,
        weights=weight_bytes(arch, shard),
        cache=cache,
        link_bytes=_link_bytes(arch, precision, workload, phase, split),
    )


def needs(
    arch: ModelArch,
    precision: Precision,
    workload: Workload,
    split: Parallelism | None = None,
) -> tuple[Need, Need]:
    """Return the needs of prefill and of decode; see `need`."""
    reading = need(arch, precision, workload, Phase.PREFILL, split)
    return reading, need(arch, precision, workload, Phase.DECODE, split)


def _link_bytes(
    arch: ModelArch,
    precision: Precision,
    workload: Workload,
    phase: Phase,
    split: Parallelism | None,
) -> Bytes | Number:
    if split is None:
        return 0.0
    step = workload.step(phase, split.dp)
    of_weights, others = _costs(arch, arch.shard(split, precision), step)
    return of_weights.link_bytes + others.link_bytes


_WITH_WEIGHTS = (KernelFamily.GEMM, KernelFamily.MOE)


def _costs(arch: ModelArch, shard: Shard, step: Step) -> tuple[OpCost, OpCost]:
    """Return what a step's products with weights cost, and everything else."""
    of_weights, others = OpCost(), OpCost()
    for count, operators in (
        (1, embedding_operators(arch, shard, step)),
        *((run.count, layer_operators(run.layer, shard, step)) for run in arch.runs),
        (1, head_operators(arch, shard, step)),
    ):
        for operator in operators:
            cost = count * operator.cost()
            if getattr(operator, "family", None) in _WITH_WEIGHTS:
                of_weights = of_weights + cost
            else:
                others = others + cost
    return of_weights, others


@dataclass(frozen=True, slots=True)
class Least:
    """The fewest NPUs of a type whose peaks, added up, meet every need.

    Parameters
    ----------
    npus
        How many.
    bound
        The need that asks for so many, e.g. ``"decode memory bandwidth"``.
    """

    npus: int
    bound: str


def least_npus(both: tuple[Need, ...], npu: Npu) -> Least:
    """Return the fewest NPUs of a type by peak figures, links aside; scalars only.

    Formats that the NPU lacks run in the next wider one that it has.
    """
    asked = {
        f"{each.phase} {what}": float(times)
        for each in both
        for what, times in _multiples(each, npu).items()
    }
    bound = max(asked, key=lambda name: asked[name])
    # Not one more for a rounding error in the last digit.
    return Least(max(1, math.ceil(asked[bound] * (1 - 1e-12))), bound)


def _multiples(each: Need, npu: Npu) -> dict[str, Number]:
    """Return each need as a multiple of what one NPU has."""
    rates = npu.flop_per_s
    busy = sum(
        (flop / rates[npu.engine(engine)] for engine, flop in each.flop.items()),
        start=0.0,
    )
    return {
        "FLOP/s": busy / each.seconds,
        "memory bandwidth": each.memory_bandwidth / npu.memory_bandwidth,
        "memory capacity": each.capacity / npu.memory_capacity,
    }
