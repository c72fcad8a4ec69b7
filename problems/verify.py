"""The executable specification: whether a plan solves a problem.

Everything is computed again in floats from the plan and the catalogue, clearly
rather than quickly, and never from the solver's tables.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from model_ops.dtypes import Precision
from model_ops.units import SECOND
from problems import catalogue
from problems.limits_kept import limit_violations
from problems.offers import Offer, offers
from problems.plan import Plan, PlannedDeployment, Purchase
from problems.problem import SizingProblem
from problems.serve import covered, pair_rate
from problems.stations import (
    PairStation,
    QueueStation,
    Station,
    planned_engine,
    profile_of,
)
from problems.survival import survival_violations
from problems.traffic import TrafficClass
from problems.violation import ROUNDING, Violation


def violations(problem: SizingProblem, plan: Plan) -> list[Violation]:
    """Return each requirement of the problem that the plan breaks."""
    available = {offer.key: offer for offer in offers(problem)}
    return [
        *_foreign(problem, plan),
        *_unknown(problem, plan, available),
        *(v for d in plan.deployments for v in _deployment(problem, plan, d)),
        *(v for t in problem.traffic for v in _pair(plan, t)),
        *(v for t in problem.traffic for v in _network(plan, t, available)),
        *(v for t in problem.traffic for v in _demand(plan, t, problem.headroom)),
        *(v for p in plan.purchases for v in _purchase(plan, p, available)),
        *limit_violations(problem, plan, available),
        *(
            v
            for t in problem.traffic
            for v in survival_violations(problem, plan, t, available)
        ),
        *_few_left(problem, plan),
    ]


def _foreign(problem: SizingProblem, plan: Plan) -> Iterator[Violation]:
    if plan.model != problem.model:
        yield Violation("model", f"plan is for {plan.model}, not {problem.model}")
    if plan.kv_bandwidth != problem.kv_bandwidth:
        yield Violation("kv_bandwidth", "the plan's is not the problem's")
    if plan.optimisations != problem.optimisations:
        yield Violation("optimisations", "the plan uses others than the problem's")


def _unknown(
    problem: SizingProblem, plan: Plan, available: dict[str, Offer]
) -> Iterator[Violation]:
    bought = {purchase.offer for purchase in plan.purchases}
    classes = {traffic.name for traffic in problem.traffic}
    asked = {traffic.name: problem.model_of(traffic) for traffic in problem.traffic}
    for deployment in plan.deployments:
        model = plan.model_of(deployment)
        formats = {precision.name for precision in problem.formats(model)}
        if model != asked.get(deployment.traffic, model):
            wanted = asked[deployment.traffic]
            yield Violation("model", f"{deployment.traffic}: {model}, not {wanted}")
        if deployment.offer not in bought & available.keys():
            yield Violation("hardware", f"{deployment.offer} is not bought or offered")
        if deployment.traffic not in classes:
            yield Violation("traffic", f"there is no class {deployment.traffic}")
        if deployment.precision not in formats:
            yield Violation("precision", f"{deployment.precision} is not allowed")
        yield from _mode(problem, deployment)
        yield from _settings(problem, deployment)
        yield from _npu_of(deployment, available)


def _mode(problem: SizingProblem, deployment: PlannedDeployment) -> Iterator[Violation]:
    alone = deployment.mode == "aggregated"
    mode = "aggregated" if alone else "disaggregated"
    if mode not in problem.modes:
        yield Violation("modes", f"{mode} is not allowed")


def _settings(
    problem: SizingProblem, deployment: PlannedDeployment
) -> Iterator[Violation]:
    """Compare a deployment's scheduler with what the problem states of it."""
    for name, used, stated in (
        ("chunk_tokens", deployment.chunk_tokens, problem.chunk_tokens),
        ("max_num_seqs", deployment.batch, problem.max_num_seqs),
    ):
        if stated is not None and used > stated:
            yield Violation(name, f"{used} are too many")


def _npu_of(
    part: PlannedDeployment | Purchase, available: dict[str, Offer]
) -> Iterator[Violation]:
    offer = available.get(part.offer)
    if offer is not None and offer.npu.name != part.npu:
        yield Violation("hardware", f"{offer.label} is no {part.npu}")


