"""How long a request a model takes."""

from model_ops.errors import ProblemError
from model_ops.profiler.arch import ModelArch


def check_length(field: str, arch: ModelArch, tokens: float) -> None:
    """Raise `ProblemError` naming the field if a request is longer than the model's."""
    longest = arch.max_position_embeddings
    if longest is not None and tokens > longest:
        raise ProblemError(
            f"{field}: input_tokens + output_tokens = {tokens:.0f} exceeds "
            f"max_position_embeddings {longest} of {arch.name}"
        )
