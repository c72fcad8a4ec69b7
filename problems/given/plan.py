"""A plan over the rows of a candidates table, and whether it solves a problem."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from model_ops.units import RequestsPerSecond, Seconds, UsdPerHour
from problems.given.offers import UNPRICED, is_known, market_of
from problems.given.problem import admitted
from problems.given.rows import Row
from problems.offers import Offer
from problems.plan import Bought, Positive, Purchase
from problems.problem import ServingMode, SizingProblem
from problems.purchasing import purchase_of
from problems.violation import Violation, at_most

_ROUNDING = 1e-9
"""Relative tolerance of float sums."""


class PlannedRow(BaseModel):
    """Replicas of one row.

    Parameters
    ----------
    name, npu, mode, tp, pp, ep, dp, batch, precision
        As the table says; None where it does not.
    rate, ttft, tpot
        Requests per second that a replica takes, and its means at that rate.
    replicas, npus, nodes
        How many, the NPUs they use together, and the servers they stand on (shared
        ones count for each); None where nobody knows the NPU's servers.
    usd_per_hour
        Their share of the purchases; None without a price.
    offer
        Key of the purchase that they stand on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    npu: str
    mode: ServingMode
    tp: Positive | None
    pp: Positive | None
    ep: Positive | None = None
    dp: Positive | None
    batch: Positive | None
    precision: str | None = None
    rate: RequestsPerSecond
    ttft: Seconds
    tpot: Seconds
    replicas: Positive
    npus: Positive
    nodes: Positive | None
    usd_per_hour: UsdPerHour | None
    offer: str


class GivenPlan(Bought):
    """Rows with their counts, and the purchases that they stand on."""

    rows: Annotated[tuple[PlannedRow, ...], Field(min_length=1)]

    @property
    def has_prices(self) -> bool:
        """Whether everything bought has a price."""
        return all(purchase.provider != UNPRICED for purchase in self.purchases)

    @property
    def usd_per_hour_if_known(self) -> UsdPerHour | None:
        """Cost of the purchases; None where one has no price."""
        return self.usd_per_hour if self.has_prices else None

    @property
    def capacity(self) -> RequestsPerSecond:
        """Requests per second that all replicas take together."""
        return sum(row.replicas * row.rate for row in self.rows)


def planned(counts: Sequence[tuple[Row, Offer, int]]) -> GivenPlan:
    """Return the plan of so many replicas of rows on offers."""
    rows, purchases = [], []
    for key in dict.fromkeys(offer.key for _, offer, _ in counts):
        here = [(row, offer, many) for row, offer, many in counts if offer.key == key]
        offer = here[0][1]
        purchase = purchase_of(offer, [(row.npus, many) for row, _, many in here])
        purchases.append(purchase)
        room = sum(offer.slot(row.npus) * many for row, _, many in here)
        usd = purchase.usd_per_hour / room
        rows += [_planned(row, offer, many, usd) for row, _, many in here]
    rows.sort(key=lambda row: (-row.npus, row.name))
    return GivenPlan(rows=tuple(rows), purchases=tuple(purchases))


def _planned(row: Row, offer: Offer, many: int, usd_per_npu: float) -> PlannedRow:
    slot = offer.slot(row.npus)
    nodes = offer.hosts_for({slot: many}) * offer.nodes_per_host
    return PlannedRow(
        name=row.name,
        npu=row.npu,
        mode=row.mode,
        tp=row.tp,
        pp=row.pp,
        dp=row.dp,
        batch=row.batch,
        rate=row.rate,
        ttft=row.ttft,
        tpot=row.tpot,
        replicas=many,
        npus=row.npus * many,
        nodes=nodes if is_known(offer) else None,
        usd_per_hour=None if offer.provider == UNPRICED else usd_per_npu * slot * many,
        offer=offer.key,
    )


# The check


def violations(
    problem: SizingProblem, every: Sequence[Row], plan: GivenPlan
) -> list[Violation]:
    """Return each requirement that a plan breaks, by the table as it is in the file.

    Everything is computed again in floats from the plan and `every` row of the file,
    read anew for this check.
    """
    npus = admitted(problem, {row.npu for row in every})
    rows = {row.name: row for row in every if row.npu in npus}
    used = [rows[planned.name] for planned in plan.rows if planned.name in rows]
    offers = {o.key: o for o in market_of(problem, used).offers} if used else {}
    return [
        *(v for row in plan.rows for v in _row(problem, rows, row)),
        *_demand(problem, rows, plan),
        *(v for p in plan.purchases for v in _bill(plan, rows, offers, p)),
        *_limits(problem, offers, plan),
    ]


