"""The linear forms are the operator model, at any platform."""

from collections.abc import Callable

import numpy as np
import pytest
from ortools.sat.python import cp_model

from problems.design.answer import replica_on
from problems.design.statement import DesignProblem
from solver.design.bounds import pruned
from solver.design.evaluate import Evaluator
from solver.design.forms import RATES, RELOADS, Forms
from solver.design.lines import facets
from solver.design.platform import Platform
from solver.design.shapes import forms_of
from solver.design.space import Space

from model_ops.serving.steady_state import steady_state  # isort: skip

EVERY = (
    "flop_per_s",
    "flop_per_s_8bit",
    "memory_bandwidth",
    "scale_up_bandwidth",
    "scale_up_npus",
    "scale_up_latency",
    "scale_out_bandwidth",
    "scale_out_latency",
)


@pytest.fixture(scope="module", params=["llama-3-70b", "deepseek-v3", "jamba-v0.1"])
def problem(
    request: pytest.FixtureRequest, problem_with: Callable[..., DesignProblem]
) -> DesignProblem:
    platform = {name: {"levels": 5} for name in EVERY if name != "scale_up_npus"}
    platform["on_chip_memory"] = {"from": "100 kB", "to": "100 MB", "levels": 5}
    case = {"model": request.param, "ttft": 1.0, "tpot": 0.1, "batches": (2, 40)}
    return problem_with({**platform, "scale_up_npus": [1, 4, 8, 72]}, case)


def _drawn(forms: Forms, space: Space, seed: int) -> tuple[np.ndarray, int]:
    rng = np.random.default_rng(seed)
    return rng.integers(space.sizes)[None], int(rng.integers(forms.shapes))


def test_times_are_those_of_the_operator_model(problem: DesignProblem) -> None:
    space, use_case, reloaded = Space(problem), problem.use_case[0], 0
    for seed, forms in enumerate(forms_of(problem)):
        levels, shape = _drawn(forms, space, seed)
        which, domain = np.array([shape]), levels[:, space.domain]
        seconds = forms.paths(space.rates(levels), space.links(levels), domain, which)
        enough = space.rates(levels) * (1, 1, 1, 0, 0)
        others = forms.paths(enough, space.links(levels), domain, which)
        reloaded += int(np.any(others < seconds * (1 - 1e-9)))
        first, mixed, plain = forms.periods(seconds)
        platform = problem.ladders.specification(space.chosen(levels[0]))
        replica = replica_on(
            problem, use_case, platform, forms.precision.name, forms.splits[shape]
        )
        state = steady_state(
            replica, use_case.shape, forms.batch[shape], forms.chunk_tokens
        )
        share = forms.share[shape]
        mean = share * mixed + (1 - share) * plain
        squares = share * mixed**2 + (1 - share) * plain**2
        residual = forms.waits.running[shape] * squares / mean
        behind = forms.waits.queued[shape] + forms.waits.chunks[shape]
        assert mean[0] == pytest.approx(state.tpot, rel=1e-9)
        exact = residual + behind * mixed + first
        assert exact[0] == pytest.approx(state.ttft, rel=1e-9)
        ttft, tpot = forms.latencies(
            space.rates(levels), space.links(levels), domain, which
        )
        assert tpot[0] == pytest.approx(mean[0], rel=1e-12)
        assert exact[0] * (1 - 1e-12) <= ttft[0] <= exact[0] * 1.5
    assert 0 < reloaded < seed + 1  # on-chip memory binds on some platforms


def test_facets_are_the_largest_of_all_choices(problem: DesignProblem) -> None:
    space = Space(problem)
    evaluator = Evaluator(space, forms_of(problem))
    left = pruned(evaluator, depth=0)
    platform = Platform(cp_model.CpModel(), space, left.boxes)
    for seed, forms in enumerate(evaluator.forms):
        levels, shape = _drawn(forms, space, seed)
        names = (*RATES, *RELOADS)
        rates = dict(zip(names, space.rates(levels)[0], strict=True))
        alone = forms.paths(
            space.rates(levels),
            np.full((1, 4), 1e-30),
            levels[:, space.domain],
            np.array([shape]),
        )[0]
        for path, seconds in enumerate(alone):
            values = [
                facet.constant + sum(value * rates[name] for name, value in facet.terms)
                for facet in facets(platform, forms, shape, path)
            ]
            assert max(values) == pytest.approx(seconds, rel=1e-9)


def test_no_better_figure_is_ever_slower(problem: DesignProblem) -> None:
    space = Space(problem)
    rng = np.random.default_rng(5)
    for forms in forms_of(problem):
        slow = rng.integers(np.maximum(space.sizes - 1, 1), size=(30, len(space.sizes)))
        fast = rng.integers(slow, space.sizes)
        fast[:, space.domain] = slow[:, space.domain]
        which = rng.integers(forms.shapes, size=30)
        times = [
            forms.latencies(
                space.rates(levels), space.links(levels), levels[:, space.domain], which
            )
            for levels in (fast, slow)
        ]
        for better, worse in zip(*times, strict=True):
            assert np.all(better <= worse * (1 + 1e-12))
