"""What the rows of a candidates table may stand on, and what that costs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from model_ops.errors import CatalogueError, ProblemError
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.npu import Npu
from problems import catalogue
from problems.catalogue.schema import Price
from problems.given.rows import FIELD, PRICE, Row
from problems.offers import GIVEN, Offer, check_quotas, given_offer, offers_of
from problems.problem import SizingProblem

TABLE = "table"
"""Provider of a price that the table gives."""

UNPRICED = "unpriced"
"""Provider of what nobody gives a price for."""

_LOSES_TIES = 1_000.0
"""USD per hour and NPU that break ties against what has no price."""


@dataclass(frozen=True, slots=True)
class Market:
    """Offers, and which of them each row may stand on.

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
    """Return what rows may stand on.

    A price that the problem gives counts before the row's own, and that before the
    catalogue's. A replica stays within a host or fills hosts whole.

    Raises
    ------
    ProblemError
        If money is asked about and a row has no price, no row can be had, or a quota
        counts nothing.
    """
    check_quotas(problem.limits.quota, (GIVEN, TABLE, UNPRICED))
    offers: list[Offer] = []
    place: dict[str, int] = {}
    standing: dict[str, tuple[int, ...]] = {}
    by_kind: dict[tuple[str, float | None], list[Offer]] = {}
    for row in rows:
        own = None if row.usd_per_hour is None else row.usd_per_hour / row.npus
        if (row.npu, own) not in by_kind:
            by_kind[row.npu, own] = _offers_of(problem, row, own)
        stands = [o for o in by_kind[row.npu, own] if _admits(problem, o, row)]
        for offer in stands:
            if offer.key not in place:
                place[offer.key] = len(offers)
                offers.append(offer)
        standing[row.name] = tuple(place[offer.key] for offer in stands)
    if not offers:
        raise ProblemError(_nothing(problem, rows))
    return Market(tuple(offers), standing)


def _offers_of_type(problem: SizingProblem, npu: str) -> list[Offer]:
    """Return what an NPU type costs by the problem's prices or the catalogue's."""
    for price in problem.prices.given:
        if price.npu == npu:
            return [given_offer(_npu(npu), price)]
    if npu not in catalogue.names("npus"):
        return []
    return offers_of(
        _npu(npu), problem.prices.model_copy(update={"given": ()}), problem.limits.quota
    )


def _offers_of(problem: SizingProblem, row: Row, own: float | None) -> list[Offer]:
    """Return the offers of a row's NPU; `own` is the row's price per NPU."""
    given = any(price.npu == row.npu for price in problem.prices.given)
    if own is not None and not given:
        return [_own_offer(row.npu, TABLE, own)]
    of_type = _offers_of_type(problem, row.npu)
    if of_type:
        return of_type
    in_money = problem.objective == "cost" or problem.limits.usd_per_hour is not None
    if in_money:
        raise ProblemError(
            f"{FIELD}: line {row.line}, column npu: {_unpriced(row.npu)}; give the "
            f"column {PRICE}, or --price '{row.npu}=2 USD/h', or --exclude it, or "
            "--minimize npus"
        )
    return [_own_offer(row.npu, UNPRICED, _LOSES_TIES)]


def _unpriced(npu: str) -> str:
    if npu in catalogue.names("npus"):
        return f"no price for {npu} passes the filters"
    try:
        catalogue.canonical("npus", npu)
    except CatalogueError as error:
        return str(error)
    return npu


def _own_offer(npu: str, provider: str, usd_per_npu: float) -> Offer:
    """Return an offer that rents NPUs of a node one by one."""
    price = Price(
        npu=npu,
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
    return Offer(_npu(npu), provider, price)


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
    return bool(offer.npu.flop_per_s)


def _admits(problem: SizingProblem, offer: Offer, row: Row) -> bool:
    needs_power = problem.objective == "power" or problem.limits.power is not None
    if needs_power and offer.npu.power is None:
        return False
    if problem.limits.nodes is not None and not is_known(offer):
        return False
    part_of_node = offer.whole and offer.host_npus < offer.npu.node_npus
    return row.npus <= offer.host_npus or not part_of_node


def _nothing(problem: SizingProblem, rows: Sequence[Row]) -> str:
    """Return why no row can be had, in words."""
    types = ", ".join(dict.fromkeys(row.npu for row in rows))
    reasons = list(_reasons(problem))
    return f"{FIELD}: no row can be had: {' or '.join(reasons)} of {types}"


def _reasons(problem: SizingProblem) -> Iterator[str]:
    if problem.objective == "power" or problem.limits.power is not None:
        yield "nobody publishes the power"
    if problem.limits.nodes is not None:
        yield "nobody knows the servers"
    yield "no instance is large enough for a replica"
