"""Settings raced per deployment: as good as trying them all, never worse than one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from problems.offers import offers
from problems.problem import SizingProblem
from problems.verify import violations
from solver import table as tables
from solver.candidates import Candidate
from solver.race import WORTHWHILE
from solver.selection import select
from solver.settings import BATCHES, CHUNKS, Setting, settings_of
from solver.solve import Optimal, Workspace
from solver.table import Table
from solver.tabulation import tabulate

Small = Callable[..., SizingProblem]

TARGETS = {
    "tails": [("ttft", "p99", 1.0), ("tpot", "p95", 0.02)],
    "means": [("ttft", "mean", 0.5), ("tpot", "mean", 0.02)],
    "long": [("ttft", "p99", 3.0), ("tpot", "p99", 0.05)],
    "median": [("e2e", "p50", 4.0)],
}
LENGTHS = {"tails": (1000, 200), "means": (500, 300), "long": (9000, 200)}


def asked(small: Small, name: str, rate: float = 60.0, **changes: Any) -> SizingProblem:
    """Return a problem whose settings are open, if nothing else is said."""
    prompt, output = LENGTHS.get(name, (1000, 200))
    targets = [
        {"metric": metric, "statistic": statistic, "at_most": most}
        for metric, statistic, most in TARGETS[name]
    ]
    load = {"input_tokens": prompt, "output_tokens": output, "rate": rate}
    open_ = {"chunk_tokens": None, "max_num_seqs": None}
    return small(traffic=[load | {"targets": targets}], **open_ | changes)


def cost(problem: SizingProblem) -> float:
    outcome = Workspace.of(problem).solve()
    if not isinstance(outcome, Optimal):
        return np.inf
    assert violations(problem, outcome.plan) == []
    return outcome.plan.usd_per_hour


def everything(table: Table) -> np.ndarray:
    """Return the rates of all options at all settings alone; [setting, option]."""
    option = np.arange(table.options)
    found = [
        table.highest_rate(table.traffic.targets, option, 1, np.full_like(option, s))
        for s in range(len(table.settings))
    ]
    return np.where(table.fits, np.stack(found), 0.0) * table.groups


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_the_race_finds_what_trying_everything_finds(small: Small, name: str) -> None:
    problem = asked(small, name)
    available = offers(problem)
    (table,) = tabulate(problem, available)
    rates = everything(table)
    found = [c for c in select([table], available, problem) if c.least == 1]
    assert found
    for option in range(table.options):
        npus = int(table.split(option).npus)
        for place in np.nonzero(table.admitted[:, option])[0]:
            best = max(
                (c.capacity for c in found if c.offer == place and c.npus <= npus),
                default=0.0,
            )
            # A setting must be worth its while; rates are known to half a per cent.
            assert best >= rates[:, option].max() * (1 - 2 * WORTHWHILE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fleet",
    [
        {"redundancy": {"nodes": 1}},
        {
            "current": [{"npu": "l40s", "npus": 5}],
            "limits": {"changed_npus": 2},
        },
    ],
)
def test_the_best_of_each_size_is_found_where_replicas_may_be_spare(
    small: Small, fleet: dict[str, Any]
) -> None:
    problem = asked(small, "means", **fleet)
    available = offers(problem)
    (table,) = tabulate(problem, available)
    rates = everything(table).max(axis=0)
    npus = np.array([int(table.split(n).npus) for n in range(table.options)])
    found = [c for c in select([table], available, problem) if c.least == 1]
    for place, size in {(o, int(n)) for o in range(len(available)) for n in npus}:
        able = table.admitted[place] & (npus == size)
        fastest = max(rates[able], default=0.0)
        own = [c.capacity for c in found if (c.offer, c.npus) == (place, size)]
        assert max(own, default=0.0) >= fastest * (1 - 2 * WORTHWHILE)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [5.0, 80.0, 700.0])
@pytest.mark.parametrize("name", TARGETS)
def test_more_settings_never_make_a_plan_dearer(
    small: Small, name: str, rate: float
) -> None:
    first = {"chunk_tokens": CHUNKS[0], "max_num_seqs": BATCHES[0]}
    fixed = cost(asked(small, name, rate, **first))
    assert cost(asked(small, name, rate)) <= fixed * (1 + 1e-9)


def test_long_prompts_take_long_steps(small: Small) -> None:
    """A prompt of 9,000 tokens in five steps of 2,048, beside decodes in each."""
    problem = asked(small, "long")
    found = select(tabulate(problem, offers(problem)), offers(problem), problem)
    assert max(c.setting.chunk_tokens for c in found) > CHUNKS[0]
    fixed = asked(small, "long", chunk_tokens=2048, max_num_seqs=1024)
    assert cost(problem) < 0.97 * cost(fixed)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"chunk_tokens": 777}, {Setting(batch, 777) for batch in BATCHES}),
        ({"max_num_seqs": 9}, {Setting(9, c) for c in CHUNKS if c <= 2048}),
        ({"chunk_tokens": 777, "max_num_seqs": 9}, {Setting(9, 777)}),
    ],
)
def test_a_stated_setting_is_kept(
    small: Small, stated: dict[str, int], expected: set[Setting]
) -> None:
    problem = asked(small, "means", **stated)
    settings = settings_of(problem, problem.traffic[0])
    assert set(settings) == expected
    outcome = Workspace.of(problem).solve()
    assert isinstance(outcome, Optimal)
    for deployment in outcome.plan.deployments:
        assert Setting(deployment.batch, deployment.chunk_tokens) in expected


def test_the_default_comes_first_and_steps_reach_twice_the_longest_prompt(
    small: Small,
) -> None:
    problem = asked(small, "means")
    for longest, reached in ((100, 2048), (4095, 2048), (4096, 8192)):
        changes = {"input_tokens": longest}
        settings = settings_of(problem, problem.traffic[0].model_copy(update=changes))
        assert settings[0] == Setting(BATCHES[0], CHUNKS[0])
        assert max(setting.chunk_tokens for setting in settings) == reached
        assert {setting.batch for setting in settings} == set(BATCHES)


def test_no_cap_is_tried_on_users_who_wait(small: Small) -> None:
    problem = asked(small, "means")
    users = {"rate": None, "concurrency": 64}
    settings = settings_of(problem, problem.traffic[0].model_copy(update=users))
    assert {setting.batch for setting in settings} == {BATCHES[0]}


def test_few_options_are_measured(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying everything would ask for the rate of each option in each pool."""
    problem = asked(small, "tails", model="mixtral-8x7b")
    available = offers(problem)
    (table,) = tabulate(problem, available)
    asked_for = 0
    measure = tables.highest_rate

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal asked_for
        found = measure(*arguments, **options)
        asked_for += found.size
        return found

    monkeypatch.setattr(tables, "highest_rate", counted)
    assert select([table], available, problem)
    assert asked_for < 0.5 * table.options * len(table.settings)


