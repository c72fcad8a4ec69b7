"""What the two pools of a disaggregated pair agree on, so that each is chosen alone.

A prefill pool and a decode pool meet in the caches that travel between them, and in
E2E targets. `lanes` enumerates a few `Terms` on both, under which each pool's
candidates are what they are whatever the other pool is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.units import BytesPerSecond, Seconds
from problems.plan import Mode
from problems.traffic import TrafficClass
from solver.pool_table import Pools, PoolTable, Terms
from solver.table import Flags, Floats, Indices

RUNGS = ((0.01, 0.5), (0.05, 0.7), (0.25, 0.9))
"""Of the time that an answer may take, the share in which a mean prompt's cache
travels; and the share of the time in which the links may carry caches then."""

FIRST_SHARES = (0.1, 0.25, 0.5)
"""Of an E2E target, the shares that the mean time to first token may take."""

_LEAST_STEP, _STEP = 1.1, 2.0
"""Sizes of caches that are told apart, over the least: 1.1, 2.2, 4.4 and so on."""

_ENDLESS: Seconds = 1e9
"""Of an answer for which no target asks."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Lane:
    """Terms under which pools of several precisions, of one format of the cache, meet.

    Parameters
    ----------
    terms
        What both keep to.
    prefill, decode
        What the links take of each deployment's group, in requests per second; per
        precision, shaped [option]; 0 where a deployment cannot keep to the terms.
    """

    terms: Terms
    prefill: tuple[Floats, ...]
    decode: tuple[Floats, ...]

    def tables(self, pools: Sequence[Pools], mode: Mode) -> Iterator[PoolTable]:
        """Yield the tables of one pool, per precision, under these terms."""
        for each, prefill, decode in zip(pools, self.prefill, self.decode, strict=True):
            ceiling = prefill if mode == "prefill" else decode
            yield each.pool(mode).under(self.terms, ceiling)

    def among(self, prefill: Sequence[Flags], decode: Sequence[Flags]) -> "Lane":
        """Return the lane for some deployments; flags shaped as the ceilings."""
        return Lane(
            self.terms,
            tuple(
                np.where(k, c, 0.0) for k, c in zip(prefill, self.prefill, strict=True)
            ),
            tuple(
                np.where(k, c, 0.0) for k, c in zip(decode, self.decode, strict=True)
            ),
        )

    @property
    def is_empty(self) -> bool:
        """Whether it has no prefill deployment, or no decode deployment."""
        sides = (self.prefill, self.decode)
        return not all(any(np.any(each > 0) for each in side) for side in sides)

    def covers(self, other: "Lane") -> bool:
        """Return whether all that another lane allows is possible here."""
        mine, theirs = ((*lane.prefill, *lane.decode) for lane in (self, other))
        return (
            self.terms.first == other.terms.first
            and self.terms.per_token <= other.terms.per_token
            and all(bool(np.all(m >= t)) for m, t in zip(mine, theirs, strict=True))
        )


Useful = Mapping[Mode, Sequence[Flags]]
"""Which deployments of each pool are of use; per precision, shaped [option]."""


def lanes(
    pools: Sequence[Pools], bandwidth: BytesPerSecond | None, useful: Useful
) -> list[Lane]:
    """Return the lanes of a class's pools that no other covers.

    NPUs of a type meet others from the first rung on that leaves out none of the type's
    deployments, or else on the last one.

    Parameters
    ----------
    pools
        Of one class and format of the cache, per precision.
    bandwidth
        What transfers reach; None: what each NPU's slowest links do.
    useful
        Deployments to which lanes are limited.
    """
    kept: list[Lane] = []
    for lane in _all_lanes(pools, bandwidth, useful):
        if not lane.is_empty and not any(other.covers(lane) for other in kept):
            kept.append(lane)
    return kept


def _all_lanes(
    pools: Sequence[Pools], bandwidth: BytesPerSecond | None, useful: Useful
) -> Iterator[Lane]:
    """Yield all lanes, those first that are likely to cover others."""
    sizes = _sizes(pools, useful["decode"])
    links = [each.links(bandwidth) for each in pools]
    reach = [np.array([link for link, _ in each]) for each in links]
    for first in _firsts(pools[0].traffic):
        terms = _rungs(pools, max(late for each in links for _, late in each), first)
        whole = [_lane(pools, reach, sizes[0], each) for each in terms]
        rung = _rung_of_types(pools, whole, useful)
        for number, each in enumerate(terms):
            here = {
                mode: [
                    kept & (some[pool.pool(mode).npu_of] <= number)
                    for pool, some, kept in zip(pools, rung, flags, strict=True)
                ]
                for mode, flags in useful.items()
            }
            for size in sizes:
                lane = _lane(pools, reach, size, each)
                yield lane.among(here["prefill"], here["decode"])


