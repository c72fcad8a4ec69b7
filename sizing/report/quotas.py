"""What quotas of regions do not count, for reports."""

from collections.abc import Iterator

from problems.limits_kept import not_counted
from problems.plan import Bought
from problems.problem import SizingProblem


def beside_quotas(problem: SizingProblem, plan: Bought) -> Iterator[str]:
    """Yield what is rented at prices without a region, which such quotas miss."""
    rented = [
        f"{purchase.npus:,} x {purchase.npu} of {purchase.provider}"
        for purchase in not_counted(problem, plan)
    ]
    if rented:
        yield (
            "Quotas of a region count no NPU whose price states none: "
            f"{', '.join(rented)} are outside them. --region keeps to catalogue prices "
            "of regions that you name."
        )
