"""Speculative decoding: a drafter guesses tokens, one step of the model checks them.

Source: Y. Leviathan, M. Kalman and Y. Matias, "Fast inference from transformers via
speculative decoding", ICML 2023, equation 1.
"""

from dataclasses import dataclass

import numpy as np

from model_ops.dtypes import BF16, Precision
from model_ops.opcost import Number
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.work import RequestShape


@dataclass(frozen=True, slots=True)
class Speculation:
    """What is guessed, and how often it is right.

    Parameters
    ----------
    guessed
        Tokens that are guessed for each sequence and checked in one step.
    acceptance
        Probability that a guessed token is accepted, given that all before it are;
        it depends on model, drafter and text, so that only the user can say it.
    drafter
        Runs once per guessed token: a draft model, or the layers that a model has
        for it; None where the guesses cost no NPU time (n-grams of the prompt).
    precision
        Formats of the drafter.
    """

    guessed: int
    acceptance: float
    drafter: ModelArch | None = None
    precision: Precision = BF16

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a sequence gains per step, on average."""
        return expected_tokens(self.guessed, self.acceptance)


def expected_tokens(guessed: int, acceptance: float) -> float:
    """Return ``1 + a + ... + a ** N``: accepted guesses, and the model's own token."""
    return float(np.sum(acceptance ** np.arange(guessed + 1)))


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a step of the engine takes from the batch of a replica.

    Parameters
    ----------
    slots
        Micro-batches in flight: one per pipeline stage.
    groups
        Data-parallel groups, each with a batch of its own, that step together.
    guessed
        Guessed tokens that a step checks for each sequence.
    tokens_per_step
        Tokens that a sequence gains per step.
    """

    slots: Number = 1
    groups: Number = 1
    guessed: int = 0
    tokens_per_step: float = 1.0

    @property
    def lanes(self) -> Number:
        """Steps among which the batch is split."""
        return self.slots * self.groups

    def rows_of_each(self, shape: RequestShape) -> Number:
        """Return the rows that a decoding request takes in a step."""
        return shape.beams * (1.0 + self.guessed)
