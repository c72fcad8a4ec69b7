"""Seconds of one step of the engine: the profiler's demand on a platform's supply."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_ops.dtypes import Precision
from model_ops.opcost import RESIDENT, Collective, Number, Operator, Placement
from model_ops.platform.kernels import OpTime
from model_ops.platform.roofline import op_time
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.expert_load import BALANCED, ExpertLoad
from model_ops.profiler.held import Held
from model_ops.profiler.layers import (
    embedding_operators,
    head_operators,
    layer_operators,
    stage_boundary_operators,
)
from model_ops.profiler.memory import (
    MemoryFootprint,
    Room,
    footprint,
    largest_batch,
    lockstep_footprint,
)
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Lora, Phase, RequestShape, Shard, Step, decode
from model_ops.serving.speculative import Schedule, Speculation
from model_ops.units import Seconds


@dataclass(frozen=True, slots=True)
class Replica:
    """One instance of a model: its split, its formats, the NPUs it runs on.

    Parameters
    ----------
    arch, parallelism, precision
        The model and how it is laid out.
    supply
        One NPU, or several stacked along a leading axis.
    experts
        How tokens choose among routed experts.
    lora
        Adapters on the linear layers; None for none.
    speculation
        What is guessed and checked; None where every token is computed in turn.
    placement
        What is kept in the second, larger memory.
    """

    arch: ModelArch
    parallelism: Parallelism
    precision: Precision
    supply: Supply
    experts: ExpertLoad = BALANCED
    lora: Lora | None = None
    speculation: Speculation | None = None
    placement: Placement = RESIDENT

    @property
    def shard(self) -> Shard:
        """One rank's share of every layer."""
        return self.arch.shard(
            self.parallelism, self.precision, experts=self.experts, lora=self.lora
        )

    @property
    def held(self) -> tuple[Held, ...]:
        """The models that the NPUs hold."""
        own = Held(self.arch, self.shard)
        drafter = self.drafter
        if drafter is None:
            return (own,)
        return (own, Held(drafter.arch, drafter.shard))

    @property
    def drafter(self) -> "Replica | None":
        """The model that guesses for this one, on the last stage's NPUs."""
        speculation = self.speculation
        if speculation is None or speculation.drafter is None:
            return None
        return replace(
            self,
            arch=speculation.drafter,
            parallelism=replace(self.parallelism, pp=1),
            precision=speculation.precision,
            lora=None,
            speculation=None,
        )

    @property
    def schedule(self) -> Schedule:
        """What a step takes from the batch."""
        split, speculation = self.parallelism, self.speculation
        if speculation is None:
            return Schedule(split.pp, split.dp)
        guessed, gained = speculation.guessed, speculation.tokens_per_step
        return Schedule(split.pp, split.dp, guessed, gained)

    def stretch(self, step: Step) -> Number:
        """Return how much longer a step's operators take for the prompts it reads."""
        more = self.supply.prefill_pace - 1.0
        if np.ndim(more) == 0 and more == 0.0:
            return 1.0
        return 1.0 + more * step.prompt_share

    def overhead(self, step: Step) -> Seconds | Number:
        """Return the seconds of a step that belong to no operator.

        The engine's own, and those that the NPU waits for the host to start kernels.
        """
        own, start = self.scheduling(step), self.supply.layer_time
        if np.ndim(start) == 0 and start == 0.0:
            return own
        for run, layer in zip(self.arch.runs, layer_seconds(self, step), strict=True):
            own = own + run.count * np.maximum(start - layer, 0.0)
        return own

    def scheduling(self, step: Step) -> Seconds | Number:
        """Return the seconds that the engine adds to a step."""
        each, fixed = self.supply.sequence_overhead, self.supply.step_overhead
        if np.ndim(each) == 0 and each == 0.0:
            return fixed
        return fixed + each * step.sequences

    @property
    def room(self) -> Room:
        """Bytes that each NPU offers."""
        return Room(self.supply.usable_memory, self.supply.outer_capacity)

    def footprint(
        self,
        shape: RequestShape,
        batch: Number,
        step_tokens: Number,
        requests: Number = np.inf,
    ) -> MemoryFootprint:
        """Return what the replica needs in continuous batching; see `footprint`."""
        return footprint(
            self.held,
            shape,
            batch=batch,
            step_tokens=step_tokens,
            requests=requests,
            rows_each=self.schedule.rows_of_each(shape),
            placement=self.placement,
            activation_factor=self.supply.activation_factor,
        )

    def lockstep_footprint(self, shape: RequestShape, batch: Number) -> MemoryFootprint:
        """Return what a static batch needs; see `lockstep_footprint`."""
        return lockstep_footprint(
            self.held,
            shape,
            batch,
            self.schedule.rows_of_each(shape),
            self.placement,
            self.supply.activation_factor,
        )

    def largest_batch(
        self, shape: RequestShape, step_tokens: Number, requests: Number = np.inf
    ) -> Number:
        """Return the most decoding requests that fit; see `largest_batch`."""
        return largest_batch(
            self.held,
            shape,
            room=self.room,
            step_tokens=step_tokens,
            requests=requests,
            rows_each=self.schedule.rows_of_each(shape),
            placement=self.placement,
            activation_factor=self.supply.activation_factor,
        )


