"""Images of results; needs matplotlib, which ``genz-size[plot]`` brings."""

from pathlib import Path

from model_ops.errors import ProblemError

try:
    from matplotlib import rc_context
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError:
    raise ProblemError(
        "--plot: needs matplotlib: pip install matplotlib, or genz-size[plot]"
    ) from None

__all__ = ["Axes", "Figure", "write"]


def write(figure: Figure, path: Path) -> None:
    """Write a figure as the file's ending says; the same one gives the same file.

    Raises
    ------
    ProblemError
        If the file cannot be written.
    """
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    try:
        with rc_context({"svg.hashsalt": "genz-size"}):
            figure.savefig(path, dpi=150, bbox_inches="tight", metadata=metadata)
    except OSError as error:
        raise ProblemError(f"--plot: cannot write {path}: {error.strerror}") from None
