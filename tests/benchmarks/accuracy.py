"""Predicted against measured serving results of dense models, by kind of load.

Run: ``python tests/benchmarks/accuracy.py``. Every group of measurements (one source,
model, hardware and tensor parallel degree) weighs the same. The last two columns are
where nine of ten measurements lie, as multiples of the prediction: the factors of
`model_ops.accuracy`. One constant was fitted to these rows: the seconds that a request
of an open loop spends outside the steps.
"""

import csv
import gzip
from collections import defaultdict
from pathlib import Path

import numpy as np

from sizing.points import INPUTS, evaluate

DATA = Path(__file__).parents[1] / "reference" / "e2e_dense.csv.gz"
COLUMNS = {
    "ttft": "ttft_ms",
    "tpot": "tpot_ms",
    "e2e": "e2e_ms",
    "output_tok_s": "output_tok_s",
}


def main() -> None:
    """Print the table."""
    with gzip.open(DATA, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    results = evaluate([{key: row[key] for key in INPUTS} for row in rows])
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    asked: dict[tuple[str, str], int] = defaultdict(int)
    for row, result in zip(rows, results, strict=True):
        kind = (row["mode"], row["metric"])
        asked[kind] += 1
        predicted = result.get(COLUMNS[row["metric"]], "")
        if predicted and float(predicted) > 0:
            error = np.log(float(predicted) / float(row["measured"]))
            found[kind][row["group"]].append(float(error))
    print(  # noqa: T201
        "| load | figure | rows | groups | answered | median abs ln error | bias | "
        "p90 | measured / predicted, 5 % | 95 % |\n|" + "---|" * 10
    )
    for kind, groups in sorted(found.items()):
        print(_row(kind, asked[kind], list(groups.values())))  # noqa: T201


def _row(kind: tuple[str, str], rows: int, groups: list[list[float]]) -> str:
    answered = sum(len(group) for group in groups) / rows
    median = np.mean([np.median(np.abs(group)) for group in groups])
    bias = np.mean([np.median(group) for group in groups])
    high = np.mean([np.quantile(np.abs(group), 0.9) for group in groups])
    errors = np.concatenate([np.array(group) for group in groups])
    weights = np.concatenate([np.full(len(g), 1 / len(g)) for g in groups])
    order = np.argsort(-errors)
    share = np.cumsum(weights[order]) / weights.sum()
    low, top = np.exp(np.interp([0.05, 0.95], share, -errors[order]))
    return (
        f"| {kind[0]} | {kind[1]} | {rows} | {len(groups)} | {answered:.0%} | "
        f"{median:.2f} | {bias:+.2f} | {high:.2f} | {low:.2f} | {top:.2f} |"
    )


if __name__ == "__main__":
    main()
