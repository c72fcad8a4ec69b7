"""What a plan takes, in the words of its first sentence."""

from collections import Counter
from collections.abc import Iterable

from problems import catalogue
from problems.bill import Stands
from problems.given.offers import TABLE, UNPRICED
from problems.offers import GIVEN, OWNED
from problems.plan import Bought, Purchase


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
