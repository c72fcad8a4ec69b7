"""A frontier as an image.

Needs matplotlib, which ``genz-size[plot]`` brings; nothing else imports this file.
"""

from pathlib import Path

from sizing.report.frontier import Drawn
from sizing.report.image import Figure, write

_UNIT = {"Cost": "USD/h", "NPUs": "", "Power": "W"}


def save(drawn: Drawn, path: Path) -> None:
    """Draw the points and write them as the file's ending says.

    Raises
    ------
    ProblemError
        If the file cannot be written.
    """
    write(draw(drawn), path)


def draw(drawn: Drawn) -> Figure:
    """Return the points and the steps between them; beaten ones are hollow.

    A plan serves every value that asks no more of it, so that steps lead to the next
    point that asks more.
    """
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    known = [
        (p.at, p.solved.value, p.dominated)
        for p in drawn.points
        if p.solved.value is not None
    ]
    for beaten, fill in ((False, "tab:blue"), (True, "none")):
        axes.scatter(
            [at for at, _, is_beaten in known if is_beaten is beaten],
            [value for _, value, is_beaten in known if is_beaten is beaten],
            facecolors=fill,
            edgecolors="tab:blue",
            zorder=3,
            label="beaten" if beaten else "proved",
        )
    axes.step(
        [at for at, _, is_beaten in known if not is_beaten],
        [value for _, value, is_beaten in known if not is_beaten],
        where="pre" if drawn.axis.more else "post",
        color="tab:blue",
        lw=1,
    )
    unit = drawn.axis.unit
    axes.set(
        xlabel=drawn.axis.name + (f" ({unit.base})" if unit else ""),
        ylabel=f"{drawn.minimised} {_UNIT[drawn.minimised]}".rstrip(),
        title=drawn.title,
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.2)
    if any(is_beaten for _, _, is_beaten in known):
        axes.legend(frameon=False)
    return figure
