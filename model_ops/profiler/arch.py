"""A decoder-only model: an embedding, runs of layers, a head."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from model_ops.dtypes import BF16, Precision
from model_ops.errors import DeploymentError
from model_ops.opcost import Collective, KernelFamily, Number, Operator
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.parallelism import Parallelism, Stage, pipeline_stages
from model_ops.profiler.work import Shard, Step, decode, prefill


class Half(Protocol):
    """What a mixer and a feed-forward have in common; each kind is one file."""

    @property
    def name(self) -> str:
        """What it is, for the names of its operators."""
        ...

    def parameters(self, hidden_size: int) -> int:
        """Return its parameters."""
        ...

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that one token passes."""
        ...

    def weight_bytes(self, shard: Shard) -> Number:
        """Return the bytes of weights on each rank."""
        ...

    def activation_width(self, shard: Shard) -> Number:
        """Return the elements per token of the widest pair of live tensors."""
        ...

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return why it cannot be split so, if it cannot."""
        ...

    def operators(self, shard: Shard, step: Step) -> Iterator[Operator | Collective]:
        """Yield one rank's operators for a step, in order."""
        ...

    def closing(self, shard: Shard, payload: Number) -> Iterator[Collective]:
        """Yield what makes an output of `payload` bytes whole on every rank."""
        ...


class Mixer(Half, Protocol):
    """Lets tokens see each other: attention, state space, linear attention."""

    def cache_bytes(self, shard: Shard, tokens: Number, block: int) -> Number:
        """Return the bytes that a sequence of `tokens` keeps on each rank.

        Parameters
        ----------
        shard
            The rank's share of the layer.
        tokens
            Tokens of the sequence so far.
        block
            Tokens of a block of the cache; what grows comes in whole blocks.
        """
        ...


Ffn = Half
"""A feed-forward: works on each token by itself."""


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
    residual_streams
        Copies of the residual stream that the layer mixes (hyper-connections).
    extra_parameters
        Parameters outside both halves and the norms.
    """

    mixer: Mixer | None
    ffn: Ffn | None
    norms: int = 2
    norm_bias: bool = False
    parallel_residual: bool = False
    residual_streams: int = 1
    extra_parameters: int = 0

    @property
    def halves(self) -> tuple[Half, ...]:
        """The halves that the layer has, in order."""
        return tuple(half for half in (self.mixer, self.ffn) if half is not None)

    def parameters(self, hidden_size: int) -> int:
        """Return the layer's parameters."""
        halves = sum(half.parameters(hidden_size) for half in self.halves)
        return self._besides(hidden_size) + halves

    def active_parameters(self, hidden_size: int) -> int:
        """Return the parameters that one token passes."""
        halves = sum(half.active_parameters(hidden_size) for half in self.halves)
        return self._besides(hidden_size) + halves

    def _besides(self, hidden_size: int) -> int:
        norms = self.norms * hidden_size * (2 if self.norm_bias else 1)
        return norms + self.extra_parameters


@dataclass(frozen=True, slots=True)
class LayerRun:
    """So many layers that are alike."""

    layer: Layer
    count: int


