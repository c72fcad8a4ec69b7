"""Offers: which prices count, what stands where, and what it costs."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from model_ops.errors import ProblemError
from problems import catalogue
from problems.catalogue import Quote
from problems.catalogue.schema import Price
from problems.offers import GIVEN, Offer, offers
from problems.problem import SizingProblem, problem_of

Stated = Callable[..., dict[str, Any]]


def problem_with(stated: Stated, npus: list[str], **prices: Any) -> SizingProblem:
    return problem_of(stated(hardware={"npus": npus}, prices=prices), "file")


def an_offer(npus: int, usd: float = 1.0, *, whole: bool = True) -> Offer:
    """Return an offer of H100 (8 per node) in portions of so many."""
    price = Price(
        npu="h100-sxm",
        instance=f"{npus}x",
        term="on_demand",
        npus=npus,
        whole_instance=whole,
        usd_per_hour=usd,
        as_of="2026-01",
        confidence="high",
        source="made up",
    )
    return Offer(catalogue.load_npu("h100-sxm"), "toy", price)


# Which prices count


def test_given_price_replaces_the_catalogues(stated: Stated) -> None:
    given = [{"npu": "H100", "usd_per_hour": "1.23 USD/h"}]
    found = offers(problem_with(stated, ["h100-sxm", "h200-sxm"], given=given))
    ours = [o for o in found if o.npu.name == "h100-sxm"]
    assert [(o.provider, o.price.usd_per_hour, o.whole) for o in ours] == [
        (GIVEN, 1.23, False)
    ]
    assert GIVEN not in {o.provider for o in found if o.npu.name == "h200-sxm"}


@pytest.mark.parametrize(
    ("npus", "stated_whole", "whole"),
    [(8, None, True), (1, None, False), (1, True, True), (8, False, False)],
)
def test_given_instance_is_whole_unless_said(
    stated: Stated, npus: int, stated_whole: bool | None, whole: bool
) -> None:
    price = {"npu": "h100", "usd_per_hour": "16 USD/h", "npus": npus}
    if stated_whole is not None:
        price["whole_instance"] = stated_whole
    (offer,) = offers(problem_with(stated, ["h100-sxm"], given=[price]))
    assert offer.whole is whole
    assert offer.usd_per_hour_per_npu == pytest.approx(16 / npus)


@pytest.mark.parametrize("term", ["on_demand", "spot", "marketplace"])
def test_only_the_terms_asked_for(stated: Stated, term: str) -> None:
    found = offers(problem_with(stated, ["*"], terms=[term], confidence="low"))
    assert {o.price.term for o in found} == {term}


def test_only_the_providers_asked_for(stated: Stated) -> None:
    found = offers(problem_with(stated, ["*"], providers=["aws", "google*"]))
    assert {o.provider for o in found} == {"AWS", "Google Cloud"}


def test_only_the_regions_asked_for(stated: Stated) -> None:
    everything = offers(problem_with(stated, ["*"]))
    regions = {o.price.region for o in everything if o.price.region}
    region = min(regions)
    found = offers(problem_with(stated, ["*"], regions=[region.upper()]))
    assert {o.price.region for o in found} == {region}


def test_only_the_confidence_asked_for(stated: Stated) -> None:
    def grades(confidence: str) -> set[str]:
        found = offers(problem_with(stated, ["*"], confidence=confidence))
        return {o.price.confidence for o in found}

    assert grades("high") == {"high"}
    assert grades("medium") == {"medium", "high"}
    assert "low" in grades("low")


def test_no_price_is_a_problem_that_names_the_filters(stated: Stated) -> None:
    problem = problem_with(stated, ["h100-sxm"], providers=["none*"])
    with pytest.raises(ProblemError, match=r"h100-sxm.*on_demand.*none\*.*given"):
        offers(problem)


def test_keys_tell_offers_apart(stated: Stated) -> None:
    terms = ["on_demand", "spot", "marketplace", "reserved_1y", "reserved_3y"]
    found = offers(problem_with(stated, ["*"], terms=terms, confidence="low"))
    assert len({o.key for o in found}) == len(found)


# The cheapest is kept


def cheapest_of(
    monkeypatch: pytest.MonkeyPatch, stated: Stated, *made: Offer
) -> list[str]:
    quotes = tuple(Quote("toy", offer.price) for offer in made)
    monkeypatch.setattr(catalogue, "load_quotes", lambda: quotes)
    found = offers(problem_with(stated, ["h100-sxm"]))
    return [offer.price.instance for offer in found]


@pytest.mark.parametrize(
    ("made", "kept"),
    [
        # The same portion: the cheapest alone.
        ([(8, 16.0, True), (8, 20.0, True)], ["8x"]),
        # NPUs one by one, no dearer each: no whole instance is worth it.
        ([(1, 2.0, False), (8, 16.0, True)], ["1x"]),
        # A cheaper whole node does not replace NPUs one by one.
        ([(8, 8.0, True), (1, 2.0, False)], ["8x", "1x"]),
        # A part of a node, however cheap, cannot host what a node can.
        ([(1, 1.0, True), (8, 16.0, True)], ["1x", "8x"]),
        # A node, no dearer per NPU, does what two together do.
        ([(8, 8.0, True), (16, 16.0, True)], ["8x"]),
        # A dearer part of a node may still be the cheapest for one NPU.
        ([(8, 8.0, True), (1, 2.0, True)], ["8x", "1x"]),
    ],
)
def test_cheapest_portions_are_kept(
    monkeypatch: pytest.MonkeyPatch,
    stated: Stated,
    made: list[tuple[int, float, bool]],
    kept: list[str],
) -> None:
    portions = [an_offer(npus, usd, whole=whole) for npus, usd, whole in made]
    assert cheapest_of(monkeypatch, stated, *portions) == kept


def test_catalogue_offers_undercut_every_quote_of_their_portion(
    stated: Stated,
) -> None:
    problem = problem_with(stated, ["*"])
    for quote in catalogue.load_quotes():
        price = quote.price
        if price.term != "on_demand" or price.confidence == "low":
            continue
        each = price.usd_per_hour / price.npus
        least = min(
            o.usd_per_hour_per_npu
            for o in offers(problem)
            if o.npu.name == price.npu and (not o.whole or o.host_npus == price.npus)
        )
        assert least <= each * (1 + 1e-12)


# What stands where


@pytest.mark.parametrize(
    ("host", "whole", "fits", "does_not"),
    [
        (8, True, [1, 3, 8, 16, 24], [9, 12, 20]),
        (1, True, [1], [2, 4, 8]),  # a part of a node stands alone
        (4, True, [1, 2, 4], [5, 8, 12]),
        (16, True, [1, 8, 12, 16, 32], [17, 24]),
        (1, False, [1, 5, 8, 16], [9, 12]),  # NPUs of a node of eight
    ],
)
def test_replica_stays_in_a_host_or_fills_hosts(
    host: int, whole: bool, fits: list[int], does_not: list[int]
) -> None:
    offer = an_offer(host, whole=whole)
    assert [n for n in fits if not offer.admits(1, n)] == []
    assert [n for n in does_not if offer.admits(1, n)] == []


def test_tensor_parallel_stays_within_the_fast_fabric() -> None:
    offer = an_offer(8, whole=True)
    assert offer.npu.scale_up_npus == 8
    assert offer.admits(8, 2)
    assert not offer.admits(16, 1)


@pytest.mark.parametrize(
    ("host", "npus", "slot"),
    [
        (8, 1, 1),
        (8, 2, 2),
        (8, 3, 4),
        (8, 5, 8),
        (8, 8, 8),
        (8, 16, 16),
        (12, 6, 8),
        (12, 9, 12),  # the next power of two would not fit
        (6, 3, 4),
    ],
)
def test_slot_is_a_power_of_two_at_most_the_host(
    host: int, npus: int, slot: int
) -> None:
    assert an_offer(host).slot(npus) == slot


def parts(slots: list[int], host: int, rooms: tuple[int, ...]) -> Iterator[int]:
    """Yield the number of hosts of every way to place the slots."""
    if not slots:
        yield len(rooms)
        return
    slot, rest = slots[0], slots[1:]
    for i, room in enumerate(rooms):
        if room >= slot and room not in rooms[:i]:
            yield from parts(rest, host, (*rooms[:i], room - slot, *rooms[i + 1 :]))
    yield from parts(rest, host, (*rooms, host - slot))


@pytest.mark.parametrize("seed", range(40))
def test_hosts_for_equals_the_best_packing(seed: int) -> None:
    draw = random.Random(seed)
    host = draw.choice([4, 6, 8, 12])
    offer = an_offer(host)
    sizes = [slot for slot in (1, 2, 4, 8) if slot < host]
    slots = [draw.choice(sizes) for _ in range(draw.randint(0, 6))]
    assert offer.hosts_for(Counter(slots)) == min(parts(slots, host, ()))


@pytest.mark.parametrize("seed", range(40))
def test_hosts_for_counts_many_as_it_counts_each(seed: int) -> None:
    draw = random.Random(seed)
    host = draw.choice([2, 4, 8, 16])
    sizes = [slot for slot in (1, 2, 4, 8, 16, 32) if slot <= 2 * host]
    slots = {slot: draw.randint(0, 1000) for slot in sizes}
    # Powers of two leave no gaps: hosts are full but for the last.
    shared = sum(slot * n for slot, n in slots.items() if slot < host)
    whole = sum(slot * n for slot, n in slots.items() if slot >= host) // host
    assert an_offer(host).hosts_for(slots) == whole + -(-shared // host)


def test_replicas_of_whole_hosts_take_them_all() -> None:
    assert an_offer(8).hosts_for({8: 1, 16: 1, 4: 2, 2: 1}) == 1 + 2 + 1 + 1


# What it costs


def test_whole_hosts_are_paid_whole() -> None:
    offer = an_offer(8, usd=16.0)
    assert offer.usd_per_hour(hosts=2, npus=9) == pytest.approx(32.0)
    assert offer.billed_npus(hosts=2, npus=9) == 16


def test_npus_one_by_one_are_paid_one_by_one() -> None:
    offer = an_offer(1, usd=2.0, whole=False)
    assert offer.host_npus == 8
    assert offer.usd_per_hour(hosts=2, npus=9) == pytest.approx(18.0)
    assert offer.billed_npus(hosts=2, npus=9) == 9


@pytest.mark.parametrize(
    ("npus", "whole", "nodes"),
    [(8, True, 1), (16, True, 2), (1, True, 1), (1, False, 1)],
)
def test_nodes_per_host(npus: int, whole: bool, nodes: int) -> None:
    assert an_offer(npus, whole=whole).nodes_per_host == nodes