@dataclass(frozen=True, slots=True)
class TimedOperator:
    """An operator of a step, how often the step runs it, and what one run takes."""

    name: str
    operator: Operator | Collective
    count: Number
    time: OpTime


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one step.

    Parameters
    ----------
    latency
        From the first stage's start to the last stage's end.
    bottleneck
        The slowest stage: a pipeline starts a micro-batch this often.
    """

    latency: Seconds | Number
    bottleneck: Seconds | Number

    def period(self, slots: Number) -> Seconds | Number:
        """Return the seconds in which `slots` micro-batches make one step each."""
        return np.maximum(self.latency, slots * self.bottleneck)


def _sum(operators: Iterable[Operator | Collective], replica: Replica) -> Number:
    supply, placement = replica.supply, replica.placement
    return sum((op_time(op, supply, placement).total for op in operators), start=0.0)


def draft_steps(step: Step, guessed: int) -> list[tuple[int, Step]]:
    """Return what a drafter does beside a step, and how often.

    It reads the prompts too, and then guesses one token after another.
    """
    reading = tuple(s for s in step.segments if s.phase is Phase.PREFILL)
    writing = tuple(
        decode(s.sequences, s.context) for s in step.segments if s.phase is Phase.DECODE
    )
    steps = [(1, Step(reading)), (guessed, Step(writing))]
    return [(times, one) for times, one in steps if one.segments]


def timed_operators(replica: Replica, step: Step) -> list[TimedOperator]:
    """Return every operator on the path of a step through all stages, timed.

    Those of a drafter follow, their names marked as its.
    """
    timed = _timed(replica, step)
    drafter, speculation = replica.drafter, replica.speculation
    if drafter is None or speculation is None:
        return timed
    for times, one in draft_steps(step, speculation.guessed):
        timed += [
            replace(each, count=times * each.count, name=f"draft_{each.name}")
            for each in _timed(drafter, one)
        ]
    return timed


@dataclass(frozen=True, slots=True)
class Part:
    """Operators that a step runs together, and how often.

    Parameters
    ----------
    operators
        Of one execution.
    whole
        Executions on the way through all stages.
    stages
        Executions in each of the stages among which the slowest is; one stage that is
        the whole where there is no pipeline.
    """

    operators: tuple[Operator | Collective, ...]
    whole: Number
    stages: tuple[Number, ...]


def step_parts(replica: Replica, step: Step) -> list[Part]:
    """Return a step's operators by part: embedding, layers of each kind, head, sends.

    The seconds of the whole, and of a stage, are the sums over the parts plus the
    engine's scheduling, once each, where no layer waits for its host; `step_time` adds
    them up. No drafter.
    """
    arch, shard, pp = replica.arch, replica.shard, replica.parallelism.pp
    alone = bool(np.all(np.asarray(pp) == 1))
    stages = [] if alone else arch.stages(pp)

    def part(
        operators: Iterable[Operator | Collective], whole: Number, held: list[Number]
    ) -> Part:
        return Part(tuple(operators), whole, (whole,) if alone else tuple(held))

    return [
        part(
            embedding_operators(arch, shard, step), 1, [1.0 * s.first for s in stages]
        ),
        *(
            part(
                layer_operators(run.layer, shard, step),
                run.count,
                [s.counts[kind] for s in stages],
            )
            for kind, run in enumerate(arch.runs)
        ),
        part(head_operators(arch, shard, step), 1, [1.0 * s.last for s in stages]),
        part(stage_boundary_operators(shard, step), pp - 1, [1] * len(stages)),
    ]


def _timed(replica: Replica, step: Step) -> list[TimedOperator]:
    stretch = replica.stretch(step)
    groups = [(part.whole, part.operators) for part in step_parts(replica, step)]
    return [
        TimedOperator(
            operator.name,
            operator,
            count,
            op_time(operator, replica.supply, replica.placement).times(stretch),
        )
        for count, operators in groups
        for operator in operators
    ]


def step_time(replica: Replica, step: Step) -> StepTime:
    """Return the seconds of a step, pipeline stages included."""
    stretch, overhead = replica.stretch(step), replica.scheduling(step)
    pp = np.asarray(replica.parallelism.pp)
    *parts, boundary = step_parts(replica, step)
    seconds = [stretch * _sum(part.operators, replica) for part in parts]
    # Layers wait for the host where it takes longer to start their kernels.
    start = replica.supply.layer_time
    seconds[1:-1] = [np.maximum(layer, start) for layer in seconds[1:-1]]
    # The drafter runs behind the head, on the last stage.
    seconds[-1] = seconds[-1] + _draft_time(replica, step)
    whole = overhead + _weighted([part.whole for part in parts], seconds)
    if np.all(pp == 1):
        return StepTime(latency=whole, bottleneck=whole)
    between = stretch * _sum(boundary.operators, replica)
    slowest: Number = 0.0
    for held in zip(*(part.stages for part in parts), strict=True):
        slowest = np.maximum(slowest, _weighted(held, seconds))
    slowest = slowest + (between + overhead)
    return StepTime(
        latency=whole + boundary.whole * between,
        bottleneck=np.where(pp == 1, whole, slowest),
    )


def layer_seconds(replica: Replica, step: Step) -> list[Seconds | Number]:
    """Return the seconds of a layer's operators, for each run of layers alike."""
    shard, stretch = replica.shard, replica.stretch(step)
    return [
        stretch * _sum(layer_operators(run.layer, shard, step), replica)
        for run in replica.arch.runs
    ]


def _weighted(counts: Sequence[Number], seconds: Sequence[Number]) -> Number:
    total: Number = 0.0
    for count, one in zip(counts, seconds, strict=True):
        total = total + count * one
    return total


def _draft_time(replica: Replica, step: Step) -> Number:
    """Return the seconds that the drafter adds to a step; it needs no scheduler."""
    drafter, speculation = replica.drafter, replica.speculation
    if drafter is None or speculation is None:
        return 0.0
    return sum(
        (
            times * (step_time(drafter, one).latency - drafter.scheduling(one))
            for times, one in draft_steps(step, speculation.guessed)
        ),
        start=0.0,
    )
