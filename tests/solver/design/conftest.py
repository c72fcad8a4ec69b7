"""Design problems small enough to enumerate, and their enumeration."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model_ops.platform.specification import Specification, hypothetical
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import stacked
from model_ops.serving.steady_state import Mix, Waits, batch_cap
from model_ops.serving.step import Replica, step_time
from problems.design.statement import DesignProblem, DesignUseCase, design_problem_of
from solver.design.shapes import STAGES
from solver.layouts import layouts


def problem_with(
    platform: Mapping[str, Any], *use_cases: Mapping[str, Any], **more: Any
) -> DesignProblem:
    """Return a design problem about an H200 with few batches."""
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
    """The optimum by enumeration; None where nothing is feasible."""

    value: float | None
    platform: Specification | None


def platforms(problem: DesignProblem) -> Iterator[Specification]:
    """Yield every platform of the ladders."""
    levels = problem.ladders.levels
    for chosen in itertools.product(*(range(len(v)) for v in levels.values())):
        yield problem.ladders.specification(dict(zip(levels, chosen, strict=True)))


def least_npus(
    problem: DesignProblem,
    use_case: DesignUseCase,
    platform: Specification,
    *,
    tightened: float = 0.0,
) -> float:
    """Return the fewest NPUs of a use case on a platform, by the operator model."""
    arch, shape, best = use_case.arch, use_case.shape, np.inf
    npu = hypothetical(problem.base_npu, platform)
    keep = 1.0 - tightened
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
        fast = (mix.prompt_load < 1) & (ttft <= use_case.targets["ttft"] * keep)
        if use_case.output_tokens > 1:
            fast &= tpot <= use_case.targets["tpot"] * keep
        fast &= need <= npu.usable_memory
        count = np.ceil(
            use_case.rate * float(shape.held_steps) * tpot / batch / keep - 1e-9
        )
        npus = np.maximum(count, 1) * np.array([float(s.npus) for s in splits])
        fast &= npus <= (use_case.max_npus or np.inf)
        best = min(best, float(np.min(np.where(fast, npus, np.inf))))
    return best


def enumerated(problem: DesignProblem, *, tightened: float = 0.0) -> Enumerated:
    """Return the optimum by looking at every platform and shape.

    `tightened` is the share by which targets and capacity are stricter: integers may
    lose so much.
    """
    best = Enumerated(None, None)
    limits = problem.limits
    for platform in platforms(problem):
        cost = problem.cost_model.parts(platform)
        if cost.watts > (limits.watts or np.inf) or cost.area_mm2 > limits.die_mm2:
            continue
        if cost.stacks > limits.stacks:
            continue
        npus = sum(
            least_npus(problem, case, platform, tightened=tightened)
            for case in problem.use_case
        )
        if npus > (limits.npus or 1e18):
            continue
        value = npus * cost.usd_per_hour
        if problem.objective == "distance":
            value = problem.distance(platform)
        if best.value is None or value < best.value:
            best = Enumerated(value, platform)
    return best
