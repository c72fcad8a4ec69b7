"""What the rows of a candidates table may stand on, and what that costs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from model_ops.errors import CatalogueError, ProblemError
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.npu import Npu
from problems import catalogue
from problems.catalogue.schema import Price
from problems.given.rows import FIELD, PRICE, Row
from problems.offers import (
    GIVEN,
    OWNED,
    Offer,
    check_quotas,
    given_offer,
    offers_of,
    owned_offers,
    scaled,
)
from problems.problem import SizingProblem

TABLE = "table"
"""Provider of a price that the table gives."""

UNPRICED = "unpriced"
"""Provider of what nobody gives a price for."""

_LOSES_TIES = 1_000.0
"""USD per hour and NPU that break ties against what has no price."""


@dataclass(frozen=True, slots=True)
class Market:
    """Offers, and which of them each row may stand on by its size.

    Parameters
    ----------
    offers
        Every one of use.
    standing
        Places in `offers`, by the row's name.
    """

    offers: tuple[Offer, ...]
    standing: Mapping[str, tuple[int, ...]]


def market_of(problem: SizingProblem, rows: Sequence[Row]) -> Market:
    """Return what rows may stand on: what is there already, and what is for rent.

    A price that the problem gives counts before the row's own, and that before the
    catalogue's. A replica stays within a host or fills hosts whole.

    Raises
    ------
    ProblemError
        If money is asked about and a row has no price, or a quota counts nothing.
    """
    check_quotas(problem.limits.quota, (GIVEN, OWNED, TABLE, UNPRICED))
    offers: list[Offer] = []
    place: dict[str, int] = {}
    standing: dict[str, tuple[int, ...]] = {}
    by_kind: dict[tuple[str, float | None], list[Offer]] = {}
    for row in rows:
        own = None if row.usd_per_hour is None else row.usd_per_hour / row.npus
        if (row.npu, own) not in by_kind:
            by_kind[row.npu, own] = _offers_of(problem, row, own)
        stands = [offer for offer in by_kind[row.npu, own] if _holds(offer, row)]
        for offer in stands:
            if offer.key not in place:
                place[offer.key] = len(offers)
                offers.append(offer)
        standing[row.name] = tuple(place[offer.key] for offer in stands)
    return Market(tuple(offers), standing)


def check_usable(problem: SizingProblem, rows: Sequence[Row], market: Market) -> None:
    """Raise `ProblemError` if no row stands on anything of use to a problem."""
    if any(usable(problem, offer) for offer in market.offers):
        return
    types = ", ".join(dict.fromkeys(row.npu for row in rows))
    unknown = [f"nobody knows its {what}" for what in _asked_about(problem)]
    reasons = ", or ".join([*unknown, "no instance is large enough for a replica"])
    raise ProblemError(f"{FIELD}: no row can be had of {types}: {reasons}")


def usable(problem: SizingProblem, offer: Offer) -> bool:
    """Return whether all is known of an offer's NPU that a problem asks about."""
    return not _missing(problem, offer.npu)


def left_out(problem: SizingProblem, npus: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each NPU of which something is not known that a problem asks about.

    And what.
    """
    for npu in npus:
        missing = _missing(problem, _npu(npu))
        if missing:
            yield npu, " and ".join(missing)


def _missing(problem: SizingProblem, npu: Npu) -> list[str]:
    """Return what a problem asks about that is not known of an NPU."""
    known = {"power": npu.power is not None, "servers": _is_known(npu)}
    return [what for what in _asked_about(problem) if not known[what]]


def _asked_about(problem: SizingProblem) -> Iterator[str]:
    """Yield what must be known of every NPU that a plan uses."""
    limits = problem.limits
    if problem.objective == "power" or limits.power is not None:
        yield "power"
    counted = limits.nodes is not None or limits.racks is not None
    if counted or problem.redundancy.domains:
        yield "servers"


def _offers_of(problem: SizingProblem, row: Row, own: float | None) -> list[Offer]:
    """Return the offers of a row's NPU; `own` is the row's price per NPU."""
    npu = _npu(row.npu)
    return [
        *owned_offers(npu, problem.owned),
        *_rented(problem, row, npu, own),
    ]


def _rented(
    problem: SizingProblem, row: Row, npu: Npu, own: float | None
) -> list[Offer]:
    for price in problem.prices.given:
        if price.npu == row.npu:
            return [given_offer(npu, price)]
    factor = problem.prices.factor(row.npu, problem.names)
    if own is not None:
        return [scaled(_own_offer(npu, TABLE, own), factor)]
    known = row.npu in catalogue.names("npus")
    at = {"given": (), "factors": {row.npu: factor}}
    prices = problem.prices.model_copy(update=at)
    found = offers_of(npu, prices, problem.limits.quota) if known else []
    if found:
        return found
    if problem.objective != "cost" and problem.limits.usd_per_hour is None:
        return [_own_offer(npu, UNPRICED, _LOSES_TIES)]
    if owned_offers(npu, problem.owned):
        return []
    raise ProblemError(
        f"{FIELD}: line {row.line}, column npu: {_unpriced(row.npu)}; give the column "
        f"{PRICE}, or --price '{row.npu}=2 USD/h', or --exclude it, or --minimize npus"
    )


def _unpriced(npu: str) -> str:
    if npu in catalogue.names("npus"):
        return f"no price for {npu} passes the filters"
    try:
        catalogue.canonical("npus", npu)
    except CatalogueError as error:
        return str(error)
    return npu


def _own_offer(npu: Npu, provider: str, usd_per_npu: float) -> Offer:
    """Return an offer that rents NPUs of a node one by one."""
    price = Price(
        npu=npu.name,
        instance=f"{usd_per_npu:.10g} USD/h per NPU" if provider == TABLE else "NPU",
        term="on_demand",
        npus=1,
        whole_instance=False,
        usd_per_hour=usd_per_npu,
        as_of="as given",
        confidence="high",
        source=f"column {PRICE} of the table"
        if provider == TABLE
        else "no price given",
    )
    return Offer(npu, provider, price)


@cache
def _npu(name: str) -> Npu:
    """Return an NPU; of one that the catalogue does not have only the name is known."""
    if name in catalogue.names("npus"):
        return catalogue.load_npu(name)
    alone = Fabric((Tier("unknown", 1, math.nan, math.nan),))
    return Npu(
        name=name,
        flop_per_s={},
        memory_bandwidth=math.nan,
        memory_capacity=math.nan,
        node_npus=1,
        fabric=alone,
    )


def is_known(offer: Offer) -> bool:
    """Return whether the catalogue knows an offer's NPU, and so its node and power."""
    return _is_known(offer.npu)


def _is_known(npu: Npu) -> bool:
    return bool(npu.flop_per_s)


def _holds(offer: Offer, row: Row) -> bool:
    """Return whether a replica fits within hosts, or may fill several whole."""
    part_of_node = offer.whole and offer.host_npus < offer.npu.node_npus
    return row.npus <= offer.host_npus or not part_of_node
