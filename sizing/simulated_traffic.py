"""The requests that are sent to a plan's deployments, and which of them count.

The requests of a class come in one stream, which is dealt to its deployments in
proportion to what they can take; behind one router, each data-parallel group of each
replica is a queue of its own. Groups step independently here: that those of a replica
wait for each other is in their step times alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model_ops.errors import ProblemError
from model_ops.serving.lengths import Floats
from model_ops.serving.simulation import (
    arrivals,
)
from model_ops.serving.trace import Tokens, Trace
from problems.pair_stations import PairStation
from problems.plan import Plan
from problems.problem import SizingProblem
from problems.serve import Served, served
from problems.stations import Station
from problems.traffic import TrafficClass

MOST_QUEUES = 256
"""Queues simulated behind one router; more of them hardly share the load better."""

_TURNOVER = 6.0
"""Requests of a run per request in flight; below, fewer queues are simulated."""
_WARM_UP, _WARM_UP_TURNS, _LONGEST_WARM_UP = 0.1, 3.0, 0.5
"""Share of the first requests that do not count: as many as are in flight thrice."""
_LONGEST_END = 0.2
"""Share of the last ones that do not, at most: while they finish, queues run empty."""


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment as it is simulated.

    Parameters
    ----------
    traffic, served, station
        The class, the deployment or route at its share of the demand, and one of its
        queues.
    queues
        Data-parallel groups of its replicas that are simulated; of a route the alike
        parts that its disaggregated pair could be split into.
    load
        Of each of them: requests per second, or users in a closed loop.
    """

    traffic: TrafficClass
    served: Served
    station: Station | PairStation
    queues: int
    load: float

    @property
    def all_queues(self) -> int:
        """Data-parallel groups of all its replicas, or parts of its pair."""
        return self.served.stations * self.station.groups

    @property
    def in_flight(self) -> float:
        """Requests in a queue on average, as predicted, and no more than may run."""
        most = self.station.places
        if self.traffic.is_closed:
            return self.load
        rate = self.load * self.station.groups
        return min(self.station.in_flight(rate) / self.station.groups, 2 * most)


def places_of(
    problem: SizingProblem, plan: Plan, traffic: TrafficClass, requests: int
) -> list[Place]:
    """Return a class's deployments, with as many queues as so many requests fill."""
    all_of_them = []
    for each in served(problem, plan, traffic):
        station = each.station(plan, traffic)
        stated = each.load.concurrency if traffic.is_closed else each.load.rate
        load = float(stated) / station.groups
        place = Place(traffic, each, station, 0, load)
        all_of_them.append(replace(place, queues=place.all_queues))
    filling = _TURNOVER * sum(place.in_flight * place.queues for place in all_of_them)
    queues = sum(place.queues for place in all_of_them)
    share = min(1.0, requests / filling, MOST_QUEUES / queues)
    return [replace(p, queues=max(1, int(p.queues * share))) for p in all_of_them]


@dataclass(frozen=True, slots=True)
class Requests:
    """What is sent to a deployment: seconds and tokens, shaped [request]."""

    arrival: Floats
    prompt: Tokens
    output: Tokens

    def some(self, which: npt.NDArray[np.bool_]) -> "Requests":
        """Return those that are asked for."""
        return Requests(self.arrival[which], self.prompt[which], self.output[which])


def sent(
    places: Sequence[Place], requests: int, rng: np.random.Generator
) -> list[Requests]:
    """Return what each of a class's deployments gets of so many requests.

    Raises
    ------
    ProblemError
        If there are fewer requests than deployments.
    """
    traffic = places[0].traffic
    loads = np.array([place.queues * place.load for place in places])
    if traffic.is_closed:
        shares = np.maximum(1, np.rint(requests * loads / loads.sum()))
        return [_drawn(traffic, int(n), np.zeros(int(n)), rng) for n in shares]
    if traffic.is_replayed:
        stream = _replayed(traffic, requests)
        dealt = loads / traffic.demand(headroom=0.0)
    else:
        variation = math.sqrt(traffic.arrival_variation)
        times = arrivals(rng, requests, float(loads.sum()), variation)
        stream, dealt = _drawn(traffic, requests, times, rng), loads / loads.sum()
    # What is beyond the simulated queues' share goes to the others, which are alike.
    to = np.searchsorted(np.cumsum(dealt), rng.random(stream.prompt.size))
    if abs(dealt.sum() - 1.0) < 1e-9:
        to = np.minimum(to, len(places) - 1)
    if to.size < len(places):
        raise ProblemError(f"traffic.{traffic.name}: fewer requests than deployments")
    none = np.setdiff1d(np.arange(len(places)), to)
    to[: none.size] = none
    return [stream.some(to == number) for number in range(len(places))]


def _drawn(
    traffic: TrafficClass, count: int, times: Floats, rng: np.random.Generator
) -> Requests:
    """Return requests with random lengths; recorded prompts keep their answers."""
    recording = traffic.recording
    if recording is not None:
        rows = rng.integers(recording.prompt.size, size=count)
        return Requests(times, recording.prompt[rows], recording.output[rows])
    profile = traffic.profile
    prompt, output = (p.sample(rng, count) for p in (profile.prompt, profile.output))
    return Requests(times, prompt, output)


def _replayed(traffic: TrafficClass, requests: int) -> Requests:
    """Return a recording, or as many requests in a row of it as came the fastest."""
    recording = traffic.recording
    assert recording is not None
    assert recording.arrival is not None
    times, count = recording.arrival, min(requests, recording.arrival.size)
    start = int(np.argmin(times[count - 1 :] - times[: times.size - count + 1]))
    near = slice(start, start + count)
    return Requests(times[near], recording.prompt[near], recording.output[near])


def settled(place: Place, trace: Trace) -> Trace:
    """Return a trace without its beginning and end; a recording is whole as it is."""
    count = trace.arrival.size
    first, last = 0, count
    if not place.traffic.is_replayed:
        turns = place.in_flight * place.queues / count
        warm_up = min(max(_WARM_UP, _WARM_UP_TURNS * turns), _LONGEST_WARM_UP)
        first = int(count * warm_up)
        last = count - int(count * min(turns, _LONGEST_END))
    which = np.argsort(trace.arrival, kind="stable")[first:last]
    return trace.some(which)
