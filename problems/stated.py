"""Plans that people state: how many replicas of what, and the rest follows."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from model_ops.dtypes import Precision
from model_ops.errors import GenzSizeError, ProblemError, nearest
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.pools import decode_saturation_rate
from model_ops.serving.saturation import saturation_rate
from model_ops.serving.steady_state import DEFAULT_CHUNK_TOKENS
from problems import catalogue
from problems.fields import Name, Part, messages
from problems.offers import Offer, offers
from problems.pair_stations import PairStation, with_batches
from problems.plan import Mode, Plan, PlannedDeployment, PlannedPair, Positive
from problems.problem import PrecisionName, SizingProblem
from problems.purchasing import purchase_of, share_of
from problems.stations import (
    QueueStation,
    Station,
    planned_engine,
    profile_of,
)
from problems.traffic import TrafficClass

MAX_SEQUENCES = 1024
"""Requests that a replica runs at once, unless stated (vLLM ``max_num_seqs``)."""

_HALVINGS = 40
"""Of the rate at which all targets hold: to rounding."""

_MOST_LOAD, _LEAST_LOAD = 0.99, 1e-6
"""Shares of the saturation between which a rate is looked for."""

_UNKNOWN = 1.0
"""Stands for a rate or a batch until all replicas are counted."""


class StatedDeployment(Part):
    """Replicas that are alike, as a ``[[plan]]`` table of a problem states them.

    Parameters
    ----------
    traffic
        The class that they serve; None: the only one.
    mode
        Whether they read and answer, only read, or only answer.
    npu, tp, pp, ep, dp, cp, batch, precision, chunk_tokens
        What fixes a replica's behaviour; None: the problem's.
    pair
        Number of the disaggregated pair that it belongs to, if its class has several.
    replicas
        How many.
    """

    traffic: Name | None = None
    mode: Mode = "aggregated"
    pair: Positive | None = None
    npu: Name
    tp: Positive = 1
    pp: Positive = 1
    ep: Positive = 1
    dp: Positive = 1
    cp: Positive = 1
    replicas: Positive = 1
    batch: Positive | None = None
    precision: PrecisionName | None = None
    chunk_tokens: Annotated[int, Field(ge=16, le=1_000_000)] | None = None


class _StatedPlan(Part):
    plan: Annotated[tuple[StatedDeployment, ...], Field(min_length=1)]


def stated_plan(problem: SizingProblem, tables: Sequence[Any]) -> Plan:
    """Return the plan that a problem's ``[[plan]]`` tables state.

    Each deployment stands on the cheapest offer that admits it; its rate is the highest
    at which the class's targets hold, or where they never do that of saturation.

    Raises
    ------
    GenzSizeError
        If a table is wrong, names what does not exist, or what cannot be deployed.
    """
    try:
        stated = _StatedPlan.model_validate({"plan": tables})
    except ValidationError as error:
        raise ProblemError(messages(error, _StatedPlan)) from None
    for traffic in problem.traffic:
        if all(_class_of(problem, row).name != traffic.name for row in stated.plan):
            raise ProblemError(f"plan: no deployment serves {traffic.name}")
    available = offers(problem)
    rows, standing = [], {}
    for number, row in enumerate(stated.plan):
        try:
            offer, planned = _placed(problem, row, available)
        except GenzSizeError as error:
            raise ProblemError(f"plan.{number}: {error}") from None
        standing[offer.key] = offer
        rows.append(planned)
    plan = bought(problem, rows, standing)
    return _with_rates(problem, plan)


def _class_of(problem: SizingProblem, row: StatedDeployment) -> TrafficClass:
    """Return the class that a row serves."""
    classes = {traffic.name: traffic for traffic in problem.traffic}
    if row.traffic is None and len(classes) == 1:
        return problem.traffic[0]
    if row.traffic not in classes:
        given = (
            "required, as there are several classes"
            if row.traffic is None
            else (f"there is no class '{row.traffic}'{nearest(row.traffic, classes)}")
        )
        raise ProblemError(f"plan.traffic: {given}")
    return classes[row.traffic]


def _placed(
    problem: SizingProblem, row: StatedDeployment, available: Sequence[Offer]
) -> tuple[Offer, PlannedDeployment]:
    """Return a row on the cheapest offer that admits it; its rate is not known yet."""
    traffic, npu = _class_of(problem, row), catalogue.load_npu(row.npu)
    model = problem.model_of(traffic)
    arch = catalogue.load_model(model)
    split = Parallelism(row.tp, row.pp, row.ep, row.dp, row.cp)
    problem.optimisations.check(arch, split)
    own = problem.formats(model)[0].name
    precision = Precision.of(row.precision or own)
    if not npu.computes(precision):
        raise ProblemError(f"precision: {npu.name} computes no {precision.name}")
    fitting = [o for o in available if o.npu.name == npu.name and o.admits(split)]
    if not fitting:
        raise ProblemError(
            f"npu: no price of {npu.name} admits {split.text}; give one "
            "(prices.given), or widen hardware.npus"
        )
    npus = int(split.npus)
    planned = PlannedDeployment(
        traffic=traffic.name,
        model=traffic.model,
        npu=npu.name,
        mode=row.mode,
        pair=row.pair,
        **split.degrees,
        batch=row.batch or problem.max_num_seqs or MAX_SEQUENCES,
        rate=_UNKNOWN,
        mean_batch=0.0 if row.mode == "prefill" else _UNKNOWN,
        chunk_tokens=row.chunk_tokens or problem.chunk_tokens or DEFAULT_CHUNK_TOKENS,
        precision=precision.name,
        replicas=row.replicas,
        npus=npus * row.replicas,
        nodes=1,
        usd_per_hour=0.0,
        offer=fitting[0].key,
    )
    return fitting[0], planned


def bought(
    problem: SizingProblem,
    rows: Sequence[PlannedDeployment],
    standing: Mapping[str, Offer],
) -> Plan:
    """Return the plan of some rows, with what they stand on."""
    purchases, shared = [], {}
    for key, offer in standing.items():
        own = [row for row in rows if row.offer == key]
        purchase = purchase_of(offer, [(r.npus_per_replica, r.replicas) for r in own])
        room = sum(offer.slot(r.npus_per_replica) * r.replicas for r in own)
        purchases.append(purchase)
        shared[key] = (offer, purchase, room)
    try:
        return Plan(
            model=problem.model,
            optimisations=problem.optimisations,
            kv_bandwidth=problem.kv_bandwidth,
            confidence=problem.confidence,
            framework=problem.framework,
            deployments=tuple(share_of(row, *shared[row.offer]) for row in rows),
            purchases=tuple(purchases),
        )
    except ValidationError as error:
        raise ProblemError(f"plan: {messages(error, Plan)}") from None


def _with_rates(problem: SizingProblem, plan: Plan) -> Plan:
    """Return a plan with the rates that the targets of its classes allow."""
    rows: list[PlannedDeployment] = []
    for traffic in problem.traffic:
        for row in plan.of_class(traffic.name):
            _check_room(plan, row, traffic)
        for row in plan.aggregated(traffic.name):
            station = Station.of(plan, row, traffic)
            rate = _highest_rate([(station, 1.0)])
            batch = station.mean_batch(rate)
            rows.append(row.model_copy(update={"rate": rate, "mean_batch": batch}))
        for pair in plan.pairs(traffic.name):
            if traffic.kept_whole:
                raise ProblemError(
                    f"plan: {traffic.name} has {traffic.kept_whole}, which is not "
                    "disaggregated"
                )
            rows += _with_pair_rates(plan, pair, traffic)
    return plan.model_copy(update={"deployments": tuple(rows)})


def _with_pair_rates(
    plan: Plan, pair: PlannedPair, traffic: TrafficClass
) -> list[PlannedDeployment]:
    """Return a pair's rows with the rates that targets allow on every route.

    Requests are dealt to the deployments of a pool by what saturates them.
    """
    weighted = PlannedPair(
        *(
            tuple(_saturated(plan, row, traffic) for row in pool)
            for pool in (pair.prefill, pair.decode)
        )
    )
    stations = [
        (PairStation.of(plan, weighted, route, traffic), weighted.share(*route))
        for route in weighted.routes
    ]
    rate = _highest_rate(stations)
    loaded = PlannedPair(
        *(
            tuple(
                row.model_copy(
                    update={"rate": rate * weighted.share(row) / row.replicas}
                )
                for row in pool
            )
            for pool in (weighted.prefill, weighted.decode)
        )
    )
    return list(with_batches(plan, loaded, traffic))


def _saturated(
    plan: Plan, row: PlannedDeployment, traffic: TrafficClass
) -> PlannedDeployment:
    """Return a pool's row with the rate of a replica that saturates it."""
    engine = planned_engine(plan, row, traffic)
    saturation = saturation_rate if row.mode == "prefill" else decode_saturation_rate
    rate = row.dp * float(saturation(engine, profile_of(row, traffic)))
    return row.model_copy(update={"rate": rate})


def _check_room(plan: Plan, row: PlannedDeployment, traffic: TrafficClass) -> None:
    """Raise `ProblemError` if a replica's cache does not hold a long request."""
    kept = float(planned_engine(plan, row, traffic).cache_tokens)
    longest = profile_of(row, traffic).longest
    if kept < longest:
        raise ProblemError(
            f"plan: {row.npu} {row.parallelism.text} has room for {kept:,.0f} tokens "
            f"of cache, and requests of {traffic.name} have up to {longest:,.0f}"
        )


def _highest_rate(stations: Sequence[tuple[QueueStation, float]]) -> float:
    """Return the highest rate at which all targets hold; saturation if none does.

    Parameters
    ----------
    stations
        With the share of the rate that each gets.
    """
    most = _MOST_LOAD * min(s.saturation / share for s, share in stations)

    def holds(rate: float) -> bool:
        return all(_holds(station, rate * share) for station, share in stations)

    low, high = 0.0, most
    if holds(high):
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low if low > _LEAST_LOAD * most else most


def _holds(station: QueueStation, rate: float) -> bool:
    targets = station.traffic.sized_targets
    return bool(np.all(station.laws(rate).stable)) and all(
        station.excess(target, rate) <= 0.0 for target in targets
    )