def _deployment(
    problem: SizingProblem, plan: Plan, deployment: PlannedDeployment
) -> Iterator[Violation]:
    arch = catalogue.load_model(plan.model_of(deployment))
    if broken := plan.optimisations.rule_broken_by(arch, deployment.parallelism):
        yield Violation("parallelism", f"{_place(deployment)}: {broken}")
    for traffic in problem.traffic:
        if traffic.name == deployment.traffic:
            full = list(_memory(plan, deployment, traffic))
            yield from full
            if deployment.mode == "aggregated" and not full:
                station = Station.of(plan, deployment, traffic)
                place, rate = _place(deployment), deployment.rate
                yield from _latencies(place, station, rate, deployment.mean_batch)


def _pair(plan: Plan, traffic: TrafficClass) -> Iterator[Violation]:
    """Compare a disaggregated pair with what its pools and their links take."""
    rows = plan.pair(traffic.name)
    if rows is None:
        return
    prefill, decode = rows
    place = f"{_place(prefill)} and {_place(decode)}"
    if traffic.is_closed or traffic.beams > 1:
        said = "users who wait for answers, and beams, are not disaggregated"
        yield Violation("mode", f"{place}: {said}")
        return
    formats = {str(Precision.of(row.precision).kv_cache) for row in rows}
    if len(formats) > 1:
        said = f"caches in {' and '.join(sorted(formats))} do not fit each other"
        yield Violation("precision", f"{place}: {said}")
    reads, answers = (row.replicas * row.rate for row in rows)
    if abs(reads - answers) > ROUNDING * answers:
        said = f"{reads:.6g} req/s are read, {answers:.6g} answered"
        yield Violation("rate", f"{place}: {said}")
    if any(list(_memory(plan, row, traffic)) for row in rows):
        return
    station = PairStation.of(plan, rows, traffic)
    yield from _latencies(place, station, pair_rate(rows), decode.mean_batch)


def _network(
    plan: Plan, traffic: TrafficClass, available: dict[str, Offer]
) -> Iterator[Violation]:
    """Compare where the pools of a pair stand: caches do not travel between places."""
    rows = plan.pair(traffic.name) or ()
    places = {available[row.offer].place for row in rows if row.offer in available}
    if len(places) > 1 and plan.kv_bandwidth is None:
        named = " and ".join(" ".join(place).strip() for place in sorted(places))
        yield Violation("network", f"no network is known between {named}")


def _place(deployment: PlannedDeployment) -> str:
    return f"{deployment.npu} {deployment.parallelism.text}"


def _memory(
    plan: Plan, deployment: PlannedDeployment, traffic: TrafficClass
) -> Iterator[Violation]:
    kept = float(planned_engine(plan, deployment, traffic).cache_tokens)
    longest = profile_of(deployment, traffic).longest
    if kept < longest:
        said = f"{kept:,.0f} tokens of cache for requests of {longest:,.0f}"
        yield Violation("memory", f"{_place(deployment)}: {said}")


def _latencies(
    place: str, station: QueueStation, rate: float, mean_batch: float
) -> Iterator[Violation]:
    """Compare what a queue's requests see at its rate with the class's targets."""
    if not np.all(station.laws(rate).stable):
        said = f"{rate:.6g} req/s arrive, faster than they finish"
        yield Violation("rate", f"{place}: {said}")
        return
    batch = station.mean_batch(rate)
    if abs(mean_batch - batch) > _BATCH_CLOSE * batch:
        said = f"{mean_batch:.4g} stated, {batch:.4g} decode"
        yield Violation("mean_batch", f"{place}: {said}")
    for target in station.traffic.sized_targets:
        if station.excess(target, rate) > _CLOSE:
            found = station.laws(rate).figure(target.metric, target.statistic)
            seconds = SECOND.format(float(np.ravel(found)[0]))
            yield Violation(
                f"{station.traffic.name} {target.label}",
                f"{place}: {seconds} at {rate:.6g} req/s exceed "
                f"{SECOND.format(target.at_most)}",
            )


_CLOSE = 2e-3
"""Relative tolerance of mean latencies, and of the shares of requests above a limit.

A pool larger than a rate needs changes both: mostly for the better, by less for worse.
"""

_BATCH_CLOSE = 0.02
"""Relative tolerance of a mean batch, which people write with two digits."""