def alike(one: Candidate, other: Candidate) -> bool:
    places = [(c.offer, c.npus, c.least) for c in (one, other)]
    return places[0] == places[1]


def test_a_dispersed_share_of_a_rate_stays_a_share(small: Small) -> None:
    """Corrected to 80 %, an option is beaten by what takes more than 80 %."""
    problem = asked(small, "tails", hardware={"npus": ["h100-sxm"]}, prices={})
    available = offers(problem)
    found = tabulate(problem, available)
    plain = select(found, available, problem)
    first = next(c for c in plain if c.least == 1)
    name = available[first.offer].npu.name
    place = (problem.traffic[0].name, name, first.split, first.precision.name)
    share = {(*place, first.setting, "aggregated"): 0.8}
    after = select(found, available, problem, corrections=share)
    best = max(c.capacity for c in after if alike(c, first))
    assert 0.8 * first.capacity * (1 - 1e-9) <= best <= first.capacity


def test_no_pool_helps_at_random(small: Small) -> None:
    """Dealt at random, a Poisson stream is one at each replica, however many."""
    problem = asked(small, "tails", 700.0)
    chance = problem.traffic[0].model_copy(update={"router": "random"})
    random = problem.model_copy(update={"traffic": (chance,)})
    available = offers(problem)
    pools = [
        {c.least for c in select(tabulate(p, available), available, p)}
        for p in (problem, random)
    ]
    assert pools[0] > {1}
    assert pools[1] == {1}
    assert cost(problem) <= cost(random)
