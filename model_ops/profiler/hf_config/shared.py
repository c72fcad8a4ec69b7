"""What the readers of several families have in common."""

from dataclasses import replace
from typing import Any

from model_ops.errors import ConfigError
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.hf_config.fields import Fields


def attention(fields: Fields, **features: Any) -> Attention:
    """Return the attention that the usual head fields and some features describe."""
    heads = fields.count("num_attention_heads")
    hidden = fields.count("hidden_size")
    kv_heads = fields.count("num_key_value_heads", default=heads)
    if fields.get("head_dim") is None and hidden % heads:
        raise ConfigError(
            f"{fields.name}: num_attention_heads {heads} does not divide hidden_size "
            f"{hidden}, and head_dim is not given"
        )
    if heads % kv_heads:
        raise ConfigError(
            f"{fields.name}: num_key_value_heads {kv_heads} does not divide "
            f"num_attention_heads {heads}"
        )
    return Attention(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=fields.count("head_dim", default=hidden // heads),
        **features,
    )


# The period is fixed in these families' code where their config leaves it out.
_WINDOW_PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6}


def windowed(fields: Fields, full: Attention) -> list[Attention]:
    """Return each layer's attention: windowed where the config says so.

    ``layer_types`` names each layer; without it ``sliding_window_pattern`` P makes
    every P-th layer full, and a window without a pattern holds everywhere.
    """
    layers = fields.count("num_hidden_layers")
    used = fields.flag("use_sliding_window", default=True)
    if fields.get("sliding_window") is None or not used:
        return [full] * layers
    window = replace(full, sliding_window=fields.count("sliding_window"))
    if fields.get("layer_types") is not None:
        known = {"full_attention": full, "sliding_attention": window}
        return [known[kind] for kind in fields.kinds("layer_types", layers, known)]
    default = _WINDOW_PERIODS.get(fields.get("model_type"), 0)
    period = fields.count("sliding_window_pattern", default=default, least=0)
    if period:
        return [
            window if index % period != period - 1 else full for index in range(layers)
        ]
    first = 0
    if "use_sliding_window" in fields.values:
        first = fields.count("max_window_layers", default=0, least=0)
    return [window if index >= first else full for index in range(layers)]


def decoder(
    fields: Fields, layers: list[Layer], *, tied: bool = False, **rest: Any
) -> ModelArch:
    """Return the model that the usual outer fields and some layers describe."""
    hidden = fields.count("hidden_size")
    norm_bias = layers[0].norm_bias
    longest = fields.count("max_position_embeddings", default=0)
    return ModelArch(
        name=fields.name,
        model_type=fields.get("model_type"),
        hidden_size=hidden,
        vocab_size=fields.count("vocab_size"),
        layers=tuple(layers),
        tie_word_embeddings=fields.flag("tie_word_embeddings", default=tied),
        max_position_embeddings=longest or None,
        **{"extra_parameters": hidden * (2 if norm_bias else 1), **rest},
    )


def whole_qk_norms(mixer: Attention) -> Attention:
    """Return the attention with norms over all heads of q and of k, not of each."""
    heads = mixer.num_attention_heads + mixer.num_key_value_heads
    extra = mixer.extra_parameters + heads * mixer.head_dim
    return replace(mixer, extra_parameters=extra)