def _few_left(problem: SizingProblem, plan: Plan) -> Iterator[Violation]:
    """Compare the rates with those of one replica alone, where others may fail."""
    if not problem.redundancy.domains:
        return
    for traffic in problem.traffic:
        for row in plan.aggregated(traffic.name):
            alone = row.model_copy(update={"replicas": 1, "npus": row.npus_per_replica})
            if any(list(_memory(plan, alone, traffic))):
                continue
            station = Station.of(plan, alone, traffic)
            batch = station.mean_batch(row.rate)
            yield from _latencies(_place(row), station, row.rate, batch)


def _demand(plan: Plan, traffic: TrafficClass, headroom: float) -> Iterator[Violation]:
    found, demand = covered(plan, traffic), traffic.demand(headroom)
    if found < demand * (1 - ROUNDING):
        yield Violation(f"{traffic.name} demand", f"{found:.6g} of {demand:.6g}")


def _purchase(
    plan: Plan, purchase: Purchase, available: dict[str, Offer]
) -> Iterator[Violation]:
    offer = available.get(purchase.offer)
    if offer is None:
        yield Violation("hardware", f"{purchase.offer} is not offered")
        return
    yield from _npu_of(purchase, available)
    standing = [d for d in plan.deployments if d.offer == purchase.offer]
    slots: Counter[int] = Counter()
    for deployment in standing:
        npus = deployment.npus_per_replica
        if not offer.admits(deployment.parallelism):
            split = deployment.parallelism.text
            yield Violation("hosts", f"{split} cannot stand on {offer.label}")
        if deployment.npus != deployment.replicas * npus:
            yield Violation("npus", f"{deployment.npu}: {deployment.npus} are not used")
        slots[offer.slot(npus)] += deployment.replicas
    hosts = offer.hosts_for(slots)
    if hosts != purchase.hosts:
        yield Violation("hosts", f"{purchase.hosts} of {offer.label}, {hosts} needed")
    yield from _origin(purchase, offer)
    yield from _bill(purchase, offer, sum(deployment.npus for deployment in standing))
    yield from _shares(purchase, offer, standing)


def _origin(purchase: Purchase, offer: Offer) -> Iterator[Violation]:
    """Compare where a purchase says its price comes from with its offer."""
    price = offer.price
    for name, stated, known in (
        ("provider", purchase.provider, offer.provider),
        ("instance", purchase.instance, price.instance),
        ("term", purchase.term, price.term),
        ("region", purchase.region, price.region),
        ("source", purchase.source, price.source),
        ("as_of", purchase.as_of, price.as_of),
    ):
        if stated != known:
            yield Violation(name, f"{offer.label}: '{stated}' stated, '{known}' known")


def _bill(purchase: Purchase, offer: Offer, used: int) -> Iterator[Violation]:
    """Compare what a purchase states with what its offer asks."""
    npus = offer.billed_npus(purchase.hosts, used)
    if purchase.npus != npus:
        yield Violation("npus", f"{offer.label}: {purchase.npus} stated, {npus} paid")
    cost = offer.usd_per_hour(purchase.hosts, used)
    if abs(purchase.usd_per_hour - cost) > ROUNDING * cost:
        yield Violation(
            "cost", f"{offer.label}: {purchase.usd_per_hour} stated, {cost} asked"
        )
    power = None if offer.npu.power is None else offer.npu.power * npus
    if purchase.power != power:
        yield Violation("power", f"{offer.label}: {purchase.power} stated, {power}")


def _shares(
    purchase: Purchase, offer: Offer, standing: list[PlannedDeployment]
) -> Iterator[Violation]:
    """Compare the deployments' shares of a purchase with the whole of it."""
    split = sum(deployment.usd_per_hour for deployment in standing)
    if abs(split - purchase.usd_per_hour) > ROUNDING * purchase.usd_per_hour:
        yield Violation("cost", f"{offer.label}: the shares add up to {split}")
    for deployment in standing:
        slots = {offer.slot(deployment.npus_per_replica): deployment.replicas}
        nodes = offer.hosts_for(slots) * offer.nodes_per_host
        if deployment.nodes != nodes:
            yield Violation(
                "nodes", f"{offer.label}: {deployment.nodes} stated, {nodes}"
            )
