"""Seconds of one step of the engine: the profiler's demand on a platform's supply."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from model_ops.dtypes import Precision
from model_ops.opcost import Collective, Number, Operator
from model_ops.platform.roofline import OpTime, op_time
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.layers import (
    embedding_operators,
    head_operators,
    layer_operators,
    stage_boundary_operators,
)
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard, Step
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
    """

    arch: ModelArch
    parallelism: Parallelism
    precision: Precision
    supply: Supply

    @property
    def shard(self) -> Shard:
        """One rank's share of every layer."""
        return Shard(self.arch.hidden_size, self.parallelism.tp, self.precision)


@dataclass(frozen=True, slots=True)
class TimedOperator:
    """An operator of a step, how often the step runs it, and what one run takes."""

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


def _sum(operators: Iterable[Operator | Collective], supply: Supply) -> Number:
    return sum((op_time(op, supply).total for op in operators), start=0.0)


def timed_operators(replica: Replica, step: Step) -> list[TimedOperator]:
    """Return every operator on the path of a step through all stages, timed."""
    arch, shard = replica.arch, replica.shard
    boundaries = replica.parallelism.pp - 1
    groups = [
        (1, embedding_operators(arch, shard, step)),
        *((run.count, layer_operators(run.layer, shard, step)) for run in arch.runs),
        (1, head_operators(arch, shard, step)),
        (boundaries, stage_boundary_operators(shard, step, replica.parallelism)),
    ]
    return [
        TimedOperator(operator, count, op_time(operator, replica.supply))
        for count, operators in groups
        for operator in operators
    ]


def step_time(replica: Replica, step: Step) -> StepTime:
    """Return the seconds of a step, pipeline stages included.

    The fullest stage holds ``ceil(L / pp)`` of L layers, taken as that share of
    the layers' time (exact where all layers are alike), and one end of the model.
    """
    arch, shard, supply = replica.arch, replica.shard, replica.supply
    layers: Number = 0.0
    for run in arch.runs:
        one = _sum(layer_operators(run.layer, shard, step), supply)
        layers = layers + run.count * one
    embedding = _sum(embedding_operators(arch, shard, step), supply)
    head = _sum(head_operators(arch, shard, step), supply)
    whole = layers + (embedding + head + supply.step_overhead)
    pp = np.asarray(replica.parallelism.pp)
    if np.all(pp == 1):
        return StepTime(latency=whole, bottleneck=whole)
    between = stage_boundary_operators(shard, step, replica.parallelism)
    boundary = _sum(between, supply)
    share = replica.parallelism.largest_stage(arch.num_hidden_layers)
    stage = (
        share / arch.num_hidden_layers * layers
        + np.maximum(embedding, head)
        + (boundary + supply.step_overhead)
    )
    return StepTime(
        latency=whole + (pp - 1) * boundary,
        bottleneck=np.where(pp == 1, whole, stage),
    )
