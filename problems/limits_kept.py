"""Whether a plan keeps the limits on what is used."""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

from problems.offers import OWNED, Offer
from problems.plan import Bought, Plan, Purchase
from problems.problem import SizingProblem
from problems.violation import Violation, at_most


class Used(NamedTuple):
    """Replicas that are alike: what tells them from others, their NPUs and how many."""

    kind: Hashable
    npu: str
    npus: int


def used_by(plan: Plan) -> list[Used]:
    """Return what the deployments of a plan use."""
    return [
        Used((*how, d.precision, d.batch, d.chunk_tokens), d.npu, d.npus)
        for d in plan.deployments
        for how in [(plan.model_of(d), d.npu, d.mode, d.parallelism)]
    ]


def limit_violations(
    problem: SizingProblem,
    plan: Bought,
    used: Sequence[Used],
    available: Mapping[str, Offer],
) -> Iterator[Violation]:
    """Yield each limit that a plan exceeds.

    Parameters
    ----------
    plan, used
        What is bought, and the replicas that use it.
    available
        The problem's offers by their keys.
    """
    limits = problem.limits
    per_type: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for purchase in plan.purchases:
        per_type[purchase.npu] += purchase.npus
        if offer := available.get(purchase.offer):
            nodes[offer.key] += purchase.hosts * offer.nodes_per_host
            stated = purchase.hosts if offer.whole else purchase.npus
            yield from at_most(f"owned {purchase.npu}", stated, offer.stock)
    for name, most in limits.npus_per_type.items():
        yield from at_most(f"limits.npus_per_type.{name}", per_type[name], most)
    yield from at_most("limits.npus", plan.total_npus, limits.npus)
    yield from at_most("limits.nodes", nodes.total(), limits.nodes)
    yield from at_most("limits.usd_per_hour", plan.usd_per_hour, limits.usd_per_hour)
    if limits.power is not None and plan.power is None:
        yield Violation("limits.power", "a purchased NPU has no published power")
    yield from at_most("limits.power", plan.power or 0.0, limits.power)
    yield from _quotas(problem, plan)
    yield from _racks(problem, nodes, available)
    yield from _types(problem, used)
    yield from _changed(problem, used)


def _quotas(problem: SizingProblem, plan: Bought) -> Iterator[Violation]:
    for quota in problem.limits.quota:
        counted = sum(
            purchase.npus
            for purchase in plan.purchases
            if quota.covers(purchase.npu, purchase.region, purchase.provider)
        )
        yield from at_most(f"limits.quota ({quota.label})", counted, quota.npus)


def not_counted(problem: SizingProblem, plan: Bought) -> list[Purchase]:
    """Return what is rented where no region is stated, beside quotas of regions."""
    return [
        purchase
        for purchase in plan.purchases
        if purchase.provider != OWNED
        and any(
            quota.misses(purchase.npu, purchase.region, purchase.provider)
            for quota in problem.limits.quota
        )
    ]


def _racks(
    problem: SizingProblem, nodes: Mapping[str, int], available: Mapping[str, Offer]
) -> Iterator[Violation]:
    racks, needed = problem.limits.racks, 0
    if racks is None:
        return
    for key, many in nodes.items():
        each = racks.holds(available[key].node_power)
        if each:
            needed += -(-many // each)
        elif many:
            yield Violation("limits.racks", f"no rack holds a node of {key}")
    yield from at_most("limits.racks", needed, racks.count)


def _types(problem: SizingProblem, used: Sequence[Used]) -> Iterator[Violation]:
    limits = problem.limits
    kinds, npus = {each.kind for each in used}, {each.npu for each in used}
    yield from at_most("limits.deployment_types", len(kinds), limits.deployment_types)
    yield from at_most("limits.npu_types", len(npus), limits.npu_types)


def _changed(problem: SizingProblem, used: Sequence[Used]) -> Iterator[Violation]:
    changed = changed_npus(problem, used)
    yield from at_most("limits.changed_npus", changed, problem.limits.changed_npus)


def changed_npus(problem: SizingProblem, used: Sequence[Used]) -> int:
    """Return the NPUs whose use begins or ends, beside what is in use today."""
    moved: Counter[str] = Counter()
    for row in used:
        moved[row.npu] += row.npus
    for each in problem.current:
        moved[each.npu] -= each.npus
    return sum(abs(count) for count in moved.values())
