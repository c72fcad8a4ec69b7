"""The mixture of experts that a config's usual fields describe."""

from collections.abc import Iterable
from typing import Any

from model_ops.profiler.arch import Ffn, Layer, Mixer
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.moe import MoeFfn

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Names of the number of routed experts."""

_CHOSEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_top_k",
)


def experts(
    fields: Fields,
    *,
    width: str = "moe_intermediate_size",
    routing_bias: bool = False,
    extra_parameters: int = 0,
    **features: Any,
) -> MoeFfn:
    """Return the feed-forward that the fields of the experts describe.

    Parameters
    ----------
    fields
        The config.
    width
        The field with an expert's intermediate size.
    routing_bias
        Whether a bias per expert corrects the choice (``e_score_correction_bias``).
    extra_parameters, features
        As in `MoeFfn`.

    Raises
    ------
    ConfigError
        If a field is missing or wrong, or a token takes more experts than there are.
    """
    number, chosen = fields.count(*EXPERTS), fields.count(*_CHOSEN)
    if chosen > number:
        key = next(key for key in _CHOSEN if fields.get(key) is not None)
        raise fields.wrong(key, f"{chosen} exceeds the {number} experts")
    return MoeFfn(
        num_experts=number,
        num_experts_per_tok=chosen,
        moe_intermediate_size=fields.count(width),
        extra_parameters=extra_parameters + (number if routing_bias else 0),
        **features,
    )


def shared_experts(fields: Fields, *keys: str) -> DenseFfn | None:
    """Return the shared experts: so many of the routed ones' width, as one."""
    number = fields.count(*keys, default=0, least=0)
    if not number:
        return None
    return DenseFfn(intermediate_size=number * fields.count("moe_intermediate_size"))


def shared_expert(fields: Fields, key: str) -> DenseFfn | None:
    """Return the shared expert of the width that a field tells; none where it is 0."""
    width = fields.count(key, default=0, least=0)
    return DenseFfn(intermediate_size=width) if width else None


def dense(fields: Fields, key: str = "intermediate_size") -> DenseFfn:
    """Return the gated feed-forward of layers without experts."""
    return DenseFfn(intermediate_size=fields.count(key))


def sparse_layers(fields: Fields) -> list[bool]:
    """Return which layers have experts.

    ``mlp_layer_types`` or a list as ``moe_layer_freq`` names each layer, and
    ``moe_layers_enum`` those with experts; else they are the ones from
    ``first_k_dense_replace`` on, of them every ``moe_layer_freq``-th.
    """
    layers = fields.count("num_hidden_layers")
    if fields.get("moe_layers_enum") is not None:
        chosen = _enumerated(fields, "moe_layers_enum")
        return [index in chosen for index in range(layers)]
    if fields.get("mlp_layer_types") is not None:
        kinds = fields.kinds("mlp_layer_types", layers, ("dense", "sparse"))
        return [kind == "sparse" for kind in kinds]
    if isinstance(fields.get("moe_layer_freq"), list):
        return [kind == 1 for kind in fields.kinds("moe_layer_freq", layers, (0, 1))]
    first = fields.count("first_k_dense_replace", default=0, least=0)
    step = fields.count("moe_layer_freq", default=1)
    return [index >= first and index % step == 0 for index in range(layers)]


def _enumerated(fields: Fields, key: str) -> set[int]:
    """Return the layers of a list, or of a text with commas."""
    given = fields.get(key)
    entries = given.split(",") if isinstance(given, str) else given
    if not isinstance(entries, list):
        raise fields.wrong(key, "must list layers")
    try:
        return {int(entry) for entry in entries}
    except (TypeError, ValueError):
        raise fields.wrong(key, "must list layers") from None


def stepped_layers(fields: Fields) -> list[bool]:
    """Return which layers have experts, as Qwen's MoE families tell it.

    Every ``decoder_sparse_step``-th but those in ``mlp_only_layers``.
    """
    layers = fields.count("num_hidden_layers")
    step = fields.count("decoder_sparse_step", default=1)
    plain = fields.get("mlp_only_layers", [])
    if not isinstance(plain, list):
        raise fields.wrong("mlp_only_layers", "must be a list of layers")
    return [index not in plain and (index + 1) % step == 0 for index in range(layers)]


def mixed(fields: Fields, sparse: Iterable[bool], moe: Ffn) -> list[Ffn]:
    """Return each layer's feed-forward: experts where it is sparse, else a gated one.

    ``intermediate_size`` is asked for only where some layer is not sparse.
    """
    return [moe if each else dense(fields) for each in sparse]


def stack(
    mixers: Iterable[Mixer | None], ffns: Iterable[Ffn | None], **features: Any
) -> list[Layer]:
    """Return the layers of those halves, first to last."""
    halves = zip(mixers, ffns, strict=True)
    return [Layer(mixer=mixer, ffn=ffn, **features) for mixer, ffn in halves]


def predictors(fields: Fields, layer: Layer, *keys: str) -> tuple[Layer, ...]:
    """Return the layers that guess further tokens, each like the given one."""
    names = keys or ("num_nextn_predict_layers",)
    return (layer,) * fields.count(*names, default=0, least=0)
