"""How far a price must move before another plan wins, and what wins without a type.

With the price of one NPU type times f, a plan costs ``a + b f``: what all else costs,
and what the type does. The best plan is the lowest of these lines, which are concave
together; where it leaves the line of the chosen plan is found by Newton's method,
exactly and in a few solves.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from model_ops.units import USD_PER_HOUR
from problems.offers import OWNED, Offer
from solver.certificate import decided
from solver.instance import Instance
from solver.model import Choice, OutOfTimeError, SolveOptions

FARTHEST = 10.0
"""Times the price now, and the part of it, beyond which no price is tried."""

_SAME = 1e-7
"""Relative difference of costs that are the same, in integers and in floats."""

_MOST_STEPS = 50


@dataclass(frozen=True, slots=True)
class Switch:
    """How far something must move before another plan wins.

    Parameters
    ----------
    of, now
        What moves, and where it is; of hardware that is partly owned, the price of
        what is rented.
    to, factor
        Where the best plan changes, and that over where it is now; as far as was
        tried where it does not.
    then
        What wins beyond; empty where nothing does as far as was tried.
    """

    of: str
    now: str
    to: str
    factor: float
    then: str


@dataclass(frozen=True, slots=True)
class _Line:
    """A plan's cost by an NPU type's price, ``rest + own * factor``, and its NPUs.

    `own` is what so many `rented` NPUs of the type cost.
    """

    rest: float
    own: float
    rented: int
    npus: dict[str, int]

    def at(self, factor: float) -> float:
        return self.rest + self.own * factor

    @property
    def hardware(self) -> str:
        return " and ".join(f"{count:,} x {name}" for name, count in self.npus.items())


Repriced = Callable[[str, float], Instance]
"""Returns the whole choice where an NPU type costs so many times as much."""


def price_switches(
    repriced: Repriced,
    offers: Sequence[Offer],
    value: float,
    near: Sequence[str],
    options: SolveOptions,
) -> list[Switch]:
    """Return how far prices must move before another plan is cheaper.

    Up for each type that the plan rents, and down too where the plan mixes types; down
    for the other types of the plan, which are owned, and for types near it.

    Parameters
    ----------
    repriced
        The choice by prices, without a budget, which would move with them.
    offers
        What there is, at the prices now.
    value
        What the best plan costs now.
    near
        Types to look at besides those in the plan.
    options
        Whose time is shared; what is not known in time is left out.
    """
    found: list[Switch] = []
    try:
        solved = _solved(repriced("", 1.0), options, value)
        used = _npus(*solved)
        rented = [npu for npu in used if _rents(*solved, npu)]
        for npu in dict.fromkeys((*rented, *used, *near)):
            own = [offer for offer in offers if offer.npu.name == npu]
            if not any(_is_rented(offer, npu) for offer in own):
                continue
            if npu in rented:
                found.append(_switch(repriced, own, FARTHEST, options, value))
            if npu not in rented or len(used) > 1:
                found.append(_switch(repriced, own, 1 / FARTHEST, options, value))
    except OutOfTimeError:
        pass
    return found


def usd(value: float) -> str:
    """Return a price or cost as people read it."""
    return f"{value:,.2f} {USD_PER_HOUR.base}"


def without(instance: Instance, npu: str) -> Instance:
    """Return a choice without an NPU type."""
    offers = instance.offers
    kept = [c for c in instance.candidates if offers[c.offer].npu.name != npu]
    return replace(instance, candidates=tuple(kept), known=math.inf)


def _switch(
    repriced: Repriced,
    offers: Sequence[Offer],
    farthest: float,
    options: SolveOptions,
    known: float,
) -> Switch:
    """Return where the best plan changes on the way to a factor of a type's price.

    Parameters
    ----------
    offers
        Those of the type.
    """
    npu = offers[0].npu.name
    chosen = _best(repriced, npu, 1.0, options, known)
    factor, then = farthest, ""
    for _ in range(_MOST_STEPS):
        best = _best(repriced, npu, factor, options, chosen.at(factor))
        if best.at(factor) >= chosen.at(factor) * (1 - _SAME):
            break
        if best.own == chosen.own:
            break
        then = best.hardware
        factor = (best.rest - chosen.rest) / (chosen.own - best.own)
    asked = min(o.usd_per_hour_per_npu for o in offers if _is_rented(o, npu))
    now = chosen.own / chosen.rented if chosen.rented else asked
    owned = any(offer.provider == OWNED for offer in offers)
    return Switch(
        of=f"price of rented {npu}" if owned else f"price of {npu}",
        now=usd(now),
        to=usd(now * factor),
        factor=factor,
        then=then,
    )


def _best(
    repriced: Repriced, npu: str, factor: float, options: SolveOptions, known: float
) -> _Line:
    """Return the line of the cheapest plan where a type costs so many times as much.

    `known` is what some plan then costs.
    """
    instance, choice = _solved(repriced(npu, factor), options, known)
    rest, own, rented = 0.0, 0.0, 0
    used = _used(instance, choice)
    for number, (offer, hosts) in enumerate(
        zip(instance.offers, choice.hosts, strict=True)
    ):
        cost = offer.usd_per_hour(hosts, used[number])
        if _is_rented(offer, npu):
            own += cost / factor
            rented += offer.billed_npus(hosts, used[number])
        else:
            rest += cost
    return _Line(rest, own, rented, _npus(instance, choice))


def _solved(
    instance: Instance, options: SolveOptions, known: float
) -> tuple[Instance, Choice]:
    """Return a proved choice; raise `OutOfTimeError` if none is proved in time."""
    if not options.remaining:
        raise OutOfTimeError
    kept, choice = decided(replace(instance, known=known), options, ties=False)
    if choice.status != "optimal":
        raise OutOfTimeError
    return kept, choice


def _used(instance: Instance, choice: Choice) -> Counter[int]:
    """Return the NPUs that replicas use, by offer."""
    used: Counter[int] = Counter()
    for candidate, count in zip(instance.candidates, choice.replicas, strict=True):
        used[candidate.offer] += candidate.npus * count
    return used


def _npus(instance: Instance, choice: Choice) -> dict[str, int]:
    """Return the NPUs paid for, by type."""
    used, paid = _used(instance, choice), Counter[str]()
    for number, (offer, hosts) in enumerate(
        zip(instance.offers, choice.hosts, strict=True)
    ):
        if used[number]:
            paid[offer.npu.name] += offer.billed_npus(hosts, used[number])
    return dict(paid)


def _rents(instance: Instance, choice: Choice, npu: str) -> bool:
    """Return whether a choice pays rent for NPUs of a type."""
    used = _used(instance, choice)
    return any(
        used[number] and _is_rented(offer, npu)
        for number, offer in enumerate(instance.offers)
    )


def repriced_offers(
    offers: Sequence[Offer], npu: str, factor: float
) -> tuple[Offer, ...]:
    """Return offers of which those of an NPU type cost so many times as much."""
    return tuple(
        replace(
            offer,
            price=offer.price.model_copy(
                update={"usd_per_hour": offer.price.usd_per_hour * factor}
            ),
        )
        if _is_rented(offer, npu)
        else offer
        for offer in offers
    )


def _is_rented(offer: Offer, npu: str) -> bool:
    """Return whether an offer has a price that may move, of an NPU type."""
    return offer.npu.name == npu and offer.provider != OWNED
