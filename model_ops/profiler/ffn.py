"""Feed-forward layers: gated (SwiGLU, GeGLU) or plain (GELU, ReLU)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from model_ops.opcost import Collective, Number, Operator
from model_ops.profiler.ops import Elementwise, linear, tensor_parallel_sum
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseFfn:
    """Two linear layers around an activation, or three when it is gated."""

    intermediate_size: int
    gated: bool = True
    bias: bool = False

    name: ClassVar[str] = "ffn"

    @property
    def up_matrices(self) -> int:
        """Matrices from the hidden to the intermediate size."""
        return 2 if self.gated else 1

    def parameters(self, hidden_size: int) -> int:
        """Return the parameters of the linear layers and their biases."""
        up = self.up_matrices * self.intermediate_size
        biases = self.bias * (up + hidden_size)
        return hidden_size * (up + self.intermediate_size) + biases

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that a token passes: all of them."""
        return self.parameters(hidden_size)

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank."""
        width = self.intermediate_size / shard.tp
        weights = shard.hidden_size * (self.up_matrices + 1) * width
        return weights * shard.precision.linear.weights.bytes

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest live pair: up and activated."""
        return (self.up_matrices + 1) * (self.intermediate_size / shard.tp)

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why this layer cannot be split so, if it cannot."""
        tp = int(parallelism.tp)
        if self.intermediate_size % tp:
            return f"tp {tp} does not divide intermediate_size {self.intermediate_size}"
        return None

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators of the layer for a step, in order."""
        dtype = shard.precision
        width = self.intermediate_size / shard.tp
        hidden, up = shard.hidden_size, self.up_matrices
        first = "gate_up_proj" if self.gated else "up_proj"
        yield linear(first, shard, step, k=hidden, n=up * width)
        yield Elementwise(
            name="activation",
            elements=shard.rows(step) * width,
            read=up * dtype.residual.bytes,
            written=dtype.activations.bytes,
        )
        yield linear("down_proj", shard, step, k=width, n=hidden)

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield the sum of the ranks' partial outputs."""
        yield from tensor_parallel_sum(self.name, shard, payload)
