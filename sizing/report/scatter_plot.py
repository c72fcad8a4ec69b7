"""Predictions against measurements as an image: a panel per family of metrics.

Needs matplotlib, which ``genz-size[plot]`` brings; nothing else imports this file.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model_ops.errors import ProblemError
from sizing.report.image import Axes, Figure, write
from sizing.validate.score import family
from sizing.validate.scored import UNTRUSTED, Comparison, Scored

_INCHES = 3.6
_COLUMNS = 4


def save(compared: Sequence[Comparison], path: Path) -> None:
    """Draw every trusted row with a prediction and write the image.

    Raises
    ------
    ProblemError
        If there is none, or the file cannot be written.
    """
    panels: dict[str, list[Scored]] = defaultdict(list)
    for comparison in compared:
        for row in (*comparison.rows, *comparison.more):
            if row.trust != UNTRUSTED and row.answered and row.measured > 0:
                panels[f"{comparison.table.kind}: {family(row)}"].append(row)
    if not panels:
        raise ProblemError("--plot: no row has a prediction")
    write(draw(panels), path)


def draw(panels: dict[str, list[Scored]]) -> Figure:
    """Return one panel per family: predicted over measured, on logarithmic axes."""
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(_INCHES * columns, _INCHES * lines), layout="constrained")
    for number, (title, rows) in enumerate(sorted(panels.items()), 1):
        _panel(figure.add_subplot(lines, columns, number), title, rows)
    return figure


def _panel(axis: Axes, title: str, rows: Sequence[Scored]) -> None:
    """Draw rows with the diagonal, and with twice and half of it."""
    measured = np.array([row.measured for row in rows])
    predicted = np.array([row.answer.predicted for row in rows])
    every = np.concatenate([measured, predicted[predicted > 0]])
    ends = np.array([every.min(), every.max()])
    for factor, style in ((1.0, "-"), (2.0, ":"), (0.5, ":")):
        axis.plot(ends, factor * ends, style, color="0.6", linewidth=0.8)
    axis.plot(measured, predicted, ".", markersize=2, alpha=0.5, rasterized=True)
    axis.set(xscale="log", yscale="log", xlabel="measured", ylabel="predicted")
    axis.set_title(f"{title} ({len(rows):,})", fontsize="small")
