"""What the memory of a plan's NPUs is used for at their share of the demand."""

from dataclasses import dataclass

from model_ops.profiler.memory import MemoryFootprint
from model_ops.profiler.work import RequestShape
from model_ops.serving.load import Load
from problems.plan import Plan, PlannedDeployment
from problems.serve import Served
from problems.stations import planned_engine, replica_of
from problems.traffic import TrafficClass


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The memory of a deployment's fullest NPU at its share of the demand.

    Parameters
    ----------
    deployment
        The replicas meant.
    weights, activations
        Bytes.
    cache
        Bytes of KV cache in use on average; a request that finds none free waits.
    cache_room, usable
        Bytes that there are for the KV cache, and for all.
    """

    deployment: PlannedDeployment
    weights: float
    activations: float
    cache: float
    cache_room: float
    usable: float

    @property
    def total(self) -> float:
        """Bytes in use on average."""
        return self.weights + self.activations + self.cache


def memory_uses(
    plan: Plan, traffic: TrafficClass, served: Served
) -> tuple[MemoryUse, ...]:
    """Return the memory in use of a deployment, or of both rows of a route.

    What requests hold of the cache follows by Little's law.
    """
    answering = served.rows[-1]
    held = float(served.latencies.batch_mean) * Load.of(traffic.profile).cached
    found = [_use(plan, traffic, answering, held, served.estimate.memory)]
    if served.pair is not None:
        reading, shape = served.deployment, traffic.shape
        groups = reading.replicas * reading.dp
        rate = served.utilisation * served.pair.load(reading) * reading.replicas
        in_flight = rate / groups * float(served.estimate.ttft)
        first = RequestShape(shape.input_tokens, 1.0, shape.cached_tokens)
        footprint = replica_of(plan, reading).footprint(
            first, 0.0, reading.chunk_tokens
        )
        tokens = in_flight * float(shape.input_tokens)
        found.append(_use(plan, traffic, reading, tokens, footprint))
    return tuple(found)


def _use(
    plan: Plan,
    traffic: TrafficClass,
    row: PlannedDeployment,
    held: float,
    memory: MemoryFootprint,
) -> MemoryUse:
    """Return the memory in use where a group's cache holds so many tokens."""
    engine = planned_engine(plan, row, traffic)
    in_use = min(held / float(engine.cache_tokens), 1.0)
    usable = float(replica_of(plan, row).room.own)
    room = usable - float(memory.weights) - float(memory.activations)
    return MemoryUse(
        deployment=row,
        weights=float(memory.weights),
        activations=float(memory.activations),
        cache=in_use * room,
        cache_room=room,
        usable=usable,
    )
