"""A planned deployment in the model's terms: its replica, load and capacity.

The verifier and the reports read plans through this file alone; the solver's
tables are never asked.
"""

from dataclasses import dataclass

from model_ops.dtypes import Precision
from model_ops.estimate import Estimate, Load, LoadMode, estimate
from model_ops.platform.supply import Supply
from model_ops.profiler.memory import MemoryFootprint
from model_ops.serving.steady_state import SteadyState, steady_state
from model_ops.serving.step import Replica
from problems import catalogue
from problems.plan import Plan, PlannedDeployment
from problems.problem import SizingProblem, TrafficClass


def replica_of(plan: Plan, deployment: PlannedDeployment) -> Replica:
    """Return the replica that a planned deployment describes."""
    arch, precision = (
        catalogue.load_model(plan.model),
        Precision.of(deployment.precision),
    )
    return Replica(
        arch=arch,
        parallelism=deployment.parallelism,
        precision=precision,
        supply=Supply.of(catalogue.load_npu(deployment.npu)),
        **plan.optimisations.features(arch, precision),
    )


def full_state(
    plan: Plan, deployment: PlannedDeployment, traffic: TrafficClass
) -> SteadyState:
    """Return what one replica does when it takes all it can."""
    return steady_state(
        replica_of(plan, deployment),
        traffic.shape,
        deployment.mean_batch,
        deployment.chunk_tokens,
    )


def capacity(plan: Plan, deployment: PlannedDeployment, traffic: TrafficClass) -> float:
    """Return what one replica covers of the class's demand when it takes all it can.

    Requests per second where the class states a rate, requests in flight where it
    states a concurrency.
    """
    state = full_state(plan, deployment, traffic)
    return float(state.rate if traffic.concurrency is None else state.in_flight)


def memory_needed(
    plan: Plan, deployment: PlannedDeployment, traffic: TrafficClass
) -> MemoryFootprint:
    """Return what a deployment needs on its fullest NPU with its batch full."""
    replica = replica_of(plan, deployment)
    return replica.footprint(traffic.shape, deployment.batch, deployment.chunk_tokens)


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment at its share of the demand.

    Parameters
    ----------
    deployment
        The replicas.
    load
        What one of them gets.
    estimate
        What it then does.
    utilisation
        The load as a share of what it could take.
    """

    deployment: PlannedDeployment
    load: Load
    estimate: Estimate
    utilisation: float


def served(problem: SizingProblem, plan: Plan, traffic: TrafficClass) -> list[Served]:
    """Return each of a class's deployments at its share of the demand.

    The router splits the demand in proportion to capacity.
    """
    deployments = plan.of_class(traffic.name)
    each = [capacity(plan, deployment, traffic) for deployment in deployments]
    total = sum(d.replicas * c for d, c in zip(deployments, each, strict=True))
    demand = traffic.demand(headroom=0.0)
    results = []
    for deployment, most in zip(deployments, each, strict=True):
        share = demand * most / total
        if traffic.rate is not None:
            load = Load(
                traffic.shape,
                LoadMode.OPEN_LOOP,
                rate=share,
                chunk_tokens=deployment.chunk_tokens,
            )
        else:
            load = Load(
                traffic.shape,
                LoadMode.CLOSED_LOOP,
                concurrency=share,
                chunk_tokens=deployment.chunk_tokens,
            )
        result = estimate(replica_of(plan, deployment), load)
        results.append(Served(deployment, load, result, float(share / most)))
    return results