@dataclass(frozen=True, kw_only=True)
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
    layers
        The layers, first to last.
    predictors
        Layers that guess further tokens (multi-token prediction); they are no part
        of the model proper and run only where they guess for it.
    tie_word_embeddings
        Whether the head is the embedding, transposed.
    learned_positions
        Rows of a learned position embedding; 0 where positions are rotary.
    extra_parameters
        Parameters outside the layers, the embeddings and the head matrix: final
        norm, head bias, projections of a narrow embedding.
    shares_embedding
        Whether embedding and head are another model's, for which this one guesses.
    max_position_embeddings
        Longest sequence the model was made for; None if it does not say.
    precision
        Formats of the published checkpoint.
    """

    name: str
    model_type: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    predictors: tuple[Layer, ...] = ()
    tie_word_embeddings: bool = False
    learned_positions: int = 0
    extra_parameters: int = 0
    shares_embedding: bool = False
    max_position_embeddings: int | None = None
    precision: Precision = BF16

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the model."""
        return len(self.layers)

    @cached_property
    def runs(self) -> tuple[LayerRun, ...]:
        """The layers grouped by kind, in the order in which the kinds first appear."""
        counts = Counter(self.layers)
        return tuple(LayerRun(layer, count) for layer, count in counts.items())

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers."""
        hidden = self.hidden_size
        return sum(run.count * run.layer.parameters(hidden) for run in self.runs)

    @property
    def parameters(self) -> int:
        """All parameters but the predictors'; tied ones count once."""
        return self._outside + self.layer_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes, its embedding matrix included."""
        hidden = self.hidden_size
        layers = sum(r.count * r.layer.active_parameters(hidden) for r in self.runs)
        return self._outside + layers

    @property
    def predictor_parameters(self) -> int:
        """Parameters of the predictors: layers, 2H x H projections, three norms."""
        hidden = self.hidden_size
        joining = 2 * hidden**2 + 3 * hidden
        return sum(layer.parameters(hidden) + joining for layer in self.predictors)

    @property
    def _outside(self) -> int:
        matrices = 1 if self.tie_word_embeddings else 2
        positions = self.learned_positions * self.hidden_size
        return matrices * self.embedding_parameters + positions + self.extra_parameters

    @cached_property
    def _order(self) -> list[int]:
        """The kind of each layer, as in `runs`."""
        kinds = {run.layer: kind for kind, run in enumerate(self.runs)}
        return [kinds[layer] for layer in self.layers]

    def guessing_with(self, layer: Layer) -> "ModelArch":
        """Return the layer that guesses for this model, as a model of its own.

        It joins its input with the model's output by a 2H x H projection, and shares
        embedding and head with it.
        """
        return replace(
            self,
            name=f"{self.name} predictor",
            layers=(layer,),
            predictors=(),
            extra_parameters=2 * self.hidden_size**2,
            shares_embedding=True,
        )

    def stages(self, pp: Number) -> list[Stage]:
        """Return the pipeline stages among which the fullest is; kinds as in `runs`."""
        return pipeline_stages(self._order, len(self.runs), pp)

    def shard(
        self, parallelism: Parallelism, precision: Precision, **features: Any
    ) -> Shard:
        """Return one rank's share of every layer; see `Shard` for the features."""
        return Shard(self.hidden_size, parallelism, precision, **features)

    def rule_broken_by(self, parallelism: Parallelism) -> str | None:
        """Return the rule that a split of the model breaks, if it breaks one."""
        split = parallelism
        degrees = {"tp": split.tp, "pp": split.pp, "ep": split.ep}
        for name, degree in (degrees | {"dp": split.dp, "cp": split.cp}).items():
            if degree < 1:
                return f"{name} {degree} must be at least 1"
        if split.pp > self.num_hidden_layers:
            return f"pp {split.pp} exceeds num_hidden_layers {self.num_hidden_layers}"
        if not self.num_experts and (split.ep > 1 or split.dp > 1):
            return f"ep {split.ep} and dp {split.dp} need experts, and it has none"
        for run in self.runs:
            for half in run.layer.halves:
                if (broken := half.rule_broken_by(split)) is not None:
                    return broken
        return None

    def check(self, parallelism: Parallelism) -> None:
        """Raise `DeploymentError` if the model cannot be split so."""
        if (broken := self.rule_broken_by(parallelism)) is not None:
            raise DeploymentError(f"{self.name}: {broken}")

    @cached_property
    def kernel_families(self) -> frozenset[KernelFamily]:
        """Families of the kernels that the layers run, collectives apart."""
        one = Step((prefill(1.0, 2.0), decode(1.0, 1.0)))
        return frozenset(
            operator.family
            for run in self.runs
            for half in run.layer.halves
            for operator in half.operators(Shard(self.hidden_size), one)
            if not isinstance(operator, Collective)
        )

    @cached_property
    def num_experts(self) -> int:
        """Routed experts of a layer that has them; 0 for a dense model."""
        ffns = (run.layer.ffn for run in self.runs)
        return max((f.num_experts for f in ffns if isinstance(f, MoeFfn)), default=0)
