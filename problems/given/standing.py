"""How the plan of one problem over a table stands under another."""

from collections.abc import Sequence

from problems.given.offers import Market, market_of, usable
from problems.given.plan import GivenPlan, PlannedRow, planned
from problems.given.problem import admitted
from problems.given.rows import Row
from problems.given.verify import violations
from problems.offers import OWNED, Offer
from problems.problem import SizingProblem
from problems.standing import Standing
from problems.violation import Violation


def standing(
    plan: GivenPlan, after: SizingProblem, every: Sequence[Row]
) -> Standing[GivenPlan]:
    """Return how a plan stands under another problem; nothing moves but what it costs.

    Parameters
    ----------
    every
        The rows of the file.

    Raises
    ------
    ProblemError
        If the problem asks about money and a row has no price.
    """
    npus, named = admitted(after, {row.npu for row in every}), set(_names(plan))
    rows = {r.name: r for r in every if r.npu in npus and r.name in named}
    market = market_of(after, tuple(rows.values()))
    counts, missing = [], []
    for each in plan.rows:
        offer = _offer(after, market, each) if each.name in rows else None
        if offer is None:
            missing.append(Violation("hardware", _missing(each, npus)))
        else:
            counts.append((rows[each.name], offer, each.replicas))
    if missing:
        return Standing(None, tuple(dict.fromkeys(missing)))
    moved = planned(counts)
    return Standing(moved, tuple(violations(after, every, moved)))


def _names(plan: GivenPlan) -> list[str]:
    return [row.name for row in plan.rows]


def _offer(problem: SizingProblem, market: Market, row: PlannedRow) -> Offer | None:
    """Return the offer of a row, or else one for rent on which it may stand now."""
    fitting = [
        offer
        for offer in (market.offers[n] for n in market.standing[row.name])
        if usable(problem, offer)
    ]
    fitting.sort(key=lambda offer: (offer.key != row.offer, offer.provider == OWNED))
    return fitting[0] if fitting else None


def _missing(row: PlannedRow, npus: set[str]) -> str:
    if row.npu not in npus:
        return f"{row.npu} is not allowed"
    return f"nothing to be had holds {row.name}"
