"""What stands behind an outcome: bound, gap, who proved it, the sizes of models."""

from typing import Any

from model_ops.units import WATT
from sizing.api import Answer
from solver.solve import Feasible, Optimal, objective_value


def certificate_dict(answer: Answer) -> dict[str, Any]:
    """Return the certificate for programs; bounds are in the objective's unit."""
    certificate = answer.outcome.certificate
    return {
        "bound": certificate.bound,
        "gap": certificate.gap,
        "proved_by": certificate.proved_by,
        "points_evaluated": certificate.points,
        "candidates": certificate.candidates,
        "candidates_after_bound": certificate.kept,
        "variables": certificate.size[0],
        "constraints": certificate.size[1],
        "variables_before_bound": certificate.size_before[0],
        "constraints_before_bound": certificate.size_before[1],
        "integer_scaling_loss": certificate.loss,
    }


def certificate_text(answer: Answer) -> str:
    """Return the certificate, and in a line of its own how long it took."""
    certificate, seconds = answer.outcome.certificate, answer.seconds
    return (
        f"Certificate: {_bound(answer)}. {certificate.candidates:,} candidates "
        f"({_size(certificate.size_before)}), {certificate.kept:,} after the bound "
        f"({_size(certificate.size)}).\n{certificate.points:,} deployment points in "
        f"{seconds['candidates']:.2f} s, solved and verified in "
        f"{seconds['solve']:.2f} s."
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]:,} variables, {size[1]:,} constraints"


def _bound(answer: Answer) -> str:
    certificate, problem = answer.outcome.certificate, answer.problem
    if not isinstance(answer.outcome, Optimal | Feasible):
        return answer.status.replace("_", " ")
    value = objective_value(problem, answer.outcome.plan)

    def text(number: float) -> str:
        if problem.objective == "power":
            return WATT.format(number)
        unit = "USD/h" if problem.objective == "cost" else "NPUs"
        return f"{number:,.2f} {unit}" if unit == "USD/h" else f"{number:,.4g} {unit}"

    return (
        f"{answer.status}, {text(value)}; no plan below {text(certificate.bound)} "
        f"(gap {certificate.gap:.3%}), proved by {certificate.proved_by}"
    )
