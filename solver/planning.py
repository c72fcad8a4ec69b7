"""From the solver's counts to a plan."""

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from problems.offers import Offer
from problems.pair_stations import with_batches
from problems.plan import Mode, Plan, PlannedDeployment, Purchase
from problems.problem import SizingProblem
from problems.purchasing import purchase_of, share_of
from problems.stations import Station
from solver.candidates import Candidate
from solver.instance import Instance
from solver.model import Choice
from solver.prune import whole_pairs

_MODES = get_args(Mode)

_UNKNOWN = 1.0
"""Stands for a mean batch until all replicas are counted."""


def plan_of(problem: SizingProblem, instance: Instance, choice: Choice) -> Plan:
    """Return the plan that a choice of counts describes."""
    # An instance made from our tables counts nothing else.
    candidates = cast(tuple[Candidate, ...], instance.candidates)
    chosen = _pooled(candidates, choice.replicas)
    numbers = _numbers([candidate for candidate, _ in chosen])
    deployments: list[PlannedDeployment] = []
    purchases: list[Purchase] = []
    for number in sorted({candidate.offer for candidate, _ in chosen}):
        offer = instance.offers[number]
        standing = [(c, count) for c, count in chosen if c.offer == number]
        purchase = purchase_of(offer, [(c.npus, count) for c, count in standing])
        purchases.append(purchase)
        deployments += _deployments(problem, offer, standing, purchase, numbers)
    order = {traffic.name: i for i, traffic in enumerate(problem.traffic)}
    deployments.sort(
        key=lambda d: (order[d.traffic], d.pair or 0, _MODES.index(d.mode), -d.npus)
    )
    plan = Plan(
        optimisations=problem.optimisations,
        kv_bandwidth=problem.kv_bandwidth,
        confidence=problem.confidence,
        framework=problem.framework,
        model=problem.model,
        deployments=tuple(deployments),
        purchases=tuple(purchases),
    )
    return _with_batches(problem, plan)


def _with_batches(problem: SizingProblem, plan: Plan) -> Plan:
    """Return a plan with the mean batches that its counts of replicas lead to."""
    classes = {traffic.name: traffic for traffic in problem.traffic}
    rows: list[PlannedDeployment] = []
    for name, traffic in classes.items():
        for row in plan.aggregated(name):
            batch = Station.of(plan, row, traffic).mean_batch(row.rate)
            rows.append(row.model_copy(update={"mean_batch": batch}))
        for pair in plan.pairs(name):
            rows += with_batches(plan, pair, traffic)
    return plan.model_copy(update={"deployments": tuple(rows)})


def _pooled(
    candidates: Sequence[Candidate], counts: Sequence[int]
) -> list[tuple[Candidate, int]]:
    """Put replicas that differ only in their pool behind one router.

    Of those pools they are the one with the highest rate that so many replicas make.
    """
    alike: dict[Any, list[tuple[Candidate, int]]] = {}
    for candidate, count in zip(candidates, counts, strict=True):
        what = (candidate.traffic, candidate.offer, candidate.split)
        how = (candidate.precision, candidate.setting)
        role = (candidate.mode, candidate.pairing)
        alike.setdefault((*what, *how, *role), []).append((candidate, count))
    together = [(group, sum(n for _, n in group)) for group in alike.values()]
    chosen = [
        (max((c for c, _ in group if c.least <= many), key=lambda c: c.rate), many)
        for group, many in together
        if many
    ]
    # Where the time was up, replicas may be left whose pair has no other pool.
    useful = whole_pairs([c for c, _ in chosen])
    return [(c, many) for c, many in chosen if c in useful]


def _numbers(chosen: Sequence[Candidate]) -> dict[int, int]:
    """Return the numbers of the pairs of classes that have several, by pairing."""
    own: dict[int, set[int]] = {}
    for candidate in chosen:
        if candidate.mode != "aggregated":
            own.setdefault(candidate.traffic, set()).add(candidate.pairing)
    return {
        pairing: number
        for pairings in own.values()
        if len(pairings) > 1
        for number, pairing in enumerate(sorted(pairings), start=1)
    }


def _deployments(
    problem: SizingProblem,
    offer: Offer,
    standing: Sequence[tuple[Candidate, int]],
    purchase: Purchase,
    numbers: Mapping[int, int],
) -> list[PlannedDeployment]:
    """Split a purchase's cost over its deployments by the room they take."""
    room = sum(c.slot * count for c, count in standing)
    rows = [
        PlannedDeployment(
            traffic=problem.traffic[candidate.traffic].name,
            model=problem.model_of(problem.traffic[candidate.traffic]),
            npu=offer.npu.name,
            **candidate.split.degrees,
            batch=candidate.setting.batch,
            rate=candidate.rate,
            mode=candidate.mode,
            pair=numbers.get(candidate.pairing),
            mean_batch=0.0 if candidate.mode == "prefill" else _UNKNOWN,
            chunk_tokens=candidate.setting.chunk_tokens,
            precision=candidate.precision.name,
            replicas=count,
            npus=candidate.npus * count,
            nodes=1,
            usd_per_hour=0.0,
            offer=offer.key,
        )
        for candidate, count in standing
    ]
    return [share_of(row, offer, purchase, room) for row in rows]
