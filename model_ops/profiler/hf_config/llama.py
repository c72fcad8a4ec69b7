"""Readers of the Llama family and its descendants."""

from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import attention, decoder, windowed

_MOST_FFN_MULT = 1000
"""No feed-forward is near as many times as wide as its model: a damaged config."""


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
    predictors = fields.count("num_nextn_predict_layers", default=0, least=0)
    return decoder(fields, layers, tied=gemma, predictors=(layers[-1],) * predictors)


def nemotron_nas(fields: Fields) -> ModelArch:
    """Llama layers that a search pruned one by one: ``block_configs`` tells how."""
    blocks = fields.get("block_configs")
    if blocks is None:
        raise fields.lacks("block_configs")
    layers = fields.count("num_hidden_layers")
    if not isinstance(blocks, list) or len(blocks) != layers:
        raise fields.wrong(
            "block_configs", f"must list num_hidden_layers {layers} entries"
        )
    keyed = {f"block_configs[{index}]": block for index, block in enumerate(blocks)}
    parts = Fields(keyed, fields.name)
    return decoder(fields, [_nas_layer(fields, parts.part(key)) for key in keyed])


def _nas_layer(fields: Fields, block: Fields) -> Layer:
    own, dense = block.part("attention"), block.part("ffn")
    for half in (own, dense):
        if half.flag("replace_with_linear"):
            raise half.wrong("replace_with_linear", "is not supported")
    mixer = None if own.flag("no_op") else _nas_mixer(fields, own)
    ffn = None if dense.flag("no_op") else _nas_ffn(fields, dense)
    return Layer(mixer=mixer, ffn=ffn, norms=(mixer is not None) + (ffn is not None))


def _nas_mixer(fields: Fields, block: Fields) -> Attention:
    heads = fields.count("num_attention_heads")
    group = block.count("n_heads_in_group")
    if heads % group:
        raise block.wrong(
            "n_heads_in_group", f"{group} does not divide num_attention_heads {heads}"
        )
    kept = {**fields.values, "num_key_value_heads": heads // group}
    return attention(Fields(kept, fields.name))


def _nas_ffn(fields: Fields, block: Fields) -> DenseFfn:
    # The search scales 2/3 of its multiple of the width, rounded up to 256s.
    multiple = block.number("ffn_mult", _MOST_FFN_MULT)
    wanted = max(1, int(2 * multiple * fields.count("hidden_size") / 3))
    return DenseFfn(intermediate_size=-(-wanted // 256) * 256)
