"""Design problems small enough to enumerate, and their enumeration."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from model_ops.platform.specification import Specification, hypothetical
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import stacked
from model_ops.serving.steady_state import Mix, Waits, batch_cap
from model_ops.serving.step import Replica, step_time
from problems.design.statement import DesignProblem, DesignUseCase, design_problem_of
from solver.design.shapes import STAGES
from solver.layouts import layouts


def _problem_with(
    platform: Mapping[str, Any], *use_cases: Mapping[str, Any], **more: Any
) -> DesignProblem:
    """Return a design problem with few batches."""
    usual = {"model": "llama-3-8b", "batches": (4, 32), "input_tokens": 1000}
    usual |= {"output_tokens": 100, "rate": 20.0}
    cases = [
        {"name": f"case{number}"} | usual | dict(case)
        for number, case in enumerate(use_cases)
    ]
    return design_problem_of(
        {"platform": dict(platform), "use_case": cases} | more, "python"
    )


@dataclass(frozen=True)
class Enumerated:
    """The optimum by enumeration; None where nothing is feasible.

    Parameters
    ----------
    value
        Of the objective.
    tight
        The same with targets and rates stricter by `LOSS`: integers may lose so much.
    """

    value: float | None
    tight: float | None


LOSS = 1e-3


def platforms(problem: DesignProblem) -> Iterator[Specification]:
    """Yield every platform of the ladders."""
    levels = problem.ladders.levels
    for chosen in itertools.product(*(range(len(v)) for v in levels.values())):
        yield problem.ladders.specification(dict(zip(levels, chosen, strict=True)))


def _least_npus(
    problem: DesignProblem, use_case: DesignUseCase, platform: Specification
) -> tuple[float, float]:
    """Return the fewest NPUs on a platform by the operator model, and if stricter."""
    arch, shape, best = use_case.arch, use_case.shape, [np.inf, np.inf]
    npu = hypothetical(problem.base_npu, platform)
    for precision, chunk, pp in itertools.product(
        use_case.formats(), use_case.chunks(problem.framework), STAGES
    ):
        pairs = [
            (split, batch)
            for split in layouts(arch, (pp,))
            if arch.rule_broken_by(split) is None and split.tp <= platform.scale_up_npus
            for batch in use_case.batches
        ]
        if not pairs:
            continue
        splits, batches = zip(*pairs, strict=True)
        batch = np.array(batches, dtype=float)
        layout = replace(stacked(splits), pp=pp)
        replica = Replica(arch, layout, precision, Supply.of(npu))
        schedule = replica.schedule
        mix = Mix.of(schedule, shape, batch, chunk)
        waits = Waits.of(mix, shape, batch)
        step = step_time(replica, mix.mixed_step(shape))
        mixed = step.period(schedule.slots)
        plain = step_time(replica, mix.decode_step(shape)).period(schedule.slots)
        tpot = waits.share * mixed + (1 - waits.share) * plain
        ttft = step.latency + (waits.running + waits.queued + waits.chunks) * mixed
        need = replica.footprint(shape, batch_cap(batch, layout.dp), chunk).total
        each = np.array([float(split.npus) for split in splits])
        for number, keep in enumerate((1.0, 1.0 - LOSS)):
            fast = (mix.prompt_load < 1) & (need <= npu.usable_memory)
            fast = fast & (ttft <= use_case.targets["ttft"] * keep)
            if use_case.output_tokens > 1:
                fast = fast & (tpot <= use_case.targets["tpot"] * keep)
            tokens = use_case.rate * float(shape.held_steps)
            count = np.maximum(np.ceil(tokens * tpot / batch / keep - 1e-9), 1)
            npus = np.where(fast, count * each, np.inf)
            npus = npus[npus <= (use_case.max_npus or np.inf)]
            best[number] = min(best[number], float(np.min(npus, initial=np.inf)))
    return best[0], best[1]


def _enumerated(problem: DesignProblem) -> Enumerated:
    """Return the optimum by looking at every platform and shape."""
    best = [np.inf, np.inf]
    limits = problem.limits
    for platform in platforms(problem):
        cost = problem.cost_model.parts(platform)
        if cost.watts > (limits.watts or np.inf) or cost.area_mm2 > limits.die_mm2:
            continue
        if cost.stacks > limits.stacks or platform.memory_capacity < (
            cost.stacks * problem.stack_least * (1 - 1e-9)
        ):
            continue
        needs = [_least_npus(problem, case, platform) for case in problem.use_case]
        for number, each in enumerate(zip(*needs, strict=True)):
            npus = sum(each)
            if not np.isfinite(npus) or npus > (limits.npus or np.inf):
                continue
            value = npus * cost.usd_per_hour
            if problem.objective == "distance":
                value = problem.distance(platform)
            best[number] = min(best[number], value)
    exact, tight = (value if np.isfinite(value) else None for value in best)
    return Enumerated(exact, tight)


@pytest.fixture(scope="session")
def problem_with() -> Callable[..., DesignProblem]:
    """Return what states a problem: a platform, use cases, and further fields."""
    return _problem_with


@pytest.fixture(scope="session")
def enumerated() -> Callable[..., Enumerated]:
    """Return what finds the optimum by looking at every platform and shape."""
    return _enumerated
