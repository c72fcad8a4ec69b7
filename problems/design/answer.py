"""A design: the figures of an accelerator, and how each use case runs on it."""

from dataclasses import dataclass

from model_ops.dtypes import Precision
from model_ops.opcost import Number
from model_ops.platform.specification import Specification, hypothetical
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.step import Replica
from model_ops.units import UsdPerHour
from problems.design.statement import DesignProblem, DesignUseCase


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedUseCase:
    """How a use case runs on a platform.

    Parameters
    ----------
    name
        Of the use case.
    split, precision
        Of each replica.
    batch
        Mean decoding requests of a replica that its latencies are stated at.
    chunk_tokens
        Tokens that one step may process.
    replicas
        How many.
    """

    name: str
    split: Parallelism
    precision: str
    batch: int
    chunk_tokens: int
    replicas: int

    @property
    def npus(self) -> int:
        """NPUs of all replicas."""
        return self.replicas * int(self.split.npus)


@dataclass(frozen=True, slots=True)
class Design:
    """An accelerator and how it is used.

    Parameters
    ----------
    platform
        The figures.
    served
        One per use case, in the problem's order.
    """

    platform: Specification
    served: tuple[ServedUseCase, ...]

    @property
    def npus(self) -> int:
        """NPUs of all use cases."""
        return sum(each.npus for each in self.served)

    def usd_per_hour(self, problem: DesignProblem) -> UsdPerHour:
        """Return what all NPUs cost."""
        return self.npus * problem.cost_model.parts(self.platform).usd_per_hour

    def value(self, problem: DesignProblem) -> float:
        """Return the objective: USD/h, or the distance from today's part."""
        if problem.objective == "distance":
            return problem.distance(self.platform)
        return self.usd_per_hour(problem)


def replica_on(
    problem: DesignProblem,
    use_case: DesignUseCase,
    platform: Specification,
    precision: str,
    split: Parallelism,
) -> Replica:
    """Return a replica of a use case on the accelerator of the given figures."""
    npu = hypothetical(problem.base_npu, platform)
    return Replica(use_case.arch, split, Precision.of(precision), Supply.of(npu))


def rate_of_each(use_case: DesignUseCase, served: ServedUseCase) -> Number:
    """Return the requests per second that each replica takes."""
    return use_case.rate / served.replicas
