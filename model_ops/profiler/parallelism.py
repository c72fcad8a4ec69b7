"""How a replica is split over NPUs, and the rules that a split must keep."""

from dataclasses import dataclass

import numpy as np

from model_ops.errors import DeploymentError
from model_ops.opcost import Number
from model_ops.profiler.arch import ModelArch


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Tensor and pipeline parallel degrees; numbers or arrays.

    Parameters
    ----------
    tp
        Ranks that share every layer.
    pp
        Stages that hold successive layers.
    """

    tp: Number = 1
    pp: Number = 1

    @property
    def npus(self) -> Number:
        """NPUs of one replica."""
        return self.tp * self.pp

    def largest_stage(self, layers: int) -> Number:
        """Return the layers of the fullest stage.

        Frameworks give each stage ``layers // pp`` and spread the remainder one
        by one (vLLM ``get_pp_indices``), so the fullest holds the ceiling.
        """
        return np.ceil(layers / np.asarray(self.pp))


def rule_broken_by(arch: ModelArch, tp: int, pp: int) -> str | None:
    """Return the rule that a split of the model breaks, if it breaks one."""
    if tp < 1 or pp < 1:
        return f"tp {tp} and pp {pp} must be at least 1"
    if pp > arch.num_hidden_layers:
        return f"pp {pp} exceeds num_hidden_layers {arch.num_hidden_layers}"
    for run in arch.runs:
        for half in run.layer.halves:
            if (broken := half.rule_broken_by(tp)) is not None:
                return broken
    return None


def check_parallelism(arch: ModelArch, tp: int, pp: int) -> None:
    """Raise `DeploymentError` if the model cannot be split so."""
    if (broken := rule_broken_by(arch, tp, pp)) is not None:
        raise DeploymentError(f"{arch.name}: {broken}")
