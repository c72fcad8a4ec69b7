"""Readers of the Llama family and its descendants."""

from collections.abc import Mapping
from typing import Any

from model_ops.errors import ConfigError
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import attention, decoder, windowed


def llama_like(fields: Fields) -> ModelArch:
    """RMSNorm, rotary positions, gated feed-forward; the families' few differences."""
    family = fields.get("model_type")
    gemma = family.startswith("gemma")
    full = attention(
        fields,
        qkv_bias=fields.flag("attention_bias", default=family in ("qwen2", "mimo")),
        output_bias=fields.flag("attention_bias") and family == "llama",
        qk_norm=family in ("qwen3", "gemma3", "gemma3_text"),
    )
    ffn = DenseFfn(
        intermediate_size=fields.count("intermediate_size"),
        bias=fields.flag("mlp_bias"),
    )
    norms = 4 if gemma else 2
    layers = [
        Layer(mixer=mixer, ffn=ffn, norms=norms) for mixer in windowed(fields, full)
    ]
    hidden = fields.count("hidden_size")
    # A multi-token-prediction layer: a whole layer, a 2H x H projection, three norms.
    predictors = fields.count("num_nextn_predict_layers", default=0, least=0)
    each = layers[0].parameters(hidden) + 2 * hidden**2 + 3 * hidden
    return decoder(
        fields, layers, tied=gemma, extra_parameters=hidden + predictors * each
    )


def nemotron_nas(fields: Fields) -> ModelArch:
    """Llama layers that a search pruned one by one: ``block_configs`` tells how."""
    blocks = fields.get("block_configs")
    if not isinstance(blocks, list) or not blocks:
        raise ConfigError(f"{fields.name}: the config lacks block_configs")
    return decoder(fields, [_nas_layer(fields, block) for block in blocks])


def _nas_layer(fields: Fields, block: Mapping[str, Any]) -> Layer:
    try:
        own, dense = block["attention"], block["ffn"]
        if own.get("replace_with_linear") or dense.get("replace_with_linear"):
            raise ConfigError(f"{fields.name}: replace_with_linear is not supported")
        mixer = None if own.get("no_op") else _nas_mixer(fields, own)
        ffn = None if dense.get("no_op") else _nas_ffn(fields, dense)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{fields.name}: block_configs lacks {error}") from None
    return Layer(mixer=mixer, ffn=ffn, norms=(mixer is not None) + (ffn is not None))


def _nas_mixer(fields: Fields, block: Mapping[str, Any]) -> Attention:
    groups = fields.count("num_attention_heads") // block["n_heads_in_group"]
    kept = {**fields.values, "num_key_value_heads": groups}
    return attention(Fields(kept, fields.name))


def _nas_ffn(fields: Fields, block: Mapping[str, Any]) -> DenseFfn:
    # The search scales 2/3 of its multiple of the width, rounded up to 256s.
    wanted = int(2 * block["ffn_mult"] * fields.count("hidden_size") / 3)
    return DenseFfn(intermediate_size=-(-wanted // 256) * 256)
