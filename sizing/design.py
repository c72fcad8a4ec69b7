"""The public function for platform design: a problem in, an explained design out."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from model_ops.arrivals import under_arrivals
from model_ops.estimate import Estimate, estimate
from model_ops.platform.supply import Supply
from model_ops.serving.steady_state import Mix, SteadyState, Waits, steady_state
from model_ops.serving.step import Replica, step_time
from model_ops.units import Seconds
from problems.design.answer import Design, ServedUseCase, replica_on
from problems.design.cost import NpuCost
from problems.design.statement import DesignProblem, DesignUseCase
from problems.design.verify import HAIR, load_of, predicted
from solver.design.explain import (
    DesignBinding,
    TodaysPart,
    WhyNone,
    bindings,
    todays_part,
    why_none,
)
from solver.design.solve import (
    DesignFeasible,
    DesignInfeasible,
    DesignOptimal,
    DesignOutcome,
    DesignTimedOut,
    DesignWorkspace,
)
from solver.options import SolveOptions

_STATUS = {
    DesignOptimal: "optimal",
    DesignFeasible: "feasible",
    DesignInfeasible: "infeasible",
    DesignTimedOut: "timed_out",
}


@dataclass(frozen=True, slots=True)
class DesignedUseCase:
    """How a use case fares on a design.

    Parameters
    ----------
    use_case, served
        The question, and how it is served.
    ttft, tpot
        Means as counted: at the stated batch, a newcomer finding a mixed step running.
    estimate
        Of the same replicas at their share of the rate, on constants of kernels.
    form
        TPOT on today's part by its measured kernels and collectives, over the same by
        the constants that the design rests on; None where it does not fit there.
    """

    use_case: DesignUseCase
    served: ServedUseCase
    ttft: Seconds
    tpot: Seconds
    estimate: Estimate
    form: float | None


@dataclass(frozen=True, slots=True)
class TodaysUseCase:
    """How a use case fares on the base itself, by its measured kernels and links.

    Parameters
    ----------
    use_case, served
        The question, and how the base serves it on constants of kernels.
    measured
        What `genz-size estimate` says of these replicas at their share of the rate.
    """

    use_case: DesignUseCase
    served: ServedUseCase
    measured: Estimate

    @property
    def missed(self) -> tuple[str, ...]:
        """Targets that it misses by measured kernels: ``ttft``, ``tpot``, ``rate``."""
        late = (
            name
            for name, limit in self.use_case.targets.items()
            if float(getattr(self.measured, name)) > limit * (1 + HAIR)
        )
        return (*late, *(("rate",) if self.measured.overloaded else ()))


@dataclass(frozen=True, slots=True)
class DesignAnswer:
    """An outcome with everything a report says of it.

    Parameters
    ----------
    problem, outcome
        The question, and what was proved.
    use_cases
        How each fares; empty without a design.
    npu
        What one NPU of the design costs.
    bindings
        What one level less of each figure does.
    today
        What the base itself would need, and what one costs by the same model.
    todays_use_cases
        How each use case fares then; empty where the base cannot serve all.
    why_none
        Why there is no design, if there is none.
    seconds
        Wall time of all of it.
    """

    problem: DesignProblem
    outcome: DesignOutcome
    use_cases: tuple[DesignedUseCase, ...]
    npu: NpuCost | None
    bindings: tuple[DesignBinding, ...]
    today: TodaysPart
    todays_npu: NpuCost
    todays_use_cases: tuple[TodaysUseCase, ...]
    why_none: WhyNone | None
    seconds: float

    @property
    def status(self) -> str:
        """``optimal``, ``feasible``, ``infeasible`` or ``timed_out``."""
        return _STATUS[type(self.outcome)]

    @property
    def design(self) -> Design | None:
        """The platform, if there is one."""
        if isinstance(self.outcome, DesignOptimal | DesignFeasible):
            return self.outcome.design
        return None


def design(problem: DesignProblem, options: SolveOptions | None = None) -> DesignAnswer:
    """Return the best accelerator for a design problem, proved and explained.

    Parameters
    ----------
    problem
        From `problems.design.statement.design_problem_of`.
    options
        Time limit, threads and seed of the search.
    """
    started = time.perf_counter()
    workspace = DesignWorkspace(problem)
    outcome = workspace.solve(options or SolveOptions())
    found: tuple[DesignedUseCase, ...] = ()
    npu = None
    binding: tuple[DesignBinding, ...] = ()
    if isinstance(outcome, DesignOptimal | DesignFeasible):
        found = tuple(
            _fares(problem, outcome.design, use_case, served)
            for use_case, served in zip(
                problem.use_case, outcome.design.served, strict=True
            )
        )
        npu = problem.cost_model.parts(outcome.design.platform)
        binding = tuple(bindings(workspace, outcome.choice))
    infeasible = isinstance(outcome, DesignInfeasible)
    today = todays_part(problem)
    return DesignAnswer(
        problem=problem,
        outcome=outcome,
        use_cases=found,
        npu=npu,
        bindings=binding,
        today=today,
        todays_npu=problem.cost_model.parts(problem.today),
        todays_use_cases=tuple(_todays(problem, today)),
        why_none=why_none(workspace) if infeasible else None,
        seconds=time.perf_counter() - started,
    )


def _fares(
    problem: DesignProblem,
    found: Design,
    use_case: DesignUseCase,
    served: ServedUseCase,
) -> DesignedUseCase:
    replica = replica_on(
        problem, use_case, found.platform, served.precision, served.split
    )
    shape, batch = use_case.shape, float(served.batch)
    mix = Mix.of(replica.schedule, shape, batch, served.chunk_tokens)
    waits = Waits.of(mix, shape, batch)
    mixed = step_time(replica, mix.mixed_step(shape))
    period = mixed.period(replica.schedule.slots)
    behind = waits.running + waits.queued + waits.chunks
    steady = steady_state(replica, shape, batch, served.chunk_tokens)
    return DesignedUseCase(
        use_case=use_case,
        served=served,
        ttft=float(mixed.latency + behind * period),
        tpot=float(steady.tpot),
        estimate=predicted(problem, found, use_case, served),
        form=_form(problem, use_case, served),
    )


def _todays(problem: DesignProblem, today: TodaysPart) -> Iterator[TodaysUseCase]:
    served = today.design.served if today.design is not None else ()
    # Without a design there is nothing to say of any.
    for use_case, each in zip(problem.use_case, served, strict=False):
        replica = _on_base(problem, use_case, each)
        load = load_of(use_case, each)
        measured = estimate(replica, load)
        if not measured.overloaded:
            arriving = under_arrivals(replica, load, measured, replicas=each.replicas)
            measured = arriving.estimate
        yield TodaysUseCase(use_case, each, measured)


def _on_base(
    problem: DesignProblem, use_case: DesignUseCase, served: ServedUseCase
) -> Replica:
    """Return a replica on the base itself, by its measured kernels and links."""
    plain = replica_on(problem, use_case, problem.today, served.precision, served.split)
    return replace(plain, supply=Supply.of(problem.base_npu))


def _form(
    problem: DesignProblem, use_case: DesignUseCase, served: ServedUseCase
) -> float | None:
    """Return TPOT on today's part by measured kernels over that by constants."""
    plain = replica_on(problem, use_case, problem.today, served.precision, served.split)
    if served.split.tp > problem.today.scale_up_npus:
        return None
    measured = _on_base(problem, use_case, served)
    batch = float(served.batch)

    def state(replica: Replica) -> SteadyState:
        return steady_state(replica, use_case.shape, batch, served.chunk_tokens)

    constants = float(state(plain).tpot)
    return float(state(measured).tpot) / constants if constants > 0 else None
