"""Offers: which prices count, what stands where, and what it costs."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from model_ops.errors import ProblemError
from model_ops.profiler.parallelism import Parallelism
from problems import catalogue
from problems.catalogue import Quote
from problems.catalogue.schema import Price
from problems.offers import GIVEN, Offer, offers
from problems.problem import SizingProblem, problem_of

Stated = Callable[..., dict[str, Any]]


def problem_with(stated: Stated, npus: list[str], **prices: Any) -> SizingProblem:
    return problem_of(stated(hardware={"npus": npus}, prices=prices), "file")


def an_offer(
    npus: int,
    usd: float = 1.0,
    *,
    whole: bool = True,
    npu: str = "h100-sxm",
    region: str = "",
) -> Offer:
    """Return an offer, of H100 (8 per node) unless said, in portions of so many."""
    price = Price(
        npu=npu,
        instance=f"{npus}x",
        term="on_demand",
        npus=npus,
        whole_instance=whole,
        usd_per_hour=usd,
        region=region,
        as_of="2026-01",
        confidence="high",
        source="made up",
    )
    return Offer(catalogue.load_npu(npu), "toy", price)


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
    [
        (8, None, True),
        (8, True, True),
        (1, None, False),
        (1, True, True),
        (1, False, False),
    ],
)
def test_given_instance_is_whole_unless_it_is_one_npu(
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
    asked = {"providers": ["Nebius"], "terms": ["reserved_1y"]}
    with pytest.raises(ProblemError, match=r"h100-sxm.*reserved_1y.*Nebius.*given"):
        offers(problem_with(stated, ["h100-sxm"], **asked))
    # A provider that there is not is all there is to say.
    problem = problem_with(stated, ["h100-sxm"], providers=["nebiu"])
    said = r"^prices.providers: there is no provider 'nebiu'; did you mean 'Nebius'\?$"
    with pytest.raises(ProblemError, match=said):
        offers(problem)


def test_keys_tell_offers_apart(stated: Stated) -> None:
    terms = ["on_demand", "spot", "marketplace", "reserved_1y", "reserved_3y"]
    found = offers(problem_with(stated, ["*"], terms=terms, confidence="low"))
    assert len({o.key for o in found}) == len(found)


def test_key_names_everything_that_tells_offers_apart() -> None:
    offer = an_offer(8, region="eu-north")
    assert offer.key == "h100-sxm|toy|8x|on_demand|eu-north"
    keys = {an_offer(8, region=region).key for region in ("", "eu-north", "us-east")}
    assert len(keys) == 3


# The cheapest is kept


def cheapest_of(
    monkeypatch: pytest.MonkeyPatch,
    stated: Stated,
    *made: Offer,
    npu: str = "h100-sxm",
) -> list[str]:
    quotes = tuple(Quote("toy", offer.price) for offer in made)
    monkeypatch.setattr(catalogue, "load_quotes", lambda: quotes)
    found = offers(problem_with(stated, [npu]))
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
        # Two nodes together host a replica of twelve; a node and a half is no offer.
        ([(8, 8.0, True), (16, 16.0, True)], ["8x", "16x"]),
        ([(1, 1.0, False), (16, 32.0, True)], ["1x", "16x"]),
        ([(16, 16.0, True), (8, 16.0, True)], ["16x", "8x"]),
        # NPUs one by one host whatever parts of a node do.
        ([(1, 1.0, False), (1, 2.0, True), (4, 8.0, True)], ["1x"]),
        # Nor do halves of a node host what the node can, nor single NPUs pairs.
        ([(4, 4.0, True), (8, 16.0, True)], ["4x", "8x"]),
        ([(1, 1.0, True), (2, 4.0, True), (4, 12.0, True)], ["1x", "2x", "4x"]),
        # A dearer half of a node is of use where the node would be half empty.
        ([(8, 8.0, True), (4, 8.0, True)], ["8x", "4x"]),
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


def test_an_offer_that_admits_no_more_sizes_is_dropped(
    monkeypatch: pytest.MonkeyPatch, stated: Stated
) -> None:
    # A server of one NPU: any number of them stand side by side.
    npu = "gh200-96gb"
    made = [an_offer(n, 2.0 * n, npu=npu) for n in (1, 2, 4)]
    assert cheapest_of(monkeypatch, stated, *made, npu=npu) == ["1x"]
    made = [an_offer(1, 3.0, npu=npu), an_offer(2, 4.0, npu=npu)]
    assert cheapest_of(monkeypatch, stated, *made, npu=npu) == ["2x", "1x"]


@pytest.mark.parametrize("npu", ["h100-sxm", "gh200-96gb", "gb200-nvl72", "l40s"])
@pytest.mark.parametrize("seed", range(10))
def test_no_replica_loses_its_cheapest_place(
    monkeypatch: pytest.MonkeyPatch, stated: Stated, npu: str, seed: int
) -> None:
    draw = random.Random(seed)
    node = catalogue.load_npu(npu).node_npus
    sizes = [n for n in (1, 2, 4, 8, 16, 32, 72) if node % n == 0 or n % node == 0]
    made = []
    for size in sizes:
        usd = size * draw.choice([1.0, 1.0, 2.0, 3.0])
        made.append(an_offer(size, usd, npu=npu))
        if size == 1:
            made.append(an_offer(1, 2.0, npu=npu, whole=False, region="each"))
    quotes = tuple(Quote("toy", offer.price) for offer in made)
    monkeypatch.setattr(catalogue, "load_quotes", lambda: quotes)
    kept = offers(problem_with(stated, [npu]))

    def cheapest(among: list[Offer], npus: int) -> float:
        """Cost of one replica, alone on what it needs."""
        return min(
            (
                offer.usd_per_hour(offer.hosts_for({offer.slot(npus): 1}), npus)
                for offer in among
                if offer.admits(Parallelism(1, npus))
            ),
            default=float("inf"),
        )

    for npus in range(1, 129):
        assert cheapest(kept, npus) == pytest.approx(cheapest(made, npus)), npus


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
    assert [n for n in fits if not offer.admits(Parallelism(1, n))] == []
    assert [n for n in does_not if offer.admits(Parallelism(1, n))] == []


def test_tensor_parallel_stays_within_the_fast_fabric() -> None:
    offer = an_offer(8, whole=True)
    assert offer.npu.scale_up_npus == 8
    assert offer.admits(Parallelism(8, 2))
    assert not offer.admits(Parallelism(16, 1))


def test_groups_of_data_parallel_ranks_may_cross_the_fast_fabric() -> None:
    offer = an_offer(8, whole=True)
    assert offer.admits(Parallelism(8, ep=16, dp=2))
    assert not offer.admits(Parallelism(16, ep=16))
    # Twelve NPUs would leave half of the second node empty.
    assert not offer.admits(Parallelism(4, ep=12, dp=3))
    assert offer.admits(Parallelism(4, ep=8, dp=2, pp=3))


@pytest.mark.parametrize(
    ("npu", "tp", "pp", "admitted"),
    [
        ("h100-sxm", 8, 1, True),
        ("h100-sxm", 1, 8, True),
        ("h100-sxm", 8, 3, True),  # stages cross the fast fabric
        ("h100-sxm", 16, 1, False),
        ("h100-sxm", 16, 2, False),
        ("h100-sxm", 4, 3, False),  # of two nodes, half of one would be empty
        ("gb200-nvl72", 4, 1, True),
        ("gb200-nvl72", 8, 1, True),  # two trays on one NVLink
        ("gb200-nvl72", 72, 1, True),
        ("gb200-nvl72", 72, 2, True),
        ("gb200-nvl72", 144, 1, False),
        ("gh200-96gb", 1, 4, True),
        ("gh200-96gb", 2, 1, False),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_ranks_stay_on_the_fast_fabric_and_stages_may_cross_it(
    npu: str, tp: int, pp: int, *, admitted: bool, whole: bool
) -> None:
    node = catalogue.load_npu(npu).node_npus
    offer = an_offer(node if whole else 1, whole=whole, npu=npu)
    assert offer.host_npus == node
    assert offer.admits(Parallelism(tp, pp)) is admitted


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
