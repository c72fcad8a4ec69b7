"""The executable specification: whether a plan solves a problem.

Everything is computed again in floats from the plan and the catalogue, clearly
rather than quickly, and never from the solver's tables.
"""

from collections.abc import Generator, Iterator

import numpy as np

from model_ops.dtypes import Precision
from model_ops.units import SECOND
from problems import catalogue
from problems.bill import bill_violations
from problems.limits_kept import limit_violations, used_by
from problems.offers import Offer, offers
from problems.pair_stations import PairStation
from problems.plan import Plan, PlannedDeployment, PlannedPair, Purchase, Route
from problems.problem import SizingProblem
from problems.serve import covered
from problems.stations import (
    QueueStation,
    Station,
    planned_engine,
    profile_of,
)
from problems.survival import alone, alone_pair, survival_violations
from problems.traffic import TrafficClass
from problems.violation import ROUNDING, Violation


def violations(problem: SizingProblem, plan: Plan) -> list[Violation]:
    """Return each requirement of the problem that the plan breaks."""
    available = {offer.key: offer for offer in offers(problem)}
    return [
        *_foreign(problem, plan),
        *_unknown(problem, plan, available),
        *(v for d in plan.deployments for v in _deployment(problem, plan, d)),
        *(v for t in problem.traffic for v in _pairs(plan, t)),
        *(v for t in problem.traffic for v in _network(plan, t, available)),
        *(v for t in problem.traffic for v in _demand(plan, t, problem.headroom)),
        *(v for p in plan.purchases for v in _purchase(plan, p, available)),
        *limit_violations(problem, plan, used_by(plan), available),
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
                if (yield from _targets(place, station, rate)):
                    yield from _batch(place, station, rate, deployment.mean_batch)


def _pairs(plan: Plan, traffic: TrafficClass) -> Iterator[Violation]:
    """Compare disaggregated pairs with what their pools and their links take."""
    for pair in plan.pairs(traffic.name):
        place = " and ".join(_place(row) for row in pair.rows)
        if traffic.kept_whole:
            said = f"it has {traffic.kept_whole}, which is not disaggregated"
            yield Violation("mode", f"{place}: {said}")
            continue
        formats = {str(Precision.of(row.precision).kv_cache) for row in pair.rows}
        if len(formats) > 1:
            said = f"caches in {' and '.join(sorted(formats))} do not fit each other"
            yield Violation("precision", f"{place}: {said}")
        if not any(list(_memory(plan, row, traffic)) for row in pair.rows):
            for route in pair.routes:
                yield from _route(plan, pair, route, traffic)


def _route(
    plan: Plan, pair: PlannedPair, route: Route, traffic: TrafficClass
) -> Iterator[Violation]:
    """Compare a route at what its pair takes, and at what its rows say they take."""
    place = " and ".join(_place(row) for row in route)
    rate = pair.rate * pair.share(*route)
    station = PairStation.full(plan, pair, route, traffic)
    if not (yield from _targets(place, station, rate)):
        return
    station = PairStation.of(plan, pair, route, traffic)
    yield from _batch(place, station, rate, route[1].mean_batch)


def _network(
    plan: Plan, traffic: TrafficClass, available: dict[str, Offer]
) -> Iterator[Violation]:
    """Compare where the pools of a pair stand: caches do not travel between places."""
    for pair in plan.pairs(traffic.name):
        offers = (available.get(row.offer) for row in pair.rows)
        places = {offer.place for offer in offers if offer is not None}
        if len(places) > 1:
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


def _targets(
    place: str, station: QueueStation, rate: float
) -> Generator[Violation, None, bool]:
    """Compare what a queue's requests see with the targets; return if it is stable."""
    if not np.all(station.laws(rate).stable):
        said = f"{rate:.6g} req/s arrive, faster than they finish"
        yield Violation("rate", f"{place}: {said}")
        return False
    for target in station.traffic.sized_targets:
        if station.excess(target, rate) > _CLOSE:
            found = station.laws(rate).figure(target.metric, target.statistic)
            seconds = SECOND.format(float(np.ravel(found)[0]))
            yield Violation(
                f"{station.traffic.name} {target.label}",
                f"{place}: {seconds} at {rate:.6g} req/s exceed "
                f"{SECOND.format(target.at_most)}",
            )
    return True


def _batch(
    place: str, station: QueueStation, rate: float, mean_batch: float
) -> Iterator[Violation]:
    batch = station.mean_batch(rate)
    if abs(mean_batch - batch) > _BATCH_CLOSE * batch:
        said = f"{mean_batch:.4g} stated, {batch:.4g} decode"
        yield Violation("mean_batch", f"{place}: {said}")


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
            few = alone(row)
            if not list(_memory(plan, few, traffic)):
                station = Station.of(plan, few, traffic)
                yield from _targets(_place(row), station, row.rate)
        for route in (way for pair in plan.pairs(traffic.name) for way in pair.routes):
            pair = alone_pair(route)
            if not any(list(_memory(plan, row, traffic)) for row in pair.rows):
                both = PairStation.full(plan, pair, pair.routes[0], traffic)
                place = " and ".join(_place(row) for row in route)
                yield from _targets(place, both, pair.rate)


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
    standing = [d for d in plan.deployments if d.offer == purchase.offer]
    for deployment in standing:
        if not offer.admits(deployment.parallelism):
            split = deployment.parallelism.text
            yield Violation("hosts", f"{split} cannot stand on {offer.label}")
    yield from bill_violations(purchase, offer, standing)