def _rungs(
    pools: Sequence[Pools], latency: Seconds, first: Seconds | None
) -> list[Terms]:
    """Return the terms that are tried, the strictest first."""
    answer = _answer_time(pools[0].traffic)
    tokens = pools[0].prefill.profile.prompt.mean
    tried = RUNGS if answer < _ENDLESS else RUNGS[-1:]
    return [
        Terms((share * answer - latency) / tokens, latency, load, first)
        for share, load in tried
        if share * answer > latency
    ]


def _rung_of_types(
    pools: Sequence[Pools], rungs: Sequence[Lane], useful: Useful
) -> list[Indices]:
    """Return the rung from which on NPUs of each type meet others; [npu] each."""
    names = {npu.name for each in pools for npu in each.prefill.npus}
    found = dict.fromkeys(names, len(rungs) - 1)
    for number, lane in reversed(list(enumerate(rungs))):
        left_out: set[str] = set()
        both: dict[Mode, Sequence[Floats]]
        both = {"prefill": lane.prefill, "decode": lane.decode}
        for mode, ceilings in both.items():
            for each, ceiling, some in zip(pools, ceilings, useful[mode], strict=True):
                table = each.pool(mode)
                out = np.unique(table.npu_of[(ceiling == 0.0) & some])
                left_out |= {table.npus[npu].name for npu in out.tolist()}
        found |= dict.fromkeys(names - left_out, number)
    return [np.array([found[npu.name] for npu in each.prefill.npus]) for each in pools]


def _answer_time(traffic: TrafficClass) -> Seconds:
    """Return the least that targets let the whole of an answer take."""
    whole = {"tpot": float(traffic.shape.decode_steps), "e2e": 1.0}
    asked = [
        whole[t.metric] * t.at_most for t in traffic.sized_targets if t.metric in whole
    ]
    return min(asked, default=_ENDLESS)


def _firsts(traffic: TrafficClass) -> list[Seconds | None]:
    """Return the mean times to first token that are tried, if E2E asks for it."""
    e2e = [t.at_most for t in traffic.sized_targets if t.metric == "e2e"]
    return [share * min(e2e) for share in FIRST_SHARES] if e2e else [None]


def _sizes(pools: Sequence[Pools], useful: Sequence[Flags]) -> list[float]:
    """Return bytes per prompt token that all NPUs of a decode group get, largest first.

    Each stands for all that are smaller.
    """
    every = np.concatenate(
        [
            (p.sent * p.decode.npus_per_group)[some]
            for p, some in zip(pools, useful, strict=True)
        ]
    )
    sizes = [_LEAST_STEP * float(every.min(initial=np.inf))]
    while sizes[-1] < every.max(initial=0.0):
        sizes.append(_STEP * sizes[-1])
    return sizes[::-1]


def _lane(
    pools: Sequence[Pools], links: Sequence[Floats], size: float, terms: Terms
) -> Lane:
    """Return what links take of each deployment whose groups get so many bytes.

    Parameters
    ----------
    links
        Bytes per second of an NPU's link; per precision, shaped [npu].
    size
        Bytes per prompt token that all NPUs of a decode group get together, at most.
    """
    tokens = pools[0].prefill.profile.prompt.mean
    alone = (1.0 - terms.load) * terms.per_token
    prefill, decode = [], []
    for each, link in zip(pools, links, strict=True):
        own = link[each.prefill.npu_of] * each.prefill.npus_per_group
        able, most = alone * own >= size, terms.load * own / (tokens * size)
        prefill.append(_ceiling(able, most, each.prefill.most))
        own = link[each.decode.npu_of]
        whole = each.sent * each.decode.npus_per_group
        able = (whole <= size * (1 + _ROUNDING)) & (alone * own >= each.sent)
        most = terms.load * own / (tokens * each.sent)
        decode.append(_ceiling(able, most, each.decode.most))
    return Lane(terms, tuple(prefill), tuple(decode))


def _ceiling(able: Flags, links: Floats, most: Floats) -> Floats:
    """Return what links take; infinity where the replicas take no more than that."""
    return np.where(able, np.where(links >= most, np.inf, links), 0.0)
