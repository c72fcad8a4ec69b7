"""A plan as CSV: one row per deployment."""

from collections.abc import Iterator
from typing import Any

from problems.plan import PlannedDeployment
from problems.serve import Served
from sizing.api import Answer
from sizing.kv_transfer import kv_transfer
from sizing.report.data import csv_text
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
    "model",
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
_TRANSFER = ("kv_needed_bytes_per_s", "kv_available_bytes_per_s")
"""Of a pair: per NPU at the busier end of its links."""


def as_csv(answer: Answer) -> str:
    """Return the plan's deployments as CSV; without a plan, the header alone."""
    return csv_text((*_COLUMNS, *_TRANSFER, *_PREDICTED), _rows(answer))


def _rows(answer: Answer) -> Iterator[dict[str, Any]]:
    if not isinstance(answer.outcome, Optimal | Feasible):
        return
    for traffic in answer.problem.traffic:
        for served in answer.served[traffic.name]:
            moved = kv_transfer(answer.outcome.plan, traffic, served)
            carried = () if moved is None else (moved.needed, moved.available)
            common: dict[str, Any] = {"status": answer.status}
            common |= dict(zip(_TRANSFER, carried, strict=False))
            for row in served.rows:
                yield common | _row(served, row)


def _row(served: Served, deployment: PlannedDeployment) -> dict[str, Any]:
    """Return a deployment with what its requests see: in a pair, in both its pools."""
    row: dict[str, Any] = deployment.model_dump(include=set(_COLUMNS))
    figures = (
        getattr(getattr(served.latencies, metric), name) for metric, name in _FIGURES
    )
    rate = float(served.estimate.rate)
    own = rate if served.decode is None else rate / deployment.replicas
    predicted = (own, *figures)
    return row | dict(zip(_PREDICTED, (float(v) for v in predicted), strict=True))
