"""Whether a plan over a candidates table solves a problem, by the file read anew."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from model_ops.units import SECOND
from problems.bill import bill_violations
from problems.given.offers import UNPRICED, Market, is_known, market_of, usable
from problems.given.plan import GivenPlan, PlannedRow
from problems.given.problem import admitted
from problems.given.rows import Row
from problems.limits_kept import Used, limit_violations
from problems.offers import Offer
from problems.problem import SizingProblem
from problems.survival import Standing, left_standing, too_little
from problems.violation import ROUNDING, Violation

_DIGITS = 6
"""Of latencies: those that a table states."""


def violations(
    problem: SizingProblem, every: Sequence[Row], plan: GivenPlan
) -> list[Violation]:
    """Return each requirement that a plan breaks, by the table as it is in the file.

    Everything is computed again in floats from the plan and `every` row of the file,
    read anew for this check.

    Raises
    ------
    ProblemError
        If money is asked about and a row in the plan has no price.
    """
    check = _Check.of(problem, every, plan)
    return [
        *(v for row in plan.rows for v in check.row(row)),
        *(v for row in plan.rows for v in check.place(row)),
        *check.demand(),
        *check.purchases(),
        *limit_violations(problem, plan, used_rows(plan), check.offers),
        *check.survival(),
    ]


def used_rows(plan: GivenPlan) -> list[Used]:
    """Return what the rows of a plan use."""
    return [Used(row.name, row.npu, row.npus) for row in plan.rows]


@dataclass(frozen=True, slots=True)
class _Check:
    """A plan beside the rows that a problem admits, and what those may stand on."""

    problem: SizingProblem
    plan: GivenPlan
    rows: Mapping[str, Row]
    market: Market
    offers: Mapping[str, Offer]

    @classmethod
    def of(
        cls, problem: SizingProblem, every: Sequence[Row], plan: GivenPlan
    ) -> "_Check":
        npus = admitted(problem, {row.npu for row in every})
        named = {row.name for row in plan.rows}
        used = [row for row in every if row.npu in npus and row.name in named]
        market = market_of(problem, used)
        offers = {o.key: o for o in market.offers if usable(problem, o)}
        return cls(problem, plan, {row.name: row for row in used}, market, offers)

    def row(self, planned: PlannedRow) -> Iterator[Violation]:
        """Compare a row with the file's, and that with the targets."""
        row = self.rows.get(planned.name)
        if row is None:
            yield Violation("table", f"no row {planned.name} may be used")
            return
        same = ("npu", "mode", "tp", "pp", "dp", "batch", "rate", "ttft", "tpot")
        for field in same:
            if getattr(planned, field) != getattr(row, field):
                yield Violation(field, f"{row.name}: not as line {row.line} says")
        if row.mode not in self.problem.modes:
            yield Violation("modes", f"{row.name}: {row.mode} is not allowed")
        if planned.npus != planned.replicas * row.npus:
            yield Violation("npus", f"{row.name}: {planned.npus} are not used")
        for target in self.problem.traffic[0].targets:
            seconds = row.latencies[target.metric]
            if seconds > target.at_most * (1 + ROUNDING):
                found = SECOND.format(seconds, _DIGITS)
                most = SECOND.format(target.at_most, _DIGITS)
                yield Violation(target.label, f"{row.name}: {found} exceed {most}")

    def place(self, planned: PlannedRow) -> Iterator[Violation]:
        """Compare where a row stands with where it may, and with what is bought."""
        may = {self.market.offers[n].key for n in self._standing(planned)}
        offer = self.offers.get(planned.offer)
        if offer is None or offer.key not in may:
            said = f"{planned.name} cannot stand on {planned.offer}"
            yield Violation("hardware", said)
            return
        if all(purchase.offer != offer.key for purchase in self.plan.purchases):
            yield Violation("hardware", f"{offer.label} is not bought")
        if (planned.usd_per_hour is None) is not (offer.provider == UNPRICED):
            yield Violation("cost", f"{planned.name}: its share is not that of a price")
        if (planned.nodes is None) is is_known(offer):
            yield Violation("nodes", f"{planned.name}: they are known, or are not")

    def _standing(self, planned: PlannedRow) -> tuple[int, ...]:
        return self.market.standing.get(planned.name, ())

    def demand(self) -> Iterator[Violation]:
        """Compare what the replicas take with what arrives, and the headroom."""
        wanted = self.problem.traffic[0].demand(self.problem.headroom)
        found = sum(
            planned.replicas * self.rows[planned.name].rate
            for planned in self.plan.rows
            if planned.name in self.rows
        )
        if found < wanted * (1 - ROUNDING):
            yield Violation("demand", f"{found:.6g} of {wanted:.6g}")

    def purchases(self) -> Iterator[Violation]:
        """Compare purchases with what stands on them, at the offers' prices."""
        for purchase in self.plan.purchases:
            offer = self.offers.get(purchase.offer)
            if offer is None:
                yield Violation("hardware", f"{purchase.offer} is not offered")
                continue
            standing = [row for row in self.plan.rows if row.offer == offer.key]
            yield from bill_violations(purchase, offer, standing)

    def survival(self) -> Iterator[Violation]:
        """Compare what is left of the capacity when hosts fail, if they may."""
        if not self.problem.redundancy.domains:
            return
        known = [
            Standing(self.offers[p.offer], row.npus, p.replicas, row.rate)
            for p in self.plan.rows
            if p.offer in self.offers and (row := self.rows.get(p.name)) is not None
        ]
        left = left_standing(self.problem, known)
        yield from too_little(self.problem, self.problem.traffic[0], left)