def _row(
    problem: SizingProblem, rows: dict[str, Row], planned: PlannedRow
) -> Iterator[Violation]:
    row = rows.get(planned.name)
    if row is None:
        yield Violation("table", f"no row {planned.name} may be used")
        return
    same = ("npu", "mode", "tp", "pp", "dp", "batch", "rate", "ttft", "tpot")
    for field in same:
        if getattr(planned, field) != getattr(row, field):
            yield Violation(field, f"{row.name}: not as line {row.line} says")
    if row.mode not in problem.modes:
        yield Violation("modes", f"{row.name}: {row.mode} is not allowed")
    if planned.npus != planned.replicas * row.npus:
        yield Violation("npus", f"{row.name}: {planned.npus} are not used")
    for target in problem.traffic[0].targets:
        seconds = row.latencies[target.metric]
        if seconds > target.at_most * (1 + _ROUNDING):
            said = f"{row.name}: {seconds:.6g} s exceeds {target.at_most:.6g} s"
            yield Violation(target.label, said)


def _demand(
    problem: SizingProblem, rows: dict[str, Row], plan: GivenPlan
) -> Iterator[Violation]:
    wanted = problem.traffic[0].demand(problem.headroom)
    found = sum(
        planned.replicas * rows[planned.name].rate
        for planned in plan.rows
        if planned.name in rows
    )
    if found < wanted * (1 - _ROUNDING):
        yield Violation("demand", f"{found:.6g} of {wanted:.6g}")


def _bill(
    plan: GivenPlan, rows: dict[str, Row], offers: dict[str, Offer], bought: Purchase
) -> Iterator[Violation]:
    offer = offers.get(bought.offer)
    standing = [p for p in plan.rows if p.offer == bought.offer and p.name in rows]
    if offer is None or not standing:
        yield Violation("hardware", f"{bought.offer} is not offered, or is idle")
        return
    slots: Counter[int] = Counter()
    for each in standing:
        slots[offer.slot(rows[each.name].npus)] += each.replicas
    used = sum(rows[each.name].npus * each.replicas for each in standing)
    hosts = offer.hosts_for(slots)
    npus = offer.billed_npus(hosts, used)
    power = offer.npu.power
    for field, stated, due in (
        ("npu", bought.npu, offer.npu.name),
        ("provider", bought.provider, offer.provider),
        ("source", bought.source, offer.price.source),
        ("hosts", bought.hosts, hosts),
        ("npus", bought.npus, npus),
        ("power", bought.power, None if power is None else power * npus),
    ):
        if stated != due:
            yield Violation(field, f"{offer.label}: {stated} stated, {due} due")
    cost = offer.usd_per_hour(hosts, used)
    if abs(bought.usd_per_hour - cost) > _ROUNDING * cost:
        said = f"{offer.label}: {bought.usd_per_hour} stated, {cost} due"
        yield Violation("cost", said)


def _limits(
    problem: SizingProblem, offers: dict[str, Offer], plan: GivenPlan
) -> Iterator[Violation]:
    limits = problem.limits
    yield from at_most("limits.npus", plan.total_npus, limits.npus)
    for npu, most in limits.npus_per_type.items():
        used = sum(p.npus for p in plan.purchases if p.npu == npu)
        yield from at_most(f"limits.npus_per_type.{npu}", used, most)
    known = [p for p in plan.purchases if p.offer in offers]
    nodes = sum(p.hosts * offers[p.offer].nodes_per_host for p in known)
    yield from at_most("limits.nodes", nodes, limits.nodes)
    for quota in limits.quota:
        counted = sum(
            p.npus for p in plan.purchases if quota.covers(p.npu, p.region, p.provider)
        )
        yield from at_most(f"limits.quota ({quota.label})", counted, quota.npus)
    kinds, types = ({getattr(r, key) for r in plan.rows} for key in ("name", "npu"))
    yield from at_most("limits.deployment_types", len(kinds), limits.deployment_types)
    yield from at_most("limits.npu_types", len(types), limits.npu_types)
    yield from at_most("limits.usd_per_hour", plan.usd_per_hour, limits.usd_per_hour)
    if limits.power is not None and plan.power is None:
        yield Violation("limits.power", "a purchased NPU has no published power")
    yield from at_most("limits.power", plan.power or 0.0, limits.power)
