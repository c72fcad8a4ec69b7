"""The operators of one prediction under the roofline of its NPU, as an image.

Needs matplotlib, which ``genz-size[plot]`` brings; nothing else imports this file.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_ops.dtypes import Dtype
from model_ops.platform.npu import Npu
from model_ops.serving.step import TimedOperator, timed_operators
from model_ops.units import BYTE_PER_SECOND, FLOP_PER_SECOND, SECOND
from sizing.report.estimate import OperatorRow, Prediction, breakdown, steps
from sizing.report.image import Axes, Figure, write

_COLOURS = {
    "compute": "tab:red",
    "memory": "tab:blue",
    "network": "tab:green",
    "launch": "tab:gray",
}


def save(prediction: Prediction, path: Path) -> None:
    """Draw the prediction's steps and write them as the file's ending says.

    Raises
    ------
    ProblemError
        If the file cannot be written.
    """
    write(draw(prediction), path)


def draw(prediction: Prediction) -> Figure:
    """Return one panel per step: FLOP per byte against FLOP per second reached.

    The roofs are the NPU's peaks: the memory's bandwidth, and the rate of each format
    that an operator computes in. A point's area is its share of the step. Passes
    without arithmetic, and collectives, have no place under a roofline.
    """
    replica = prediction.replica
    (npu,) = replica.supply.npus
    panels = steps(prediction)
    figure = Figure(figsize=(7.5 * len(panels), 5.5))
    axes: Sequence[Axes] = figure.subplots(1, len(panels))
    points = {
        name: [row for row in breakdown(replica, step) if row.flop and row.bytes]
        for name, step in panels.items()
    }
    operators = (timed_operators(replica, step) for step in panels.values())
    engines = _engines(npu, (each for timed in operators for each in timed))
    every = [row for rows in points.values() for row in rows]
    for axis, (name, step) in zip(axes, panels.items(), strict=True):
        _frame(axis, every, npu, engines)
        _points(axis, points[name])
        whole = sum(row.seconds for row in breakdown(replica, step))
        shown = sum(row.share for row in points[name])
        axis.set_title(f"{name}: {SECOND.format(whole)}, {shown:.0%} of it shown")
    figure.suptitle(prediction.title)
    figure.legend(
        handles=[
            axes[0].scatter([], [], color=colour, label=f"mostly {bound}")
            for bound, colour in _COLOURS.items()
            if any(row.bound == bound for row in every)
        ],
        loc="lower center",
        ncols=len(_COLOURS),
        frameon=False,
    )
    figure.subplots_adjust(wspace=0.65, bottom=0.16, top=0.87)
    return figure


def _engines(npu: Npu, operators: Iterable[TimedOperator]) -> list[Dtype]:
    """Return the formats that the NPU computes in, slowest first."""
    used = {npu.engine(f) for each in operators for f in each.operator.cost().flop}
    return sorted(used, key=lambda engine: npu.flop_per_s[engine])


def _frame(
    axis: Axes, every: Sequence[OperatorRow], npu: Npu, engines: Sequence[Dtype]
) -> None:
    """Draw the axes, alike in every panel, and the roofs."""
    bandwidth = npu.memory_bandwidth
    fastest = npu.flop_per_s[engines[-1]]
    intensities = [row.flop / row.bytes for row in every]
    left = min(intensities) / 3
    right = max(*intensities, fastest / bandwidth) * 3
    lowest = min(row.flop / row.seconds for row in every) / 3
    axis.set(
        xscale="log",
        yscale="log",
        xlim=(left, right),
        ylim=(lowest, fastest * 3),
        xlabel="FLOP per byte of memory traffic",
        ylabel="FLOP/s reached on one NPU",
    )
    axis.grid(alpha=0.2)
    slope = np.array([left, fastest / bandwidth])
    axis.plot(slope, slope * bandwidth, color="black", lw=1)
    label: dict[str, Any] = {"fontsize": 8, "va": "bottom"}
    axis.text(
        left * 1.15,
        fastest * 1.9,
        f"{npu.name}: slope {BYTE_PER_SECOND.format(bandwidth)}",
        **label,
    )
    for engine in engines:
        rate = npu.flop_per_s[engine]
        axis.plot([rate / bandwidth, right], [rate, rate], color="black", lw=1)
        text = f"{engine} {FLOP_PER_SECOND.format(rate)}"
        axis.text(right / 1.15, rate * 1.05, text, ha="right", **label)


def _points(axis: Axes, rows: Sequence[OperatorRow]) -> None:
    """Draw operators, and their names beside the panel in the order of their height."""
    ordered = sorted(rows, key=lambda row: row.flop / row.seconds)
    for row, height in zip(
        ordered, np.linspace(0.02, 0.98, max(len(ordered), 2)), strict=False
    ):
        at = row.flop / row.bytes, row.flop / row.seconds
        colour = _COLOURS[row.bound]
        share = f"{row.share:.0%}" if row.share >= 0.01 else "<1%"
        axis.scatter(*at, s=20 + 400 * row.share, color=colour, alpha=0.7, zorder=3)
        axis.annotate(
            f"{row.name} {share}",
            at,
            xytext=(1.04, height),
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.5,
                "relpos": (0, 0.5),
            },
        )
