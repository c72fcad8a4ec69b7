"""Whether a plan keeps the limits on what is used."""

from collections import Counter
from collections.abc import Iterator, Mapping

from problems.offers import Offer
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.violation import Violation, at_most


def limit_violations(
    problem: SizingProblem, plan: Plan, available: Mapping[str, Offer]
) -> Iterator[Violation]:
    """Yield each limit that a plan exceeds.

    Parameters
    ----------
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
    yield from _types(problem, plan)
    yield from _changed(problem, plan)


def _quotas(problem: SizingProblem, plan: Plan) -> Iterator[Violation]:
    for quota in problem.limits.quota:
        counted = sum(
            purchase.npus
            for purchase in plan.purchases
            if quota.covers(purchase.npu, purchase.region, purchase.provider)
        )
        yield from at_most(f"limits.quota ({quota.label})", counted, quota.npus)


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


def _types(problem: SizingProblem, plan: Plan) -> Iterator[Violation]:
    limits = problem.limits
    kinds = {
        (*how, d.precision, d.batch, d.chunk_tokens)
        for d in plan.deployments
        for how in [(plan.model_of(d), d.npu, d.mode, d.parallelism)]
    }
    npus = {d.npu for d in plan.deployments}
    yield from at_most("limits.deployment_types", len(kinds), limits.deployment_types)
    yield from at_most("limits.npu_types", len(npus), limits.npu_types)


def _changed(problem: SizingProblem, plan: Plan) -> Iterator[Violation]:
    used: Counter[str] = Counter()
    for deployment in plan.deployments:
        used[deployment.npu] += deployment.npus
    for each in problem.current:
        used[each.npu] -= each.npus
    changed = sum(abs(count) for count in used.values())
    yield from at_most("limits.changed_npus", changed, problem.limits.changed_npus)
