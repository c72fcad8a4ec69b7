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
    "chunk_tokens",
    "precision",
    "replicas",
    "npus",
    "nodes",
    "usd_per_hour",
)
_FIGURES = (
    *(("ttft", name) for name in ("mean", "p50", "p90", "p95", "p99")),
    *(("tpot", name) for name in ("mean", "p50", "p90", "p95", "p99")),
    ("e2e", "mean"),
)
_PREDICTED = (
    "req_per_s_per_replica",
    *(f"{metric}_{name}_s" for metric, name in _FIGURES),
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
    figures = (
        getattr(getattr(served.latencies, metric), name) for metric, name in _FIGURES
    )
    predicted = (served.estimate.rate, *figures)
    return row | dict(zip(_PREDICTED, (float(v) for v in predicted), strict=True))
