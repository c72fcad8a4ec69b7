"""A plan as CSV: one row per deployment."""

import csv
import io
from typing import Any

from problems.serve import Served
from sizing.api import Answer
from solver.solve import Feasible, Optimal

_COLUMNS = (
    "status",
    "traffic",
    "npu",
    "mode",
    "tp",
    "pp",
    "ep",
    "dp",
    "batch",
    "precision",
    "replicas",
    "npus",
    "nodes",
    "usd_per_hour",
)
_PREDICTED = (
    "req_per_s_per_replica",
    "ttft_mean_s",
    "tpot_mean_s",
    "e2e_mean_s",
)


def as_csv(answer: Answer) -> str:
    """Return the plan's deployments as CSV; without a plan, the header alone."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (*_COLUMNS, *_PREDICTED), lineterminator="\n")
    writer.writeheader()
    if isinstance(answer.outcome, Optimal | Feasible):
        for each in answer.served.values():
            for served in each:
                writer.writerow({"status": answer.status} | _row(served))
    return text.getvalue()


def _row(served: Served) -> dict[str, Any]:
    row: dict[str, Any] = served.deployment.model_dump(include=set(_COLUMNS))
    estimate = served.estimate
    predicted = (estimate.rate, estimate.ttft, estimate.tpot, estimate.e2e)
    return row | dict(zip(_PREDICTED, (float(v) for v in predicted), strict=True))
