"""Offers: what an NPU costs, in which portions, under the problem's price terms."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache
from typing import Annotated

from pydantic import Field

from model_ops.errors import ProblemError, nearest
from model_ops.platform.npu import Npu
from model_ops.profiler.parallelism import Parallelism
from model_ops.units import UsdPerHour
from problems import catalogue
from problems.accuracy import assumed_npu
from problems.catalogue import Quote
from problems.catalogue.schema import CONFIDENCES, Price
from problems.fleet import Owned, Quota
from problems.problem import GivenPrice, Prices, SizingProblem

GIVEN = "given"
"""Provider of a price that the user states."""

OWNED = "owned"
"""Provider of what is there already."""


class OwnedPrice(Price):
    """What hardware costs that is there already; often nothing."""

    usd_per_hour: Annotated[UsdPerHour, Field(ge=0, le=1e6)]


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to rent an NPU type.

    Parameters
    ----------
    npu
        The NPU type.
    provider, price
        Who asks what, and since when.
    stock
        Portions there are: hosts where they are paid whole, else NPUs; None: as many
        as are wanted.
    """

    npu: Npu
    provider: str
    price: Price
    stock: int | None = None

    @property
    def whole(self) -> bool:
        """Whether hosts are paid whole (else NPUs are paid one by one)."""
        return self.price.whole_instance

    @property
    def host_npus(self) -> int:
        """NPUs of one host: the instance, or the node NPUs are rented from."""
        return self.price.npus if self.whole else self.npu.node_npus

    @property
    def nodes_per_host(self) -> int:
        """Servers that one host counts for; an instance may be a part of one."""
        return max(1, round(self.host_npus / self.npu.node_npus))

    @property
    def node_power(self) -> float | None:
        """Watts of one node, all-in; None where the vendor publishes none."""
        power = self.npu.power
        return None if power is None else power * self.npu.node_npus

    @property
    def usd_per_hour_per_npu(self) -> float:
        """Price of one NPU when the whole portion is used."""
        return self.price.usd_per_hour / self.price.npus

    @property
    def place(self) -> tuple[str, str]:
        """Where the hosts are: provider and region, which a network joins."""
        return self.provider, self.price.region

    @property
    def label(self) -> str:
        """Provider, instance and term, for reports."""
        return f"{self.provider} {self.price.instance}, {self.price.term}"

    @property
    def key(self) -> str:
        """What tells this offer from the problem's others."""
        price = self.price
        parts = (self.provider, price.instance, price.term, price.region)
        return "|".join((self.npu.name, *parts))

    def admits(self, split: Parallelism) -> bool:
        """Return whether a replica split so can stand on these hosts.

        Tensor parallel ranks stay within the fast fabric, as serving frameworks
        advise; data-parallel groups and pipeline stages may cross it. A replica stays
        within a host or fills hosts whole. An instance that is a part of a node shares
        no fast fabric with the next: a replica cannot span two.
        """
        if split.tp > self.npu.scale_up_npus:
            return False
        return _stands(int(split.npus), self.host_npus, self._may_span)

    @property
    def _may_span(self) -> bool:
        """Whether hosts are whole nodes, which a replica may fill several of."""
        return not self.whole or self.host_npus >= self.npu.node_npus

    @property
    def sizes(self) -> frozenset[int]:
        """NPUs of the replicas that may stand here, of those for which we compare."""
        return _sizes(self.host_npus, self._may_span)

    def slot(self, npus: int) -> int:
        """Return the NPUs of a host that a replica occupies.

        Within a host, the next power of two, as buddy allocators give it, so that
        replicas of any sizes pack without gaps; at most the whole host. A larger
        replica occupies hosts whole.
        """
        if npus >= self.host_npus:
            return -(-npus // self.host_npus) * self.host_npus
        return min(1 << (npus - 1).bit_length(), self.host_npus)

    def hosts_for(self, slots: Mapping[int, int]) -> int:
        """Return the hosts that replicas need, packed largest first.

        First fit decreasing is optimal for sizes that divide each other (E. G.
        Coffman, M. R. Garey and D. S. Johnson, "Bin packing with divisible item
        sizes", Journal of Complexity 3, 1987).

        Parameters
        ----------
        slots
            How many replicas take each size of slot.
        """
        hosts = 0
        free: Counter[int] = Counter()
        for slot, count in sorted(slots.items(), reverse=True):
            if slot >= self.host_npus:
                hosts += slot // self.host_npus * count
                continue
            for room in [room for room in free if room >= slot]:
                count = _fill(free, room, slot, count, free[room])
            opened = -(-count // (self.host_npus // slot))
            hosts += opened
            _fill(free, self.host_npus, slot, count, opened)
        return hosts

    def usd_per_hour(self, hosts: int, npus: int) -> float:
        """Return the cost of so many hosts of which so many NPUs are used."""
        if self.whole:
            return hosts * self.price.usd_per_hour
        return npus * self.price.usd_per_hour / self.price.npus

    def billed_npus(self, hosts: int, npus: int) -> int:
        """Return the NPUs that are paid for."""
        return hosts * self.host_npus if self.whole else npus


def _stands(npus: int, host_npus: int, may_span: bool) -> bool:
    return npus <= host_npus or (may_span and npus % host_npus == 0)


_SIZES = range(1, 129)
"""NPUs of a replica for which offers are compared."""


@cache
def _sizes(host_npus: int, may_span: bool) -> frozenset[int]:
    return frozenset(npus for npus in _SIZES if _stands(npus, host_npus, may_span))


def _fill(free: Counter[int], room: int, slot: int, count: int, hosts: int) -> int:
    """Put up to `count` slots on `hosts` hosts of equal room; return those left.

    `free` counts hosts by the room left on them, and is updated.
    """
    each = room // slot
    placed = min(count, each * hosts)
    full, rest = divmod(placed, each)
    free[room] = hosts - full - (rest > 0)
    free[room - each * slot] += full
    if rest:
        free[room - rest * slot] += 1
    return count - placed


def offers(problem: SizingProblem) -> list[Offer]:
    """Return the offers worth considering, cheapest per NPU first for each type.

    For each NPU and portion the cheapest price that matches the problem's terms,
    providers and regions; a price the user gives replaces the catalogue's.

    Raises
    ------
    ProblemError
        If no NPU that passes the hardware filter has a price, or a quota counts
        nothing.
    """
    check_quotas(problem.limits.quota, (GIVEN, OWNED))
    wanted = problem.hardware.names()
    found: list[Offer] = []
    for name in wanted:
        npu = assumed_npu(name, problem.confidence, problem.framework)
        found.extend(owned_offers(npu, problem.owned))
        found.extend(offers_of(npu, problem.prices, problem.limits.quota))
    if problem.objective == "power" or problem.limits.power is not None:
        known = [offer for offer in found if offer.npu.power is not None]
        if found and not known:
            names = tuple(dict.fromkeys(offer.npu.name for offer in found))
            raise ProblemError(f"power: none is published for {_some(names)}")
        found = known
    if not found:
        prices = problem.prices
        nowhere = [
            f"prices.{field}s: {said}"
            for field, patterns, known in (
                ("provider", prices.providers, _providers()),
                ("region", prices.regions, _regions()),
            )
            for said in _unmatched(field, patterns, known)
        ]
        if nowhere:
            raise ProblemError("; ".join(nowhere))
        raise ProblemError(
            f"prices: no price for {_some(wanted)} with terms "
            f"{', '.join(prices.terms)}, providers {', '.join(prices.providers)}, "
            f"regions {', '.join(prices.regions)}, confidence {prices.confidence}; "
            f"widen them, or give a price of your own (prices.given, --price)"
        )
    return found


def check_quotas(quotas: Sequence[Quota], others: Iterable[str]) -> None:
    """Refuse a quota of a region or provider that there is not.

    Parameters
    ----------
    others
        Providers beside the catalogue's.

    Raises
    ------
    ProblemError
        With the field, and the nearest that there are.
    """
    providers = _providers().union(others)
    for quota in quotas:
        for field, pattern, known in (
            ("region", quota.region, _regions()),
            ("provider", quota.provider, providers),
        ):
            for said in _unmatched(field, (pattern,), known):
                raise ProblemError(f"limits.quota.{field}: {said}")


def _providers() -> set[str]:
    return {quote.provider for quote in catalogue.load_quotes()}


def _regions() -> set[str]:
    return {quote.price.region for quote in catalogue.load_quotes()} - {""}


def offers_of(npu: Npu, prices: Prices, quotas: Sequence[Quota] = ()) -> list[Offer]:
    """Return an NPU's offers among prices, cheapest per NPU first; none if unpriced.

    Of those that the same quotas count.
    """
    for given in prices.given:
        if catalogue.canonical("npus", given.npu) == npu.name:
            return [given_offer(npu, given)]
    factor = prices.factor(npu.name)
    alike: dict[tuple[bool, ...], list[Quote]] = {}
    quotes = (q for q in catalogue.load_quotes() if q.price.npu == npu.name)
    for quote in _matching(prices, quotes):
        where = (npu.name, quote.price.region, quote.provider)
        counted = tuple(quota.covers(*where) for quota in quotas)
        alike.setdefault(counted, []).append(quote)
    found = [offer for group in alike.values() for offer in _cheapest(npu, group)]
    found.sort(key=lambda offer: offer.usd_per_hour_per_npu)
    return [scaled(offer, factor) for offer in found]


def scaled(offer: Offer, factor: float) -> Offer:
    """Return an offer at a share of its price, which its source then says."""
    if factor == 1.0:
        return offer
    price = offer.price
    changes = {
        "usd_per_hour": price.usd_per_hour * factor,
        "source": f"{price.source}; times {factor:g}, as the problem states",
    }
    return replace(offer, price=price.model_copy(update=changes))


def owned_offers(npu: Npu, owned: Iterable[Owned]) -> list[Offer]:
    """Return the offers of hardware of a type that is there already."""
    return [_owned(npu, each) for each in owned if each.npu == npu.name]


def _owned(npu: Npu, owned: Owned) -> Offer:
    price = OwnedPrice(
        npu=npu.name,
        instance="node" if owned.nodes else "NPU",
        term="on_demand",
        npus=npu.node_npus if owned.nodes else 1,
        whole_instance=bool(owned.nodes),
        usd_per_hour=owned.usd_per_hour,
        as_of="as given",
        confidence="high",
        source="given with the problem",
    )
    return Offer(npu, OWNED, price, owned.nodes or owned.npus)


def _unmatched(field: str, patterns: Sequence[str], known: set[str]) -> Iterator[str]:
    """Yield a hint for each pattern that no price's provider or region matches."""
    for pattern in patterns:
        if not any(_any_match(value, (pattern,)) for value in known):
            yield f"there is no {field} '{pattern}'{nearest(pattern, known)}"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" or {len(names) - 3} more" if names[3:] else "")


def given_offer(npu: Npu, price: GivenPrice) -> Offer:
    """Return the offer of an NPU at a price that a problem states."""
    whole = price.whole_instance
    stated = Price(
        npu=npu.name,
        instance=f"{price.npus} NPU" + ("s" if price.npus > 1 else ""),
        term="on_demand",
        npus=price.npus,
        whole_instance=price.npus > 1 if whole is None else whole,
        usd_per_hour=price.usd_per_hour,
        as_of="as given",
        confidence="high",
        source="given with the problem",
    )
    return Offer(npu, GIVEN, stated)


def _matching(wanted: Prices, quotes: Iterable[Quote]) -> Iterator[Quote]:
    least = CONFIDENCES.index(wanted.confidence)
    for quote in quotes:
        price = quote.price
        if (
            price.term in wanted.terms
            and CONFIDENCES.index(price.confidence) >= least
            and _any_match(quote.provider, wanted.providers)
            and _any_match(price.region, wanted.regions)
        ):
            yield quote


def _any_match(value: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(value.lower(), pattern.lower()) for pattern in patterns)


def _cheapest(npu: Npu, quotes: Iterable[Quote]) -> list[Offer]:
    """Keep the cheapest offer per portion that no finer portion undercuts."""
    per_npu = sorted(
        (Offer(npu, quote.provider, quote.price) for quote in quotes),
        key=lambda offer: (offer.usd_per_hour_per_npu, offer.host_npus, offer.key),
    )
    kept: list[Offer] = []
    for offer in per_npu:
        if not any(_at_least_as_good(better, offer) for better in kept):
            kept.append(offer)
    return kept


def _at_least_as_good(better: Offer, offer: Offer) -> bool:
    """Return whether `better`, no dearer per NPU, serves wherever `offer` does."""
    if not offer.sizes <= better.sizes:
        return False
    if not better.whole or better.host_npus == offer.host_npus:
        return better.whole <= offer.whole
    return offer.whole and offer.host_npus % better.host_npus == 0
