"""What a plan takes, and what of that is new, in words."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from problems import catalogue
from problems.bill import Stands
from problems.given.offers import TABLE, UNPRICED
from problems.limits_kept import Used, changed_npus
from problems.offers import GIVEN, OWNED
from problems.plan import Bought, Purchase
from problems.problem import SizingProblem


def taken(plan: Bought, used: Iterable[tuple[str, Stands]]) -> str:
    """Return what is used of what is there already, and what is rented.

    Parameters
    ----------
    used
        The rows of the plan, each with the key of the offer that it stands on.
    """
    npus: Counter[str] = Counter()
    for offer, row in used:
        npus[offer] += row.npus
    parts: dict[str, list[str]] = {"use": [], "rent": []}
    for each in plan.purchases:
        verb = "use" if each.provider == OWNED else "rent"
        parts[verb].append(_bought(each, idle=each.npus - npus[each.offer]))
    return " and ".join(
        f"{verb} {' and '.join(bought)}" for verb, bought in parts.items() if bought
    )


def changes(problem: SizingProblem, used: Sequence[Used]) -> Iterator[str]:
    """Yield how far a plan is from what is in use today, if that is stated."""
    if problem.current:
        count, most = changed_npus(problem, used), problem.limits.changed_npus
        limit = "" if most is None else f"; {most:,} may (--max-change)"
        yield (
            f"Beside what is in use today {count:,} NPUs begin or end to be "
            f"used{limit}."
        )


def _bought(purchase: Purchase, idle: int) -> str:
    known = purchase.npu in catalogue.names("npus")
    title = catalogue.npu_file(purchase.npu).title if known else purchase.npu
    what = f"{purchase.npus:,} x {title}"
    rest = [f"{idle:,} of them idle"] if idle else []
    if purchase.provider == OWNED:
        return f"{what} of your own" + "".join(f" ({each})" for each in rest)
    terms = [*_terms(purchase), *rest]
    return f"{what} ({', '.join(terms)})" if terms else what


def _terms(purchase: Purchase) -> list[str]:
    """Return whose the price is, and of when."""
    stated = {GIVEN: ["at your price"], TABLE: ["at the table's price"], UNPRICED: []}
    if purchase.provider in stated:
        return stated[purchase.provider]
    return [
        f"{purchase.provider} {purchase.instance}",
        purchase.term.replace("_", "-"),
        f"price: {purchase.as_of.split(';')[0]}",
    ]
