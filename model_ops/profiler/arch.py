"""A decoder-only model: an embedding, runs of layers, a head."""

from dataclasses import dataclass

from model_ops.dtypes import BF16, Precision
from model_ops.profiler.attention import Attention
from model_ops.profiler.ffn import DenseFfn

Mixer = Attention
Ffn = DenseFfn


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A mixer and a feed-forward; pruned models lack one or the other.

    Parameters
    ----------
    mixer, ffn
        The two halves; None where the layer has none.
    norms
        Norms of the width of the residual stream.
    norm_bias
        Whether they are LayerNorms with a bias (else RMSNorms).
    parallel_residual
        Whether both halves read the same input, so that their outputs need one
        all-reduce together (GPT-J, Falcon).
    """

    mixer: Mixer | None
    ffn: Ffn | None
    norms: int = 2
    norm_bias: bool = False
    parallel_residual: bool = False

    @property
    def halves(self) -> tuple[Mixer | Ffn, ...]:
        """The halves that the layer has, in order."""
        return tuple(half for half in (self.mixer, self.ffn) if half is not None)

    def parameters(self, hidden_size: int) -> int:
        """Return the layer's parameters."""
        norms = self.norms * hidden_size * (2 if self.norm_bias else 1)
        return norms + sum(half.parameters(hidden_size) for half in self.halves)


@dataclass(frozen=True, slots=True)
class LayerRun:
    """So many layers that are alike."""

    layer: Layer
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArch:
    """A decoder-only model in the terms of its Hugging Face config.

    Parameters
    ----------
    name
        Catalogue name, or the path of its config.
    model_type
        The family, as in the config.
    hidden_size, vocab_size
        Width of the residual stream; rows of the embedding.
    runs
        The layers, grouped by kind. Their order does not change any cost.
    tie_word_embeddings
        Whether the head is the embedding, transposed.
    learned_positions
        Rows of a learned position embedding; 0 where positions are rotary.
    extra_parameters
        Parameters outside the layers, the embeddings and the head matrix: final
        norm, head bias, projections of a narrow embedding.
    max_position_embeddings
        Longest sequence the model was made for; None if it does not say.
    precision
        Formats of the published checkpoint.
    """

    name: str
    model_type: str
    hidden_size: int
    vocab_size: int
    runs: tuple[LayerRun, ...]
    tie_word_embeddings: bool = False
    learned_positions: int = 0
    extra_parameters: int = 0
    max_position_embeddings: int | None = None
    precision: Precision = BF16

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the model."""
        return sum(run.count for run in self.runs)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers."""
        return sum(
            run.count * run.layer.parameters(self.hidden_size) for run in self.runs
        )

    @property
    def parameters(self) -> int:
        """All parameters; tied ones count once."""
        matrices = 1 if self.tie_word_embeddings else 2
        positions = self.learned_positions * self.hidden_size
        return (
            matrices * self.embedding_parameters
            + positions
            + self.layer_parameters
            + self.extra_parameters
        )
