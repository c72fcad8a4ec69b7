"""A plan as CSV: one row per deployment."""

import csv
import io

from sizing.api import Answer
from sizing.facts import class_facts
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
_PREDICTED = ("ttft_mean_s", "tpot_mean_s", "e2e_mean_s")


def as_csv(answer: Answer) -> str:
    """Return the plan's deployments as CSV; without a plan, the header alone."""
    text = io.StringIO()
    writer = csv.DictWriter(text, (*_COLUMNS, *_PREDICTED), lineterminator="\n")
    writer.writeheader()
    if isinstance(answer.outcome, Optimal | Feasible):
        facts = class_facts(answer, answer.outcome.plan)
        means = {
            fact.traffic.name: {f"{p.metric}_mean_s": p.mean for p in fact.predictions}
            for fact in facts
        }
        for deployment in answer.outcome.plan.deployments:
            row = deployment.model_dump(include=set(_COLUMNS))
            writer.writerow({"status": answer.status} | row | means[deployment.traffic])
    return text.getvalue()
