"""How far the model's predictions have been from measurements."""

from model_ops.units import Seconds

_FACTOR = {"ttft": 2.0, "tpot": 1.5, "e2e": 1.5, "rate": 1.5}


def interval(metric: str, value: Seconds) -> tuple[Seconds, Seconds]:
    """Return what nine measurements of ten lay between, given the prediction."""
    factor = _FACTOR[metric]
    return value / factor, value * factor
