"""Which modules of a checkpoint a quantisation means, by the patterns it lists.

Frameworks write them in three ways: names of modules (all inside counts), names with
``*``, and regular expressions behind ``re:``. Prefixes before ``layers.`` differ from
one export of a model to the next and are left out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from model_ops.dtypes import Dtype
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.linear_attention import GatedDeltaNet
from model_ops.profiler.mamba import Mamba1, Mamba2
from model_ops.profiler.moe import MoeFfn

Formats: TypeAlias = tuple[Dtype | None, Dtype | None]
"""Of the linear layers' weights and inputs; None: as ``torch_dtype`` says."""

UNQUANTISED: Formats = (None, None)


@dataclass(frozen=True, slots=True)
class Modules:
    """Modules that a list of patterns means.

    Parameters
    ----------
    names
        Names of modules, from ``layers.`` on.
    patterns
        What the others come to, as one expression; None if there are none.
    everything
        Whether it means every linear layer.
    """

    names: frozenset[str] = frozenset()
    patterns: re.Pattern[str] | None = None
    everything: bool = False

    def have(self, name: str) -> bool:
        """Return whether a module, or one around it, is among them."""
        if self.everything:
            return True
        if self.patterns is not None and self.patterns.search("model." + name):
            return True
        return not self.names.isdisjoint(_around(name))


ALL = Modules(everything=True)


def _around(name: str) -> Iterator[str]:
    """Yield a module's name, those around it, and each without what leads to it."""
    parts = name.split(".")
    for first in range(len(parts)):
        for end in range(first + 1, len(parts) + 1):
            yield ".".join(parts[first:end])


def modules(patterns: Iterable[str]) -> Modules:
    """Return the modules that the patterns of a quantisation mean.

    Raises
    ------
    re.error
        If one is no regular expression though it says so.
    """
    names, expressions = set[str](), list[str]()
    for pattern in patterns:
        if pattern.startswith("re:"):
            expressions.append(f"^(?:{re.compile(pattern[3:]).pattern})")
            continue
        short = re.sub(r"^.*?\blayers\.", "layers.", pattern)
        if "*" not in short:
            names.add(short)
            continue
        text = ".*".join(re.escape(part) for part in short.split("*"))
        expressions.append(rf"(?:^|\.){text}(?:\.|$)")
    joined = re.compile("|".join(expressions)) if expressions else None
    return Modules(frozenset(names), joined)


Rule: TypeAlias = tuple[Modules, Formats]


@dataclass(frozen=True, slots=True)
class ClassFormats:
    """The formats of a checkpoint's tensor classes.

    A class that the model has not takes those of the rest.
    """

    projections: Formats
    experts: Formats
    rest: Formats


@dataclass(slots=True)
class _Tally:
    """Parameters of a class by their formats."""

    counts: Counter[Formats] = field(default_factory=Counter)

    def most(self, default: Formats) -> Formats:
        return max(self.counts, key=self.counts.__getitem__, default=default)


def class_formats(arch: ModelArch, rules: list[Rule]) -> ClassFormats:
    """Return what most of each tensor class is in, by the first rule that has it."""
    tallies = {kind: _Tally() for kind in ("projections", "experts", "rest")}
    for index, layer in enumerate(arch.layers):
        for kind, names, parameters in _named(arch.hidden_size, layer):
            formats = _first(rules, [f"layers.{index}.{name}" for name in names])
            tallies[kind].counts[formats] += parameters
    projections = tallies["projections"].most(UNQUANTISED)
    rest = tallies["rest"].most(projections)
    return ClassFormats(projections, tallies["experts"].most(rest), rest)


def _first(rules: list[Rule], names: list[str]) -> Formats:
    for found, formats in rules:
        if any(found.have(name) for name in names):
            return formats
    return UNQUANTISED


_Named: TypeAlias = tuple[str, list[str], int]


def _named(hidden: int, layer: Layer) -> Iterator[_Named]:
    """Yield the classes of a layer, names their modules may have, and parameters."""
    if layer.mixer is not None:
        half = layer.mixer.parameters(hidden) // 2
        blocks = _BLOCKS.get(type(layer.mixer), _ATTENTION)
        for ends in (_OUT, _IN):
            yield "projections", [f"{b}.{end}" for b in blocks for end in ends], half
    ffn = layer.ffn
    if isinstance(ffn, MoeFfn):
        names = [f"{block}.experts.0.up_proj" for block in _FFN]
        size = ffn.num_experts * ffn.expert_parameters(hidden)
        yield "experts", names, size
        if ffn.shared is not None:
            words = ("shared_experts", "shared_expert")
            names = [f"{b}.{word}.up_proj" for b in _FFN for word in words]
            yield "rest", names, ffn.shared.parameters(hidden)
    elif ffn is not None:
        yield "rest", [f"{block}.up_proj" for block in _FFN], ffn.parameters(hidden)


_ATTENTION = ("self_attn", "attn", "self_attention", "mixer")
_BLOCKS: Mapping[type, tuple[str, ...]] = {
    Mamba1: ("mixer", "mamba"),
    Mamba2: ("mixer", "mamba"),
    GatedDeltaNet: ("linear_attn",),
}
"""What checkpoints call a mixer, where not as attention."""
_FFN = ("mlp", "mixer", "feed_forward", "block_sparse_moe", "ffn", "moe")
_OUT = ("o_proj", "out_proj", "wo_b", "o_b_proj", "dense")
_IN = ("q_proj", "q_b_proj", "in_proj", "in_proj_qkvz", "in_proj_qkv", "wq_b")
