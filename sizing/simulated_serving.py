"""What becomes of the requests that are sent to a plan's deployments.

Routes through one disaggregated pair share its replicas, and are simulated together.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_ops.serving.engine import Engine
from model_ops.serving.lengths import Floats
from model_ops.serving.simulation import Router, simulate, simulate_routes
from model_ops.serving.trace import Tokens, Trace
from model_ops.serving.transfer import Transfer
from problems.pair_stations import PairStation
from sizing.simulated_traffic import Place, Requests

Indices = npt.NDArray[np.intp]


def served_by(
    places: Sequence[Place],
    asked: Sequence[Requests],
    router: Router,
    rng: np.random.Generator,
) -> list[tuple[Trace, Trace]]:
    """Return what becomes of the requests of a class's places.

    Of each its own requests, and all that its replicas serve.
    """
    found: dict[int, tuple[Trace, Trace]] = {}
    for numbers in _together(places):
        own, sent = [places[n] for n in numbers], [asked[n] for n in numbers]
        seed = int(rng.integers(2**31))
        whole, route = _served(own, sent, router, seed)
        for n, number in enumerate(numbers):
            found[number] = (whole.some(route == n), whole)
    return [found[number] for number in range(len(places))]


def _together(places: Sequence[Place]) -> list[list[int]]:
    """Return the places that share replicas, by their indices."""
    groups: dict[Hashable, list[int]] = {}
    for number, place in enumerate(places):
        pair = place.served.pair
        groups.setdefault(number if pair is None else pair, []).append(number)
    return list(groups.values())


def _served(
    places: Sequence[Place], asked: Sequence[Requests], router: Router, seed: int
) -> tuple[Trace, Indices]:
    """Return what becomes of requests, and which place each belongs to.

    One that gains g tokens per step decodes in (output - 1) / g steps, rounded up.
    """
    place, station = places[0], places[0].station
    of = np.repeat(np.arange(len(places)), [each.prompt.size for each in asked])
    arrival, prompt, output = (
        np.concatenate([getattr(each, name) for each in asked])
        for name in ("arrival", "prompt", "output")
    )
    gained = np.array([each.station.tokens_per_step for each in places])[of]
    steps = np.ceil((output - 1) / gained - 1e-9)
    cached = np.rint(place.traffic.profile.cached_share * prompt)
    load, reused = (arrival, prompt, 1 + steps), np.minimum(cached, prompt - 1)
    if isinstance(station, PairStation):
        trace = _served_by_pair(places, of, load, reused, router, seed)
        return replace(trace, output=output), of
    users = place.queues * place.load if place.traffic.is_closed else 0.0
    trace = simulate(
        replace(station.engine, tokens_per_step=1.0),
        *load,
        reused=reused,
        replicas=place.queues,
        router=router,
        users=max(1, round(users)) if users else 0,
        seed=seed,
    )
    return replace(trace, output=output), of


def _served_by_pair(
    places: Sequence[Place],
    of: Indices,
    load: tuple[Floats, Tokens, Floats],
    reused: Floats,
    router: Router,
    seed: int,
) -> Trace:
    """Return what the simulated parts of a pair do, at the transfers of its load."""
    ways = {place.served.rows: _way(place) for place in places}
    reads, answers = (
        {rows[end]: way.ends[end] for rows, way in ways.items()} for end in (0, 1)
    )
    first, further = list(reads), list(answers)
    moved = [[ways[row, other].moved for other in further] for row in first]
    routes = [(first.index(row), further.index(other)) for row, other in ways]
    return simulate_routes(
        list(reads.values()),
        list(answers.values()),
        *load,
        routes=np.array(routes)[of],
        reused=reused,
        transfer_per_token=[[each.per_token for each in row] for row in moved],
        transfer_latency=[[each.latency for each in row] for row in moved],
        router=router,
        seed=seed,
    )


class _Way(NamedTuple):
    """The pools at both ends of a route, engines and replicas, and its transfers."""

    ends: tuple[tuple[Engine, int], tuple[Engine, int]]
    moved: Transfer


def _way(place: Place) -> _Way:
    assert isinstance(place.station, PairStation)
    pair = place.station.pair
    reads, answers = (
        (
            replace(pool.engine, tokens_per_step=1.0),
            pool.queues * place.queues // place.all_queues,
        )
        for pool in (pair.prefill, pair.decode)
    )
    return _Way((reads, answers), pair.transfer(place.load * place.all_queues))
