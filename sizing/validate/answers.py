"""What is answered to a measured row: a prediction and its interval, or why not."""

import math
from dataclasses import dataclass

import numpy as np

from model_ops.estimate import LoadMode
from problems import catalogue
from problems.accuracy import interval


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction in the row's unit, or the reason why there is none.

    Parameters
    ----------
    predicted
        The figure; NaN if there is none.
    low, high
        What nine measurements of ten lie between; NaN where nothing is claimed.
    reason
        Why there is no figure; blank if there is one.
    """

    predicted: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""

    @property
    def given(self) -> bool:
        """Whether there is a prediction."""
        return not self.reason

    def times(self, factor: float) -> "Answer":
        """Return the answer in another unit, or to a proportional question."""
        return Answer(
            self.predicted * factor, self.low * factor, self.high * factor, self.reason
        )


def refused(reason: object) -> Answer:
    """Return the answer that there is none."""
    return Answer(reason=" ".join(str(reason).split()) or "no prediction")


def figure(predicted: float, low: float = math.nan, high: float = math.nan) -> Answer:
    """Return a prediction; none where it is not a positive number."""
    if not 0 < predicted < math.inf:
        return refused(f"the model gives {predicted:g}")
    return Answer(predicted, low, high)


def with_interval(metric: str, value: float, mode: LoadMode, npu: str) -> Answer:
    """Return a prediction with what nine measurements of ten lie between.

    Parameters
    ----------
    metric, mode
        As for `problems.accuracy.interval`.
    npu
        Catalogue name; its kernels may have been measured or not.
    """
    ends = interval(metric, value, mode, catalogue.load_npu(npu).evidence)
    return figure(value, *(float(np.max(end)) for end in ends))
