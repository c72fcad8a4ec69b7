"""A plan as CSV: one row per deployment."""

from collections.abc import Iterator, Sequence
from typing import Any

from problems.plan import PlannedDeployment
from problems.serve import Served
from sizing.api import Answer
from sizing.kv_transfer import KvTransfer, kv_transfer
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
        every = answer.served[traffic.name]
        for deployment in dict.fromkeys(row for each in every for row in each.rows):
            through = [each for each in every if deployment in each.rows]
            moved = [kv_transfer(answer.outcome.plan, traffic, e) for e in through]
            yield (
                {"status": answer.status}
                | _carried([each for each in moved if each is not None])
                | _row(through, deployment)
            )


def _carried(moved: Sequence[KvTransfer]) -> dict[str, float]:
    """Return what the busiest of some links carries, and what it takes."""
    if not moved:
        return {}
    busiest = max(moved, key=lambda each: each.utilisation)
    return dict(zip(_TRANSFER, (busiest.needed, busiest.available), strict=True))


def _row(through: Sequence[Served], deployment: PlannedDeployment) -> dict[str, Any]:
    """Return a deployment with what its requests see: in a pair, in both its pools.

    Of several routes through it the slowest counts, figure by figure.
    """
    row: dict[str, Any] = deployment.model_dump(include=set(_COLUMNS))
    figures = (
        max(float(getattr(getattr(each.latencies, metric), name)) for each in through)
        for metric, name in _FIGURES
    )
    served = through[0]
    own = float(served.estimate.rate)
    if served.pair is not None:
        own = served.utilisation * served.pair.load(deployment)
    return row | dict(zip(_PREDICTED, (own, *figures), strict=True))
